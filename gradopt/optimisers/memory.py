"""The memory of L-BFGS: pairs of steps and gradient changes, and the inverse Hessian they stand for."""

import math
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import State

RELATIVE_CURVATURE = 1e-10
"""A pair is kept if s'y > this * |s| |y|: relative, as an absolute threshold stalls problems of small loss."""

SMALLEST_DIAGONAL = 1e-12
"""Of the diagonal's entries relative to the largest, against rounding below zero."""


class Memory:
    """Pairs of steps s and gradient changes y, and the inverse Hessian H they stand for.

    S and Y, of shape (n, pairs), are kept as rows of a ring; R, the upper triangle of S'Y, stays in order of age. H
    starts from a diagonal that follows the BFGS formula (Gilbert and Lemaréchal, 1989), rescaled to the
    curvature of each new pair first: what a plain multiple of the identity cannot know are the units of the unknowns.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._oldest = 0
        self._steps = self._changes = self._products = self._diagonal = torch.empty(0)

    def clear(self) -> None:
        """Forget all pairs."""
        self.size = self._oldest = 0

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair, in the place of the oldest if there is no room; one without curvature is left out."""
        curvature, square = float(step @ change), float(change @ change)
        if not curvature > RELATIVE_CURVATURE * math.sqrt(float(step @ step) * square):
            return
        if self._steps.numel() == 0:
            self._steps, self._changes = (step.new_zeros(self.limit, len(step)) for _ in range(2))
            self._products = step.new_zeros(self.limit, self.limit)
        if self.size == 0:
            self._diagonal = torch.full_like(step, square / curvature)
        if self.size == self.limit:
            slot, self._oldest = self._oldest, (self._oldest + 1) % self.limit
            self._products[:-1, :-1] = self._products[1:, 1:].clone()
        else:
            slot, self.size = self.size, self.size + 1
        self._steps[slot], self._changes[slot] = step, change
        self._products[: self.size, self.size - 1] = (self._steps[: self.size] @ change).roll(-self._oldest)
        self._follow(step, change, curvature)

    def inverse(self, gradient: Tensor, free: Tensor | None) -> Tensor:
        """H g; with `free`, of the Hessian restricted to these unknowns, and zero in the others."""
        size, turn = self.size, -self._oldest
        if not size:
            return gradient.clone()
        steps, changes, products = self._steps[:size], self._changes[:size], self._products[:size, :size]
        if free is not None and not bool(free.all()):
            steps, changes, products = _restricted(steps.roll(turn, 0) * free, changes.roll(turn, 0) * free)
            turn = 0
        # Eq. 3.1 with H0 = 1 / D: H g = S p - w / D, with q = R^-1 S'g, w = Y q - g, p = R^-T (diag(R) q + Y'(w / D)).
        q = torch.linalg.solve_triangular(products, (steps @ gradient).roll(turn)[:, None], upper=True)
        rest = (torch.mv(changes.T, q[:, 0].roll(-turn)).sub_(gradient)).div_(self._diagonal)
        right = torch.addcmul((changes @ rest).roll(turn), products.diagonal(), q[:, 0])
        p = torch.linalg.solve_triangular(products.T, right[:, None], upper=False)
        return torch.mv(steps.T, p[:, 0].roll(-turn)).sub_(rest)

    def state_dict(self) -> State:
        """All of it; tensors with the axes (pair, parameter), (pair, pair) and (parameter,)."""
        return {
            "numbers": (self.size, self._oldest),
            "tensors": [t.clone() for t in (self._steps, self._changes, self._products, self._diagonal)],
        }

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self.size, self._oldest = state["numbers"]
        self._steps, self._changes, self._products, self._diagonal = (t.clone() for t in state["tensors"])

    def _follow(self, step: Tensor, change: Tensor, curvature: float) -> None:
        """Let the diagonal follow a pair, unless it would overflow."""
        image = self._diagonal * step
        square = float(step @ image)
        factor = curvature / square if square > 0 else math.inf
        if not (math.isfinite(factor) and factor > 0):
            return
        diagonal = followed(self._diagonal, image, change, curvature, factor)
        if bool(diagonal.isfinite().all()):
            self._diagonal = diagonal.clamp_(min=SMALLEST_DIAGONAL * float(diagonal.max()))


def followed(diagonal: Tensor, image: Tensor, change: Tensor, curvature: Any, factor: Any) -> Tensor:
    """D <- c D - (c D s)^2 / s'y + y^2 / s'y: the diagonal of the BFGS formula.

    Args:
        diagonal, image, change: D, D s and y, shape (n, ...).
        curvature, factor: s'y, and c, with which s'(c D)s = s'y: numbers, or tensors of shape (...).
    """
    image = image * factor  # quotients before products, which could overflow
    return diagonal * factor - image * (image / curvature) + change * (change / curvature)


def _restricted(steps: Tensor, changes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs that are still curved when only some unknowns count, with their S'Y."""
    products = steps @ changes.T
    keep = products.diagonal() > RELATIVE_CURVATURE * (steps.square().sum(1) * changes.square().sum(1)).sqrt()
    return steps[keep], changes[keep], products[keep][:, keep]
