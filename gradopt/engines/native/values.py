"""What a graph computes, as values with an element at each index: the form between torch's graph and C."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch

from gradopt.engines.native.indices import Index

Shape = tuple[int, ...]


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of the graph."""

    shape: Shape
    dtype: torch.dtype

    @property
    def uniform(self) -> bool:
        """Whether it is one number."""
        return prod(self.shape) == 1

    def sources(self) -> "tuple[Value, ...]":
        """What it is computed from."""
        return ()


@dataclass(eq=False, slots=True)
class Leaf(Value):
    """A tensor in memory: an unknown, a state of the optimiser, a learning rate, a constant of the objective.

    Attributes:
        slot: Its place among the pointers the program is given, or the number of the parameter group of a rate.
    """

    strides: tuple[int, ...]
    slot: int
    is_rate: bool = False


@dataclass(eq=False, slots=True)
class Constant(Value):
    """The same number everywhere."""

    number: float | int | bool


@dataclass(eq=False, slots=True)
class Pointwise(Value):
    """An operation of `expressions`, element by element.

    Attributes:
        computed: The type in which it is computed, to which the operands are converted.
    """

    operation: str
    operands: tuple[Value, ...]
    computed: torch.dtype

    def sources(self) -> tuple[Value, ...]:
        return self.operands


@dataclass(eq=False, slots=True)
class Moved(Value):
    """The elements of another tensor elsewhere: slices, permutations, expansions."""

    source: Value
    origin: Callable[[Index], Index]

    def sources(self) -> tuple[Value, ...]:
        return (self.source,)


@dataclass(eq=False, slots=True)
class Reshaped(Value):
    """The elements of another tensor in the same order under another shape."""

    source: Value

    def sources(self) -> tuple[Value, ...]:
        return (self.source,)


@dataclass(eq=False, slots=True)
class Choice(Value):
    """`inside` at every step-th index of one dimension from `start` up to `stop`, `outside` at all others.

    The element of `inside` is the one at (index - start) / step; that of `outside` has the index itself.
    """

    dim: int
    start: int
    stop: int
    step: int
    inside: Value
    outside: Value

    def sources(self) -> tuple[Value, ...]:
        return self.inside, self.outside


@dataclass(eq=False, slots=True)
class Reduction(Value):
    """Sum, product, largest or smallest over some dimensions of a tensor; NaN wins over every number.

    Attributes:
        kind: sum, prod, max or min.
        dims: Of the source, in rising order; they are not in the shape.
    """

    kind: str
    source: Value
    dims: tuple[int, ...]

    def sources(self) -> tuple[Value, ...]:
        return (self.source,)


def ordered(roots: Sequence[Value]) -> Iterator[Value]:
    """All values under the roots, each behind its sources."""
    seen: set[Value] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        value, done = stack.pop()
        if done:
            yield value
        elif value not in seen:
            seen.add(value)
            stack.append((value, True))
            stack.extend((source, False) for source in reversed(value.sources()) if source not in seen)
