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

    S and Y, of shape (n, pairs), are kept as rows of a ring. Of R, the upper triangle of S'Y in the order of age, what
    is kept is V = diag(R) R^-1, transposed, with rows and columns where the ring has the pairs: a new pair gives V a
    column, the oldest takes a row away, and H g is then a few products. (Pairs divided by sqrt(s'y) would spare some
    divisions, but what rounding does to them shows where pairs are nearly dependent.) H starts from the inverse of a
    diagonal D that follows the BFGS formula (Gilbert and Lemaréchal, 1989): what a plain multiple of the identity
    cannot know are the units of the unknowns. D is first sized to each new pair. There are two measures, the curvature
    along the step, s'y / s'Ds, and the larger one y'D^-1 y / s'y. The first is right while no pair is forgotten; from
    then on D stands for the forgotten ones, too, and most first trials would be too long: D takes the geometric mean of
    both, the ends of the interval of self-scaling methods (Oren and Luenberger, 1974).
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._oldest = 0
        self._steps = self._changes = self._inverse = self._curvatures = self._diagonal = torch.empty(0)
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
            self._inverse, self._curvatures = step.new_zeros(self.limit, self.limit), step.new_ones(self.limit)
            self._diagonal, self._slots = torch.full_like(step, square / curvature), self._views()
        if self.size == self.limit:
            slot, self._oldest = self._oldest, (self._oldest + 1) % self.limit
            self._inverse[:, slot].zero_()
        else:
            slot, self.size = self.size, self.size + 1
        kept_step, kept_change, kept_curvature, row, unit = self._slots[slot]
        kept_step.copy_(step)
        kept_change.copy_(change)
        kept_curvature.fill_(curvature)
        # (R, r; 0, c)^-1 = (R^-1, -R^-1 r / c; 0, 1 / c) with r = S'y and c = s'y, which meets a column of zeros in V.
        steps, _, inverse, _ = self._filled()
        products, size = torch.mv(steps, change).div_(curvature), self.size  # 1 / c alone may overflow
        row[:size].copy_(torch.addmv(unit[:size], inverse.T, products, alpha=-1))
        self._follow(step, change, curvature)

    def inverse(self, gradient: Tensor, free: Tensor | None) -> Tensor:
        """H g; with `free`, of the Hessian restricted to these unknowns, and zero in the others."""
        if not self.size:
            return gradient.clone()
        steps, changes, inverse, curvatures = self._filled()
        if free is not None and not bool(free.all()):
            steps, changes = (pairs.roll(-self._oldest, 0) for pairs in (steps, changes))
            steps, changes, inverse, curvatures = _restricted(steps * free, changes * free)
        # Eq. 3.1 with H0 = 1 / D: H g = S p - w / D, with q = R^-1 S'g, w = Y q - g, p = R^-T (diag(R) q + Y'(w / D)).
        q = torch.mv(inverse.T, torch.mv(steps, gradient)).div_(curvatures)
        rest = torch.addmv(gradient, changes.T, q, beta=-1).div_(self._diagonal)
        p = torch.mv(inverse, torch.mv(changes, rest).div_(curvatures).add_(q))
        return torch.addmv(rest, steps.T, p, beta=-1)

    def state_dict(self) -> State:
        """All of it; tensors with the axes (pair, parameter), (pair, pair), (pair,) and (parameter,)."""
        tensors = (self._steps, self._changes, self._inverse, self._curvatures, self._diagonal)
        return {"numbers": (self.size, self._oldest), "tensors": [tensor.clone() for tensor in tensors]}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self.size, self._oldest = state["numbers"]
        tensors = [tensor.clone() for tensor in state["tensors"]]
        self._steps, self._changes, self._inverse, self._curvatures, self._diagonal = tensors
        self._slots = self._views()

    def _filled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """S, Y, V' and the diagonal of R, of the slots that hold a pair."""
        size = self.size
        if size == self.limit:
            return self._steps, self._changes, self._inverse, self._curvatures
        return self._steps[:size], self._changes[:size], self._inverse[:size, :size], self._curvatures[:size]

    def _views(self) -> list[tuple[Tensor, ...]]:
        """The rows of all these and of the identity, by slot: they are taken often."""
        identity = torch.eye(len(self._inverse)).to(self._inverse)
        rings = (self._steps, self._changes, self._curvatures, self._inverse, identity)
        return list(zip(*(ring.unbind() for ring in rings), strict=True))

    def _follow(self, step: Tensor, change: Tensor, curvature: float) -> None:
        """Let the diagonal follow a pair, unless it would overflow."""
        image = self._diagonal * step
        square = float(step @ image)
        factor = curvature / square if square > 0 else math.inf
        if self.size == self.limit:
            factor = math.sqrt(factor * (float(change @ (change / self._diagonal)) / curvature))
        if not (math.isfinite(factor) and factor > 0):
            return
        diagonal = followed(self._diagonal, image, change, curvature, square, factor)
        low, high = (bound.item() for bound in torch.aminmax(diagonal))
        if math.isfinite(low) and math.isfinite(high):
            floor = SMALLEST_DIAGONAL * high
            self._diagonal = diagonal if low >= floor else diagonal.clamp_(min=floor)


def followed(diagonal: Tensor, image: Tensor, change: Tensor, curvature: Any, square: Any, factor: Any) -> Tensor:
    """D <- c D - (c D s)^2 / c s'D s + y^2 / s'y: the diagonal of the BFGS formula.

    Args:
        diagonal, image, change: D, D s and y, shape (n, ...).
        curvature, square, factor: s'y, s'D s and c: numbers, or tensors of shape (...).
    """
    image = image * factor  # quotients before products, which could overflow
    return diagonal * factor - image * (image / (factor * square)) + change * (change / curvature)


def _restricted(steps: Tensor, changes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pairs, in the order of age, that are still curved when only some unknowns count, with V' and diag(R)."""
    products = steps @ changes.T
    keep = products.diagonal() > RELATIVE_CURVATURE * (steps.square().sum(1) * changes.square().sum(1)).sqrt()
    products = products[keep][:, keep]
    curvatures = products.diagonal()
    inverse = torch.linalg.solve_triangular(products.T, torch.diag(curvatures), upper=False)
    return steps[keep], changes[keep], inverse, curvatures
