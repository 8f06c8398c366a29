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

    H is the product of the compact form of Byrd, Nocedal and Schnabel (1994), eq. 3.1, written for pairs divided by
    sqrt(s'y), which changes nothing and makes R, the upper triangle of S'Y, have a diagonal of ones. S and Y, of shape
    (n, pairs), are kept as rows of a ring, and R^-T with its rows and columns where the ring has the pairs: a new pair
    gives it a row, and the oldest takes its column away. Slots without a pair are zero. H starts from a diagonal that
    follows the BFGS formula (Gilbert and Lemaréchal, 1989), rescaled to the curvature of each new pair first: what a
    plain multiple of the identity cannot know are the units of the unknowns.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._oldest = 0
        self._steps = self._changes = self._inverse = self._diagonal = torch.empty(0)
        self._slots: list[tuple[Tensor, ...]] = []

    def clear(self) -> None:
        """Forget all pairs."""
        self.size = self._oldest = 0

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair, in the place of the oldest if there is no room; one without curvature is left out."""
        curvature, square = float(step @ change), float(change @ change)
        if not curvature > RELATIVE_CURVATURE * math.sqrt(float(step @ step) * square):
            return
        if not self.size:
            self._steps, self._changes = (step.new_zeros(self.limit, len(step)) for _ in range(2))
            self._inverse = step.new_zeros(self.limit, self.limit)
            self._slots = self._views()
            self._diagonal = torch.full_like(step, square / curvature)
        if self.size == self.limit:
            slot, self._oldest = self._oldest, (self._oldest + 1) % self.limit
            self._inverse[:, slot].zero_()
        else:
            slot, self.size = self.size, self.size + 1
        root, (new_step, new_change, new_row, unit) = math.sqrt(curvature), self._slots[slot]
        torch.div(step, root, out=new_step)
        torch.div(change, root, out=new_change)
        # (R, r; 0, 1)^-1 = (R^-1, -R^-1 r; 0, 1) with r = S'y, of which the new entry meets zeros.
        steps, _, inverse = self._filled()
        new_row[: self.size] = torch.addmv(unit[: self.size], inverse.T, torch.mv(steps, new_change), alpha=-1)
        self._follow(new_step, new_change)

    def inverse(self, gradient: Tensor, free: Tensor | None) -> Tensor:
        """H g; with `free`, of the Hessian restricted to these unknowns, and zero in the others."""
        if not self.size:
            return gradient.clone()
        steps, changes, inverse = self._filled()
        if free is not None and not bool(free.all()):
            by_age = (pairs.roll(-self._oldest, 0) for pairs in (steps, changes))
            steps, changes, inverse = _restricted(*by_age, free)
        # Eq. 3.1 with H0 = 1 / D: H g = S p - w / D, with q = R^-1 S'g, w = Y q - g, p = R^-T (q + Y'(w / D)).
        q = torch.mv(inverse.T, torch.mv(steps, gradient))
        rest = torch.addmv(gradient, changes.T, q, beta=-1).div_(self._diagonal)
        p = torch.mv(inverse, torch.addmv(q, changes, rest))
        return torch.addmv(rest, steps.T, p, beta=-1)

    def state_dict(self) -> State:
        """All of it; tensors with the axes (pair, parameter), (pair, pair) and (parameter,)."""
        tensors = (self._steps, self._changes, self._inverse, self._diagonal)
        return {"numbers": (self.size, self._oldest), "tensors": [tensor.clone() for tensor in tensors]}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self.size, self._oldest = state["numbers"]
        self._steps, self._changes, self._inverse, self._diagonal = (tensor.clone() for tensor in state["tensors"])
        self._slots = self._views()

    def _filled(self) -> tuple[Tensor, Tensor, Tensor]:
        """S, Y and R^-T of the slots that hold a pair."""
        size = self.size
        if size == self.limit:
            return self._steps, self._changes, self._inverse
        return self._steps[:size], self._changes[:size], self._inverse[:size, :size]

    def _views(self) -> list[tuple[Tensor, ...]]:
        """The rows of S, of Y, of R^-T and of the identity, by slot: they are taken often."""
        identity = torch.eye(len(self._inverse)).to(self._inverse)
        return list(
            zip(*(rows.unbind() for rows in (self._steps, self._changes, self._inverse, identity)), strict=True)
        )

    def _follow(self, step: Tensor, change: Tensor) -> None:
        """Let the diagonal follow a pair with s'y = 1, unless it would overflow."""
        image = self._diagonal * step
        square = float(step @ image)
        factor = 1 / square if square > 0 else math.inf
        if not (math.isfinite(factor) and factor > 0):
            return
        diagonal = followed(self._diagonal, image, change, factor)
        low, high = (bound.item() for bound in torch.aminmax(diagonal))
        if math.isfinite(low) and math.isfinite(high):
            floor = SMALLEST_DIAGONAL * high
            self._diagonal = diagonal if low >= floor else diagonal.clamp_(min=floor)


def followed(diagonal: Tensor, image: Tensor, change: Tensor, factor: Any) -> Tensor:
    """D <- c D - (c D s)^2 + y^2: the diagonal of the BFGS formula for a pair with s'y = 1.

    Args:
        diagonal, image, change: D, D s and y, shape (n, ...).
        factor: c, with which s'(c D)s = s'y: a number, or a tensor of shape (...).
    """
    image = image * factor
    return (diagonal * factor).addcmul_(image, image, value=-1).addcmul_(change, change)


def _restricted(steps: Tensor, changes: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs, in the order of age, that are still curved when only some unknowns count, and their R^-T."""
    steps, changes = steps * free, changes * free
    curvatures = (steps * changes).sum(1)
    keep = curvatures > RELATIVE_CURVATURE * (steps.square().sum(1) * changes.square().sum(1)).sqrt()
    root = curvatures[keep].sqrt().unsqueeze(1)
    steps, changes = steps[keep] / root, changes[keep] / root
    identity = torch.eye(len(root), dtype=root.dtype, device=root.device)
    lower = changes @ steps.T
    return steps, changes, torch.linalg.solve_triangular(lower, identity, upper=False, unitriangular=True)
