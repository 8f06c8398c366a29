"""How many problems each solver solves, and at which cost.

Performance profiles: E. D. Dolan and J. J. Moré, Benchmarking optimization software with performance profiles, Math.
Program. 91 (2002). Data profiles, and what counts as solved: J. J. Moré and S. M. Wild, Benchmarking derivative-free
optimization algorithms, SIAM J. Optim. 20 (2009); theirs count simplex gradients, these what the costs count.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from gradopt.comparison.groups import Group, Problem
from gradopt.comparison.looks import Looks, bare, plain
from gradopt.comparison.records import Record
from gradopt.plurals import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Costs = Mapping[str, numpy.ndarray]
"""By solver, shape (cases,): what it took to solve each; infinity where it did not."""

MOST_MARKERS = 15


class Cases(NamedTuple):
    """Problems (with their seeds) that the same solvers have run on.

    Attributes:
        problems: How many problems they are.
        left_out: Solvers that have run on too few of them, and on how many of all.
    """

    number: int
    problems: int
    costs: Costs
    left_out: Mapping[str, int]


def ratios(costs: Costs) -> dict[str, numpy.ndarray]:
    """The cost of each case over that of its cheapest solver: what a performance profile counts."""
    cheapest = numpy.min(list(costs.values()), axis=0)
    cheapest = numpy.where(numpy.isinf(cheapest), 1.0, cheapest)  # solved by nobody: every ratio is infinite
    return {solver: cost / cheapest for solver, cost in costs.items()}


def shares(values: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The finite values in order, and the share of all that is no higher: the steps of a profile."""
    reached = numpy.sort(values[numpy.isfinite(values)])
    return reached, numpy.arange(1, len(reached) + 1) / len(values)


def common(groups: Sequence[Group]) -> Cases | None:
    """The costs, in evaluations, of the solvers on the cases they share; None with fewer than two of either.

    A case is a problem, or each seed of it. Where solvers have not all run on the same ones, those are left out that
    share so few that most is lost by keeping them.
    """
    runs: dict[str, dict[tuple[str, Any], Record]] = defaultdict(dict)
    problems: dict[str, Problem] = {}
    for group in groups:
        problems[group.problem.name] = group.problem
        taken = [record for record in group.records if not record.refused]
        for record in sorted(taken, key=lambda record: str(record.result.get("started", ""))):
            runs[group.solver][group.problem.name, record.seed] = record  # of the same runs the newest
    kept, shared = _companions({solver: set(its) for solver, its in runs.items()})
    if len(kept) < 2 or len(shared) < 2:
        return None
    cases = sorted(shared, key=str)
    costs = {solver: numpy.array([problems[case[0]].cost(runs[solver][case]) for case in cases]) for solver in kept}
    best = sorted(kept, key=lambda solver: -int(numpy.isfinite(costs[solver]).sum()))
    return Cases(
        len(cases),
        len({name for name, _ in cases}),
        {solver: costs[solver] for solver in best},
        {solver: len(its) for solver, its in runs.items() if solver not in kept},
    )


def foremost(costs: Costs, most: int) -> Costs:
    """Of many solvers those to draw, in their order: who is the cheapest most often, and who solves most. Ratios are to
    be taken of these alone, so that whoever is the measure of others is seen.
    """
    relative = ratios(costs)
    first = {solver: int((values == 1.0).sum()) for solver, values in relative.items()}
    solved = {solver: int(numpy.isfinite(values).sum()) for solver, values in costs.items()}
    kept = sorted(costs, key=lambda solver: (-first[solver], -solved[solver]))[:most]
    return {solver: values for solver, values in costs.items() if solver in kept}


def _companions(cases: dict[str, set[tuple[str, Any]]]) -> tuple[list[str], set[tuple[str, Any]]]:
    """Solvers, and the cases they share, of which there are the most together: of those who join each solver in the
    order of what they share with it.
    """
    best: tuple[list[str], set[tuple[str, Any]]] = ([], set())
    for solver, its in cases.items():
        kept, shared = [solver], its
        for other in sorted(cases, key=lambda name: -len(its & cases[name])):
            if other == solver:
                continue
            kept, shared = [*kept, other], shared & cases[other]
            if len(shared) > 1 and len(kept) * len(shared) > len(best[0]) * len(best[1]):
                best = kept, shared
    return best


def picture(costs: Costs, looks: Looks, title: str, cost: str) -> "Figure":
    """A performance profile and a data profile, side by side, of the solvers that have looks.

    Args:
        cost: What the costs count.
    """
    from matplotlib.figure import Figure  # an optional package, and slow to import

    solved = {solver: int(numpy.isfinite(values).sum()) for solver, values in costs.items()}
    finite = numpy.concatenate([values[numpy.isfinite(values)] for values in costs.values()])
    relative = ratios(costs)
    worst = max((values[numpy.isfinite(values)].max(initial=1.0) for values in relative.values()), default=1.0)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    times = max(2.0, 1.3 * worst)
    span = max(1.0, 0.8 * finite.min(initial=math.inf)), 1.3 * finite.max(initial=1.0)
    for axes, values, (begin, end) in ((left, relative, (1.0, times)), (right, costs, span)):
        for solver, look in looks.items():
            reached, share = shares(values[solver])
            x, y = [begin, *reached, max([end, *reached])], [0.0, *share, *(share[-1:] if len(share) else [0.0])]
            marked = slice(1, len(x) - 1, 1 + len(reached) // MOST_MARKERS)
            axes.step(x, y, where="post", label=f"{solver}: {solved[solver]}", markevery=marked, **look)
        axes.set(xscale="log", xlim=(begin, end), ylim=(0, 1.03))
        plain(axes.xaxis)
        bare(axes)
    left.set(
        xlabel="cost / that of the cheapest solver",
        ylabel=f"share of {counted(len(next(iter(costs.values()))), 'case')} solved",
    )
    right.set(xlabel=f"cost: {cost}")
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, handlelength=3.5)
    figure.suptitle(title)
    return figure
