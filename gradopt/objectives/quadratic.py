"""Convex quadratics of any size and condition number."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from gradopt.contracts import Objective
from gradopt.mistakes import Mistake


class Quadratic(Objective):
    """Half a sum of curvatures times squared distances from 1, over n unknowns that start at 0.

    f(x) = 1/2 sum_i lambda_i (x_i - 1)^2, with lambda_i spaced evenly on a log scale from 1 to 1/condition.

    Args:
        n: Number of unknowns.
        condition: Largest curvature over the smallest.
        x0: The start, n numbers; 0 everywhere if left out.
    """

    def __init__(
        self,
        n: Annotated[int, ">= 1"] = 2,
        condition: Annotated[float, ">= 1"] = 10.0,
        x0: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if n < 1 or not condition >= 1:
            raise Mistake(f"n must be 1 or more and condition 1 or more, got n={n}, condition={condition:g}")
        if x0 is not None and len(x0) != n:
            raise Mistake(f"x0 has {len(x0)} numbers, n is {n}")
        exponents = torch.linspace(0.0, -1.0, n) if n > 1 else torch.zeros(1)
        self.curvatures: Tensor
        self.register_buffer("curvatures", torch.as_tensor(condition) ** exponents)
        self.x = nn.Parameter(torch.zeros(n) if x0 is None else torch.tensor([float(v) for v in x0]))

    def forward(self, batch: None = None) -> Tensor:
        """The loss, shape ()."""
        return 0.5 * (self.curvatures * (self.x - 1.0) ** 2).sum()

    def minimum(self) -> float:
        """0, at x = 1."""
        return 0.0

    def describe(self) -> str:
        """Formula and size."""
        condition = (self.curvatures.max() / self.curvatures.min()).item()
        return f"y = 1/2 sum lambda_i (x_i - 1)^2, n = {self.x.numel()}, condition number {condition:g}"
