"""Runs every solver in a process of its own, with a limit of time for each case, and keeps what came as it comes."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from benchmarks.quality.solvers import Solver

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
"""A worker must be ready after this long: importing some peers takes a while."""


@dataclass(frozen=True)
class Record:
    """One run. Lines of the results are these fields in this order.

    Attributes:
        claim, gap, digits: See `referee.Score`.
        status: The solver's own word for its ending; or "time limit", "crashed", or what it raised.
        seconds: Of the processor.
    """

    solver: str
    case: str
    solved: bool
    claim: str
    status: str
    evaluations: int
    products: int | None
    to_target: int | None
    products_to_target: int | None
    seconds: float
    gap: float | None = None
    digits: float | None = None

    @property
    def was_run(self) -> bool:
        """Whether the solver is there and took the case."""
        return not self.status.startswith(("needs ", "refused: "))


class Results:
    """The records by group, each in a file of its own in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, group: str) -> dict[tuple[str, str], Record]:
        """By solver and case, the last one of each."""
        path = self._path(group)
        lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
        records = [Record(*json.loads(line)) for line in lines]
        return {(record.solver, record.case): record for record in records}

    def append(self, group: str, record: Record) -> None:
        """Keep one more at once: whatever happens next, it is not run again."""
        path = self._path(group)
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps([field.name for field in fields(Record)]) + "\n", encoding="utf-8")
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def forget(self, group: str, solver: str) -> None:
        """Drop the records of a solver."""
        kept = [record for key, record in self.read(group).items() if key[0] != solver]
        self._path(group).unlink(missing_ok=True)
        for record in kept:
            self.append(group, record)

    def copy(self, group: str, solvers: Sequence[str], cases: Sequence[str], place: Path) -> None:
        """Write the records of these, in this order, into another directory."""
        found = self.read(group)
        other = Results(place)
        other._path(group).unlink(missing_ok=True)
        for key in ((solver, case) for solver in solvers for case in cases):
            if key in found:
                other.append(group, found[key])

    def _path(self, group: str) -> Path:
        return self._directory / f"{group}.jsonl"


class Worker:
    """A process that solves one case after another for us, and is replaced where it dies or takes too long."""

    def __init__(self, python: str, seconds: float) -> None:
        self._python, self._seconds = python, seconds
        self._process: subprocess.Popen[str] | None = None
        self._versions = ""

    def versions(self) -> str:
        """What it finds installed of the peers, for people."""
        if self._process is None:
            self._start()
        return self._versions

    def solve(self, group: str, solver: Solver, case: str) -> Record:
        """Run it; a process that is gone or too slow makes a record as well."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([group, solver.name, case]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: the answer says so
        answer = self._answer(self._seconds)
        if answer is not None and answer:
            return Record(**json.loads(answer))
        self.close()
        status = "time limit" if answer is None else "crashed"
        seconds = self._seconds if answer is None else 0.0
        return Record(solver.name, case, False, "", status, 0, 0, None, None, seconds, None, None)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        paths = os.pathsep.join([os.fspath(REPOSITORY), *filter(None, sys.path)])
        # One thread each: the problems are small, and times are compared.
        variables = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [self._python, "-m", "benchmarks.quality.worker"],
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._versions = (self._answer(START_SECONDS) or "").strip()
        if not self._versions:
            self.close()
            raise RuntimeError(f"{self._python} -m benchmarks.quality.worker does not start")

    def _answer(self, seconds: float) -> str | None:
        """A line of it: empty if it has died, None if there is none in time."""
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None


def run(group: str, solver: Solver, cases: list[str], results: Results, worker: Worker) -> Iterator[Record]:
    """Run a solver on the cases of a group that it has not run on yet."""
    done = results.read(group)
    for case in cases:
        known = done.get((solver.name, case))
        if known is None or not known.was_run:
            record = worker.solve(group, solver, case)
            results.append(group, record)
            yield record


def _line(record: Record) -> str:
    """One line of a file, with no more digits than anybody reads; correct digits are cut at two decimals already."""
    values = [*astuple(replace(record, solved=int(record.solved), status=record.status[:24]))]
    short = [
        float(f"{value:.{2 if abs(value) < 1 else 3}g}") if isinstance(value, float) else value for value in values
    ]
    while short[-1] is None:  # most cases are no regressions
        short.pop()
    return json.dumps(short, separators=(",", ":")) + "\n"
