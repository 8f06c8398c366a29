"""Where many starts stand that run by a program, each at a step of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gradopt.engines.tracing import Slot

NUMBERS = ("loss", "size", "moved", "before", "lowest", "lowest_size", "bottom")
"""Columns of `Lanes` that a program reads and writes, float64."""


@dataclass(slots=True)
class Lanes:
    """Where many starts stand: tensors with a leading axis of starts, which the program reads and changes in place.

    They are on the device of the parameters. Criteria judge on the CPU: they get copies after each visit.

    Attributes:
        steps: Of the row at which each stands.
        made: Rows each has evaluated in the last visit.
        loss, size: And gradient norm of the row at which each stands, which was evaluated unless it is the first.
        moved: The largest change of an unknown by the update before it, NaN where there was none.
        before, bottom: The loss one row earlier, and the lowest finite one of the last visit.
        lowest, lowest_size: The lowest finite loss so far, and the gradient norm there.
        gradients, points: By parameter, the gradient at the row, and the point of the lowest loss.
    """

    steps: Tensor
    made: Tensor
    loss: Tensor
    size: Tensor
    moved: Tensor
    before: Tensor
    lowest: Tensor
    lowest_size: Tensor
    bottom: Tensor
    gradients: list[Tensor]
    points: list[Tensor]

    @classmethod
    def of(cls, parameters: Sequence[Tensor], steps: Tensor) -> "Lanes":
        """Of starts that stand at rows not evaluated yet."""
        steps = steps.to(parameters[0].device, copy=True)
        numbers: dict[str, Any] = {name: torch.full_like(steps, math.nan, dtype=torch.float64) for name in NUMBERS}
        for name in ("lowest", "lowest_size", "bottom"):
            numbers[name].fill_(math.inf)
        gradients = [torch.zeros_like(p, memory_format=torch.contiguous_format) for p in parameters]
        points = [p.detach().clone(memory_format=torch.contiguous_format) for p in parameters]
        return cls(steps, torch.zeros_like(steps), **numbers, gradients=gradients, points=points)

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places."""
        for name in ("steps", "made", *NUMBERS):
            setattr(self, name, getattr(self, name)[kept])
        self.gradients = [one[kept] for one in self.gradients]
        self.points = [one[kept] for one in self.points]


@dataclass(frozen=True, slots=True)
class Visit:
    """What a program is to do with the starts, and by what it does it; all tensors are on the device of the parameters.

    Attributes:
        live: Shape (starts,), bool.
        table: Of the steps from `first` on, as far as any start may come.
        bands: Low and high of loss, gradient norm and step norm: float64, shape (starts,) or (1,).
        pending: Whether the update behind the row where a start stands comes before.
    """

    live: Tensor
    parameters: Sequence[Tensor]
    states: Sequence[Tensor]
    table: Tensor
    first: int
    limit: int
    due: Tensor
    bands: Sequence[Tensor]
    pending: bool


class LanesProgram(Protocol):
    """The step of one start as a program for many.

    Attributes:
        name: Of the engine.
        num_common: Of the numbers of a state that all starts have in common at a step.
    """

    name: str

    @property
    def num_common(self) -> int: ...

    def slots(self) -> tuple[list[Slot], list[Slot]]:
        """The places of the states that each start has, and of those in common."""
        ...

    def fits(self, parameters: Sequence[Tensor], states: Sequence[Tensor]) -> bool:
        """Whether stacked tensors have the form that the program reads."""
        ...

    def table(self, common: Tensor, rates: Tensor) -> Tensor:
        """What the steps to come have in common, a row a step; it begins with the states in common, as `common`. All of
        them are on the CPU.
        """
        ...

    def run(self, lanes: Lanes, visit: Visit) -> None:
        """Evaluate up to `limit` rows of each live start, and update between them, until a start has a row outside its
        bands or comes to its due step; it then stands there, evaluated and not updated.
        """
        ...
