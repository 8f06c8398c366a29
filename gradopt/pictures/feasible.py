"""Where the constraints of a run are kept: their boundaries, and hatched what lies outside."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.pictures.figures import BLACK

STYLES: Sequence[tuple[Any, str]] = (
    *(("-", "//"), ("-.", "\\\\"), (":", "xx")),
    *(((0, (6, 2)), ".."), ((0, (3, 1, 1, 1)), "++"), ((0, (1, 3)), "oo")),
)
"""(line, hatch) of constraints that are told apart; further ones share the last."""

FADED = (1.0, 1.0, 1.0, 0.5)
"""Laid over what is not feasible: hatches are to be seen on dark and on light ground."""

HATCH = "#4d4d4d"

MAX_LINES = 8
"""Boundaries of one equality constraint of many entries that are drawn."""


@dataclass(frozen=True, slots=True)
class Feasible:
    """The constraints of a run as a picture sees them: lower <= values <= upper, entry by entry.

    Attributes:
        values: Evaluates points of shape (points, n), and returns (points, m).
        lower, upper: Shape (m,).
        names: Of the constraint that each entry belongs to.
    """

    values: Callable[[Tensor], Tensor]
    lower: Tensor
    upper: Tensor
    names: Sequence[str]

    def kept(self, values: Tensor, here: Tensor) -> Tensor:
        """Whether inequalities are kept, and equalities at the other side of their limit than `here`, shape (m,)."""
        across = (values - self.lower) * (here - self.lower) <= 0
        return torch.where(self.lower == self.upper, across, (values >= self.lower) & (values <= self.upper))


@dataclass(frozen=True, slots=True)
class _Constraint:
    """One constraint at many points.

    Attributes:
        missed: By how much its inequalities are missed at most, negative where they are kept; shape (points,).
        lines: Of each equality in it, by how much it is missed.
    """

    label: str
    missed: Any
    lines: Sequence[Any]


def over_contours(axes: Any, x: Any, y: Any, grid: Tensor, feasible: Feasible) -> None:
    """Draw the constraints over contours of two unknowns.

    Args:
        x, y: Of the grid, as they stand on the axes.
        grid: Its points, shape (len(x) len(y), 2), y changing first.
    """
    for (line, hatch), one in _drawn(feasible, grid):
        inequality = one.missed.reshape(len(x), len(y)).T
        if numpy.nanmax(inequality, initial=-1.0) > 0:
            outside = axes.contourf(x, y, inequality, levels=[0.0, 2.0], colors=[FADED], hatches=[hatch])
            outside.set(edgecolor=HATCH, linewidth=0.0, hatch_linewidth=0.7)  # the colour is that of the hatches
            style = {"facecolor": "white", "edgecolor": BLACK, "hatch": hatch, "linestyle": line}
            axes.fill_between([], [], label=f"outside {one.label}", **style)
            _boundary(axes, x, y, inequality, line)
        label: str | None = one.label
        for equality in one.lines:
            _boundary(axes, x, y, equality.reshape(len(x), len(y)).T, line)
            axes.plot([], [], color=BLACK, linestyle=line, linewidth=2.0, label=label)
            label = None


def over_curve(axes: Any, x: Any, points: Tensor, feasible: Feasible) -> None:
    """Draw the constraints on a line of points, which lie at `x` on the axis."""
    for (line, hatch), one in _drawn(feasible, points):
        if numpy.nanmax(one.missed, initial=-1.0) > 0:
            axes.fill_between(
                x, 0, 1, where=one.missed > 0, transform=axes.get_xaxis_transform(), facecolor="none",
                edgecolor="#b0b0b0", linewidth=0.0, hatch=hatch, label=f"outside {one.label}", zorder=0.5,
            )  # fmt: skip
        label: str | None = one.label
        for equality in one.lines:
            for place in numpy.nonzero(numpy.diff(numpy.sign(equality)))[0]:
                left, right = equality[place], equality[place + 1]
                where = x[place] + (x[place + 1] - x[place]) * left / (left - right)
                axes.axvline(where, color=BLACK, linestyle=line, linewidth=1.6, label=label)
                label = None


def _drawn(feasible: Feasible, points: Tensor) -> Iterator[tuple[tuple[Any, str], _Constraint]]:
    """The constraints with the style of each."""
    values, names = feasible.values(points), numpy.asarray(feasible.names)
    for index, name in enumerate(dict.fromkeys(feasible.names)):
        mine = numpy.nonzero(names == name)[0]
        style = STYLES[min(index, len(STYLES) - 1)]
        yield style, _seen(name, values[:, mine].numpy(), feasible.lower[mine].numpy(), feasible.upper[mine].numpy())


def _seen(name: str, values: Any, lower: Any, upper: Any) -> _Constraint:
    equal = lower == upper
    with numpy.errstate(invalid="ignore"):
        excess = numpy.maximum(values - upper, lower - values)[:, ~equal]
        missed = excess.max(1, initial=-numpy.inf) if excess.shape[1] else numpy.full(len(values), numpy.nan)
    lines = [_scaled(values[:, one] - lower[one]) for one in numpy.nonzero(equal)[0][:MAX_LINES]]
    return _Constraint(_label(name, lower, upper), _scaled(missed), lines)


def _scaled(values: Any) -> Any:
    """Numbers from -1 to 1 with the same zeros; NaN where they are not finite."""
    values = numpy.where(numpy.isfinite(values), values, numpy.nan)
    size = numpy.nanmax(numpy.abs(values), initial=0.0)
    return values / size if size > 0 else values


def _label(name: str, lower: Any, upper: Any) -> str:
    """Such as 0 <= c <= 1; the name alone where limits differ from entry to entry."""
    if (lower != lower[0]).any() or (upper != upper[0]).any():
        return name
    if lower[0] == upper[0]:
        return f"{name} = {lower[0]:.4g}"
    below = f"{lower[0]:.4g} <= " if numpy.isfinite(lower[0]) else ""
    above = f" <= {upper[0]:.4g}" if numpy.isfinite(upper[0]) else ""
    return f"{name} >= {lower[0]:.4g}" if below and not above else f"{below}{name}{above}"


def _boundary(axes: Any, x: Any, y: Any, missed: Any, line: Any) -> None:
    """Where it is zero, on a white ground."""
    if numpy.nanmin(missed, initial=1.0) < 0 < numpy.nanmax(missed, initial=-1.0):
        axes.contour(x, y, missed, levels=[0.0], colors="white", linewidths=3.6)
        axes.contour(x, y, missed, levels=[0.0], colors=BLACK, linewidths=1.8, linestyles=[line])
