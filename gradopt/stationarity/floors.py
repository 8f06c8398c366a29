"""Whether the loss falls along the floor of a valley, where the rounding of what is steep hides the slope."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle
from gradopt.stationarity.curvature import NUM_DENSE, NUM_FLAT, TINY, Curvature
from gradopt.stationarity.falls import REACH, inside, scatter

NUM_CORRECTIONS = 3
"""Newton steps at most that bring a point beside back to the floor."""

NEARER = 4.0
"""How much nearer is looked where the loss does not fall so far."""

REACHES = (0.5, 1.0)
"""Parts of its way that a direction is followed to see a change of the loss, where eps^`REACH` of it shows none."""


def falls_along_floor(evaluation: Evaluation, oracle: Oracle, curvature: Curvature, way: Tensor, fallen: float) -> bool:
    """Whether the loss falls, by more than its rounding, to a place that is more than eps^0.25 of the way off, along a
    direction that has no curvature for all that the Hessian's rounding tells, or so little that the slope's rounding
    hides where it ends.

    Beside a condition of 1/eps the gradient's rounding is larger than the slope along the floor of a valley, and the
    Hessian's larger than its curvature: neither says that a minimum is far. The loss may: it is followed along the
    floor, to which Newton steps across the valley lead back, on both sides; where the parabola through it has its least
    it must be lower, and as much lower half and a quarter of the way as a slope makes it.

    Args:
        way: How far each unknown may reach.
        fallen: By how much the loss has fallen so far; eps^2 of that is its rounding where it vanishes.
    """
    eps, slopes = torch.finfo(way.dtype).eps, curvature.slopes(evaluation.gradient)
    hidden = (slopes <= curvature.noise) & (curvature.newton_step(slopes) > eps**0.5)
    flats = (~curvature.is_curved | hidden).nonzero().flatten()[:NUM_FLAT]
    if not len(flats) or len(curvature.free) > NUM_DENSE:  # Lanczos knows too little of what is across the valley
        return False

    def floor(point: Tensor) -> tuple[Tensor, float]:
        """Where Newton steps across the valley lead, as long as they lower the loss."""
        point = inside(point, oracle)
        loss = oracle.loss(point)
        for _ in range(NUM_CORRECTIONS):
            there = inside(point + curvature.newton_move(oracle.gradient(point), hidden), oracle)
            lower = oracle.loss(there)
            if not lower < loss:
                break
            point, loss = there, lower
        return point, loss

    try:
        bottom, base = floor(evaluation.point)
        rounding = 4 * scatter(bottom, base, oracle, bottom.abs()) + 10 * eps**2 * fallen

        def noise(*losses: float) -> float:
            return rounding + 2 * eps * max(map(abs, losses))

        for index in flats:
            flat = curvature.move(curvature.vectors[:, index], way)
            flat = flat / max((flat.abs() / way).max().item(), TINY)  # a part of 1 is all its way

            def along(part: float, flat: Tensor = flat) -> float:
                return floor(bottom + part * flat)[1]

            if _falls(along, base, noise, eps):
                return True
    except BudgetSpent:
        pass
    return False


def _falls(along: Callable[[float], float], base: float, noise: Callable[..., float], eps: float) -> bool:
    """Whether the loss, by parts of the way along a direction, falls to the vertex of a parabola as one does; or, where
    the floor bends before, a part of the way there.
    """
    for reach in (eps**REACH, *REACHES):
        ahead, behind = along(reach), along(-reach)
        if max(abs(ahead - base), abs(behind - base)) <= noise(base, ahead, behind):
            continue
        slope, bend = (ahead - behind) / (2 * reach), (ahead - base + behind - base) / reach**2
        part = -slope / bend if bend > 0 else (reach if ahead < behind else -reach)
        part = max(-1.0, min(part, 1.0))
        if not abs(part) > eps**0.25:
            return False
        while True:
            lower, half, quarter = along(part), along(part / 2), along(part / 4)
            fall = base - lower
            if fall > noise(base, lower) and base - half > 0.4 * fall and base - quarter > 0.15 * fall:
                return True
            if abs(part) <= reach:
                return False
            part = math.copysign(max(abs(part) / NEARER, reach), part)
    return False
