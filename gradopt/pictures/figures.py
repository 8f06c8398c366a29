"""What all charts share: matplotlib without its windows, and marks that need no colours to be told apart.

matplotlib is an optional package (`gradopt[pictures]`), and imported only when there is something to draw.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

from gradopt.pictures.letters import dejavu, legible
from gradopt.pictures.scale import RAISED, written

BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
"""Of Okabe and Ito's palette, which the colour-blind can tell apart."""

BLACK, GREY = "#222222", "#8a8a8a"
WIDTH, HEIGHT, RESOLUTION = 6.4, 4.2, 110
"""Inches, inches, and pixels an inch."""

KINDS: Sequence[tuple[str, str]] = (
    *((BLUE, "o"), (RED, "s"), (GREEN, "^"), (ORANGE, "D"), (PINK, "v"), (SKY, "P"), (BLACK, "*")),
)
"""(colour, marker) of the members of a family."""


def figure(rows: int = 1, *, height: float = HEIGHT) -> tuple[Any, Any]:
    """A figure and its axes, one below the other."""
    from matplotlib.figure import Figure  # here: it takes a quarter of a second to import

    made = Figure(figsize=(WIDTH, height), dpi=RESOLUTION)
    made.subplots_adjust(left=0.15, right=0.97, bottom=0.5 / height, hspace=0.22)
    axes = made.subplots(rows, 1, sharex=True)
    for one in axes if rows > 1 else [axes]:
        one.grid(visible=True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
        one.tick_params(labelsize=9)
    return made, axes


def logarithmic(axes: Any, axis: str = "y", scale: str = "log", **options: Any) -> None:
    """Make an axis logarithmic. Its labels are plain text: matplotlib's own take longer than the rest of a figure."""
    getattr(axes, f"set_{axis}scale")(scale, **options)
    one = getattr(axes, f"{axis}axis")
    if scale == "symlog":
        one.get_major_locator().set_params(numticks=6)  # all powers would be too many
    one.set_major_formatter(lambda value, _: (written if _is_short(one) else _power)(value))
    one.set_minor_formatter(lambda value, _: written(value) if _is_told(value, one) else "")


def _is_short(axis: Any) -> bool:
    """Whether there may be no two powers of ten on it."""
    low, high = axis.get_view_interval()
    return low > 0 and high < 30 * low


def _is_told(value: float, axis: Any) -> bool:
    """Whether a number between two powers of ten has a label: 2 and 5, on a short axis."""
    return _is_short(axis) and f"{value:e}"[:3] in ("2.0", "5.0")


def _power(value: float) -> str:
    """10⁻³ for 0.001, and 0 for 0."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    power = round(math.log10(abs(value)))
    if not math.isclose(abs(value), 10.0**power, rel_tol=1e-9):
        return f"{value:g}"
    return f"{'-' if value < 0 else ''}10{str(power).translate(RAISED)}"


def png(made: Any) -> bytes:
    """The figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here for the same reason
    from matplotlib.text import Text

    for text in made.findobj(Text):
        text.set_parse_math(False)  # a name with dollars is a name
        if not text.get_text().isascii():
            _make_legible(text)

    file = io.BytesIO()
    FigureCanvasAgg(made).print_png(file)
    return file.getvalue()


def _make_legible(text: Any) -> None:
    """Give a text the font that has its letters."""
    from matplotlib.font_manager import fontManager, get_font  # here for the same reason

    own = dejavu()
    assert own is not None  # it comes with matplotlib
    shown, file = legible(text.get_text(), own)
    text.set_text(shown)
    if file not in ("", own):
        fontManager.addfont(file)
        text.set_fontfamily(["DejaVu Sans", get_font(file).family_name])


def keys(axes: Any, columns: int = 2) -> None:
    """The legend, above the axes, where it hides nothing: room is made below the title or the axes above."""
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        fontsize=8.5,
        frameon=False,
        borderpad=0.2,
        columnspacing=1.2,
        handletextpad=0.5,
    )
    rows = -(-len(legend.get_texts()) // columns)
    if axes.get_subplotspec().is_first_row():
        more = axes.figure.get_suptitle().count("\n")
        axes.figure.subplots_adjust(top=1 - (0.36 + 0.17 * more + 0.2 * rows) / axes.figure.get_figheight())
    else:
        axes.figure.subplots_adjust(hspace=0.1 + 0.12 * rows)


def shortened(text: str, most: int = 90) -> str:
    """The text on one line of a title."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
