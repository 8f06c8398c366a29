"""The loss round the path of a run: a curve, contours, or a slice, of the unknowns that equal bounds do not fix.

What is evaluated for it lies inside the bounds, takes no longer than a time, and comes after the run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.pictures.feasible import Feasible, over_contours, over_curve
from gradopt.pictures.figures import BLACK, BLUE, GREY, ORANGE, RED, figure, keys, logarithmic, png, shortened
from gradopt.pictures.levels import levels
from gradopt.pictures.scale import Scale, scale

MAX_CURVE = 500
MAX_GRID = 160
"""Points of a curve, and of a side of the grid under contours, where the time allows as many."""

MIN_CURVE, MIN_GRID = 30, 15
"""Fewer would show what is not there."""

MAX_PATH = 400
"""Points of the path over contours: its first ones, then fewer and fewer."""

PADDING = 0.25
"""Share of the path's extent that is shown beyond it."""

NEAR = 4.0
"""Bounds that enclose no more than so many times the path's extent are shown whole, and any that is as near as that is
wide.
"""

AROUND = 41**2
"""Points at which it is looked for where missed constraints are kept, up to so many times the path's extent."""

BEYOND = 1.5
"""How far it is shown, the nearest place being 1."""

NARROW = 0.05
"""Of the extent of the unknown that moved most, what is shown of one that moved less at least; but it covers as much of
its own axis, for the other may have larger units.
"""

STILL = 1e-7
"""Of its size: an unknown that has moved less is shown as if it had not: as far as the one that moved most, or with a
thousandth of its size round it.
"""

LARGEST = 1e300
"""Of an unknown, so that room round it is a number still."""

SPREAD = 100.0
"""Ratio of losses on a slice from which on their axis is logarithmic."""

CROWDED = 60.0
"""Levels that a line across the grid meets, from which on they are not drawn themselves: they would hide the shades."""

MARKS: Sequence[Any] = (
    {"marker": "o", "color": "white", "markeredgecolor": BLACK, "markersize": 7},
    {"marker": "*", "color": ORANGE, "markeredgecolor": BLACK, "markersize": 15},
)
"""How start and result are drawn."""

RIGHT, LETTER, SHORT = 0.97, 0.012, 5
"""Shares of the width: where the colours end, and a letter beside them; the number of letters there is room for."""

FEW_FIXED = 3
"""Unknowns that are fixed and named above the picture."""

SEVERAL = (4, 32, 256, 1024)
"""Points by which the time of one is measured, where they take next to nothing."""

CHOSEN = 1 / 3
"""Share of the time that more points than the least may take."""

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
        feasible: The constraints; None without any.
        fixed: What the unknowns that are left out are, for people.
        end: What the result's point is called.
    """

    losses: Callable[[Tensor], Tensor]
    path: Tensor
    best: Tensor
    bounds: tuple[Tensor, Tensor] | None
    names: Sequence[str]
    title: str
    feasible: Feasible | None = None
    fixed: str = ""
    end: str = "result"

    @property
    def heading(self) -> str:
        """What stands above the picture."""
        return shortened(f"{self.title}; {self.fixed}" if self.fixed else self.title)


class Unaffordable(Exception):
    """There is no picture: the loss takes too long for it, or there is nothing to see; the message says which."""


def free(bounds: tuple[Tensor, Tensor] | None, number: int) -> Tensor:
    """Which unknowns are not fixed by equal bounds: a mask of shape (n,)."""
    return torch.ones(number, dtype=torch.bool) if bounds is None else bounds[0] != bounds[1]


def of_free(scene: Scene) -> Scene:
    """The scene without the unknowns that equal bounds fix.

    Raises:
        Unaffordable: No other is left.
    """
    mask = free(scene.bounds, len(scene.best))
    if bool(mask.all()) or scene.bounds is None:
        return scene
    if not bool(mask.any()):
        raise Unaffordable("the bounds fix every unknown")
    held = scene.bounds[0]

    def whole(points: Tensor) -> Tensor:
        full = held.repeat(len(points), 1)
        full[:, mask] = points
        return full

    feasible, fixed = scene.feasible, (~mask).nonzero().flatten().tolist()
    if feasible is not None:
        values = feasible.values
        feasible = replace(feasible, values=lambda points: values(whole(points)))
    told = ", ".join(f"{scene.names[one]} = {held[one].item():.6g}" for one in fixed)
    return Scene(
        lambda points: scene.losses(whole(points)),
        scene.path[:, mask],
        scene.best[mask],
        (scene.bounds[0][mask], scene.bounds[1][mask]),
        [name for name, one in zip(scene.names, mask.tolist(), strict=True) if one],
        scene.title,
        feasible,
        told if len(fixed) <= FEW_FIXED else f"{len(fixed)} unknowns fixed by their bounds",
        scene.end,
    )


def landscape(scene: Scene, seconds: float) -> bytes:
    """A PNG file.

    Args:
        seconds: That evaluating the loss may take.

    Raises:
        Unaffordable: It would take longer.
    """
    scene = of_free(scene)
    draw = {1: _curve, 2: _contours}.get(len(scene.best), _slice)
    return draw(scene, seconds)


def _curve(scene: Scene, seconds: float) -> bytes:
    path = _thinned(scene.path, _affordable(scene, seconds / 2, MAX_CURVE, MIN_CURVE))
    drawing, axes = figure()
    across, up = curve(axes, scene, path, seconds)
    x, y = across.shown(path[:, 0]), up.shown(scene.losses(path))
    axes.plot(x, y, ".:", color=BLACK, linewidth=0.8, markersize=5, label="steps")
    best = across.shown(scene.best), up.shown(scene.losses(scene.best.unsqueeze(0)))
    _ends(axes, (x[:1], y[:1]), best, ("start", scene.end))
    keys(axes, 5 if scene.feasible is None else 3)
    return png(drawing)


def curve(axes: Any, scene: Scene, points: Tensor, seconds: float) -> tuple[Scale, Scale]:
    """Draw the loss of one unknown round some points, and the bounds.

    Returns:
        The scales of both axes.

    Raises:
        Unaffordable: It would take longer.
    """
    number = _affordable(scene, seconds / 2, MAX_CURVE, MIN_CURVE)
    low, high = (side.item() for side in _extent(points, scene, seconds))
    grid = torch.linspace(low, high, number, dtype=torch.float64).unsqueeze(1)
    losses = scene.losses(grid)
    across, up = scale([low, high]), scale(torch.cat([losses, scene.losses(scene.best.unsqueeze(0))]))
    x = across.shown(grid[:, 0])
    axes.plot(x, up.shown(losses), color=BLUE, linewidth=1.5, label="loss")
    if scene.feasible is not None:
        over_curve(axes, x, grid, scene.feasible)
    if scene.bounds is not None:
        _walls(axes, across.shown([bound.item() for bound in scene.bounds]), x[0], x[-1])
    axes.set_xlabel(across.label(scene.names[0]))
    axes.set_ylabel(up.label("loss"))
    axes.figure.suptitle(scene.heading, fontsize=10)
    return across, up


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


def _ends(axes: Any, start: Sequence[Any], best: Sequence[Any], labels: Sequence[str]) -> None:
    """Mark start and result, the start above: its circle leaves the tips of a star behind it to be seen. The star has a
    white rim, which keeps it apart from hatches.
    """
    axes.plot(*best, MARKS[1]["marker"], color="white", markersize=20, linestyle="none", zorder=3.9)
    for point, label, mark, layer in zip((start, best), labels, MARKS, (5, 4), strict=True):
        axes.plot(*point, linestyle="none", label=label, zorder=layer, **mark)


def _contours(scene: Scene, seconds: float) -> bytes:
    path = _thinned(scene.path, MAX_PATH)
    drawing, axes = figure(height=5.0)
    scales = contours(drawing, axes, scene, path, seconds)
    x, y = (one.shown(path[:, place]) for place, one in enumerate(scales))
    axes.plot(x, y, "-", color="white", linewidth=3.2)
    axes.plot(x, y, ".-", color=RED, linewidth=1.4, markersize=5, label="steps")
    end = [one.shown(scene.best[[place]]) for place, one in enumerate(scales)]
    _ends(axes, (x[:1], y[:1]), end, ("start", scene.end))
    keys(axes, 4 if scene.feasible is None else 3)
    return png(drawing)


def contours(drawing: Any, axes: Any, scene: Scene, points: Tensor, seconds: float) -> tuple[Scale, Scale]:
    """Draw the loss of two unknowns round some points, darker where it is lower, the bounds and the constraints.

    Returns:
        The scales of both axes.

    Raises:
        Unaffordable: It would take longer.
    """
    low, high = _extent(points, scene, seconds)
    number = int(_affordable(scene, seconds, MAX_GRID**2, MIN_GRID**2) ** 0.5)
    sides = [torch.linspace(low[i].item(), high[i].item(), number, dtype=torch.float64) for i in (0, 1)]
    scales = across, up = scale(sides[0]), scale(sides[1])
    x, y = (one.shown(side) for one, side in zip(scales, sides, strict=True))
    grid = torch.cartesian_prod(*sides)
    losses, best = scene.losses(grid).reshape(number, number).T.numpy(), scene.losses(scene.best.unsqueeze(0)).item()
    _shades(drawing, axes, x, y, losses, best)
    axes.grid(visible=False)
    if scene.feasible is not None:
        over_contours(axes, x, y, grid, scene.feasible)
    if scene.bounds is not None:
        _box(axes, [one.shown(torch.stack([*pair])) for one, *pair in zip(scales, *scene.bounds, strict=True)], x, y)
    axes.set_xlabel(across.label(scene.names[0]))
    axes.set_ylabel(up.label(scene.names[1]))
    drawing.suptitle(scene.heading, fontsize=10)
    return across, up


def _shades(drawing: Any, axes: Any, x: Any, y: Any, losses: Any, best: float) -> None:
    """Fill the area between levels of the loss, and say what they are."""
    found = levels(losses, best)
    if found is None:
        return
    from matplotlib.colors import BoundaryNorm  # here: it takes long to import

    shown = numpy.ma.masked_invalid(found.scale.shown(losses))
    norm = BoundaryNorm(found.shown, 256, extend="both")  # as many shades for each step between levels
    filled = axes.contourf(x, y, shown, levels=found.shown, cmap="cividis", norm=norm, extend="both")
    if found.crossed(losses) < CROWDED:
        axes.contour(x, y, shown, levels=found.shown, colors="white", linewidths=0.4, linestyles="solid")
    bar = drawing.colorbar(filled, ax=axes, ticks=found.shown, pad=0.02)
    bar.ax.set_yticklabels(found.told)
    bar.ax.minorticks_off()
    bar.set_label(found.label)
    bar.ax.tick_params(labelsize=8)
    longest = max(map(len, found.told))
    drawing.subplots_adjust(right=RIGHT - LETTER * max(0, longest - SHORT))


def _box(axes: Any, bounds: Sequence[Any], x: Any, y: Any) -> None:
    """Bounds of two unknowns as dashed lines, where they are to be seen."""
    label = "bounds"
    limits = (axes.set_xlim, axes.set_ylim)
    for (lower, upper), side, limit, line in zip(bounds, (x, y), limits, (axes.axvline, axes.axhline), strict=True):
        room = 0.04 * (side[-1] - side[0])
        first, last = side[0] - room * (side[0] <= lower), side[-1] + room * (side[-1] >= upper)
        limit(first, last)
        for bound in (lower, upper):
            if first <= bound <= last:
                line(bound, color=BLACK, linestyle="--", linewidth=1.4, label=label)
                label = None


def _slice(scene: Scene, seconds: float) -> bytes:
    """The loss along the line from the start through the result."""
    start, way = scene.path[0], scene.best - scene.path[0]
    if not bool(way.any()):
        raise Unaffordable("the start is the result: there is no line through both")
    shares = _shares(*_inside(scene, start, way), _affordable(scene, seconds, MAX_CURVE, MIN_CURVE))
    points = start + shares.unsqueeze(1) * way
    points[shares == 1] = scene.best
    if scene.bounds is not None:
        points = points.clamp(*scene.bounds)
    losses = scene.losses(points)
    first, last = losses[shares == 0], losses[shares == 1]
    drawing, axes = figure()
    up = scale(losses)
    lowest, highest = losses[losses.isfinite()].aminmax() if bool(losses.isfinite().any()) else (last, last)
    if lowest > 0 and highest > SPREAD * last:
        up = Scale()
        logarithmic(axes)
    axes.plot(shares, up.shown(losses), color=BLUE, linewidth=1.5, label="loss")
    if scene.feasible is not None:
        over_curve(axes, shares.numpy(), points, scene.feasible)
    labels = [f"{name}, loss {loss.item():.4g}" for name, loss in (("start", first), (scene.end, last))]
    _ends(axes, ([0.0], up.shown(first)), ([1.0], up.shown(last)), labels)
    axes.set_xlabel(f"from the start (0) to the {scene.end} (1), {way.norm().item():.4g} apart, {len(start)} unknowns")
    axes.set_ylabel(up.label("loss"))
    keys(axes, 3)
    drawing.suptitle(scene.heading, fontsize=10)
    return png(drawing)


def _shares(first: float, last: float, number: int) -> Tensor:
    """Places on the line, with both ends and close round the result: a logarithmic axis shows how the loss falls to it,
    and that may be within a millionth of the way.
    """
    near = torch.logspace(-9, -2, number // 10, dtype=torch.float64)
    even = torch.linspace(first, last, number - 2 * len(near) - 2, dtype=torch.float64)
    places = torch.cat([even, torch.tensor([0.0, 1.0], dtype=torch.float64), 1 - near, 1 + near])
    return places[(places >= first) & (places <= last) | (places == 0) | (places == 1)].unique()


def _inside(scene: Scene, start: Tensor, way: Tensor) -> tuple[float, float]:
    """The part of the line that is shown: a little beyond both ends, as far as the bounds allow."""
    first, last = -PADDING, 1 + PADDING
    if scene.bounds is None:
        return first, last
    moving = way != 0
    sides = torch.stack([(bound - start)[moving] / way[moving] for bound in scene.bounds])
    return max(first, sides.amin(0).amax().item()), min(last, sides.amax(0).amin().item())


def _extent(points: Tensor, scene: Scene, seconds: float) -> tuple[Tensor, Tensor]:
    """(lower, upper) of what is shown: the points and the result with room round them, with near bounds and limits."""
    seen = torch.cat([points, scene.best.unsqueeze(0)])
    seen = seen[seen.isfinite().all(1)].clamp(-LARGEST, LARGEST)
    low, high = seen.amin(0), seen.amax(0)
    width, size = high - low, torch.maximum(low.abs(), high.abs())
    moved = width > STILL * size
    least = torch.where(moved, (NARROW * width.max()).minimum(width / NARROW), width.max().maximum(1e-3 * size))
    width = torch.maximum(width, torch.where(least > 0, least, torch.ones_like(least)))
    room = torch.where(moved, PADDING, 0.5 + PADDING) * width
    low, high = low - room, high + room
    if scene.bounds is not None:
        lower, upper = scene.bounds
        whole = (upper - lower) <= NEAR * width
        low, high = (
            torch.where(whole | (away <= width), bound, side.clamp(lower, upper))
            for bound, side, away in ((lower, low, low - lower), (upper, high, upper - high))
        )
    return (low, high) if scene.feasible is None else _with_missed(scene, scene.feasible, low, high, seconds)


def _with_missed(scene: Scene, feasible: Feasible, low: Tensor, high: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
    """Limits far enough to show where what the result misses is kept, if that is near."""
    here = feasible.values(scene.best.unsqueeze(0))
    missed = ~feasible.kept(here, here)[0]
    if not bool(missed.any()):
        return low, high
    lower, upper = scene.bounds or (torch.full_like(low, -torch.inf), torch.full_like(low, torch.inf))
    room = (NEAR - 1) / 2 * (high - low)
    around = _grid(
        (low - room).maximum(lower), (high + room).minimum(upper), _affordable(scene, seconds, AROUND, MIN_GRID**2)
    )
    kept = feasible.kept(feasible.values(around), here)
    for entry in missed.nonzero().flatten():
        there = around[kept[:, entry]]
        if len(there) and not bool(((there >= low) & (there <= high)).all(1).any()):
            nearest = there[((there - scene.best) / (high - low)).norm(dim=1).argmin()]
            beyond = (scene.best + BEYOND * (nearest - scene.best)).clamp(lower, upper)
            low, high = low.minimum(beyond), high.maximum(beyond)
    return low, high


def _grid(low: Tensor, high: Tensor, number: int) -> Tensor:
    """About so many points of one or two unknowns, shape (points, n)."""
    each = round(number ** (1 / len(low)))
    sides = [torch.linspace(*ends, each, dtype=torch.float64) for ends in zip(low.tolist(), high.tolist(), strict=True)]
    return torch.cartesian_prod(*sides).reshape(-1, len(low))


def _affordable(scene: Scene, seconds: float, most: int, least: int) -> int:
    """How many points can be evaluated in a time.

    Raises:
        Unaffordable: Fewer than `least`.
    """
    taken = min(_pace(scene, 1), _pace(scene, 1))  # the first evaluation may have to prepare something
    for several in SEVERAL:  # step by step, for many together may take hardly longer than one
        if taken * several < QUICK * seconds:
            taken = min(taken, _pace(scene, several))
    if least * taken > seconds:
        raise Unaffordable(f"{least} evaluations of {taken:.2g} s would take longer than {seconds:g} s")
    return min(most, max(least, int(CHOSEN * seconds / max(taken, 1e-9))))


def _pace(scene: Scene, number: int) -> float:
    """Seconds for each of some points that are evaluated together."""
    began = time.perf_counter()
    points = scene.path[:1].expand(number, -1)
    scene.losses(points)
    if scene.feasible is not None:
        scene.feasible.values(points)
    return (time.perf_counter() - began) / number


def _thinned(path: Tensor, most: int) -> Tensor:
    if len(path) <= most:
        return path
    chosen = numpy.unique(numpy.geomspace(1, len(path), most).round().astype(int)) - 1
    return path[torch.from_numpy(chosen)]
