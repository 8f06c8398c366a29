"""Whether a stationary point is a maximum."""

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle
from gradopt.stationarity.curvature import TINY, Curvature
from gradopt.stationarity.falls import REACH, inside, is_lower, mixtures


def is_peak(evaluation: Evaluation, oracle: Oracle, curvature: Curvature, suspects: Tensor, way: Tensor) -> bool:
    """Whether no direction rises, and the loss is lower on both sides along each that is flat: a maximum. Curvature
    that is negative a hair beside an inflection makes none.

    Args:
        suspects: A mask of unknowns whose curvature has become faint: if there are any, none is believed.
        way: How far each unknown may reach; looked at as by `fall`.
    """
    if not curvature.never_rises:
        return False
    lines = [(curvature.move(vector, way), False) for vector in curvature.vectors[:, ~curvature.is_curved].T]
    lines += [(move, False) for move in mixtures(curvature, way)]
    if bool(suspects.any()):
        lines += [(curvature.move(vector, way), True) for vector in curvature.vectors[:, curvature.is_curved].T]
    try:
        return all(_falls(evaluation, oracle, line, way, hidden=curved) for line, curved in lines)
    except BudgetSpent:
        return False


def _falls(evaluation: Evaluation, oracle: Oracle, line: Tensor, way: Tensor, *, hidden: bool) -> bool:
    """Whether the loss falls on both sides along a line, by more than rounding; or `hidden`, where nothing shows."""
    point, loss, eps = evaluation.point, evaluation.loss, torch.finfo(way.dtype).eps
    longest = max((line.abs() / way).max().item(), TINY)
    for part in (eps**0.25, eps**REACH):
        lower = True
        for sign in (part, -part):
            there = inside(point + sign / longest * line, oracle)
            beside, slope = oracle.loss(there), (evaluation.gradient @ (there - point)).item()
            if is_lower(loss, beside, slope, 0.0, eps):
                return False
            lower &= torch.equal(there, point) or is_lower(beside, loss, slope, 0.0, eps)
        if lower:
            return True
    return hidden
