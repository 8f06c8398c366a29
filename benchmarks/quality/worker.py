"""The process that runs solvers: a line in names group, solver and case; a line out is the record."""

import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import sys
import time
import warnings
from dataclasses import asdict
from functools import cache

import torch

from benchmarks.quality.cases import Case
from benchmarks.quality.groups import GROUPS
from benchmarks.quality.peers import PACKAGES
from benchmarks.quality.referee import Referee
from benchmarks.quality.runs import Record
from gradopt import Mistake


def solve(group: str, solver_name: str, case_name: str) -> Record:
    """Run a solver on a case, and judge what it returns. What it raises is its ending."""
    case = _cases(group)[case_name]
    solver, budget = next(entry for entry in GROUPS[group].entries if entry[0].name == solver_name)
    for module in solver.needs:  # imported here, as that is not what is timed
        try:
            importlib.import_module(module)
        except ImportError:
            return _failed(solver.name, case.name, f"needs {module}", 0.0)
    began = time.process_time()
    try:
        outcome = solver.solve(case, budget)
    except Mistake as error:
        return _failed(solver.name, case.name, f"refused: {error}"[:60], 0.0)
    except Exception as error:  # whatever it raises: it did not solve the case
        return _failed(solver.name, case.name, type(error).__name__, time.process_time() - began)
    seconds = time.process_time() - began
    score = Referee(case).score(case.restore(outcome.point), claimed=outcome.claimed)
    counts = (outcome.evaluations, outcome.products, outcome.to_target, outcome.products_to_target)
    numbers = (_finite(score.gap), _finite(score.digits))
    return Record(solver.name, case.name, score.solved, score.claim, outcome.status[:24], *counts, seconds, *numbers)


@cache
def _cases(group: str) -> dict[str, Case]:
    return {case.name: case for case in GROUPS[group].cases()}


def _versions() -> str:
    found = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found) or "none"


def _failed(solver: str, case: str, status: str, seconds: float) -> Record:
    return Record(solver, case, False, "", status, 0, 0, None, None, seconds, None, None)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # solvers of other people
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what solvers print must not be taken for an answer
    print(f"Peers: {_versions()}.", file=answers, flush=True)
    for line in sys.stdin:
        group, solver, case = json.loads(line)
        print(json.dumps(asdict(solve(group, solver, case))), file=answers, flush=True)


if __name__ == "__main__":
    main()
