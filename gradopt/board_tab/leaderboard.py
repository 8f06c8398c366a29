"""The leaderboard: each run with its verdict, and each group of runs that differ in their seeds alone."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gradopt.board_tab.labels import Labels, group
from gradopt.board_tab.runs import Run
from gradopt.verdict import Status


def rows(runs: Sequence[Run], labels: Labels) -> list[dict[str, Any]]:
    """One a run; `group` is the index of its group in `groups`."""
    numbers = {key: index for index, key in enumerate(_grouped(runs))}
    return [
        {
            "run": run.name,
            "status": run.status,
            "kind": kind(run.status),
            "message": run.message,
            "objective": labels.objective(run),
            "optimiser": labels.optimiser(run),
            "seed": run.config.get("seed"),
            "loss": run.number("fun", "best_loss"),
            "steps": run.number("nit", "step"),
            "evaluations": run.number("nfev", "evaluations"),
            "seconds": run.number("seconds", "seconds"),
            "starts": _starts(run),
            "group": numbers[_place(run)],
        }
        for run in runs
    ]


def groups(runs: Sequence[Run], labels: Labels) -> list[dict[str, Any]]:
    """One a group: how many of its runs succeeded, and medians over those that have ended. A run without a loss, as one
    that an error ended, counts as infinitely high.
    """
    found = []
    for members in _grouped(runs).values():
        ended = [run for run in members if run.status != "unfinished"]
        found.append(
            {
                "objective": labels.objective(members[0]),
                "optimiser": labels.optimiser(members[0]),
                "runs": len(members),
                "succeeded": sum(kind(run.status) == "success" for run in members),
                "loss": _median([run.number("fun", "best_loss") for run in ended]),
                "steps": _median([run.number("nit", "step") for run in ended]),
                "evaluations": _median([run.number("nfev", "evaluations") for run in ended]),
                "seconds": _median([run.number("seconds", "seconds") for run in ended]),
            }
        )
    return found


def kind(status: str) -> str:
    """`success`, `exhausted` (neither), `failure`, `open` (unfinished), or `error`."""
    if status in ("unfinished", "error", "unreadable"):
        return "open" if status == "unfinished" else "error"
    known = {one.value: one for one in Status}
    if status not in known:
        return "exhausted"  # of a later version
    one = known[status]
    return "success" if one.success else "failure" if one.failure else "exhausted"


def _grouped(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_place(run), []).append(run)
    return found


def _place(run: Run) -> str:
    return group(run) if run.config else run.name  # without a config nothing says what else is like it


def _median(numbers: Sequence[float | None]) -> float | None:
    return statistics.median(_or_infinite(number) for number in numbers) if numbers else None


def _or_infinite(number: float | None) -> float:
    return math.inf if number is None or math.isnan(number) else number


def _starts(run: Run) -> int | None:
    """How many searches the run was made of, None for one."""
    starts = run.result.get("starts")
    if isinstance(starts, dict) and isinstance(starts.get("number"), int):
        return starts["number"]
    minima = run.result.get("minima")
    visits = [one.get("visits") for one in minima if isinstance(one, dict)] if isinstance(minima, list) else []
    return sum(number for number in visits if isinstance(number, int)) or None
