"""How many problems gradopt and its peers solve: a table for each group of problems.

    python -m benchmarks.quality --group unconstrained --only lbfgs,auto    # gradopt's own, some of them
    python -m benchmarks.quality --peers ~/.cache/gradopt-peers --write     # everything, and keep the result

Run it from the root of the repository, with gradopt and plugins/gradopt-problems installed. Runs are kept in the
directory of --runs and not repeated, so a run that was cut goes on; --again repeats those that are selected.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.quality import environment, report
from benchmarks.quality.groups import GROUPS
from benchmarks.quality.runs import Results, Worker, run

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print the tables."""
    chosen = _parser().parse_args(arguments)
    results = Results(chosen.runs)
    worker = Worker(environment.python_of(chosen.peers) if chosen.peers else sys.executable, chosen.limit)
    end = time.monotonic() + chosen.seconds
    wanted = [word.strip() for word in chosen.only.split(",") if word.strip()]
    try:
        for name in chosen.group or GROUPS:
            group = GROUPS[name]
            cases = [case.name for case in group.cases()]
            cases = cases[:: max(1, len(cases) // 8)] if chosen.quick else cases
            for solver, _ in group.entries:
                if wanted and not any(solver.name == word or solver.name == f"gradopt {word}" for word in wanted):
                    continue
                if chosen.again:
                    results.forget(name, solver.name)
                for record in run(name, solver, cases, results, worker):
                    if chosen.verbose:
                        print(record, flush=True)
                    if time.monotonic() > end:
                        print(f"out of time in {name}, {solver.name}: run it again to go on", file=sys.stderr)
                        return 3
            rows = report.rows(group, results.read(name))
            if cases:
                print(report.table(group.title, cases, rows))
            if any(map(report.is_regression, cases)):
                print(
                    report.table(
                        f"{group.title}: NIST, parameters to 6 digits",
                        [case for case in cases if report.is_regression(case)],
                        rows,
                        digits=True,
                    )
                )
    finally:
        worker.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--group", action="append", choices=GROUPS, help="one of the groups; may be given again")
    parser.add_argument("--only", default="", help="solvers by name, with commas between; 'gradopt ' may be left out")
    parser.add_argument("--quick", action="store_true", help="some eight cases of each group")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "results" / "quality", help="where runs are kept")
    parser.add_argument("--peers", type=Path, help="the peers' environment; made where there is none")
    parser.add_argument("--again", action="store_true", help="repeat the selected runs")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one case")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long, to be gone on with")
    parser.add_argument("--verbose", action="store_true", help="print every run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
