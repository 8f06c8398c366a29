"""Lagrange multipliers at a point, by least squares: whoever asks needs no solver's word for them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient

NUM_NEARER = 10
"""Times at most that multipliers are looked for among constraints that are nearer to their limits."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Of the constraints at one point; the Lagrangian is f + y'c.

    Attributes:
        values: y, shape (m,): >= 0 where the upper limit holds, <= 0 where the lower one does, 0 where neither.
        gradient: Of the Lagrangian, shape (n,); its part inside the bounds is what the multipliers leave.
        terms: The sum of the absolute values of what was added up for each entry of it, each multiplier counting for no
            less than what it is rounded by in units of eps: times eps that is the rounding of the gradient.
        active: The indices of the constraints on a limit, or near it.
        slacks: How far each of these is from its limit, either way.
        scales: How much each of these changes when the unknowns move by their sizes.
    """

    values: Tensor
    gradient: Tensor
    terms: Tensor
    active: Tensor
    slacks: Tensor
    scales: Tensor

    def complementarity(self) -> float:
        """By how much the loss is wrong, to first order, because active constraints are not on their limits."""
        return float((self.values[self.active].abs() * self.slacks).sum())


def least_squares(
    gradient: Tensor,
    jacobian: Tensor,
    values: Tensor,
    limits: tuple[Tensor, Tensor],
    point: Tensor,
    box: tuple[Tensor, Tensor] | None,
    size: Tensor,
    tolerance: float,
) -> Multipliers:
    """The multipliers of right sign that leave the least of the gradient, weighed by the sizes of the unknowns.

    A constraint counts as active within `tolerance` of what it changes by when the unknowns move by their sizes. Where
    several choices of them leave as little, those nearest to their limits have the multipliers. For unknowns on a bound
    only what pulls them inside is left (alternately the one and the other, until it is the same).

    Args:
        gradient, jacobian, values: Of the loss, shape (n,), and of the constraints, shapes (m, n) and (m,).
        limits, box: Of the constraints and of the unknowns: (lower, upper).
        size: Of each unknown, positive, shape (n,).
    """
    lower, upper = limits
    scales = jacobian.abs() @ size
    below, above = values - lower <= tolerance * scales, upper - values <= tolerance * scales
    active = (below | above).nonzero().flatten()
    signs = above[active].double() - below[active].double()
    matrix = (jacobian[active] * size).double().cpu()
    target = -(gradient * size).double().cpu()
    lengths = matrix.norm(dim=1)
    lengths = torch.where(lengths > 0, lengths, 1.0)
    columns, signs = (matrix / lengths[:, None]).T, signs.cpu()
    slacks = torch.minimum((values - lower).abs(), (upper - values).abs())[active]
    away = (slacks / scales[active].clamp(min=torch.finfo(scales.dtype).tiny)).double().cpu()
    on = None if box is None else ((point <= box[0]).cpu(), (point >= box[1]).cpu())
    kept, least = _pushing(columns, target, signs, on)
    enough = least + 100 * torch.finfo(torch.float64).eps * target.norm().item()
    for _ in range(NUM_NEARER):
        farthest = away.masked_fill(kept == 0, 0.0).amax().item() if len(away) else 0.0
        if not farthest > torch.finfo(point.dtype).eps ** 0.75:
            break
        nearer = away < farthest
        found, rest = _pushing(columns[:, nearer], target, signs[nearer], on)
        if not rest <= enough:
            break
        kept = torch.zeros_like(kept).masked_scatter(nearer, found)
    y = torch.zeros_like(values)
    y[active] = (kept / lengths).to(values)
    largest = y.abs()
    largest[active] += (target.norm() / lengths).to(values)
    return Multipliers(
        values=y,
        gradient=gradient + jacobian.T @ y,
        terms=gradient.abs() + jacobian.abs().T @ largest,
        active=active,
        slacks=slacks,
        scales=scales[active],
    )


def _pushing(columns: Tensor, target: Tensor, signs: Tensor, on: tuple[Tensor, Tensor] | None) -> tuple[Tensor, float]:
    """Multipliers of these signs for normals of length 1, shape (n, m), and what they leave of the target, (n,).

    Args:
        on: Which unknowns are on their lower, and on their upper bounds.
    """
    least, kept = torch.inf, torch.zeros(columns.shape[1], dtype=torch.float64)
    on_lower, on_upper = (torch.zeros_like(target, dtype=torch.bool),) * 2 if on is None else on
    rows = ~(on_lower | on_upper)
    for _ in range(20):
        found = _signed(columns[rows], target[rows], signs)
        left = columns @ found - target
        held = (on_lower & (left > 0)) | (on_upper & (left < 0))
        rest = left.masked_fill(held, 0.0).norm().item()
        if not rest >= least:  # NaN, too
            least, kept = rest, found
        if torch.equal(rows, ~held):
            break
        rows = ~held
    return kept, least


def projected(multipliers: Multipliers, point: Tensor, box: tuple[Tensor, Tensor] | None) -> Tensor:
    """The gradient of the Lagrangian along which descent stays inside the bounds, shape (n,)."""
    return multipliers.gradient if box is None else projected_gradient(multipliers.gradient, point, *box)


def _signed(columns: Tensor, target: Tensor, signs: Tensor) -> Tensor:
    """Least squares with z_i >= 0 where signs_i = 1, <= 0 where -1 (Lawson and Hanson, Solving Least Squares Problems,
    1974, chapter 23); the shortest where there are several, NaN where something is not finite.
    """
    flipped = torch.where(signs < 0, -1.0, 1.0)
    columns, bound = columns * flipped, signs != 0
    solution = columns.new_zeros(columns.shape[1])
    passive = ~bound
    if not bool(columns.isfinite().all() & target.isfinite().all()):
        return torch.full_like(solution, torch.nan)
    if not columns.shape[0]:
        return solution
    noise = 10 * columns.shape[0] * torch.finfo(torch.float64).eps * target.norm()
    for _ in range(3 * len(signs) + 3):
        solution, passive = _shrunk(columns, target, solution, passive, bound)
        slopes = columns.T @ (target - columns @ solution)
        slopes = slopes.masked_fill(passive, -torch.inf)
        if not bool((slopes > noise).any()):
            break
        passive[slopes.argmax()] = True
    return flipped * solution


def _shrunk(columns: Tensor, target: Tensor, solution: Tensor, passive: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares solution in the passive unknowns, after those have left that it makes negative."""
    while bool(passive.any()):
        trial = torch.zeros_like(solution)
        for _ in range(2):  # again on what is left: rows of small weight are then exact to their own rounding, too
            left = target - columns @ trial
            trial[passive] += torch.linalg.lstsq(columns[:, passive], left, driver="gelsd").solution
        wrong = passive & bound & (trial <= 0)
        if not bool(wrong.any()):
            return trial, passive
        ratios = torch.where(wrong, solution / (solution - trial), torch.inf)
        step = ratios.nan_to_num(0.0).min().clamp(0.0, 1.0)
        solution = solution + step * (trial - solution)
        passive = passive & ~(wrong & (solution <= 0) | wrong & (ratios.nan_to_num(0.0) <= step))
        solution = solution.masked_fill(~passive, 0.0)
    return torch.zeros_like(solution), passive
