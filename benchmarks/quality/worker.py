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

import torch

from benchmarks.quality.groups import GROUPS, Group
from benchmarks.quality.peers import PACKAGES
from benchmarks.quality.referee import Referee
from benchmarks.quality.runs import Record


def solve(group: Group, solver_name: str, case_name: str) -> Record:
    """Run a solver on a case, and judge what it returns. What it raises is its ending."""
    case = next(case for case in group.cases() if case.name == case_name)
    solver, budget = next(entry for entry in group.entries if entry[0].name == solver_name)
    for module in solver.needs:  # imported here, as that is not what is timed
        try:
            importlib.import_module(module)
        except ImportError:
            return _failed(solver.name, case.name, f"needs {module}", 0.0)
    began = time.process_time()
    try:
        outcome = solver.solve(case, budget)
    except Exception as error:  # whatever it raises: it did not solve the case
        return _failed(solver.name, case.name, type(error).__name__, time.process_time() - began)
    seconds = time.process_time() - began
    score = Referee(case).score(case.restore(outcome.point), claimed=outcome.claimed)
    counts = (outcome.evaluations, outcome.products, outcome.to_target, outcome.products_to_target)
    numbers = (_finite(score.gap), _finite(score.digits))
    return Record(solver.name, case.name, score.solved, score.claim, outcome.status[:24], *counts, seconds, *numbers)


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
        print(json.dumps(asdict(solve(GROUPS[group], solver, case))), file=answers, flush=True)


if __name__ == "__main__":
    main()
