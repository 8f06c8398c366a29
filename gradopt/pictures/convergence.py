"""The loss of a run over its evaluations, with the gap to the lowest loss known and the gradient on log axes."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy

from gradopt.contracts import tested_gradient
from gradopt.pictures.figures import BLACK, BLUE, GREEN, GREY, ORANGE, RED, figure, keys, logarithmic, png
from gradopt.pictures.scale import Scale, scale
from gradopt.result import Result, Results
from gradopt.verdict import Status

MAX_POINTS = 2000
"""Drawn of a curve, a quarter of them evenly on a logarithmic axis: a run may have a million steps."""

MARKED = 25
"""Points up to which each has a mark of its own."""

TICKS = 6
"""Powers of ten that are labelled on a logarithmic axis of negative losses."""

LARGEST = 1e280
"""Of losses on an axis that is logarithmic on both sides of 0, and of their inverses: its steps must be numbers."""

SPREAD = 100.0
"""Ratio of losses from which on their axis is logarithmic; of evaluations it takes ten times as much."""

DEEPEST = 1e12
"""Ratio of the highest loss and of those that are about 0, on an axis that is logarithmic from some size on."""

WIDE = 85
"""Characters of the title on one line."""

MARKS = {True: (GREEN, "o"), None: (ORANGE, "s"), False: (RED, "X")}
"""Of the verdict: success, used-up budget, failure."""


def convergence(
    result: Result | Results, objective: str, minimum: float | None, tolerance: float = 0.0
) -> bytes | None:
    """A PNG file; None where there are not two points to join.

    Args:
        minimum: The lowest loss there is, if it is known.
        tolerance: A violation of the constraints up to this is none.
    """
    columns = {name: numpy.asarray(column, dtype=float) for name, column in result.history.items()}
    if not columns or len(columns["loss"]) < 2:
        return None
    many = isinstance(result, Results)
    work = columns["step" if many else "evaluations"]  # those of each start are its own
    drawing, (above, below) = figure(2, height=5.4)
    shown = result.best_start if isinstance(result, Results) else result
    losses = _losses(columns, many=many)
    up = _scale(above, numpy.concatenate([values for values, _, _ in losses.values()]))
    for name, (values, colour, line) in losses.items():
        _curve(above, work, up.shown(values), name, colour, line)
    whose = f"start {result.best}, the best, " if isinstance(result, Results) else ""
    _verdict(above, *_end(columns, work, shown, many=many), shown, up, whose)
    above.set_ylabel(up.label("loss"))
    drawing.suptitle("\n".join(textwrap.wrap(objective, WIDE, max_lines=3, placeholder=" …")), fontsize=10)
    keys(above, 1 if many else 3 if len(losses) == 1 else 2)

    gap = None if shown.status is Status.UNBOUNDED else _gap(columns, shown, minimum, tolerance, many=many)
    if gap is not None:
        _curve(below, work, *gap, BLUE, "-")
    gradient = tested_gradient(columns)
    _curve(below, work, _positive(columns[gradient]), _told(gradient, columns, many=many), RED, "--")
    violation = columns.get("violation", numpy.zeros(1))
    if numpy.nanmax(violation, initial=0.0) > 0:
        _curve(below, work, _positive(violation), "violation", BLACK, ":")
    logarithmic(below)
    below.set_xlabel("steps" if many else "evaluations of the loss")
    keys(below, 1 if many else 2)
    if work[-1] > 10 * SPREAD:
        logarithmic(below, "x", "symlog" if many else "log")  # the first step is 0
    else:
        below.xaxis.get_major_locator().set_params(integer=True)
    return png(drawing)


def _losses(columns: Mapping[str, Any], *, many: bool) -> Mapping[str, tuple[Any, str, str]]:
    if many:
        return {
            "best of all starts": (columns["best_loss"], BLUE, "-"),
            "median of those going on": (columns["loss"], GREY, "--"),
        }
    if "full_loss" in columns:
        return {
            "loss of a batch": (columns["loss"], GREY, "-"),
            "loss over all data": (columns["full_loss"], BLUE, "-"),
        }
    return {"loss": (columns["loss"], BLUE, "-")}


def _curve(axes: Any, x: Any, y: Any, name: str, colour: str, line: str) -> None:
    seen = numpy.isfinite(y).nonzero()[0]  # of the loss over all data, the ends of epochs
    if not len(seen):
        return
    if len(seen) > MAX_POINTS:
        shares = numpy.concatenate([numpy.geomspace(1, len(seen), 500), numpy.linspace(1, len(seen), MAX_POINTS - 500)])
        seen = seen[numpy.unique(shares.astype(int)) - 1]
    marker = "." if len(seen) <= MARKED else None
    axes.plot(x[seen], y[seen], line, color=colour, marker=marker, linewidth=1.5, label=name)


def _end(columns: Mapping[str, Any], work: Any, shown: Result, *, many: bool) -> tuple[float, float, bool]:
    """Where the run ended in both directions, and whether at the loss of its result. A last loss that is not finite, or
    not known over all data, gives way to the last one that is; of many starts it is where the best one ended.
    """
    if many:
        row = min(numpy.searchsorted(work, shown.nit).item(), len(work) - 1)
        return work[row].item(), shown.fun, True
    values = columns.get("full_loss", columns["loss"])
    finite = numpy.isfinite(values).nonzero()[0]
    if not len(finite):
        return work[-1].item(), shown.fun, True
    row = finite[-1]
    return work[row].item(), values[row].item(), values[-1].item() == shown.fun


def _verdict(axes: Any, at: float, height: float, at_result: bool, result: Result, up: Scale, whose: str) -> None:
    """Mark the end of the curve, wherever the best point was."""
    colour, marker = MARKS[True if result.success else False if result.status.failure else None]
    if not math.isfinite(height):
        return
    which = "loss" if at_result else "best loss"
    axes.plot(
        at, up.shown(height), marker,
        color=colour, markeredgecolor=BLACK, markersize=9, linestyle="none", zorder=5,
        label=f"{whose}{result.status.value} at step {result.nit}, {which} {result.fun:.6g}",
    )  # fmt: skip


def _scale(axes: Any, values: Any) -> Scale:
    """Make the axis of losses logarithmic, or logarithmic from some size on, or put them on the scale returned."""
    finite = values[numpy.isfinite(values)]
    if not len(finite):
        return Scale()
    low, high = finite.min().item(), finite.max().item()
    if low > 0 and high / low > SPREAD:
        logarithmic(axes)
        return Scale()
    if max(abs(low), abs(high)) < LARGEST:
        spread, median = high - low, numpy.median(finite).item()
        size = max(abs(low), median, spread / DEEPEST)
        if spread > SPREAD * size > 1 / LARGEST:  # falls at once, then little more
            logarithmic(axes, scale="symlog", linthresh=10.0 ** math.ceil(math.log10(size)))
            return Scale()
        if spread > 10 * SPREAD * max(1e-300, high - median):  # falls faster and faster
            nearly = max(1e-300, abs(high), abs(median))
            logarithmic(axes, scale="symlog", linthresh=nearly)
            first, last = math.ceil(math.log10(nearly)), math.floor(math.log10(-low))
            powers = range(last, first, -max(1, -(-(last - first) // TICKS)))
            axes.set_yticks([*(-(10.0**power) for power in powers), 0.0])
            return Scale()
    return scale(finite)


def _gap(
    columns: Mapping[str, Any], shown: Result, minimum: float | None, tolerance: float, *, many: bool
) -> tuple[Any, str] | None:
    """How far the losses are from the known minimum or, where there is none, from what the run has found; and what that
    is called. None where it has found nothing. A known minimum is told from a loss up to its rounding.
    """
    values = columns["best_loss"] if many else columns.get("full_loss", columns["loss"])
    values = numpy.where(numpy.isfinite(values), values, numpy.nan)
    found = None if minimum is None else f"known minimum {minimum:.6g}"
    if "violation" in columns:  # a loss that misses the constraints may be lower than the minimum
        if minimum is None and not (shown.violation is not None and shown.violation <= tolerance):
            return None
        least, found = (shown.fun, "loss of the result") if minimum is None else (minimum, found)
        gaps, name = abs(values - least), f"|loss - {found}|"
    else:
        lowest = numpy.fmin.accumulate(values)
        least = numpy.nanmin([*lowest, shown.fun, math.inf]) if minimum is None else minimum
        gaps, name = lowest - least, f"lowest loss so far - {found or 'lowest of this run'}"
    if minimum is not None:
        gaps = numpy.maximum(gaps, numpy.finfo(float).eps * abs(minimum))
    return _positive(gaps), name + _from_where_on_none(gaps, columns, many=many)


def _told(gradient: str, columns: Mapping[str, Any], *, many: bool) -> str:
    if gradient != "gradient_norm":
        return "largest entry of the Lagrangian's gradient"
    note = " (median of those going on)" if many else " of the loss alone" if "violation" in columns else ""
    return f"largest gradient entry{note}"


def _from_where_on_none(gaps: Any, columns: Mapping[str, Any], *, many: bool) -> str:
    """What is said of a gap that is 0, which a logarithmic axis cannot show, from before the last step on."""
    last = (gaps > 0).nonzero()[0].max(initial=-1)
    if last >= len(gaps) - 2 or gaps[-1] != 0:
        return ""
    what = "step" if many else "evaluation"
    return f" (0 from {what} {columns['step' if many else 'evaluations'][last + 1]:.0f} on)"


def _positive(values: Any) -> Any:
    """What a log axis can show: its margins must be numbers, too."""
    return numpy.where((values > 0) & (values < 1e305), values, numpy.nan)
