"""Elements of values in C, and where values live."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from gradopt.engines.native.calls import broadcast
from gradopt.engines.native.expressions import COST_OF_FUNCTION, TYPES, cost, expression, fused, literal
from gradopt.engines.native.indices import Affine, Index, Ranges, SplitRange, SplitStride, flattened, row_major
from gradopt.engines.native.schedule import Loop
from gradopt.engines.native.values import (
    Choice,
    Constant,
    Leaf,
    Moved,
    Pointwise,
    Reshaped,
    Value,
)


@dataclass(slots=True)
class Memory:
    """Where values live and in which type numbers are computed.

    Attributes:
        names: Of arrays and of single numbers.
        strides: Of arrays.
        replaced: The tensor whose new content a value is.
        scalars: Numbers that are Python's in eager: what follows from step counters and learning rates alone.
        powers: How the power of a step counter is carried from row to row.
        reads: (loop or None, leaf) of every load from a tensor that an update may change, in the order of the program.
        hazards: Values that cannot be stored over the tensor they replace: their own loop still reads it elsewhere.
        copies: By value, in how many places (loop and index) it is computed.
    """

    names: dict[Value, str]
    strides: dict[Value, Sequence[int]]
    scalars: set[Value]
    powers: Callable[[Pointwise, str], str | None]
    replaced: Mapping[Value, Leaf]
    reads: list[tuple[Loop | None, Leaf]] = field(default_factory=list[tuple[Loop | None, Leaf]])
    hazards: set[Value] = field(default_factory=set[Value])
    copies: dict[Value, set[tuple[int, Index]]] = field(default_factory=dict[Value, set[tuple[int, Index]]])
    counter: int = 0

    def fresh(self) -> str:
        """A new name of a local."""
        self.counter += 1
        return f"t{self.counter}"

    def trial(self) -> "Memory":
        """The same memory, for a print that may be thrown away."""
        return Memory(self.names, self.strides, self.scalars, self.powers, self.replaced)

    def type_of(self, value: Value) -> str:
        """In C."""
        return TYPES[value.dtype]


@dataclass(slots=True)
class Body:
    """What one pass through a loop computes.

    Attributes:
        loop: The loop it is printed for; None outside of loops.
        made: Values this very pass has computed, whose stores come at its end.
    """

    memory: Memory
    ranges: Ranges
    loop: Loop | None = None
    lines: list[str] = field(default_factory=list[str])
    may_split: bool = True
    loads: list[tuple[Value, Affine]] = field(default_factory=list[tuple[Value, Affine]])
    divides: bool = False
    _known: dict[tuple[Value, Index], str] = field(default_factory=dict[tuple[Value, Index], str])

    def define(self, value: Value, index: Index) -> str:
        """Compute an element even though it has a place; the name of the local that holds it."""
        return self._remember(value, index, self._computed(value, index))

    def read(self, value: Value, index: Index) -> str:
        """The element in C, in the value's type."""
        known = self._known.get((value, index))
        if known is not None:
            return known
        memory = self.memory
        if isinstance(value, Constant):
            return literal(value.number, value.dtype)
        if value in memory.names:
            if value.uniform:
                if isinstance(value, Leaf):
                    memory.reads.append((self.loop, value))
                return memory.names[value]
            offset = self.ranges.offset(index, memory.strides[value])
            return self._load(value, offset, index)
        if isinstance(value, Reshaped):
            source = value.source
            if source in memory.names and not source.uniform and _contiguous(source, memory):
                return self._load(source, flattened(index, value.shape, self.ranges), index)
            flat = flattened(index, value.shape, self.ranges)
            return self.read(source, self.ranges.unflattened(flat, source.shape))
        if isinstance(value, Moved):
            return self.read(value.source, value.origin(index))
        if isinstance(value, Choice):
            return self._chosen(value, index)
        return self._remember(value, index, self._computed(value, index))

    def _load(self, value: Value, offset: Affine, index: Index) -> str:
        key = (value, (offset,))
        if key in self._known:
            return self._known[key]
        text = offset.text()
        self.loads.append((value, offset))
        self.divides |= "/" in text or "%" in text
        if isinstance(value, Leaf):
            self.memory.reads.append((self.loop, value))
        name = self._remember(value, index, f"{self.memory.names[value]}[{text}]")
        self._known[key] = name
        return name

    def _remember(self, value: Value, index: Index, text: str) -> str:
        name = self.memory.fresh()
        self.lines.append(f"const {self.memory.type_of(value)} {name} = {text};")
        self._known[value, index] = name
        return name

    def _computed(self, value: Value, index: Index) -> str:
        memory = self.memory
        if isinstance(value, Pointwise):
            memory.copies.setdefault(value, set()).add((id(self.loop), index))
            computed = value.computed
            operands = [self._operand(value, i, operand, index, computed) for i, operand in enumerate(value.operands)]
            if value.operation == "add" and (other := _beside_padding(value, operands)):
                return other
            if value.operation == "pow" and (carried := memory.powers(value, operands[1])):
                return carried
            text = self._fused(value, operands, index, computed) or expression(value.operation, operands, computed)
            return text if TYPES[computed] == memory.type_of(value) else f"({memory.type_of(value)}) {text}"
        if isinstance(value, Reshaped):
            flat = flattened(index, value.shape, self.ranges)
            return self.read(value.source, self.ranges.unflattened(flat, value.source.shape))
        if isinstance(value, Moved):
            return self.read(value.source, value.origin(index))
        if isinstance(value, Choice):
            return self._chosen(value, index)
        raise AssertionError(f"{type(value).__name__} is computed by its loop")

    def _fused(self, value: Pointwise, operands: list[str], index: Index, computed: torch.dtype) -> str | None:
        """X + rate * y as torch adds with a factor: `add(x, y, alpha=rate)`, in whose place the graph has a product."""
        if value.operation not in ("add", "sub") or not fused() or value in self.memory.scalars:
            return None
        change = value.operands[1]
        if not isinstance(change, Pointwise) or change.operation != "mul" or change.computed is not value.computed:
            return None
        factor = change.operands[0]
        if isinstance(factor, Pointwise) and factor.operation == "mul" and factor not in self.memory.scalars:
            factor = factor.operands[0]  # addcmul: (rate * y) * z
        if factor not in self.memory.scalars or change.operands[1] in self.memory.scalars:
            return None
        one, other = (
            self._operand(change, place, operand, broadcast(index, change.shape), computed)
            for place, operand in enumerate(change.operands)
        )
        sign = "-" if value.operation == "sub" else ""
        return expression("fma", [sign + one, other, operands[0]], computed)

    def _operand(self, value: Pointwise, place: int, operand: Value, index: Index, computed: torch.dtype) -> str:
        condition = value.operation == "where" and place == 0
        if isinstance(operand, Constant):
            return literal(operand.number, torch.bool if condition else computed)
        text = self.read(operand, broadcast(index, operand.shape))
        if condition or self.memory.type_of(operand) == TYPES[computed]:
            return text
        return f"({TYPES[computed]}) {text}"

    def _chosen(self, value: Choice, index: Index) -> str:
        """One of two sources, known when printed if loops may be split, tested in C if not."""
        at = index[value.dim]
        within = (*index[: value.dim], Affine(), *index[value.dim + 1 :])
        tests: list[str] = []
        try:
            low = self.ranges.below(at, value.start)
            if low is True:
                return self._converted(value, value.outside, index)
            high = self.ranges.below(at, value.stop)
            if high is False:
                return self._converted(value, value.outside, index)
            multiple = self.ranges.multiple(at + -value.start, value.step)
            if multiple is False:
                return self._converted(value, value.outside, index)
            if (low, high, multiple) == (False, True, True):
                quotient = self.ranges.divided(at + -value.start, value.step)[0]
                inside = (*within[: value.dim], quotient, *within[value.dim + 1 :])
                return self._converted(value, value.inside, inside)
        except (SplitRange, SplitStride):
            if self.may_split:
                raise
        text = at.text()
        tests = [f"{text} >= {value.start}", f"{text} < {value.stop}"]
        if value.step > 1:
            tests.append(f"({text} - {value.start}) % {value.step} == 0")
        kind, name = self.memory.type_of(value), self.memory.fresh()
        self.lines.append(f"{kind} {name};")
        quotient = f"(({text} - {value.start}) / {value.step})" if value.step > 1 else f"({text} - {value.start})"
        size = -(-(value.stop - value.start) // value.step)
        self.ranges.of[quotient] = 0, max(1, size)
        inside = (*within[: value.dim], Affine.of(quotient), *within[value.dim + 1 :])
        for opening, source, place in (
            (f"if ({' && '.join(tests)}) {{", value.inside, inside),
            ("} else {", value.outside, index),
        ):
            branch = Body(self.memory, self.ranges, self.loop, [], False, self.loads, _known=dict(self._known))
            element = branch._converted(value, source, place)
            self.lines += [opening, *branch.lines, f"{name} = {element};"]
        self.lines.append("}")
        self.divides = True
        self._known[value, index] = name
        return name

    def _converted(self, value: Choice, source: Value, index: Index) -> str:
        if isinstance(source, Constant):
            return literal(source.number, value.dtype)
        text = self.read(source, broadcast(index, source.shape))
        kind = self.memory.type_of(value)
        return text if self.memory.type_of(source) == kind else f"({kind}) {text}"


def _beside_padding(value: Pointwise, operands: Sequence[str]) -> str | None:
    """What is added to the zeros round a part of a gradient: itself, but for the sign of a zero."""
    for place, operand in enumerate(value.operands):
        if isinstance(operand, Choice) and operands[place] == literal(0, value.computed):
            return operands[1 - place]
    return None


def expensive(memory: Memory, kept: Container[Value]) -> set[Value]:
    """Values that are computed in more than one place and cost more than to be read from memory."""
    totals: dict[Value, int] = {}

    def total(value: Value) -> int:
        if value in kept or isinstance(value, Leaf | Constant):
            return 0
        if value not in totals:
            totals[value] = (cost(value.operation) if isinstance(value, Pointwise) else 0) + sum(
                map(total, value.sources())
            )
        return totals[value]

    found = {v for v, places in memory.copies.items() if len(places) > 1 and not v.uniform and v not in kept}
    return {value for value in found if total(value) >= COST_OF_FUNCTION}


def _contiguous(value: Value, memory: Memory) -> bool:
    return tuple(memory.strides[value]) == row_major(value.shape)
