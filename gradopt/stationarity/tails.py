"""Tails of a loss: places so far off that it no longer depends on unknowns that mattered on the way there."""

import itertools
from typing import Protocol

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle
from gradopt.stationarity.curvature import Curvature, Product, is_faint_beside, sizes

MOST = 20
"""Suspects that are looked at, the least influential first."""

BEFORE = (0.1, 0.01, 1e-4, 0.0)
"""Where on its way from the start an unknown is asked whether it mattered."""

BESIDE = (0.75, 1.25)
"""Where on that way it must not matter, no more than at its end."""

QUARTERS = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Parts of a way, to its end and beyond, along which the slope of a tail decays and does not turn."""

BEYOND = (2.0, 4.0)
"""Where a slope that decays as a power is looked at, too."""

DECAY = 0.25
"""What is left of it at the next quarter where it decays as an exponential: that of a power p falls by less, up to
p = 4, and turns behind its minimum.
"""

FAR = 0.02
"""What is left at the end of that of a slope that decays as 1/x^2 or faster."""


class Bounded(Protocol):
    """What knows the bounds of the unknowns, shape (n,); None where there are none."""

    lower: Tensor | None
    upper: Tensor | None


def tail(
    evaluation: Evaluation, oracle: Oracle, origin: Tensor, fallen: float, curvature: Curvature | None
) -> Tensor | None:
    """The unknowns that have run off into a tail of the loss, by their numbers; None if there is none.

    There the loss falls, if at all, by less than its rounding, and gradient and curvature vanish together: no test of
    either can tell such a place from a minimum. But the gradient entry of such an unknown has fallen by more than 1/eps
    since the start, and not only where it stands: near a minimum of order p, a quarter of the way off, it is 4^(1 - p)
    of what it was, which is less than eps from p = 12 on in float32, 27 in float64. Unknowns that the loss ties
    together run off as one, along the directions without curvature: the slope along their way decays from quarter to
    quarter, and does not turn behind them (nor far behind them, where it decays as a power). An unknown on a bound has
    not run off.

    Args:
        evaluation: Where the parameters stand.
        origin: Where the run began, shape (n,).
        fallen: By how much the loss has fallen since: an influence that is nothing to that is none.
        curvature: At the parameters; None where it is not known.
    """
    point, gradient = evaluation.point, evaluation.gradient
    influence = influences(gradient, point - origin, oracle.hessian())
    loss = torch.tensor([abs(evaluation.loss), max(abs(evaluation.loss), fallen)], dtype=torch.float64)
    unfelt, candidates = suspects(point, influence, loss, origin, oracle)
    order = influence.argsort()
    try:
        for index in order[candidates[order]][:MOST]:
            # Where a loss vanishes an unknown is felt to the end; from far off a minimum seems as slight.
            if _has_run_off(evaluation, oracle, origin, int(index), turns=bool(unfelt[index])):
                return index[None]
        way = None if curvature is None else _way_together(point, origin, curvature)
        if way is not None and (_decays(way, point, oracle) or _falls_for_ever(way, point, oracle)):
            return (way.abs() > 0.5 * way.abs().max()).nonzero().flatten()
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
    """The unknowns that hardly change the loss though they have come some way; a mask, shape (..., n).

    Args:
        loss: What a change is measured by, shape (...).
    """
    eps = torch.finfo(point.dtype).eps
    found = (influence <= eps * loss.abs().to(point).unsqueeze(-1)) & ((point - origin).abs() > eps**0.5 * point.abs())
    if oracle.lower is not None and oracle.upper is not None:
        found &= (point > oracle.lower) & (point < oracle.upper)
    return found


def _has_run_off(evaluation: Evaluation, oracle: Oracle, origin: Tensor, index: int, *, turns: bool) -> bool:
    """Whether the slope of the loss along an unknown's way has vanished at its end.

    Args:
        turns: Whether it may turn behind the end, as at a minimum.
    """
    point, way = evaluation.point, (evaluation.point - origin)[index]

    def slope(part: float) -> float:
        there = point.clone()
        there[index] = torch.lerp(origin[index], point[index], part)
        if oracle.lower is not None and oracle.upper is not None:
            there = there.clamp(oracle.lower, oracle.upper)
        return (oracle.gradient(there)[index] * way.sign()).item()

    beside = [slope(part) for part in BESIDE]
    if not (turns or (max(beside) <= 0 and abs(beside[1]) <= abs(beside[0]))):
        return False
    here = max(abs(evaluation.gradient[index].item()), *map(abs, beside))
    limit = here / torch.finfo(point.dtype).eps
    return any(abs(slope(part)) > limit for part in BEFORE)


def _way_together(point: Tensor, origin: Tensor, curvature: Curvature) -> Tensor | None:
    """The way that unknowns have come along directions without curvature; None if none has come far along them, or one
    not as far as that.
    """
    come = (point - origin)[curvature.free].double().cpu() / curvature.units
    faint = curvature.vectors[:, is_faint_beside(curvature.values, torch.finfo(point.dtype).eps)]
    way = curvature.move(faint @ (faint.T @ come), point)
    whole = (point - origin).abs()
    far = (way != 0) & (way.abs() > 0.5 * whole)
    farther = way.abs() > 2 * whole + 0.01 * sizes(point, origin)
    return way if bool(far.any()) and not bool(farther.any()) else None


def _decays(way: Tensor, point: Tensor, oracle: Oracle) -> bool:
    """Whether the slope along a way has decayed as that of an exponential, and does not turn behind its end."""
    first, eps = _slope(QUARTERS[0], way, point, oracle), torch.finfo(point.dtype).eps
    before, nothing = first, eps**0.75 * abs(first)
    if not first < 0:
        return False
    for part in QUARTERS[1:]:
        now = _slope(part, way, point, oracle)
        if not -max(DECAY * abs(before), nothing) <= now <= nothing:
            return False
        before = now
    return abs(before) <= eps**0.5 * abs(first)


def _falls_for_ever(way: Tensor, point: Tensor, oracle: Oracle) -> bool:
    """Whether the loss falls along a way, and on to `BEYOND` its end, with a slope that decays as a power, as that of
    `1/(1 + x^2)` does. A minimum turns it; behind a hinge there is none.
    """
    if not _slope(QUARTERS[-1], way, point, oracle) < 0:
        return False
    slopes = [_slope(part, way, point, oracle) for part in (*QUARTERS, *BEYOND)]
    decays = all(one < after < 0 for one, after in itertools.pairwise(slopes))
    return decays and abs(slopes[-1]) <= FAR * abs(slopes[0])


def _slope(part: float, way: Tensor, point: Tensor, oracle: Oracle) -> float:
    """Of the loss along a way, at a part of it."""
    there = point + (part - 1) * way
    if oracle.lower is not None and oracle.upper is not None:
        there = there.clamp(oracle.lower, oracle.upper)
    return (oracle.gradient(there) @ way).item()
