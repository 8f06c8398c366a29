"""Levels of a loss on a grid: round numbers, evenly on a plain or a logarithmic scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy

from gradopt.pictures.scale import Scale, less, scale, written

MOST = 14
"""Levels."""

SPREAD = 20.0
"""Ratio of what lies above the lowest loss, on nearly all of the area and on a tenth of it, from which on the scale is
logarithmic.
"""

SIDES = (0.02, 0.1, 0.5, 0.98)
"""Shares of the area: of the lowest losses, of low ones, of half, and of all but the highest."""

FLOOR = 10.0
"""Times the lowest loss: one that is less on half of the area has its lowest taken from it, on a logarithmic scale."""

HIGH = (0.98, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of the area up to whose losses there are levels, ..."""

FAR = 1e5
"""... the first for which the highest level is less than so many times the lowest."""

WHOLE = 0.95
"""Share of what lies below a level that is at least as wide as the grid; else it is none."""

DEEPEST = 1e30
"""Ratio of highest and lowest level."""

MANTISSAS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""Of levels on a logarithmic scale, as many as there is room for."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of a loss.

    Attributes:
        scale: That of the losses.
        shown: As they stand on the scale, ascending.
        told: What is written at each.
        label: What they are levels of.
    """

    scale: Scale
    shown: Any
    told: Sequence[str]
    label: str

    def crossed(self, losses: Any) -> float:
        """How often a line across the grid meets a level, from side to side or upwards, whichever is more often."""
        steps = numpy.digitize(self.scale.shown(losses), self.shown)
        return max((numpy.diff(steps, axis=axis) != 0).sum().item() / steps.shape[1 - axis] for axis in (0, 1))


def levels(losses: Any, best: float) -> Levels | None:
    """The levels of a grid of losses; None where there are no two.

    Args:
        losses: Shape (rows, columns), not all of them finite.
        best: The loss of the result, which may lie between the points.
    """
    finite = losses[numpy.isfinite(losses)]
    if not len(finite) or finite.min() == finite.max():
        return None
    lowest = min(finite.min().item(), best if math.isfinite(best) else math.inf)
    few, low, half, high = (side.item() for side in numpy.quantile(finite, SIDES, method="lower"))
    with numpy.errstate(over="ignore", invalid="ignore"):
        if high - lowest > SPREAD * (low - lowest):
            offset = _offset(lowest, few, half)
            found = _powers(numpy.where(numpy.isfinite(losses), losses - offset, numpy.inf))
            if len(found) > 2:
                one = Scale(offset, less(0.0, found[0], found[-1]).power)
                told = [written(level) for level in found]
                return Levels(one, Scale(power=one.power).shown(found), told, Scale(offset).label("loss"))
    one = scale([lowest, high])
    found = _even(*one.shown([lowest, high]))
    told = [f"{level:g}" for level in found]
    return Levels(one, found, told, one.label("loss")) if len(found) > 1 else None


def _even(low: float, high: float) -> Any:
    """Round numbers at equal distances."""
    from matplotlib.ticker import MaxNLocator  # here: it takes long to import

    found = numpy.asarray(MaxNLocator(MOST, steps=[1, 2, 5, 10]).tick_values(low, high))
    return found[(found > low) & (found <= high)]


def _offset(lowest: float, few: float, half: float) -> float:
    """What is taken from losses on a logarithmic scale: nothing where they are positive and many times the lowest, else
    their lowest, rounded down by less than there is to be seen.
    """
    if lowest >= 0 and half >= FLOOR * lowest:
        return 0.0
    if not few > lowest:
        return lowest
    unit = 10.0 ** (math.floor(math.log10(few - lowest)) - 2)
    if not 0 < unit * 1e12 < math.inf or abs(lowest) >= 1e12 * unit:
        return lowest
    return float(f"{math.floor(lowest / unit) * unit:.12g}")


def _powers(above: Any) -> Any:
    """Round numbers at equal ratios: down to what the grid resolves, and up to where nearly all of the area ends, or
    less of it where they would lie far apart.
    """
    positive = above[(above > 0) & (above < numpy.inf)]
    if not len(positive):
        return positive
    sides = numpy.quantile(positive, HIGH, method="lower")
    lowest = max(positive.min(), sides[0] / DEEPEST)
    squares = _of_squares(above)

    def is_resolved(level: float) -> bool:
        return (squares < level).sum() >= max(1.0, WHOLE * (above < level).sum())

    resolved = list(takewhile(is_resolved, reversed(_round_numbers(lowest, sides[0], MANTISSAS[0]))))
    if not resolved:
        return positive[:0]
    high = next((side for side in sides if side < FAR * resolved[-1]), sides[-1])
    choices = (_round_numbers(resolved[-1], high, mantissas) for mantissas in MANTISSAS)
    found = next((levels for levels in choices if len(levels) <= MOST), None)
    if found is None:
        found = _round_numbers(resolved[-1], high, MANTISSAS[-1])
    return numpy.array(found[:: -(-len(found) // MOST) or 1])


def _round_numbers(low: float, high: float, mantissas: Sequence[float]) -> list[float]:
    """From low to high, ascending."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    every = (float(f"{mantissa}e{power}") for power in powers for mantissa in mantissas)
    return [one for one in every if low <= one <= high]


def _of_squares(values: Any) -> Any:
    """At each point, of the four squares round it, the lowest of their highest corners. A place that is narrower than
    the grid, between whose points it falls apart into islands, is not in it.
    """
    high = numpy.where(numpy.isfinite(values), values, numpy.inf)
    corners = numpy.maximum(high[:-1], high[1:])
    squares = numpy.pad(numpy.maximum(corners[:, :-1], corners[:, 1:]), 1, constant_values=numpy.inf)
    sides = numpy.minimum(squares[:-1], squares[1:])
    return numpy.minimum(sides[:, :-1], sides[:, 1:])
