"""The ground of a loss: 0, as a sum of hinges or of squares is wherever every term is met, and never less."""

import itertools
import math

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle
from gradopt.stationarity.falls import inside

WALL = (0.1, 0.2, 0.4)
"""Parts of the way from the edge of the ground back to the start, at which the loss is asked how it rises."""

RESOLVED = 1e3
"""How many times the least loss above 0 that of the first part must be; and more than the square of what it rises by
from one part to the next. An exponential that underflows, or that rounds to 0 beside a constant, rises as much from its
edge to the first part as from there to the second.
"""

NUM_ALONE = 20
"""Unknowns that are asked one by one; more of them in as many groups."""

NUM_AROUND = 8
"""Points around at which the loss must not be negative."""


def is_ground(evaluation: Evaluation, oracle: Oracle, origin: Tensor, way: Tensor) -> bool:
    """Whether the loss is 0, or eps^2 of what it was, and the lowest there is, for all that can be seen: it came down
    from a positive one along walls of finite order, and is negative nowhere around. There no curvature and no rise need
    show a minimum.

    A dead unit has such a wall, too, but no loss of 0; and a tail has no edge, but where its loss underflows or rounds
    to 0, and there it rises faster than any power.

    Args:
        origin: Where the run began, shape (n,).
        way: How far each unknown may reach; the points around are as far off.
    """
    point, number = evaluation.point, torch.finfo(evaluation.point.dtype)
    moved = (point != origin).nonzero().flatten()
    if evaluation.loss < 0 or not len(moved):
        return False
    ways = [origin - point]  # back to the start: of all together, and of each alone
    for some in moved.tensor_split(min(NUM_ALONE, len(moved))) if len(moved) > 1 else ():
        ways.append(torch.zeros_like(point).index_put((some,), ways[0][some]))
    try:
        first = oracle.loss(origin)
        if not max(number.tiny / number.eps, evaluation.loss / number.eps**2) < first < math.inf:
            return False
        for back in ways:
            if not _has_wall(back, evaluation, oracle):
                return False
        signs = torch.randint(0, 2, (NUM_AROUND, len(way)), generator=torch.Generator().manual_seed(3)) * 2 - 1
        return not any(oracle.loss(inside(point + row * way, oracle)) < 0 for row in signs.to(way))
    except BudgetSpent:
        return False


def _has_wall(back: Tensor, evaluation: Evaluation, oracle: Oracle) -> bool:
    """Whether the loss, on a way back, rises along a wall of finite order; or not at all."""
    level = 2 * evaluation.loss  # up to which it has not risen

    def loss(part: float) -> float:
        return oracle.loss(inside(evaluation.point + part * back, oracle))

    if all(0 <= loss(part) <= RESOLVED * level for part in (1.0, 0.5, 0.25)):
        return True
    edge, ground, least, eps = 1.0, 0.0, loss(1.0), torch.finfo(back.dtype).eps
    while edge - ground > eps * max(edge, eps):
        middle = (edge + ground) / 2
        height = loss(middle)
        if not height >= 0:
            return False
        edge, ground, least = (middle, ground, height) if height > level else (edge, middle, least)
    wall = [loss(edge + part * (1 - edge)) for part in WALL]
    if not (least > 0 and min(wall) > level and wall[0] >= RESOLVED * least):
        return False
    steepest = max(math.log(high / low) for low, high in itertools.pairwise(wall))
    return math.log(wall[0] / least) >= 2 * steepest
