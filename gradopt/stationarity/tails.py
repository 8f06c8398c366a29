"""Tails of a loss: places so far off that it no longer depends on an unknown that mattered on the way there."""

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle

MOST = 20
"""Suspects that are looked at, the least influential first."""

BEFORE = (0.1, 0.01, 1e-4, 0.0)
"""Where on its way from the start an unknown is asked whether it mattered."""

BESIDE = (0.75, 1.25)
"""Where on that way it must not matter, no more than at its end."""


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
    eps = torch.finfo(gradient.dtype).eps
    way = point - origin
    influence, hessian = (way * gradient).abs(), oracle.hessian()
    if hessian is not None:
        signs = torch.randint(0, 2, way.shape, generator=torch.Generator().manual_seed(0)).to(way) * 2 - 1
        influence = influence + (way * hessian(way * signs)).abs()
    suspects = (influence <= eps * abs(evaluation.loss)) & (way.abs() > eps**0.5 * point.abs())
    if oracle.lower is not None and oracle.upper is not None:
        suspects &= (point > oracle.lower) & (point < oracle.upper)
    order = influence.argsort()
    try:
        for index in order[suspects[order]][:MOST].tolist():
            if _has_run_off(evaluation, oracle, origin, index):
                return index
    except BudgetSpent:
        pass  # none of those that could be looked at has run off
    return None


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
