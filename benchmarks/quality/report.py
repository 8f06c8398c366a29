"""Tables of what was solved."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.quality.groups import Group
from benchmarks.quality.referee import DIGITS
from benchmarks.quality.runs import Record

HEADER = (
    "| solver | solved | share | evaluations | + products | elsewhere | early | false | ms an evaluation |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def table(title: str, cases: Sequence[str], rows: Mapping[str, Mapping[str, Record]], *, digits: bool = False) -> str:
    """A Markdown table: solvers by name, each with its records by case."""
    lines = [f"## {title}: {len(cases)} runs", "", HEADER]
    for solver, records in rows.items():
        mine = [records[case] for case in cases if case in records]
        if not mine:
            continue
        if all(record.status.startswith("needs ") for record in mine):
            lines.append(f"| {solver} | not run: {mine[0].status} |" + " |" * 7)
            continue
        lines.append(f"| {solver} | {' | '.join(_cells(mine, digits))} |")
    return "\n".join(lines) + "\n"


def _cells(mine: Sequence[Record], digits: bool) -> list[str]:
    solved = [record for record in mine if is_solved(record, digits)]
    costs = [record.to_target for record in solved if record.to_target is not None]
    products = [record.products_to_target or 0 for record in solved if record.to_target is not None]
    claims = [sum(record.claim == kind for record in mine) for kind in ("elsewhere", "early", "false")]
    used = sum(record.evaluations for record in mine)
    times = 1e3 * sum(record.seconds for record in mine if record.evaluations) / used if used else 0.0
    return [
        f"{len(solved)} / {len(mine)}",
        f"{100 * len(solved) / len(mine):.1f} %",
        f"{statistics.median(costs):g}" if costs else "",
        f"{statistics.median(products):g}" if any(products) else "",
        *(str(count) for count in claims),
        f"{times:.2f}",
    ]


def is_solved(record: Record, digits: bool) -> bool:
    """Whether the loss is reached; for regressions, the parameters."""
    return (record.digits or 0.0) >= DIGITS if digits else record.solved


def is_regression(case: str) -> bool:
    return case.startswith("nist/")


def rows(group: Group, records: Mapping[tuple[str, str], Record]) -> dict[str, dict[str, Record]]:
    """The records of a group by solver and case, in the order of its entries."""
    return {
        solver.name: {case: record for (name, case), record in records.items() if name == solver.name}
        for solver, _ in group.entries
    }
