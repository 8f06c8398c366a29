"""Where many starts ended: over the contours for two unknowns, else their losses in order."""

from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.pictures.figures import GREY, KINDS, figure, keys, logarithmic, png, shortened
from gradopt.pictures.landscape import Scene, contours
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
    if ends.shape[1] == 2:
        return _over_contours(results, scene, found, shown, minima, seconds)
    return _in_order(results, scene, found, shown)


def _over_contours(
    results: Results, scene: Scene, found: Tensor, shown: Tensor, minima: Tensor, seconds: float
) -> bytes:
    drawing, axes = figure(height=5.4)
    contours(drawing, axes, scene, torch.cat([scene.path[shown], minima]), seconds)
    for kind, (colour, marker, label) in enumerate(_kinds(results, found)):
        those = scene.path[shown][_is_kind(found[shown], kind)]
        axes.plot(
            *those.T.numpy(), marker, color=colour, markeredgecolor="white", markersize=6, linestyle="none", label=label
        )
        if kind < min(len(minima), len(KINDS) - 1):
            axes.plot(
                *minima[kind].numpy(), marker, color=colour, markeredgecolor="black", markersize=13, markeredgewidth=1.6
            )
    others = scene.path[shown][found[shown] < 0]
    _rest(axes, others[:, 0].numpy(), others[:, 1].numpy(), results, found)
    keys(axes)
    return png(drawing)


def _in_order(results: Results, scene: Scene, found: Tensor, shown: Tensor) -> bytes:
    drawing, axes = figure(height=4.6)
    losses = torch.as_tensor(results.fun).double().cpu()
    order = losses.nan_to_num(nan=torch.inf).argsort()[shown]
    rank, heights = numpy.arange(1, len(losses) + 1)[shown.numpy()], losses[order].numpy()
    heights = numpy.where(numpy.isfinite(heights), heights, numpy.nan)
    kind_of = found[order]
    for kind, (colour, marker, label) in enumerate(_kinds(results, found)):
        those = _is_kind(kind_of, kind).numpy()
        axes.plot(rank[those], heights[those], marker, color=colour, markersize=6, linestyle="none", label=label)
    rest = (kind_of < 0).numpy()
    _rest(axes, rank[rest], heights[rest], results, found)
    finite = heights[numpy.isfinite(heights)]
    if len(finite) and finite.min() > 0 and finite.max() > 100 * finite.min():
        logarithmic(axes)
    axes.set_xlabel(f"starts, in the order of their losses ({len(losses)}, {scene.path.shape[1]} unknowns)")
    axes.set_ylabel("loss at the end")
    keys(axes)
    drawing.suptitle(shortened(scene.title), fontsize=10)
    return png(drawing)


def _found(ends: Tensor, minima: Tensor, success: Tensor) -> Tensor:
    """Of each start the place of the minimum it ended at, -1 where it ended at none."""
    if not len(minima):
        return torch.full((len(ends),), -1)
    nearest = torch.cat([torch.cdist(part, minima).argmin(1) for part in ends.split(10_000)])
    return torch.where(success, nearest, -1)


def _kinds(results: Results, found: Tensor) -> list[tuple[str, str, str]]:
    """(colour, marker, label) of the minima that are told apart: the lowest ones, and all others together."""
    number = len(results.minima)
    told = []
    for kind in range(min(number, len(KINDS))):
        visits = int(_is_kind(found, kind).sum())
        name = f"loss {results.minima[kind]['fun']:.4g}"
        if kind == len(KINDS) - 1 and number > len(KINDS):
            name = f"{number - kind} other minima"
        told.append((*KINDS[kind], f"{name}: {visits} start{'s' * (visits != 1)}"))
    return told


def _is_kind(found: Tensor, kind: int) -> Tensor:
    return found >= kind if kind == len(KINDS) - 1 else found == kind


def _rest(axes: Any, x: Any, y: Any, results: Results, found: Tensor) -> None:
    number = int((found < 0).sum())
    if number:
        counts = [f"{count} {status.value}" for status, count in results.counts.items() if not status.success]
        label = f"no minimum: {', '.join(counts)}"
        axes.plot(x, y, "x", color=GREY, markersize=6, markeredgewidth=1.6, linestyle="none", label=label)
