"""How lines look: told apart by colour, by line style and by marker, so in black and white and by everybody."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito (2008), without the yellow, which is too light for lines."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
Looks = Mapping[str, Mapping[str, Any]]
"""By name, options of matplotlib's lines."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")


def looks(names: Iterable[str]) -> Looks:
    """One for each name; no two of the first 385 are the same."""
    return {
        name: {
            "color": COLOURS[place % len(COLOURS)],
            "linestyle": STYLES[place % len(STYLES)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.6,
        }
        for place, name in enumerate(names)
    }


def sparse(place: int, number: int = 8) -> tuple[float, float]:
    """Where the markers of a line go, in shares of the picture: beside those of the other lines."""
    return (0.015 + 0.02 * (place % 5), 1 / number)


def plain(axis: Any) -> None:
    """Whole numbers, at least two and in one size of font, along a logarithmic axis whose limits are set.

    They stand at 1, 2 and 5 times powers of ten; where fewer than two of these are in between, at even distances; along
    many decades at powers of ten, which from five decades on are written as such.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter  # optional, and slow to import

    begin, end = axis.get_view_interval()
    axis.set_minor_formatter(NullFormatter())
    if end >= 1e5 * begin:
        return
    decades = range(math.floor(math.log10(begin)), math.ceil(math.log10(end)) + 1)
    if sum(begin <= part * 10.0**decade <= end for decade in decades for part in (1, 2, 5)) < 2:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if end < max(1e3, 100 * begin) else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))


def bare(axes: Any) -> None:
    """Light grid, no frame on the right and above."""
    axes.grid(which="major", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
