"""Tails of a loss: places so far off that it no longer depends on an unknown that mattered on the way there."""

from typing import Protocol

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle
from gradopt.stationarity.curvature import Product

MOST = 20
"""Suspects that are looked at, the least influential first."""

BEFORE = (0.1, 0.01, 1e-4, 0.0)
"""Where on its way from the start an unknown is asked whether it mattered."""

BESIDE = (0.75, 1.25)
"""Where on that way it must not matter, no more than at its end."""


class Bounded(Protocol):
    """What knows the bounds of the unknowns, shape (n,); None where there are none."""

    lower: Tensor | None
    upper: Tensor | None


def tail(evaluation: Evaluation, oracle: Oracle, origin: Tensor) -> int | None:
    """An unknown that has run off into a tail of the loss; None if there is none.

    There the loss falls, if at all, by less than its rounding, and gradient and curvature vanish together: no test of
    either can tell such a place from a minimum. But its gradient entry has fallen by more than 1/eps since the start,
    and not only where it stands: near a minimum of order p, a quarter of the way off, it is 4^(1 - p) of what it was,
    which is less than eps from p = 12 on in float32, 27 in float64. An unknown on a bound has not run off.

    Args:
        evaluation: Where the parameters stand.
        origin: Where the run began, shape (n,).
    """
    point, gradient = evaluation.point, evaluation.gradient
    influence = influences(gradient, point - origin, oracle.hessian())
    candidates = suspects(point, influence, torch.tensor(evaluation.loss, dtype=point.dtype), origin, oracle)
    order = influence.argsort()
    try:
        for index in order[candidates[order]][:MOST].tolist():
            if _has_run_off(evaluation, oracle, origin, index):
                return index
    except BudgetSpent:
        pass  # none of those that could be looked at has run off
    return None


def influences(gradient: Tensor, way: Tensor, hessian: Product | None) -> Tensor:
    """How much the loss would change if an unknown went its way back, to second order; shape (..., n)."""
    influence = (way * gradient).abs()
    if hessian is None:
        return influence
    signs = torch.randint(0, 2, way.shape[-1:], generator=torch.Generator().manual_seed(0)).to(way) * 2 - 1
    return influence + (way * hessian(way * signs)).abs()


def suspects(point: Tensor, influence: Tensor, loss: Tensor, origin: Tensor, oracle: Bounded) -> Tensor:
    """The unknowns that the loss, of shape (...), hardly feels though they have come some way; a mask, shape (..., n).

    An unknown on a bound has not run off.
    """
    eps = torch.finfo(point.dtype).eps
    found = (influence <= eps * loss.abs().to(point).unsqueeze(-1)) & ((point - origin).abs() > eps**0.5 * point.abs())
    if oracle.lower is not None and oracle.upper is not None:
        found &= (point > oracle.lower) & (point < oracle.upper)
    return found


def _has_run_off(evaluation: Evaluation, oracle: Oracle, origin: Tensor, index: int) -> bool:
    point = evaluation.point

    def entry(part: float) -> float:
        there = point.clone()
        there[index] = torch.lerp(origin[index], point[index], part)
        if oracle.lower is not None and oracle.upper is not None:
            there = there.clamp(oracle.lower, oracle.upper)
        return oracle.gradient(there)[index].abs().item()

    here = max(evaluation.gradient[index].abs().item(), *(entry(part) for part in BESIDE))
    limit = here / torch.finfo(point.dtype).eps
    return any(entry(part) > limit for part in BEFORE)
