"""Where many starts ended: on the curve of one unknown, over the contours of two, else their losses in order."""

import math
from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.pictures.figures import BLACK, KINDS, figure, keys, logarithmic, png
from gradopt.pictures.landscape import SPREAD, Scene, contours, curve
from gradopt.pictures.scale import Scale, scale
from gradopt.result import Results

MAX_SHOWN = 2000
"""Starts that are drawn; of more, evenly chosen ones."""


def basins(results: Results, scene: Scene, ends: Tensor, minima: Tensor, seconds: float) -> bytes:
    """A PNG file.

    Args:
        scene: Its path holds the points of the starts.
        ends: The points of the results, shape (starts, n).
        minima: The points of the minima found, lowest first, shape (minima, n).

    Raises:
        Unaffordable: Evaluating the loss would take longer than `seconds`.
    """
    found = _found(ends, minima, torch.as_tensor(results.success).cpu())
    shown = torch.linspace(0, len(ends) - 1, min(MAX_SHOWN, len(ends))).long()
    if ends.shape[1] in (1, 2):
        return _over_the_loss(results, scene, found, shown, minima, seconds)
    return _in_order(results, scene, found, shown)


def _over_the_loss(
    results: Results, scene: Scene, found: Tensor, shown: Tensor, minima: Tensor, seconds: float
) -> bytes:
    """The starts where they began, on a curve or over contours, and large marks for the minima."""
    starts, drawing, axes = scene.path[shown], *figure(height=5.4)
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

    kinds = _kinds(results, found)
    for kind, (colour, marker, label) in enumerate(kinds):
        those = starts[_is_kind(found[shown], kind)]
        style = {"color": colour, "markeredgecolor": "white", "markersize": 9 if marker == "*" else 7}
        axes.plot(*places(those), marker, linestyle="none", label=label, **style)
    _rest(axes, *places(starts[found[shown] < 0]), results, found)
    for (colour, marker, _), minimum in zip(kinds, minima[: len(KINDS) - 1], strict=False):
        style = {"color": colour, "markeredgecolor": BLACK, "markersize": 13, "markeredgewidth": 1.6}
        axes.plot(*places(minimum.unsqueeze(0)), marker, **style)
    keys(axes)
    return png(drawing)


def _in_order(results: Results, scene: Scene, found: Tensor, shown: Tensor) -> bytes:
    drawing, axes = figure(height=4.6)
    losses = torch.as_tensor(results.fun).double().cpu()
    order = losses.nan_to_num(nan=torch.inf).argsort()[shown]
    rank, heights = numpy.arange(1, len(losses) + 1)[shown.numpy()], losses[order].numpy()
    finite = heights[numpy.isfinite(heights)]
    up = scale(finite)
    if len(finite) and finite.min() > 0 and finite.max() > SPREAD * finite.min():
        up = Scale()
        logarithmic(axes)
    heights = up.shown(heights)
    kind_of = found[order]
    for kind, (colour, marker, label) in enumerate(_kinds(results, found)):
        those = _is_kind(kind_of, kind).numpy()
        axes.plot(rank[those], heights[those], marker, color=colour, markersize=6, linestyle="none", label=label)
    rest = (kind_of < 0).numpy()
    _rest(axes, rank[rest], heights[rest], results, found)
    axes.set_xlabel(f"starts, in the order of their losses ({len(losses)}, {scene.path.shape[1]} unknowns)")
    axes.set_ylabel(up.label("loss at the end"))
    keys(axes)
    drawing.suptitle(scene.heading, fontsize=10)
    return png(drawing)


def _found(ends: Tensor, minima: Tensor, success: Tensor) -> Tensor:
    """Of each start the place of the minimum it ended at, -1 where it ended at none."""
    if not len(minima):
        return torch.full((len(ends),), -1)
    nearest = torch.cat([torch.cdist(part, minima).argmin(1) for part in ends.split(10_000)])
    return torch.where(success, nearest, -1)


def _kinds(results: Results, found: Tensor) -> list[tuple[str, str, str]]:
    """(colour, marker, label) of the minima that are told apart: the lowest ones, and all others together."""
    number, told = len(results.minima), []
    losses = _told(results)
    for kind in range(min(number, len(KINDS))):
        visits = int(_is_kind(found, kind).sum())
        name = f"loss {losses[kind]}"
        if kind == len(KINDS) - 1 and number > len(KINDS):
            name = f"{number - kind} other minima"
        told.append((*KINDS[kind], f"{name}: {visits} start{'s' * (visits != 1)}"))
    return told


def _told(results: Results) -> list[str]:
    """Of each minimum its loss. Those that differ by less than the verdicts can tell share one: by what the gradient's
    tolerance is of the fall from the start, or by rounding. Of losses that 0 is among, it is 0.
    """
    losses = [float(one["fun"]) for one in results.minima]
    begin = float(results.history["loss"][0]) if "loss" in results.history else math.nan
    told: list[str] = []
    while len(told) < len(losses):
        lowest = losses[len(told)]
        fall = begin - lowest if math.isfinite(begin) else 0.0
        rounding = 10 * torch.finfo(results.fun.dtype).eps * abs(lowest)
        unsure = max(results.best_start.verdict.evidence.get("tolerance", 0.0) * fall, rounding)
        number = sum(lowest <= loss <= lowest + unsure for loss in losses[len(told) :])
        shown = f"{0.0 if abs(lowest) <= unsure else lowest:.4g} ± {unsure:.0e}"
        told += [shown] * number if number > 1 else [f"{lowest:.4g}"]
    return told


def _is_kind(found: Tensor, kind: int) -> Tensor:
    return found >= kind if kind == len(KINDS) - 1 else found == kind


def _rest(axes: Any, x: Any, y: Any, results: Results, found: Tensor) -> None:
    number = int((found < 0).sum())
    if number:
        counts = [f"{count} {status.value}" for status, count in results.counts.items() if not status.success]
        label = f"no minimum: {', '.join(counts)}"
        style = {"color": BLACK, "markeredgecolor": "white", "markersize": 8, "markeredgewidth": 0.8}
        axes.plot(x, y, "X", linestyle="none", label=label, **style)
