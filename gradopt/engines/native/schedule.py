"""Which values are kept and in which loop each is computed."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gradopt.engines.native.values import Constant, Leaf, Pointwise, Reduction, Shape, Value, ordered


@dataclass(eq=False, slots=True)
class Loop:
    """One loop over the elements of a domain: what it stores and what it sums up.

    Attributes:
        domain: Sizes of the nested loops; for a reduction over some dimensions, the sizes of its result.
    """

    domain: Shape
    members: list[Value] = field(default_factory=list[Value])

    @property
    def partial(self) -> "Reduction | None":
        """The reduction to a tensor it consists of, if it does."""
        only = self.members[0]
        return only if isinstance(only, Reduction) and not only.uniform else None


@dataclass(slots=True)
class Level:
    """Numbers first, then loops; each may read what the levels before it, and the numbers of this one, have made."""

    numbers: list[Value] = field(default_factory=list[Value])
    loops: list[Loop] = field(default_factory=list[Loop])


@dataclass(slots=True)
class Schedule:
    """The values of one row in two phases: up to the tests, and the update behind them.

    Attributes:
        kept: Values with a place of their own; all others are computed where they are read.
    """

    phases: tuple[list[Level], list[Level]]
    kept: dict[Value, None]


def scheduled(evaluation: Sequence[Value], update: Sequence[Value], worth_keeping: Iterable[Value]) -> Schedule:
    """Arrange what two phases must have computed at their ends."""
    results = {value for value in (*evaluation, *update)}
    extra = set(worth_keeping)
    first = list(ordered(evaluation))
    behind = set(first)
    second = [value for value in ordered(update) if value not in behind]

    def is_kept(value: Value) -> bool:
        if isinstance(value, Leaf | Constant):
            return False
        return value.uniform or isinstance(value, Reduction) or value in results or value in extra

    kept = {
        value: None for value in (*first, *second) if is_kept(value)
    }  # in order: a source is printed the same again
    return Schedule((_levels(first, kept), _levels(second, kept)), kept)


def domain_of(value: Value) -> Shape:
    """The loops in which it is computed."""
    return value.source.shape if isinstance(value, Reduction) and value.uniform else value.shape


def _levels(values: Sequence[Value], kept: Container[Value]) -> list[Level]:
    levels: list[Level] = []
    height: dict[Value, int] = {}
    for value in values:
        if value not in kept:
            continue
        looped = not value.uniform or isinstance(value, Reduction)
        level = 0
        for other, aligned in _read(value, kept):
            if other not in height:  # of the phase before
                continue
            ready = other.uniform and not isinstance(other, Reduction)
            together = (
                looped
                and aligned
                and not isinstance(other, Reduction)
                and not other.uniform
                and domain_of(other) == domain_of(value)
            )
            level = max(level, height[other] + (0 if ready or together else 1))
        height[value] = level
        while len(levels) <= level:
            levels.append(Level())
        if looped:
            _place(value, levels[level].loops)
        else:
            levels[level].numbers.append(value)
    return levels


def _place(value: Value, loops: list[Loop]) -> None:
    if isinstance(value, Reduction) and not value.uniform:
        loops.append(Loop(value.shape, [value]))
        return
    domain = domain_of(value)
    for loop in loops:
        if loop.domain == domain and loop.partial is None:
            loop.members.append(value)
            return
    loops.append(Loop(domain, [value]))


def _read(value: Value, kept: Container[Value]) -> Iterator[tuple[Value, bool]]:
    """The kept values it reads, and whether each element of it reads only the same element of them."""
    domain = domain_of(value)
    whole = not (isinstance(value, Reduction) and not value.uniform)
    seen: set[tuple[Value, bool]] = set()
    pointwise = isinstance(value, Pointwise | Reduction)
    stack = [(source, whole and pointwise and source.shape == domain) for source in value.sources()]
    while stack:
        other, aligned = stack.pop()
        if (other, aligned) in seen:
            continue
        seen.add((other, aligned))
        if other in kept:
            yield other, aligned
        else:
            aligned = aligned and isinstance(other, Pointwise)
            stack.extend((source, aligned and source.shape == domain) for source in other.sources())
