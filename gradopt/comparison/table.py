"""Groups of runs as a table: for the terminal, in Markdown, and as CSV."""

import csv
import io
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradopt.comparison.groups import Group
from gradopt.comparison.labels import shortened
from gradopt.plurals import counted

NUMBERS = {
    "loss": "best loss",
    "steps": "steps",
    "evaluations": "evaluations",
    "cost": "solved after",
    "seconds": "seconds",
}
DIGITS = {"loss": 6, "steps": 7, "evaluations": 7, "cost": 7, "seconds": 3}
HEADER = ("objective", "optimiser", "runs", "verdict", *NUMBERS.values(), "directory")


def text(groups: Sequence[Group]) -> str:
    """Columns in line, for the terminal; an objective is named once, and where there is a terminal (or COLUMNS says a
    width) shortened to what the others leave of it.
    """
    rows = [HEADER, *(cells(group) for group in groups)]
    for row in range(len(rows) - 1, 1, -1):
        if rows[row][0] == rows[row - 1][0]:
            rows[row] = ("", *rows[row][1:])
    if all(len(group.records) == 1 for group in groups):
        rows = [row[:2] + row[3:] for row in rows]
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        others = sum(2 + max(map(len, column)) for column in list(zip(*rows, strict=True))[1:])
        room = shutil.get_terminal_size().columns - others
        rows = [(shortened(row[0], room), *row[1:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "".join(f"{line}\n" for line in lines)


def markdown(groups: Sequence[Group]) -> str:
    """The same as a table in Markdown, of which nothing is read as markup."""
    rows = [HEADER, ["---"] * len(HEADER), *(map(_escaped, cells(group)) for group in groups)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _escaped(cell: str) -> str:
    """Entities for what HTML and tables read, backslashes before what else Markdown would."""
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "\n": " "}
    return "".join(entities.get(letter, f"\\{letter}" if letter in "\\`*" else letter) for letter in cell)


def comma_separated(groups: Sequence[Group]) -> str:
    """The same for programs: all digits, and a column each for the median, 10 % and 90 %."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [of if of != "cost" else "solved" for of in NUMBERS]
    spread = [name for of in names for name in (of, f"{of}_10", f"{of}_90")]
    writer.writerow(["objective", "optimiser", "runs", "seeds", "verdict", *spread, "directory"])
    for group in groups:
        numbers = [number for of in NUMBERS for number in _spread(group, of)]
        row = [group.problem.name, group.solver, len(group.records), group.seeds, _verdict(group)]
        writer.writerow(
            [
                *row,
                *("" if math.isnan(number) else repr(number).removesuffix(".0") for number in numbers),
                _place(group),
            ]
        )
    return out.getvalue()


def cells(group: Group) -> tuple[str, ...]:
    """A row: of several runs the median, and from 10 % to 90 % where these differ from it."""
    numbers = (_cell(group.quantiles(of), DIGITS[of]) for of in NUMBERS)
    return (group.problem.name, group.solver, _runs(group), _verdict(group), *numbers, _place(group))


def _runs(group: Group) -> str:
    number = len(group.records)
    return f"{number} of {counted(group.seeds, 'seed')}" if group.seeds < number else str(number)


def _spread(group: Group, of: str) -> tuple[float, float, float]:
    low, middle, high = group.quantiles(of)
    return middle, low, high


def _cell(spread: tuple[float, float, float], digits: int) -> str:
    low, middle, high = ("-" if value == math.inf else f"{value:.{digits}g}" for value in spread)
    if math.isnan(spread[1]):
        return "-"
    return middle if low == high else f"{middle} [{low}, {high}]"


def _verdict(group: Group) -> str:
    """How the runs ended, and how many so where they differ; of many starts, how many of these."""
    if len(group.records) == 1:
        counts = group.records[0].result.get("starts", {}).get("counts", {})
        if counts:
            return ", ".join(f"{number} {status}" for status, number in counts.items())
    counts = Counter(record.status for record in group.records)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{number} {status}" for status, number in counts.most_common())


def _place(group: Group) -> str:
    """Of the best run."""
    best = min(group.records, key=lambda record: (record.fails, math.isnan(record.loss), record.loss))
    directory = best.directory.resolve()
    return os.path.relpath(directory) if directory.is_relative_to(Path.cwd()) else str(directory)
