"""The seeds of a sweep together, for TensorBoard: the median of each group, in a band from 10 to 90 %."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy

from gradopt.comparison.curves import scale, spreads, traces
from gradopt.comparison.groups import Group, Problem, grouped
from gradopt.comparison.records import SUMMARY, find
from gradopt.observers import events
from gradopt.observers.event_file import EventFile

CATEGORY = "seeds"
LONGEST_NAME = 120
"""Characters of a group's label that go into the name of its directory."""


def of_sweep(directory: Path) -> str | None:
    """Write the summary of the runs in the directory of a sweep, if they log to TensorBoard, and say where it is."""
    records = find([directory])
    logging = [record for record in records if "tensorboard" in str(record.config.get("observers"))]
    return write(grouped(logging), directory) if logging else None


def write(groups: Sequence[Group], directory: Path) -> str | None:
    """Write the groups that have several runs to `_summary/<group>/`, in place of what is left there of an earlier one,
    and say so. None if there is no such group.
    """
    seeded: dict[Problem, list[Group]] = {}
    for group in groups:
        if len(traces(group)) > 1:
            seeded.setdefault(group.problem, []).append(group)
    place = directory / SUMMARY
    for file in place.glob("*/events.out.tfevents.*"):
        file.unlink()
    charts = {_title(problem): _margin(problem) for problem in seeded}
    for problem, its in seeded.items():
        lines, _ = spreads(problem, its, "step")
        for solver, (steps, spread) in lines.items():
            here = place / _file_name(solver if len(seeded) == 1 else f"{problem.name}, {solver}")
            here.mkdir(parents=True, exist_ok=True)
            _write(here, _margin(problem), steps, numpy.log10(spread), charts)
    if not seeded:
        return None
    return f"medians and bands over seeds: {place}, shown by TensorBoard under Custom Scalars"


def _write(
    place: Path, tags: events.Margin, steps: numpy.ndarray, spread: numpy.ndarray, charts: Mapping[str, events.Margin]
) -> None:
    file = EventFile(place)
    file.write([events.margin_charts({CATEGORY: charts})])  # the same in each: TensorBoard merges them
    make = events.described_scalar
    for step, (low, middle, high) in zip(steps, spread.T, strict=True):
        if not numpy.isnan(middle):
            pairs = ((tags.lower, low), (tags.value, middle), (tags.upper, high))
            file.write([make(tag, float(value)) for tag, value in pairs], step=int(step))
            make = events.scalar
    file.close()


def _title(problem: Problem) -> str:
    return f"{problem.name}: log10({scale(problem)[1].partition(' (')[0]})"


def _margin(problem: Problem) -> events.Margin:
    prefix = f"seeds/{_file_name(problem.name)}/log10"
    return events.Margin(f"{prefix}_median", f"{prefix}_10", f"{prefix}_90")


def _file_name(label: str) -> str:
    return re.sub(r"[^\w=,.+ \[\]-]", "_", label)[:LONGEST_NAME]
