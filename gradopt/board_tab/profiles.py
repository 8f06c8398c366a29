"""Performance profiles (Dolan and Moré, 2002) and data profiles (Moré and Wild, 2009) of optimisers over problems.

A run has solved its problem to tolerance t at the first evaluation with f <= f_L + t (f_0 - f_L), where f_0 is the loss
at the start and f_L the lowest that any of the runs has reached.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from gradopt.board_tab.labels import Labels, problem, solver
from gradopt.board_tab.runs import Run, Trace

TOLERANCES = (1e-1, 1e-3, 1e-5, 1e-8)

MOST_SOLVERS = 8
"""Optimisers that are drawn: those with the most runs."""


def profiles(runs: Sequence[Run], labels: Labels) -> dict[str, Any]:
    """Curves of all optimisers by tolerance, each a list of corners (x, share of the problems solved).

    Counted are problems (an objective with a seed) that at least two optimisers were run on; the share is of those of
    them that the optimiser itself was run on, `problems`. Runs of many starts, with constraints, or whose problem has
    no finite lowest loss are not counted.
    """
    table, names = _table(runs, labels)
    solvers = [one for one, _ in Counter(key for traces in table.values() for key in traces).most_common()]
    curves = []
    for one in solvers[:MOST_SOLVERS]:
        own = [traces for traces in table.values() if one in traces]
        by_tolerance = {str(t): _curves([_costs(traces, t) for traces in own], one) for t in TOLERANCES}
        curves.append({"solver": names[one], "problems": len(own), "curves": by_tolerance})
    return {
        "tolerances": [str(tolerance) for tolerance in TOLERANCES],
        "problems": len(table),
        "solvers": curves,
        "left_out": max(0, len(solvers) - MOST_SOLVERS),
    }


def _table(runs: Sequence[Run], labels: Labels) -> tuple[Mapping[str, Mapping[str, Trace]], Mapping[str, str]]:
    """By problem and optimiser the trace of the latest run, and the names of optimisers."""
    table: dict[str, dict[str, Trace]] = {}
    names: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: str(run.result.get("started", ""))):
        trace = run.trace
        if trace is None or trace.is_constrained or not run.config or run.config.get("starts.number") is not None:
            continue
        table.setdefault(problem(run), {})[solver(run)] = trace
        names[solver(run)] = labels.optimiser(run)
    return {key: traces for key, traces in table.items() if len(traces) > 1 and _is_measurable(traces)}, names


def _is_measurable(traces: Mapping[str, Trace]) -> bool:
    return all(math.isfinite(trace.best[0]) for trace in traces.values()) and math.isfinite(_lowest(traces))


def _lowest(traces: Mapping[str, Trace]) -> float:
    return min(float(trace.best[-1]) for trace in traces.values())


def _costs(traces: Mapping[str, Trace], tolerance: float) -> Mapping[str, float]:
    """Evaluations that each optimiser took to solve the problem, infinite where it did not."""
    lowest = _lowest(traces)
    start = max(float(trace.best[0]) for trace in traces.values())
    goal = lowest + tolerance * (start - lowest)
    found = {}
    for key, trace in traces.items():
        reached = numpy.flatnonzero(trace.best <= goal)
        found[key] = float(trace.evaluations[reached[0]]) if len(reached) else math.inf
    return found


def _curves(costs: Sequence[Mapping[str, float]], one: str) -> dict[str, list[tuple[float, float]]]:
    ratios = [by_solver[one] / max(1.0, min(by_solver.values())) for by_solver in costs]
    return {"performance": _corners(ratios), "data": _corners([by_solver[one] for by_solver in costs])}


def _corners(values: Sequence[float]) -> list[tuple[float, float]]:
    """The empirical distribution of the values: at each x the share of them that are no larger."""
    counted = sorted(Counter(value for value in values if math.isfinite(value)).items())
    shares = numpy.cumsum([number for _, number in counted]) / max(1, len(values))
    return [(value, float(share)) for (value, _), share in zip(counted, shares, strict=True)]
