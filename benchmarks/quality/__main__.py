"""How many problems gradopt and its peers solve: a table for each group of problems.

    python -m benchmarks.quality --group unconstrained --only lbfgs,auto    # gradopt's own, some of them
    python -m benchmarks.quality --peers ~/.cache/gradopt-peers --write     # everything, and keep the result

Run it from the root of the repository, with gradopt and plugins/gradopt-problems installed. Runs are kept in the
directory of --runs and not repeated, so that a cut one goes on; --again repeats those that are selected.
"""

import argparse
import math
import platform
import sys
import time
from pathlib import Path

import torch

import gradopt
from benchmarks.quality import environment, profiles, report
from benchmarks.quality.groups import GROUPS, Group
from benchmarks.quality.runs import REPOSITORY, Results, Worker, run

KEPT = REPOSITORY / "benchmarks" / "results"
QUICK = 8
"""Cases of each group in a quick run, about."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print the tables; 3 if the time was over before."""
    chosen = _parser().parse_args(arguments)
    results = Results(chosen.runs)
    worker = Worker(environment.python_of(chosen.peers) if chosen.peers else sys.executable, chosen.limit)
    end = time.monotonic() + chosen.seconds
    try:
        for name in chosen.group or GROUPS:
            group = GROUPS[name]
            cases = _cases(group, quick=chosen.quick)
            for solver, _ in group.entries:
                if not _is_wanted(solver.name, chosen.only):
                    continue
                if chosen.again:
                    results.forget(name, solver.name)
                for record in run(name, solver, cases, results, worker):
                    if chosen.verbose:
                        print(record, flush=True)
                    if time.monotonic() > end:
                        print(f"out of time in {name}, {solver.name}: run it again to go on", file=sys.stderr)
                        return 3
            if cases:
                print("\n".join(report.tables(group, report.rows(name, group, results), cases)))
        if chosen.write:
            _write(results, worker.versions())
    finally:
        worker.close()
    return 0


def _cases(group: Group, *, quick: bool) -> list[str]:
    cases = [case.name for case in group.cases()]
    return cases[:: math.ceil(len(cases) / QUICK)] if quick and cases else cases


def _is_wanted(solver: str, only: str) -> bool:
    return not only or solver.removeprefix("gradopt ") in [word.strip() for word in only.split(",")]


def _write(results: Results, versions: str) -> None:
    """Keep report, runs and pictures with the benchmarks."""
    place = KEPT / "quality"
    place.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    for name, group in GROUPS.items():
        cases = [case.name for case in group.cases()]
        results.copy(name, [solver.name for solver, _ in group.entries], cases, place)
        if profiles.draw(place / f"{name}.png", group.title, cases, report.rows(name, group, results)):
            pictures[name] = f"quality/{name}.png"
    about = (
        f"gradopt {gradopt.__version__}, torch {torch.__version__}, Python {platform.python_version()}, CPU, one "
        f"thread, float64. {versions}"
    )
    (KEPT / "quality.md").write_text(report.text(GROUPS, results, about, pictures), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--group", action="append", choices=GROUPS, help="one of the groups; may be given again")
    parser.add_argument("--only", default="", help="solvers by name, with commas between; 'gradopt ' may be left out")
    parser.add_argument("--quick", action="store_true", help=f"some {QUICK} cases of each group")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "quality", help="where runs are kept")
    parser.add_argument("--peers", type=Path, help="the peers' environment; made where there is none")
    parser.add_argument("--again", action="store_true", help="repeat the selected runs")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one case")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, to be gone on with")
    parser.add_argument("--verbose", action="store_true", help="print every run")
    parser.add_argument("--write", action="store_true", help="keep report, runs and pictures in benchmarks/results/")
    return parser


if __name__ == "__main__":
    sys.exit(main())
