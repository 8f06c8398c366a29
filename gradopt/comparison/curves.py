"""How the loss falls with the evaluations: a picture for each problem, a band where there are seeds."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy

from gradopt.comparison.groups import HIGH, LOW, MIDDLE, Group, Problem
from gradopt.comparison.labels import shortened
from gradopt.comparison.looks import Looks, bare, plain, sparse
from gradopt.comparison.records import NO_GOAL, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 400
MOST_SOLVERS = 10
MOST_PROBLEMS = 12
COLUMNS = 3
DECADES = 24
"""Decades of loss that are drawn below the start; nearer to the minimum than that is as good as on it."""

PANEL = (3.7, 3.2)
"""Inches of one of many panels."""

LETTER = 0.0085
"""Inches that a letter is wide at most, on average, for each point of its font."""

ASIDE = 26
"""Letters of a legend that stands beside the panels; a longer one, or a higher one than they are, stands below."""


def drawable(groups: Sequence[Group]) -> dict[Problem, list[Group]]:
    """By problem the groups that have histories, in their order; the best of many."""
    found: dict[Problem, list[Group]] = {}
    for group in groups:
        if traces(group) and not math.isnan(group.problem.lowest):
            found.setdefault(group.problem, []).append(group)
    return {problem: its[:MOST_SOLVERS] for problem, its in found.items()}


def traces(group: Group) -> list[Trace]:
    """Of the runs whose loss is a measure for others."""
    found = [record.trace for record in group.records if record.status not in NO_GOAL]
    return [trace for trace in found if trace is not None and math.isfinite(trace.loss[-1])]


class Spreads(NamedTuple):
    """Of one problem, on a logarithmic axis.

    Attributes:
        by_solver: The values of a column, and there 10 %, median and 90 % of what `scale` says, shape (3, values).
        floor: Where the axis ends, below the smallest positive value. What is zero, as the lowest loss is above itself,
            stands lower still.
    """

    by_solver: dict[str, tuple[numpy.ndarray, numpy.ndarray]]
    floor: float


def spreads(problem: Problem, groups: Sequence[Group], column: str) -> Spreads:
    """How the losses of groups fell along a column: `evaluations`, `step` or `seconds`."""
    zero, _ = scale(problem)
    found: dict[str, tuple[numpy.ndarray, numpy.ndarray]] = {}
    for group in groups:
        its = traces(group)
        first = min(getattr(trace, column)[0] for trace in its)
        last = max(getattr(trace, column)[-1] for trace in its)
        places = numpy.geomspace(max(1.0, first), max(2.0, last), POINTS).round()
        places = numpy.unique([first, *places])
        found[group.solver] = places, bands(its, column, places) - zero
    above = numpy.concatenate([values[values > 0] for _, values in found.values()])
    highest = above.max(initial=0.0) or 1.0
    floor = max(above.min(initial=highest) / 2, highest * 10.0**-DECADES)
    return Spreads({solver: (at, numpy.maximum(values, floor / 10)) for solver, (at, values) in found.items()}, floor)


def scale(problem: Problem) -> tuple[float, str]:
    """What is taken from the losses to show them on a logarithmic axis, and what is left."""
    if problem.known:
        return problem.lowest, f"best loss - minimum ({problem.lowest:.6g})" if problem.lowest else "best loss"
    if 0 < problem.lowest < 1e-3 * problem.start:
        return 0.0, "best loss"
    return problem.lowest, f"best loss - lowest found ({problem.lowest:.6g})"


def bands(found: Sequence[Trace], column: str, places: numpy.ndarray) -> numpy.ndarray:
    """10 %, median and 90 % over runs of the best loss at values of a column; shape (3, places). A run that has ended
    keeps its loss; before the first one of all begins it is NaN.
    """
    losses = numpy.stack([trace.at(column, places) for trace in found])
    losses[numpy.isnan(losses)] = numpy.inf  # a run that has not begun is no better than others
    spread = numpy.quantile(losses, (LOW, MIDDLE, HIGH), axis=0, method="inverted_cdf")
    return numpy.where(numpy.isinf(spread), numpy.nan, spread)


def picture(found: Mapping[Problem, Sequence[Group]], looks: Looks) -> "Figure":
    """A panel a problem."""
    from matplotlib.figure import Figure  # an optional package, and slow to import
    from matplotlib.lines import Line2D

    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    width, height = (6.0, 4.8) if len(found) == 1 else (PANEL[0] * columns, PANEL[1] * rows + 0.5)
    drawn = {group.solver: None for its in found.values() for group in its}
    solvers = [solver for solver in looks if solver in drawn]
    legend = _legend(solvers, width, height)
    figure = Figure(figsize=(width + legend.width, height + legend.height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (problem, groups) in zip(panels, found.items(), strict=False):
        _panel(axes, problem, groups, looks)
        axes.set_title(_title(problem.name, width / columns - 0.8), fontsize=9, parse_math=False)
        axes.tick_params(which="both", labelsize=8)
        bare(axes)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(found) - columns) : len(found)]:  # the lowest of each column
        axes.set_xlabel("evaluations", fontsize=9)
    handles = [Line2D([], [], label=label, **looks[name]) for name, label in zip(solvers, legend.labels, strict=True)]
    several = any(len(traces(group)) > 1 for its in found.values() for group in its)
    style: dict[str, Any] = {"frameon": False, "fontsize": 9, "title_fontsize": 9, "handlelength": 3.5}
    meaning = "line: median of the runs\nband: 10-90 %" if several else None
    figure.legend(handles=handles, title=meaning, loc=legend.place, ncols=legend.columns, alignment="left", **style)
    return figure


Place = Literal["outside right upper", "outside lower left"]


class _Legend(NamedTuple):
    """Where it stands, and the inches by which it makes a figure larger."""

    place: Place
    columns: int
    width: float
    height: float
    labels: Sequence[str]


def _legend(solvers: Sequence[str], width: float, height: float) -> _Legend:
    """Of panels that are so wide and high together."""
    line, handle, letter = 0.2, 0.6, 9 * LETTER
    longest = max(map(len, solvers))
    if longest <= ASIDE and len(solvers) * line < height:
        width = max(2.0, handle + longest * letter)  # what a line and a band are stands above
        return _Legend("outside right upper", 1, width, 0.0, solvers)
    fitting = [shortened(solver, int((width - handle) / letter)) for solver in solvers]
    columns = max(1, int(width / (handle + max(map(len, fitting)) * letter)))
    return _Legend("outside lower left", columns, 0.0, math.ceil(len(solvers) / columns) * line + 0.3, fitting)


def _title(name: str, width: float) -> str:
    """On two lines at most, of so many inches. `gradopt compare --csv` has it whole."""
    line = int(width / (9 * LETTER))
    wrapped = (textwrap.wrap(shortened(name, length), line) for length in range(2 * line, line - 1, -1))
    return "\n".join(next(lines for lines in wrapped if len(lines) <= 2))


def _panel(axes: Any, problem: Problem, groups: Sequence[Group], looks: Looks) -> None:
    lines, floor = spreads(problem, groups, "evaluations")
    highest = max(numpy.nanmax(spread) for _, spread in lines.values())
    if highest < floor:
        said = f"no curve: the first loss that counts\nis the lowest, {problem.lowest:.6g}"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", fontsize=9)
        axes.set(xticks=[], yticks=[])
        return
    faint = min(0.18, 0.6 / len(lines))
    for place, (solver, (places, (low, middle, high))) in enumerate(lines.items()):
        look = looks[solver]
        axes.plot(places, middle, drawstyle="steps-post", markevery=sparse(place), **look)
        if not numpy.array_equal(low, high, equal_nan=True):
            axes.fill_between(places, low, high, step="post", color=look["color"], alpha=faint, linewidth=0)
    axes.set(xscale="log", yscale="log", ylim=(floor, 2 * highest))
    plain(axes.xaxis)
    axes.set_ylabel(scale(problem)[1], fontsize=9)
