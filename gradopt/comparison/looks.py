"""How lines look: told apart by colour, by line style and by marker, so in black and white and by everybody."""

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


def plain(axis: Any, ratio: float) -> None:
    """Numbers as they are along a logarithmic axis whose ends have this ratio, where powers of ten would be too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # an optional package, and slow to import

    if ratio < 1e5:
        axis.set_major_locator(LogLocator(subs=(1.0,) if ratio > 500 else (1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def bare(axes: Any) -> None:
    """Light grid, no frame on the right and above."""
    axes.grid(which="major", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
