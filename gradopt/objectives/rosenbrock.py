"""Rosenbrock's curved valley."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from gradopt.contracts import Objective
from gradopt.mistakes import Mistake


class Rosenbrock(Objective):
    """Rosenbrock's curved valley in n unknowns, from (-1.2, 1, -1.2, 1, ...).

    f(x) = sum_i b (x_{i+1} - x_i^2)^2 + (a - x_i)^2; Rosenbrock, Computer Journal 3 (1960) 175, for n = 2.
    The minimum is 0 at x = 1 for a = 1.

    Args:
        n: Number of unknowns, 2 or more.
        a: Where the valley ends.
        b: How steep its walls are.
        x0: The start, n numbers.
    """

    def __init__(
        self, n: Annotated[int, ">= 2"] = 2, a: float = 1.0, b: float = 100.0, x0: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if n < 2:
            raise Mistake(f"rosenbrock needs n of 2 or more, got {n}")
        if x0 is not None and len(x0) != n:
            raise Mistake(f"x0 has {len(x0)} numbers, n is {n}")
        start = [-1.2 if i % 2 == 0 else 1.0 for i in range(n)] if x0 is None else [float(v) for v in x0]
        self.a, self.b = a, b
        self.x = nn.Parameter(torch.tensor(start))

    def forward(self, batch: None = None) -> Tensor:
        """The loss, shape ()."""
        head, tail = self.x[:-1], self.x[1:]
        return (self.b * (tail - head * head) ** 2 + (self.a - head) ** 2).sum()

    def minimum(self) -> float | None:
        """0 where it is known: for a = 1, or two unknowns."""
        return 0.0 if self.a == 1.0 or self.x.numel() == 2 else None

    def describe(self) -> str:
        """Formula and size."""
        return f"y = sum {self.b:g} (x_[i+1] - x_i^2)^2 + ({self.a:g} - x_i)^2, n = {self.x.numel()}"
