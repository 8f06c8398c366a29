"""The report: a table for each group, and what each count means."""

import statistics
import time
from collections.abc import Mapping, Sequence

from benchmarks.quality.groups import Group
from benchmarks.quality.referee import ACCURACY, DIGITS, EARLY, OUTSIDE, VIOLATED
from benchmarks.quality.runs import Record, Results

Rows = Mapping[str, Mapping[str, Record]]
"""Records by solver and case."""

HEADER = (
    "| solver | solved | share | evaluations | + products | elsewhere | early | false | ms an evaluation |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
LEGEND = f"""\
Solved: the loss at the point that was returned is at most {ACCURACY:g} max(|best|, min(1, |first loss - best|)) above
the best known, where the first loss is that of the standard start; the point lies inside the bounds to {OUTSIDE:g} and
meets the constraints to {VIOLATED:g}. In tables of regressions: {DIGITS} correct digits of every parameter. A solver
that is cut by the budget answers with the best point it has seen; one that raises an error or exceeds the limit of time
has solved nothing.

- evaluations, + products: medians, over what was solved, of evaluations of loss and gradient (or of residuals and
  Jacobian) and of Hessian-vector products up to the first point that is a solution. A Hessian counts n products; a ?
  stands where they cannot be counted.
- elsewhere, early, false: successes that were claimed and are none. Elsewhere: at another minimum (the gradient is zero
  and no curvature negative, also where the loss only levels off). Early: near a minimum, but the loss is still
  {ACCURACY:g} to {EARLY:g} of itself above it. False: no minimum, or not feasible.
- ms an evaluation: of the processor, with all that the solver did; peers get their numbers through NumPy.

Pictures: the share of runs solved at a cost of at most so many times the cheapest solver's (performance profile, Dolan
and Moré, 2002), and at a cost of at most so much (data profile, Moré and Wild, 2009). The cost counts evaluations and
products.
"""


def text(groups: Mapping[str, Group], results: Results, about: str, pictures: Mapping[str, str]) -> str:
    """The whole report in Markdown; `pictures` are paths by group."""
    parts = [f"# Problems solved, {time.strftime('%Y-%m-%d')}\n", about, "", LEGEND]
    for name, group in groups.items():
        found = rows(name, group, results)
        if any(found.values()):
            parts += tables(group, found)
            parts += [f"![Profiles: {group.title}]({pictures[name]})\n"] if name in pictures else []
    parts += [doubts(groups, results)]
    return "\n".join(parts)


def rows(name: str, group: Group, results: Results) -> dict[str, dict[str, Record]]:
    """The records of a group by solver and case, in the order of its entries, borrowed ones first."""
    lender, borrowed = group.borrowed
    found: dict[str, dict[str, Record]] = {}
    for source, solvers in ((lender, borrowed), (name, [solver for solver, _ in group.entries])):
        records = results.read(source) if solvers else {}
        for solver in solvers:
            mine = {case: record for (owner, case), record in records.items() if owner == solver.name}
            # Where it has run on some cases, those it has not yet are missing, not lost.
            ran = {case: record for case, record in mine.items() if record.was_run}
            found[solver.name] = ran or mine
    return found


def tables(group: Group, found: Rows, cases: Sequence[str] | None = None) -> list[str]:
    """The table of a group, and one of its regressions by their digits."""
    cases = [case.name for case in group.cases()] if cases is None else cases
    regressions = [case for case in cases if case.startswith("nist/")]
    made = [_table(group.title, cases, found, digits=False)]
    if regressions:
        made.append(_table(f"{group.title}: NIST, parameters to {DIGITS} digits", regressions, found, digits=True))
    return made


def doubts(groups: Mapping[str, Group], results: Results) -> str:
    """Which of gradopt's own claims are not true, and where a loss below the best known was found."""
    lines = ["## Doubts", ""]
    for name, group in groups.items():
        own = {solver.name for solver, _ in group.entries if solver.is_ours}
        for record in results.read(name).values():
            if record.solver in own and record.claim in ("early", "false"):
                lines.append(f"- {name}, {record.solver}, {record.case}: {record.status} is {record.claim}")
            # A point that misses the constraints by what is allowed may well be lower.
            if name != "constrained" and record.gap is not None and record.gap < -1 and record.solved:
                lines.append(f"- {name}, {record.solver}, {record.case}: below the best known ({record.gap:.3g} units)")
    return "\n".join(lines if len(lines) > 2 else [*lines, "None."]) + "\n"


def cost_of(record: Record) -> int | None:
    """Evaluations and products to the solution; None where it was not found, or they cannot be counted."""
    if not record.solved or record.products is None:
        return None
    if record.to_target is None:  # the solver went by it in a trial
        return record.evaluations + record.products
    return record.to_target + (record.products_to_target or 0)


def _table(title: str, cases: Sequence[str], found: Rows, *, digits: bool) -> str:
    lines = [f"## {title}: {len(cases)} runs", "", HEADER]
    for solver, records in found.items():
        mine = [records[case] for case in cases if case in records]
        if not mine:
            continue
        if not any(record.was_run for record in mine):
            lines.append(f"| {solver} | not run: {mine[0].status} |" + " |" * 7)
        else:
            cells = _cells(mine, digits)
            cells[1] += " so far" if len(mine) < len(cases) else ""
            lines.append(f"| {solver} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(mine: Sequence[Record], digits: bool) -> list[str]:
    solved = [record for record in mine if ((record.digits or 0.0) >= DIGITS if digits else record.solved)]
    seen = [record for record in solved if record.to_target is not None]
    products = [record.products_to_target or 0 for record in seen]
    used = sum(record.evaluations for record in mine)
    time_used = 1e3 * sum(record.seconds for record in mine if record.evaluations)
    return [
        f"{len(solved)} / {len(mine)}",
        f"{100 * len(solved) / len(mine):.1f} %",
        f"{statistics.median(record.to_target or 0 for record in seen):g}" if seen else "",
        "?" if any(record.products is None for record in seen) else f"{statistics.median(products or [0]):g}",
        *(str(sum(record.claim == kind for record in mine)) for kind in ("elsewhere", "early", "false")),
        f"{time_used / used:.2f}" if used else "",
    ]
