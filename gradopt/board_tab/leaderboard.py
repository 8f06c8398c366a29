"""The leaderboard: each run with its verdict, each group of runs that differ in their seeds alone, and profiles."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradopt.comparison.groups import SOLVED, Group, grouped
from gradopt.comparison.profiles import Cases, common, foremost, ratios, shares
from gradopt.comparison.records import ERROR, RESULT, TORN, UNFINISHED, Record
from gradopt.verdict import Status

TOLERANCES = (1e-1, 1e-3, SOLVED, 1e-9)

MOST_SOLVERS = 8
"""Optimisers that profiles are drawn of: the best."""

NUMBERS = ("loss", "steps", "evaluations", "cost", "seconds")


def board(records: Mapping[str, Record]) -> dict[str, Any]:
    """What the page shows: `runs`, `groups` and `profiles`, of runs by name."""
    groups = grouped(list(records.values()))
    place = {id(record): index for index, group in enumerate(groups) for record in group.records}
    single = {name: replace(groups[place[id(record)]], records=[record]) for name, record in records.items()}
    ranks = {name: rank for rank, name in enumerate(sorted(single, key=lambda name: single[name].rank))}
    return {
        "runs": [_row(name, single[name], place[id(record)], ranks[name]) for name, record in records.items()],
        "groups": [_group(group, rank) for rank, group in enumerate(groups)],
        "profiles": _profiles(groups),
    }


def kind(status: str) -> str:
    """`success`, `exhausted` (neither success nor failure), `failure`, `error`, or `open` (no result yet)."""
    if status in (UNFINISHED, ERROR, TORN):
        return "open" if status == UNFINISHED else "error"
    known = {one.value: one for one in Status}
    if status not in known:
        return "exhausted"  # of a later version
    one = known[status]
    return "success" if one.success else "failure" if one.failure else "exhausted"


def searches(record: Record) -> int | None:
    """How many starts the run was made of, or local searches; None for one."""
    starts = record.result.get("starts")
    if isinstance(starts, Mapping) and isinstance(starts.get("number"), int):
        return starts["number"]
    return sum(visits(record)) or None


def visits(record: Record) -> list[int]:
    """Of each minimum that the result lists: the searches that ended there."""
    return [one["visits"] if isinstance(one.get("visits"), int) else 0 for one in minima(record)]


def minima(record: Record) -> list[Mapping[str, Any]]:
    """Those that the result lists, lowest first."""
    listed = record.result.get("minima")
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []


def _row(name: str, single: Group, place: int, rank: int) -> dict[str, Any]:
    (record,) = single.records
    return {
        "run": name,
        "status": record.status,
        "kind": kind(record.status),
        "message": _message(record),
        "reason": _reason(record),
        "objective": single.problem.name,
        "optimiser": single.solver,
        "seed": record.seed,
        **{of: _known(single.quantiles(of)[1]) for of in NUMBERS},
        "starts": searches(record),
        "group": place,
        "rank": rank,
    }


MESSAGES = {
    UNFINISHED: "there is no result.json: the run goes on, was killed, or was made from Python",
    TORN: f"{RESULT} cannot be read",
}


def _message(record: Record) -> str:
    return record.message or MESSAGES.get(record.status, "")


def _reason(record: Record) -> str:
    """What is wrong with a run that raised or has files that cannot be read; else nothing."""
    said = _message(record) if kind(record.status) == "error" else ""
    broken = " and ".join(file for file in record.broken if file != RESULT)  # which the message says
    return "; ".join(filter(None, (said, broken and f"{broken} cannot be read")))


def _group(group: Group, rank: int) -> dict[str, Any]:
    return {
        "objective": group.problem.name,
        "optimiser": group.solver,
        "runs": len(group.records),
        "seeds": group.seeds,
        "succeeded": sum(kind(record.status) == "success" for record in group.records),
        **{of: _known(group.quantiles(of)[1]) for of in NUMBERS},
        "rank": rank,
    }


def _profiles(groups: Sequence[Group]) -> dict[str, Any]:
    """Curves by optimiser and tolerance, each a list of corners (x, share of the cases solved). The optimisers are the
    foremost at the tolerance that is shown at first.
    """
    by_tolerance = {tolerance: _at(groups, tolerance) for tolerance in TOLERANCES}
    cases = by_tolerance[SOLVED]
    drawn = foremost(cases.costs, MOST_SOLVERS) if cases else {}
    curves: dict[str, dict[str, Any]] = {solver: {} for solver in drawn}
    for tolerance, found in by_tolerance.items():
        costs = {solver: found.costs[solver] for solver in drawn} if found else {}
        relative = ratios(costs) if costs else {}
        for solver in costs:
            its = {"performance": _corners(relative[solver]), "data": _corners(costs[solver])}
            curves[solver][str(tolerance)] = its
    return {
        "tolerances": [str(tolerance) for tolerance in TOLERANCES],
        "tolerance": str(SOLVED),
        "cases": cases.number if cases else 0,
        "problems": cases.problems if cases else 0,
        "solvers": [{"solver": solver, "curves": its} for solver, its in curves.items()],
        "not_drawn": [*(solver for solver in cases.costs if solver not in drawn), *cases.left_out] if cases else [],
    }


def _at(groups: Sequence[Group], tolerance: float) -> Cases | None:
    return common([replace(group, problem=replace(group.problem, tolerance=tolerance)) for group in groups])


def _corners(values: Any) -> list[tuple[float, float]]:
    reached, share = shares(values)
    return list(zip(reached.tolist(), share.tolist(), strict=True))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
