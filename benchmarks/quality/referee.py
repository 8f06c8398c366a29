"""What solved means, and whether a success that was claimed elsewhere than at the lowest loss is a minimum at all.

A point is judged in the problem's own variables and in float64, by nothing but the problem itself.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from benchmarks.quality.cases import Case, box

ACCURACY = 1e-8
"""Solved: loss - best <= ACCURACY * max(|best|, min(1, |first loss - best|)), the first loss at the standard start. The
second term counts where the best loss is (nearly) zero: relative accuracy means nothing there.
"""

OUTSIDE, VIOLATED = 1e-8, 1e-6
"""How far a point may lie outside the bounds, and by how much it may miss the constraints."""

DIGITS = 6
"""Correct digits of every parameter that a regression must reach."""

NEGATIVE = 1e-6
"""Curvature below this part of the largest, both scaled, is negative."""

NEAR = 1e-3
"""Constraints nearer than this, relatively, may be what holds a point; interior methods end a little inside."""

EARLY = 1e-3
"""A claim at which a Newton step still promises less than this part of the loss (but more than ACCURACY) is early."""


@dataclass(frozen=True)
class Score:
    """What came of one run.

    Attributes:
        gap: How far the loss is above the lowest, in units of what is allowed: solved means gap <= 1 and feasible.
        digits: Correct digits of the worst parameter; NaN where no minimiser is certified.
        claim: Where a success was claimed: solved; elsewhere (at another minimum); early (of a minimum, but the loss is
            not accurate); false (the point is no minimum or not feasible). Empty where none was claimed.
    """

    solved: bool
    gap: float
    digits: float
    claim: str


class Referee:
    """Judges points of one case, given in the problem's own variables."""

    def __init__(self, case: Case) -> None:
        self._problem = case.original()
        self.lower, self.upper = box(self._problem)
        self._constraints = list(self._problem.constraints())
        best = self._problem.minimum()
        assert best is not None, "only problems whose lowest loss is known are cases"
        self.best = best
        standard = Case(case.problem, tuple((key, 1) for key, _ in case.arguments)).original()
        self._unit = max(abs(best), min(1.0, abs(standard().item() - best)))

    @property
    def is_constrained(self) -> bool:
        return bool(self._constraints)

    def loss(self, point: Tensor) -> float:
        self._move(point)
        with torch.no_grad():
            return self._problem().item()

    def is_feasible(self, point: Tensor) -> bool:
        outside = torch.maximum(self.lower - point, point - self.upper).max().item()
        return outside <= OUTSIDE and self.violation(point) <= VIOLATED

    def violation(self, point: Tensor) -> float:
        """Largest amount by which a constraint is missed."""
        self._move(point)
        with torch.no_grad():
            return max((missed.max().item() for _, missed, _ in self._sides()), default=0.0)

    def has_reached(self, loss: float, point: Tensor) -> bool:
        """Whether this is a solution."""
        return self._gap(loss) <= 1.0 and self.is_feasible(point)

    def score(self, point: Tensor, *, claimed: bool) -> Score:
        """Judge the point that a solver returned, and what it claims."""
        if not bool(point.isfinite().all()):
            return Score(solved=False, gap=math.inf, digits=0.0, claim="false" if claimed else "")
        gap = self._gap(self.loss(point))
        solved = gap <= 1.0 and self.is_feasible(point)
        claim = ("solved" if solved else self._claim(point)) if claimed else ""
        return Score(solved, gap, self._digits(point), claim)

    def _gap(self, loss: float) -> float:
        gap = (loss - self.best) / (ACCURACY * self._unit)
        return gap if math.isfinite(gap) else math.inf

    def _digits(self, point: Tensor) -> float:
        certified = getattr(self._problem, "CERTIFIED", None)
        if certified is None:
            return math.nan
        known = torch.tensor(certified, dtype=point.dtype)
        errors = (point - known).abs() / known.abs()
        worst = errors.max().item()
        if not math.isfinite(worst):
            return -math.inf
        # Cut, not rounded: 5.999 digits are not yet 6.
        return min(11.0, math.floor(-100 * math.log10(max(worst, 1e-300))) / 100)

    def _claim(self, point: Tensor) -> str:
        """Whether the point is a minimum: no step promises a lower loss, and no curvature is negative.

        The step is Newton's on the Lagrangian, in the directions that no constraint holds and in variables scaled by
        sqrt|diag H|; what a constraint that pulls the loss down still leaves open counts with its multiplier.
        """
        if not self.is_feasible(point):
            return "false"
        gradient, hessian, tangent, promised = self._model(point)
        if tangent.shape[1]:
            hessian, slope = tangent.T @ hessian @ tangent, tangent.T @ gradient
            scale = np.sqrt(np.abs(np.diagonal(hessian)))
            scale[scale <= 0] = 1.0
            values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
            slope = vectors.T @ (slope / scale)
            largest = max(np.abs(values).max(), 1e-300)
            if values.min() < -NEGATIVE * largest:
                return "false"
            promised += float((slope**2 / (2 * np.maximum(values, 1e-12 * largest))).sum())
        unit = max(abs(self.loss(point)), self._unit)
        if promised <= ACCURACY * unit:
            return "elsewhere"
        return "early" if promised <= EARLY * unit else "false"

    def _model(self, point: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Gradient and Hessian of the Lagrangian, a basis of the directions that are free, and what moving onto the
        constraints that hold it promises.
        """
        x = self._move(point)
        (gradient,) = torch.autograd.grad(self._problem(), x, create_graph=True)
        normals, slacks = self._near(x, point)
        lagrangian, free, promised = gradient, np.eye(len(point)), 0.0
        if normals:
            rows = torch.stack(normals).detach().numpy()
            sizes = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
            multipliers = nnls(rows.T / sizes, gradient.detach().numpy(), maxiter=1000)[0] / sizes
            active = multipliers * sizes > 1e-10 * gradient.detach().abs().max().item()
            promised = float(multipliers[active] @ slacks[active])
            for index in np.flatnonzero(active):
                lagrangian = lagrangian - float(multipliers[index]) * normals[index]
            holding = rows[active | (slacks <= 0)]
            _, spread, vectors = np.linalg.svd(holding)
            free = vectors[int((spread > 1e-10 * spread.max(initial=0)).sum()) :].T
        hessian = torch.stack([row_of(entry, x) for entry in lagrangian]).detach().numpy()
        return lagrangian.detach().numpy(), (hessian + hessian.T) / 2, free, promised

    def _near(self, x: Tensor, point: Tensor) -> tuple[list[Tensor], np.ndarray]:
        """Normals, into the feasible side, of the constraints that may hold the point, and how far away each is;
        an equality is a pair of them.
        """
        normals: list[Tensor] = []
        slacks: list[float] = []
        unit = torch.eye(len(point), dtype=point.dtype)
        for sign, distance in ((1.0, point - self.lower), (-1.0, self.upper - point)):
            for index in torch.nonzero(distance <= NEAR * (1 + point.abs())).flatten().tolist():
                normals.append(sign * unit[index])
                slacks.append(max(0.0, distance[index].item()))
        for inward, missed, is_equality in self._sides():
            for value, amount in zip(inward, missed, strict=True):
                if is_equality or amount.item() >= -NEAR * (1 + value.abs().item()):
                    normal = torch.autograd.grad(value, x, create_graph=True)[0]
                    normals += [normal, -normal] if is_equality else [normal]
                    slacks += [0.0, 0.0] if is_equality else [max(0.0, -amount.item())]
        return normals, np.array(slacks)

    def _sides(self) -> list[tuple[Tensor, Tensor, bool]]:
        """Of each constraint: functions that grow into the feasible side, how much each is missed, and if it is an
        equality.
        """
        sides = []
        for one in self._constraints:
            shaped = one.function()
            value = shaped.reshape(-1)
            lower, upper = (
                value.new_tensor(free if side is None else side).expand_as(shaped).reshape(-1)
                for side, free in ((one.lower, -torch.inf), (one.upper, torch.inf))
            )
            equal = lower == upper
            if bool(equal.any()):
                sides.append((value[equal], (value - lower)[equal].abs(), True))
            for inward, missed, there in (
                (value, lower - value, lower.isfinite() & ~equal),
                (-value, value - upper, upper.isfinite() & ~equal),
            ):
                if bool(there.any()):
                    sides.append((inward[there], missed[there], False))
        return sides

    def _move(self, point: Tensor) -> Tensor:
        x = self._problem.x
        with torch.no_grad():
            x.copy_(point)
        return x


def row_of(entry: Tensor, x: Tensor) -> Tensor:
    """The gradient of one number, zero where it does not depend on x; the graph is kept."""
    if not entry.requires_grad:
        return torch.zeros_like(x)
    (row,) = torch.autograd.grad(entry, x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if row is None else row
