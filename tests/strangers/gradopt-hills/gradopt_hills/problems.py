"""Two objectives: one as a class, one as a function."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from gradopt import Objective


class Valley(Objective):
    """A long valley with two named parameters.

    Args:
        slope: How much steeper it is across than along.
        size: The number of unknowns along the valley.
        shape: The cross section.
        start: Where all unknowns start.
        walls: Limits of the unknown across the valley.
    """

    def __init__(
        self,
        slope: Annotated[float, "> 0"] = 4.0,
        size: int = 2,
        shape: Literal["round", "sharp"] = "round",
        start: float = 1.0,
        walls: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.slope, self.shape, self.walls = slope, shape, walls
        self.along = nn.Parameter(torch.full((size,), start))
        self.across = nn.Parameter(torch.tensor(start))

    def forward(self) -> Tensor:
        power = 2 if self.shape == "round" else 4
        return self.along.square().sum() + self.slope * (self.across - 0.5) ** power

    def bounds(self) -> Mapping[str, tuple[float, float]]:
        return {} if self.walls is None else {"across": (self.walls[0], self.walls[1])}


def ripple(x: Tensor = (1.0, -1.0), depth: float = 0.1, waves: int = 1) -> Tensor:
    """A bowl with ripples."""
    return x.square().sum() + depth * torch.sin(waves * x).sum()
