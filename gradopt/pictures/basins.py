"""Where many starts ended: on the curve of one unknown, over the contours of two, else their losses in order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.pictures.figures import BLACK, KINDS, figure, keys, logarithmic, png
from gradopt.pictures.landscape import SPREAD, Scene, contours, curve
from gradopt.pictures.scale import Scale, scale
from gradopt.plurals import counted
from gradopt.result import Result, Results

MAX_SHOWN = 2000
"""Starts that are drawn; of more, evenly chosen ones."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Where starts ended, as a picture sees them.

    Attributes:
        losses: Of each where it ended, shape (starts,), float64.
        basin: Of each the place of its minimum, shape (starts,); -1 where it ended at none.
        minima: The points of the minima, lowest first, shape (minima, n).
        told: The loss of each minimum, for people.
        rest: How those ended that found no minimum.
    """

    losses: Tensor
    basin: Tensor
    minima: Tensor
    told: Sequence[str]
    rest: str = ""


def of_starts(results: Results, minima: Tensor) -> Ends:
    """The ends of many starts."""
    rest = ", ".join(f"{count} {status.value}" for status, count in results.counts.items() if not status.success)
    losses, told = results.fun.double().cpu(), _told(results.minima, results.best_start, results.fun.dtype)
    return Ends(losses, results.basin.cpu(), minima, told, rest)


def of_searches(result: Result, minima: Tensor, dtype: torch.dtype) -> Ends:
    """The ends of the local searches of one run that ended at a minimum; see `begins`."""
    visits = torch.tensor([len(one["x0"]) if "x0" in one else 0 for one in result.minima])
    losses = torch.tensor([one["fun"] for one in result.minima], dtype=torch.float64)
    basin = torch.arange(len(visits)).repeat_interleave(visits)
    return Ends(losses[basin], basin, minima, _told(result.minima, result, dtype))


def begins(result: Result) -> Tensor | None:
    """Where the local searches of one run began, in the order of their minima, shape (searches, n); None without."""
    found = [one["x0"] for one in result.minima if "x0" in one]
    return torch.cat(found) if found else None


def basins(ends: Ends, scene: Scene, seconds: float) -> bytes:
    """A PNG file.

    Args:
        scene: Its path holds the points of the starts.

    Raises:
        Unaffordable: Evaluating the loss would take longer than `seconds`.
    """
    shown = torch.linspace(0, len(ends.basin) - 1, min(MAX_SHOWN, len(ends.basin))).long()
    if len(scene.best) in (1, 2):
        return _over_the_loss(ends, scene, shown, seconds)
    return _in_order(ends, scene, shown)


def _over_the_loss(ends: Ends, scene: Scene, shown: Tensor, seconds: float) -> bytes:
    """The starts where they began, on a curve or over contours, and large marks for the minima."""
    starts, found, minima = scene.path[shown], ends.basin[shown], ends.minima
    drawing, axes = figure(height=5.4)
    around = torch.cat([starts, minima])
    if len(scene.best) == 1:
        across, up = curve(axes, scene, around, seconds)

        def places(points: Tensor) -> tuple[Any, Any]:
            losses = scene.losses(points) if len(points) else points[:, 0]
            return across.shown(points[:, 0]), up.shown(losses)
    else:
        across, up = contours(drawing, axes, scene, around, seconds)

        def places(points: Tensor) -> tuple[Any, Any]:
            return across.shown(points[:, 0]), up.shown(points[:, 1])

    kinds = _kinds(ends)
    for kind, (colour, marker, label) in enumerate(kinds):
        those = starts[_is_kind(found, kind)]
        style = {"color": colour, "markeredgecolor": "white", "markersize": 9 if marker == "*" else 7}
        axes.plot(*places(those), marker, linestyle="none", label=label, **style)
    _rest(axes, *places(starts[found < 0]), ends)
    for (colour, marker, _), minimum in zip(kinds, minima[: len(KINDS) - 1], strict=False):
        style = {"color": colour, "markeredgecolor": BLACK, "markersize": 13, "markeredgewidth": 1.6}
        axes.plot(*places(minimum.unsqueeze(0)), marker, **style)
    keys(axes)
    return png(drawing)


def _in_order(ends: Ends, scene: Scene, shown: Tensor) -> bytes:
    """The losses at the end in ascending order."""
    drawing, axes = figure(height=4.6)
    losses = ends.losses
    order = losses.nan_to_num(nan=torch.inf).argsort()[shown]
    rank, heights = numpy.arange(1, len(losses) + 1)[shown.numpy()], losses[order].numpy()
    finite = heights[numpy.isfinite(heights)]
    up = scale(finite)
    if len(finite) and finite.min() > 0 and finite.max() > SPREAD * finite.min():
        up = Scale()
        logarithmic(axes)
    heights = up.shown(heights)
    kind_of = ends.basin[order]
    for kind, (colour, marker, label) in enumerate(_kinds(ends)):
        those = _is_kind(kind_of, kind).numpy()
        axes.plot(rank[those], heights[those], marker, color=colour, markersize=6, linestyle="none", label=label)
    rest = (kind_of < 0).numpy()
    _rest(axes, rank[rest], heights[rest], ends)
    axes.set_xlabel(f"starts, in the order of their losses ({len(losses)}, {scene.path.shape[1]} unknowns)")
    axes.set_ylabel(up.label("loss at the end"))
    keys(axes)
    drawing.suptitle(scene.heading, fontsize=10)
    return png(drawing)


def _kinds(ends: Ends) -> list[tuple[str, str, str]]:
    """(colour, marker, label) of the minima that are told apart: the lowest ones, and all others together."""
    number, told = len(ends.minima), []
    for kind in range(min(number, len(KINDS))):
        visits = int(_is_kind(ends.basin, kind).sum())
        name = f"loss {ends.told[kind]}"
        if kind == len(KINDS) - 1 and number > len(KINDS):
            name = f"{number - kind} other minima"
        told.append((*KINDS[kind], f"{name}: {counted(visits, 'start')}"))
    return told


def _told(minima: Sequence[Mapping[str, Any]], best: Result, dtype: torch.dtype) -> list[str]:
    """Of each minimum its loss. Those that differ by less than the verdicts can tell share one: by what the gradient's
    tolerance is of the fall from the start, or by rounding. Of losses that 0 is among, it is 0.
    """
    losses = [float(one["fun"]) for one in minima]
    begin = float(best.history["loss"][0]) if "loss" in best.history else math.nan
    told: list[str] = []
    while len(told) < len(losses):
        lowest = losses[len(told)]
        fall = begin - lowest if math.isfinite(begin) else 0.0
        rounding = 10 * torch.finfo(dtype).eps * abs(lowest)
        unsure = max(best.verdict.evidence.get("tolerance", 0.0) * fall, rounding)
        number = sum(lowest <= loss <= lowest + unsure for loss in losses[len(told) :])
        shown = f"{0.0 if abs(lowest) <= unsure else lowest:.4g} ± {unsure:.0e}"
        told += [shown] * number if number > 1 else [f"{lowest:.4g}"]
    return told


def _is_kind(found: Tensor, kind: int) -> Tensor:
    return found >= kind if kind == len(KINDS) - 1 else found == kind


def _rest(axes: Any, x: Any, y: Any, ends: Ends) -> None:
    if ends.rest:
        style = {"color": BLACK, "markeredgecolor": "white", "markersize": 8, "markeredgewidth": 0.8}
        axes.plot(x, y, "X", linestyle="none", label=f"no minimum: {ends.rest}", **style)
