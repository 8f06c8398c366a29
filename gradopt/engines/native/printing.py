"""Expressions and loops in C."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

import torch

from gradopt.engines.native.expressions import COST_OF_FUNCTION, TYPES, cost, expression, fused, literal
from gradopt.engines.native.indices import Affine, Index, Ranges, SplitRange, SplitStride, flattened, row_major
from gradopt.engines.native.rules import Unprintable, broadcast
from gradopt.engines.native.schedule import Loop
from gradopt.engines.native.values import (
    Choice,
    Constant,
    Leaf,
    Moved,
    Pointwise,
    Reduction,
    Reshaped,
    Shape,
    Value,
)

MAX_UNROLLED = 8
"""Elements up to which a loop is written out, and a tensor lives in variables."""

MAX_PIECES = 64
"""Loops into which one may be split; beyond that its conditions are tested at each element."""

LONG_SUM = 4096
"""Terms from which a sum of floats is a double."""


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


# --- loops


def _beside_padding(value: Pointwise, operands: Sequence[str]) -> str | None:
    """What is added to the zeros round a part of a gradient: itself, but for the sign of a zero."""
    for place, operand in enumerate(value.operands):
        if isinstance(operand, Choice) and operands[place] == literal(0, value.computed):
            return operands[1 - place]
    return None


@dataclass(slots=True)
class Pass:
    """The loops that remain to be printed: ranges of the variables, and the index made of them."""

    ranges: dict[str, tuple[int, int]]
    index: Index


def loop_lines(loop: Loop, memory: Memory) -> list[str]:
    """A loop in C, between the declarations of the numbers it makes."""
    partial = loop.partial
    if partial is not None:
        return _partial_lines(loop, partial, memory)
    printer = Printer(loop, memory)
    lines = [line for one in printer.accumulators.values() for line in one.declared()]
    if prod(loop.domain) <= MAX_UNROLLED:
        lines += printer.unrolled()
    else:
        lines += printer.flat() or printer.split()
    for one in printer.accumulators.values():
        lines += one.result()
    return lines


class Printer:
    """Prints a loop that stores tensors and sums up numbers."""

    def __init__(self, loop: Loop, memory: Memory) -> None:
        self.loop, self.memory = loop, memory
        self.accumulators = {
            member: Accumulator(member, memory, prod(loop.domain))
            for member in loop.members
            if isinstance(member, Reduction)
        }
        self.clauses = "".join(one.clauses() for one in self.accumulators.values())

    def unrolled(self) -> list[str]:
        """All elements written out; every load comes before the first store."""
        body = Body(self.memory, Ranges({}), self.loop)
        indices = [tuple(map(Affine, place)) for place in product(*map(range, self.loop.domain))]
        for index in indices:
            self._compute(body, index)
        for index in indices:
            self._store(body, index)
        return body.lines

    def flat(self) -> list[str] | None:
        """One loop over all elements, if that needs no divisions."""
        count = prod(self.loop.domain)
        for memory in (self.memory.trial(), self.memory):
            ranges = Ranges({"i": (0, count)})
            body = Body(memory, ranges, self.loop, may_split=False)
            index = ranges.unflattened(Affine.of("i"), self.loop.domain)
            self._compute(body, index)
            self._store(body, index)
            if body.divides:
                return None
        self._check(body, index)
        return _nest(["i"], {"i": (0, count)}, body.lines, self.clauses)

    def split(self) -> list[str]:
        """Nested loops, cut until the same is done at every index of each."""
        names = [f"i{dim}" for dim in range(len(self.loop.domain))]
        ranges = {name: (0, size) for name, size in zip(names, self.loop.domain, strict=True)}
        lines: list[str] = []
        waiting, pieces = [Pass(ranges, tuple(map(Affine.of, names)))], 1
        while waiting:
            one = waiting.pop()
            reads = len(self.memory.reads)
            body = Body(
                self.memory, Ranges(dict(one.ranges), frozenset(names)), self.loop, may_split=pieces < MAX_PIECES
            )
            try:
                self._compute(body, one.index)
            except (SplitRange, SplitStride) as split:
                del self.memory.reads[reads:]
                parts = _parts(one, split)
                pieces += len(parts) - 1
                waiting += reversed(parts)
                continue
            self._store(body, one.index)
            self._check(body, one.index)
            lines += _nest(names, one.ranges, body.lines, self.clauses)
        return lines

    def _compute(self, body: Body, index: Index) -> None:
        for value in self.loop.members:
            if isinstance(value, Reduction):
                body.lines += self.accumulators[value].added(body.read(value.source, index))
            else:
                body.define(value, index)

    def _store(self, body: Body, index: Index) -> None:
        for value in self.loop.members:
            if not isinstance(value, Reduction):
                offset = body.ranges.offset(index, self.memory.strides[value]).text()
                body.lines.append(f"{self.memory.names[value]}[{offset}] = {body.read(value, index)};")

    def _check(self, body: Body, index: Index) -> None:
        """Note what may not be stored in place: its tensor is read elsewhere than where it is stored."""
        for value in self.loop.members:
            leaf = self.memory.replaced.get(value)
            if leaf is not None and not value.uniform:
                own = body.ranges.offset(index, leaf.strides)
                if any(read is leaf and offset != own for read, offset in body.loads):
                    self.memory.hazards.add(value)


@dataclass(slots=True)
class Accumulator:
    """The running value of a reduction."""

    value: Reduction
    memory: Memory
    terms: int
    name: str = ""
    kind: str = ""
    _missing: str = ""

    def __post_init__(self) -> None:
        self.name = self.memory.fresh()
        self.kind = self.memory.type_of(self.value)
        if self.kind == "float" and self.value.kind == "sum" and self.terms > LONG_SUM:
            self.kind = "double"
        self._missing = f"n{self.name}"

    def declared(self) -> list[str]:
        """Before the loop."""
        if self.value.kind in ("sum", "prod"):
            return [f"{self.kind} {self.name} = {0 if self.value.kind == 'sum' else 1};"]
        flag = "int64_t" if self.kind == "double" else "int32_t"
        sign = "-" if self.value.kind == "max" else ""
        return [f"{self.kind} {self.name} = {sign}INFINITY;", f"{flag} {self._missing} = 0;"]

    def added(self, element: str) -> list[str]:
        """In the loop."""
        if self.value.kind in ("sum", "prod"):
            return [f"{self.name} {'+' if self.value.kind == 'sum' else '*'}= {element};"]
        sign = ">" if self.value.kind == "max" else "<"
        return [
            f"{self.name} = {element} {sign} {self.name} ? {element} : {self.name};",
            f"{self._missing} |= {element} != {element};",
        ]

    def clauses(self) -> str:
        """Of the pragma that lets the compiler keep a vector of running values."""
        if self.value.kind in ("sum", "prod"):
            return f" reduction({'+' if self.value.kind == 'sum' else '*'}:{self.name})"
        return f" reduction({self.value.kind}:{self.name}) reduction(|:{self._missing})"

    def final(self) -> str:
        """The reduction's value."""
        name = self.name if self.value.kind in ("sum", "prod") else f"({self._missing} ? NAN : {self.name})"
        return f"({self.memory.type_of(self.value)}) {name}"

    def result(self) -> list[str]:
        """Behind the loop."""
        return [f"const {self.memory.type_of(self.value)} {self.memory.names[self.value]} = {self.final()};"]


def _parts(one: Pass, split: SplitRange | SplitStride) -> list[Pass]:
    name = split.variable
    low, high = one.ranges[name]
    if isinstance(split, SplitRange):
        halves = [(low, split.at), (split.at, high)]
        return [Pass({**one.ranges, name: half}, one.index) for half in halves]
    parts = []
    for remainder in range(split.step):
        inside = -(-(low - remainder) // split.step), -(-(high - remainder) // split.step)
        if inside[0] < inside[1]:
            index = tuple(_substituted(i, name, split.step, remainder) for i in one.index)
            parts.append(Pass({**one.ranges, name: inside}, index))
    return parts


def _substituted(index: Affine, name: str, step: int, remainder: int) -> Affine:
    factors = dict(index.terms)
    factor = factors.get(name, 0)
    return Affine(index.constant + factor * remainder, tuple((a, f * step if a == name else f) for a, f in index.terms))


def _nest(
    names: Sequence[str],
    ranges: Mapping[str, tuple[int, int]],
    lines: Iterable[str],
    clauses: str = "",
    simd: bool = True,
) -> list[str]:
    """Nested loops round lines, the innermost one free of dependences."""
    opened: list[str] = []
    for place, name in enumerate(names):
        if simd and place == len(names) - 1:
            opened.append(f'_Pragma("omp simd{clauses}")')
        low, high = ranges[name]
        opened.append(f"for (long {name} = {low}; {name} < {high}; {name}++) {{")
    return [*opened, *lines, "}" * len(names)]


def _partial_lines(loop: Loop, value: Reduction, memory: Memory) -> list[str]:
    """A reduction to a tensor: inside out, or a row of running values where that reads memory in its order."""
    source = value.source.shape
    kept = [dim for dim in range(len(source)) if dim not in value.dims]
    names = {dim: f"i{dim}" for dim in range(len(source))}
    index = tuple(Affine.of(names[dim]) for dim in range(len(source)))
    full = {names[dim]: (0, size) for dim, size in enumerate(source)}
    place = tuple(index[dim] for dim in kept)
    if not prod(source):
        raise Unprintable("a sum over nothing")

    def body_of() -> tuple[Body, str]:
        body = Body(memory, Ranges(dict(full), frozenset()), loop, may_split=False)
        return body, body.read(value.source, index)

    body, element = body_of()
    last, inner = names[kept[-1]], names[value.dims[-1]]
    target = body.ranges.offset(place, memory.strides[value]).text()
    target = f"{memory.names[value]}[{target}]"
    outer = [names[dim] for dim in kept]
    reduced = [names[dim] for dim in value.dims]
    accumulator = Accumulator(value, memory, prod(source[dim] for dim in value.dims))
    unit = [sum(dict(load.terms).get(name) == 1 for _, load in body.loads) for name in (last, inner)]
    if unit[0] > unit[1] and source[kept[-1]] >= 4 and value.kind == "sum":
        return _nest(
            outer[:-1],
            full,
            [
                *_nest([last], full, [f"{target} = 0;"]),
                *_nest([*reduced, last], full, [*body.lines, f"{target} += {element};"]),
            ],
            simd=False,
        )
    lines = [
        *accumulator.declared(),
        *_nest(reduced, full, [*body.lines, *accumulator.added(element)], accumulator.clauses()),
        f"{target} = {accumulator.final()};",
    ]
    return _nest(outer, full, lines, simd=False)


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


__all__ = ["Body", "Memory", "Shape", "expensive", "loop_lines"]
