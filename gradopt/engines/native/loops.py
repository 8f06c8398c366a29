"""Loops in C: over elements, split until the same is done at each, and over what is summed up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from gradopt.engines.native.calls import Unprintable
from gradopt.engines.native.elements import Body, Memory
from gradopt.engines.native.indices import Affine, Index, Ranges, SplitRange, SplitStride
from gradopt.engines.native.schedule import Loop
from gradopt.engines.native.values import (
    Reduction,
)

MAX_UNROLLED = 8
"""Elements up to which a loop is written out, and a tensor lives in variables."""

MAX_PIECES = 64
"""Loops into which one may be split; beyond that its conditions are tested at each element."""

LONG_SUM = 4096
"""Terms from which a sum of floats is a double."""


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
