"""The loss round the path of a run: a curve, contours, or a slice.

What is evaluated for it lies inside the bounds, takes no longer than a time, and comes after the run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.pictures.figures import BLACK, BLUE, GREY, ORANGE, RED, figure, keys, logarithmic, png, shortened

MAX_CURVE = 300
MAX_GRID = 60
"""Points of a curve, and of a side of the grid under contours, where the time allows as many."""

MIN_CURVE, MIN_GRID = 30, 15
"""Fewer would show what is not there."""

MAX_PATH = 400
"""Points of the path over contours: its first ones, then fewer and fewer."""

PADDING = 0.25
"""Share of the path's extent that is shown beyond it."""

NEAR = 4.0
"""Bounds that enclose no more than so many times the path's extent are shown whole."""

LEVELS = 14
MARKS = (
    ("start", {"marker": "o", "color": "white", "markeredgecolor": BLACK, "markersize": 8}),
    ("result", {"marker": "*", "color": ORANGE, "markeredgecolor": BLACK, "markersize": 14}),
)
"""(name, how it is drawn)."""

FEW = 32
"""Points by which the time of one is measured, where they take next to nothing."""

QUICK = 0.5
"""Share of the time that measuring it may take."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A run as a landscape sees it.

    Attributes:
        losses: Evaluates points of shape (points, n) inside the bounds.
        path: Points of the run in order, shape (points, n), float64; the first is the start.
        best: The result's point, shape (n,).
        bounds: (lower, upper), shape (n,) each; None without any.
        names: Of the unknowns, one for each entry.
    """

    losses: Callable[[Tensor], Tensor]
    path: Tensor
    best: Tensor
    bounds: tuple[Tensor, Tensor] | None
    names: Sequence[str]
    title: str


class Unaffordable(Exception):
    """The loss takes too long for a picture; the message says how long."""


def landscape(scene: Scene, seconds: float) -> bytes:
    """A PNG file.

    Args:
        seconds: That evaluating the loss may take.

    Raises:
        Unaffordable: It would take longer.
    """
    draw = {1: _curve, 2: _contours}.get(len(scene.best), _slice)
    return draw(scene, seconds)


def _curve(scene: Scene, seconds: float) -> bytes:
    number = _affordable(scene, seconds / 2, MAX_CURVE, MIN_CURVE)
    path = _thinned(scene.path, number)
    low, high = _extent(path, scene)
    x = torch.linspace(low[0].item(), high[0].item(), number, dtype=torch.float64)
    y = scene.losses(x.unsqueeze(1)).numpy()
    heights = scene.losses(path).numpy()
    drawing, axes = figure()
    axes.plot(x, _finite(y), color=BLUE, linewidth=1.5, label="loss")
    axes.plot(path[:, 0], _finite(heights), ".:", color=BLACK, linewidth=0.8, markersize=5, label="steps")
    best = scene.losses(scene.best.unsqueeze(0)).item()
    for place, loss, (name, mark) in ((path[0, 0], heights[0], MARKS[0]), (scene.best[0], best, MARKS[1])):
        axes.plot(place, loss, linestyle="none", label=name, **mark)
    if scene.bounds is not None:
        _walls(axes, [bound[0].item() for bound in scene.bounds], low[0].item(), high[0].item())
    axes.set_xlabel(scene.names[0])
    axes.set_ylabel("loss")
    keys(axes, 5)
    drawing.suptitle(shortened(scene.title), fontsize=10)
    return png(drawing)


def _walls(axes: Any, bounds: Sequence[float], low: float, high: float) -> None:
    """Bounds of one unknown, hatched on the side that is not allowed."""
    width = (high - low) or 1.0
    label = "outside the bounds"
    for bound, outwards in zip(bounds, (-1, 1), strict=True):
        if low - width / 100 <= bound <= high + width / 100:
            axes.axvspan(
                bound, bound + outwards * width / 20, facecolor="none", edgecolor=GREY, hatch="///", label=label
            )
            label = None


def _contours(scene: Scene, seconds: float) -> bytes:
    path = _thinned(scene.path, MAX_PATH)
    drawing, axes = figure(height=5.0)
    contours(drawing, axes, scene, path, seconds)
    axes.plot(path[:, 0], path[:, 1], "-", color="white", linewidth=3.2)
    axes.plot(path[:, 0], path[:, 1], ".-", color=RED, linewidth=1.4, markersize=5, label="steps")
    for point, (name, mark) in ((path[0], MARKS[0]), (scene.best, MARKS[1])):
        axes.plot(*point.numpy(), linestyle="none", label=name, **mark)
    keys(axes, 4)
    return png(drawing)


def contours(drawing: Any, axes: Any, scene: Scene, points: Tensor, seconds: float) -> None:
    """Draw the loss of two unknowns round some points, darker where it is lower, and the bounds.

    Raises:
        Unaffordable: It would take longer.
    """
    low, high = _extent(points, scene)
    side = _affordable(scene, seconds, MAX_GRID**2, MIN_GRID**2)
    number = int(side**0.5)
    x, y = (torch.linspace(low[i].item(), high[i].item(), number, dtype=torch.float64) for i in (0, 1))
    grid = torch.cartesian_prod(x, y)
    z = numpy.ma.masked_invalid(scene.losses(grid).reshape(number, number).T.numpy())
    levels = _levels(z)
    if len(levels) > 1:
        from matplotlib.colors import BoundaryNorm  # here: it takes long to import

        shades = BoundaryNorm(levels, 256, extend="both")  # as many for each step between levels
        filled = axes.contourf(x, y, z, levels=levels, cmap="cividis", norm=shades, extend="both")
        axes.contour(x, y, z, levels=levels, colors="white", linewidths=0.4)
        bar = drawing.colorbar(filled, ax=axes, format=lambda value, _: f"{value:.3g}", pad=0.02)
        bar.set_label("loss")
        bar.ax.tick_params(labelsize=8)
    axes.grid(visible=False)
    if scene.bounds is not None:
        _box(axes, scene.bounds, low, high)
    axes.set_xlabel(scene.names[0])
    axes.set_ylabel(scene.names[1])
    drawing.suptitle(shortened(scene.title), fontsize=10)


def _box(axes: Any, bounds: tuple[Tensor, Tensor], low: Tensor, high: Tensor) -> None:
    """Bounds of two unknowns as dashed lines, where they are to be seen."""
    lower, upper = bounds
    room = 0.04 * (high - low)
    first, last = (low - room * (low <= lower)).tolist(), (high + room * (high >= upper)).tolist()
    axes.set_xlim(first[0], last[0])
    axes.set_ylim(first[1], last[1])
    label = "bounds"
    for unknown, line in enumerate((axes.axvline, axes.axhline)):
        for bound in (lower[unknown].item(), upper[unknown].item()):
            if first[unknown] <= bound <= last[unknown]:
                line(bound, color=BLACK, linestyle="--", linewidth=1.4, label=label)
                label = None


def _slice(scene: Scene, seconds: float) -> bytes:
    """The loss along the line from the start through the result."""
    start, way = scene.path[0], scene.best - scene.path[0]
    if not bool(way.any()):
        raise Unaffordable("the start is the result: there is no line through both")
    shares = torch.linspace(*_inside(scene, start, way), _affordable(scene, seconds, MAX_CURVE, MIN_CURVE)).double()
    points = start + shares.unsqueeze(1) * way
    ends = torch.stack([start, scene.best])
    if scene.bounds is not None:
        points, ends = points.clamp(*scene.bounds), ends.clamp(*scene.bounds)
    y, (first, last) = _finite(scene.losses(points).numpy()), scene.losses(ends).tolist()
    drawing, axes = figure()
    axes.plot(shares, y, color=BLUE, linewidth=1.5, label="loss")
    floor = -numpy.inf
    if numpy.nanmin(y, initial=numpy.inf) > 0 and last > 0 and numpy.nanmax(y) > 100 * last:
        logarithmic(axes)
        floor = numpy.nanmin(y) / 10  # a minimum of 1e-20 would leave no room for anything else
        axes.set_ylim(bottom=floor / 2)
    for x, loss, (name, mark) in ((0.0, first, MARKS[0]), (1.0, last, MARKS[1])):
        axes.plot(x, max(loss, floor), linestyle="none", label=f"{name}, loss {loss:.4g}", **mark)
    axes.set_xlabel(f"from the start (0) to the result (1), {way.norm().item():.4g} apart, {len(start)} unknowns")
    axes.set_ylabel("loss")
    keys(axes, 3)
    drawing.suptitle(shortened(scene.title), fontsize=10)
    return png(drawing)


def _inside(scene: Scene, start: Tensor, way: Tensor) -> tuple[float, float]:
    """The part of the line that is shown: a little beyond both ends, as far as the bounds allow."""
    first, last = -PADDING, 1 + PADDING
    if scene.bounds is None:
        return first, last
    moving = way != 0
    sides = torch.stack([(bound - start)[moving] / way[moving] for bound in scene.bounds])
    return max(first, sides.amin(0).amax().item()), min(last, sides.amax(0).amin().item())


def _extent(points: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
    """(lower, upper) of what is shown: the points and the result with room round them, or all of near bounds."""
    seen = torch.cat([points, scene.best.unsqueeze(0)])
    seen = seen[seen.isfinite().all(1)]
    low, high = seen.amin(0), seen.amax(0)
    width = high - low
    least = torch.maximum(0.05 * width.max(), 1e-3 * torch.maximum(low.abs(), high.abs()))
    width = torch.maximum(width, torch.where(least > 0, least, torch.ones_like(least)))
    low, high = low - PADDING * width, high + PADDING * width
    if scene.bounds is None:
        return low, high
    lower, upper = scene.bounds
    whole = (upper - lower) <= NEAR * width
    return torch.where(whole, lower, low.clamp(lower, upper)), torch.where(whole, upper, high.clamp(lower, upper))


def _affordable(scene: Scene, seconds: float, most: int, least: int) -> int:
    """How many points can be evaluated in a time.

    Raises:
        Unaffordable: Fewer than `least`.
    """
    taken = _pace(scene, 1)  # the first evaluation may have to prepare something
    for several in (1, FEW):
        if taken * several < QUICK * seconds:
            taken = _pace(scene, several)
    number = min(most, int(seconds / max(taken, 1e-9)))
    if number < least:
        raise Unaffordable(f"{least} evaluations of {taken:.2g} s would take longer than {seconds:g} s")
    return number


def _pace(scene: Scene, number: int) -> float:
    """Seconds for each of some points that are evaluated together."""
    began = time.perf_counter()
    scene.losses(scene.path[:1].expand(number, -1))
    return (time.perf_counter() - began) / number


def _levels(z: Any) -> Sequence[float]:
    """Levels of the loss that share out the area, closer where it is low; ascending, none twice."""
    values = z.compressed()
    if not len(values):
        return ()
    return numpy.unique(numpy.quantile(values, numpy.linspace(0.01, 0.98, LEVELS) ** 1.5)).tolist()


def _thinned(path: Tensor, most: int) -> Tensor:
    if len(path) <= most:
        return path
    chosen = numpy.unique(numpy.geomspace(1, len(path), most).round().astype(int)) - 1
    return path[torch.from_numpy(chosen)]


def _finite(values: Any) -> Any:
    """What is not finite leaves a gap in a curve."""
    return numpy.where(numpy.isfinite(values), values, numpy.nan)
