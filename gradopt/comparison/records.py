"""What runs have left on disk: their configs, results and histories."""

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import yaml

from gradopt.mistakes import Mistake
from gradopt.verdict import Status

CONFIG = ".hydra/config.yaml"
"""Of the command line's runs."""

RESULT = "result.json"

SAMPLE = "starts.npz"
"""Of many starts: where some began, and in which minimum they ended."""

UNFINISHED = "no result"
"""The status of a run that was killed, or goes on still."""

TORN = "torn result"
"""The status of a run whose `result.json` cannot be read."""

ERROR = "error"
"""The status of a run that raised."""

MISTAKE = 2
"""The exit code of a run that was refused: what it was told to do cannot be done."""

SUMMARY = "_summary"
"""Beside the runs of a sweep: what all its seeds have done together. No run is looked for in there."""

NO_GOAL = frozenset({Status.UNBOUNDED.value, Status.INFEASIBLE.value, ERROR})
"""Statuses of runs whose loss is no measure for others."""

ROUNDING = 1e-6
"""Share of a known minimum (of 1, if that is less) by which a loss may lie below it: by rounding, or where constraints
are met within their tolerance. By more, the minimum is none of this objective."""

FAILURES = frozenset({ERROR, TORN, *(status.value for status in Status if status.failure)})


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built

FILES: Mapping[str, Callable[[Path], object]] = {
    RESULT: lambda file: json.loads(file.read_text(encoding="utf-8")),
    "history.npy": lambda file: numpy.load(file, mmap_mode="r"),
    CONFIG: lambda file: yaml.load(file.read_text(encoding="utf-8"), LOADER),
    SAMPLE: lambda file: zipfile.ZipFile(file).close(),
}
"""Those of a run, and what reads them."""


@dataclass(frozen=True)
class Trace:
    """How the best loss of a run fell: the rows of its history at which it did, and the last one. Shape (rows,) each.

    With constraints only points that meet them count, and one that lies below the known minimum, as it meets them
    within their tolerance alone, counts as if it lay as far above; of batches, losses over all data, where there are
    any; of many starts the evaluations of all together.
    """

    loss: numpy.ndarray
    step: numpy.ndarray
    evaluations: numpy.ndarray
    seconds: numpy.ndarray
    first: float

    def at(self, column: str, places: numpy.ndarray) -> numpy.ndarray:
        """The best loss at these values of a column: NaN before the first row, and the last one after the end."""
        index = numpy.searchsorted(getattr(self, column), places, side="right") - 1
        return numpy.where(index < 0, numpy.nan, self.loss[numpy.maximum(index, 0)])

    def cost(self, goal: float, column: str = "evaluations") -> float:
        """What it took to reach a loss; infinity if it was not reached."""
        reached = self.loss <= goal
        return float(getattr(self, column)[reached.argmax()]) if reached.any() else math.inf


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        config: Its config, by dotted name. Empty where none was kept, as by runs from Python.
        result: `result.json`; empty where there is none that can be read.
        status: Of its verdict, or `ERROR`, `UNFINISHED`, `TORN`.
        is_partial: Whether of its config no more is known than what was said on the command line: the file is broken,
            or gone.
    """

    directory: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    status: str
    is_partial: bool = False

    @property
    def message(self) -> str:
        return str(self.result.get("message", ""))

    @property
    def fails(self) -> bool:
        """Whether its loss cannot be trusted, by its verdict, or there is none."""
        return self.status in FAILURES

    @property
    def refused(self) -> bool:
        """Whether it ended by a mistake of its config or command, which says nothing of its optimiser."""
        return self.status == ERROR and self.result.get("exit_code") == MISTAKE

    @property
    def holds(self) -> bool:
        """Whether it has come to an end that is no failure: not broken off, nor going on still."""
        return not self.fails and self.status not in (UNFINISHED, Status.INTERRUPTED.value)

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def minimum(self) -> float:
        """The lowest loss there is, NaN if it is not known."""
        return _number(self.result.get("minimum"))

    @property
    def loss(self) -> float:
        """The result's, or the best one so far; NaN if there is none."""
        if "fun" in self.result:
            return _number(self.result["fun"])
        return math.nan if self.trace is None else float(self.trace.loss[-1])

    @property
    def steps(self) -> float:
        return self._work("nit", "step")

    @property
    def evaluations(self) -> float:
        """Of all starts together."""
        starts = self.result.get("starts")
        total = starts.get("total") if isinstance(starts, Mapping) else None
        if isinstance(total, Mapping) and "nfev" in total:
            return _number(total["nfev"])
        return self._work("nfev", "evaluations")

    @property
    def seconds(self) -> float:
        return self._work("seconds", "seconds")

    @cached_property
    def trace(self) -> Trace | None:
        """None where the run has kept no history, or it holds no point that counts."""
        try:
            history = numpy.load(self.directory / "history.npy", mmap_mode="r")
            return _trace(history, self._tolerance, self.minimum)
        except (OSError, ValueError, EOFError, LookupError):  # not there; cut off by a kill; or nothing of ours
            return None

    @cached_property
    def broken(self) -> list[str]:
        """Its files that are there and cannot be read."""
        return [file for file, load in FILES.items() if _is_broken(self.directory / file, load)]

    def cost(self, goal: float) -> float:
        """The evaluations it took to reach a loss, infinity if it was not reached; without a history, all of them."""
        if self.status in NO_GOAL:
            return math.inf
        if self.trace is not None:
            return max(1.0, self.trace.cost(goal))
        return self.evaluations if self.loss <= goal else math.inf

    @property
    def _tolerance(self) -> float:
        given = self.config.get("stop.constraint_tolerance")
        eps = numpy.finfo("float32" if self.config.get("dtype") == "float32" else "float64").eps
        return math.sqrt(eps) if given is None else float(given)

    def _work(self, key: str, column: str) -> float:
        if key in self.result:
            return _number(self.result[key])
        return math.nan if self.trace is None else float(getattr(self.trace, column)[-1])


def find(places: Sequence[Path]) -> list[Record]:
    """The runs in these directories and below, in the order of their paths.

    Raises:
        Mistake: A place is not there, or there is no run in it.
    """
    found: dict[Path, Path] = {}
    for place in places:
        if not place.is_dir():
            raise Mistake(f"there is no directory {str(place)!r}{_near(place)}")
        inside = {directory.resolve(): directory for directory in _runs(place)}
        if not inside:
            raise Mistake(
                f"there is no run in {str(place)!r}: no result.json, history.npy or .hydra in it or below; runs write "
                "them, so make some (gradopt -m optimiser=sgd,adam), or name another directory"
            )
        found |= inside
    return [read(directory) for _, directory in sorted(found.items(), key=lambda item: _natural(item[0]))]


def read(directory: Path) -> Record:
    """The run in a directory, whatever state it is in."""
    result, status = _result(directory / RESULT)
    config = _config(directory / CONFIG)
    said = {} if config else _said(result)
    return Record(directory, config or said, result, status, is_partial=bool(said))


def _is_broken(file: Path, load: Callable[[Path], object]) -> bool:
    if not os.path.lexists(file):
        return False
    try:
        load(file)
    except Exception:  # whatever a broken one raises
        return True
    return False


def _runs(place: Path) -> Iterator[Path]:
    for path, inside, files in os.walk(place):
        if {"result.json", "history.npy"}.intersection(files) or ".hydra" in inside:
            yield Path(path)
            inside.clear()  # what a run keeps is no run
        else:
            inside[:] = [name for name in inside if name != SUMMARY and not name.startswith(".")]


def _result(file: Path) -> tuple[Mapping[str, Any], str]:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, UNFINISHED
    except (OSError, ValueError, RecursionError):
        return {}, TORN
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        return {}, TORN
    return result, result["status"]


def _config(file: Path) -> Mapping[str, Any]:
    """The config that Hydra has kept; empty where there is none that can be read."""
    try:
        kept = dict(_flat(yaml.load(file.read_text(encoding="utf-8"), LOADER) or {}))
    except (OSError, UnicodeError, yaml.YAMLError, AttributeError, RecursionError):
        return {}
    return _settled(kept) if kept else {}


def _said(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a result knows of its config: what was said on the command line."""
    said = (str(word).lstrip("+").partition("=") for word in result.get("overrides", ()))
    return {f"{key}.name" if key in ("objective", "optimiser", "schedule") else key: value for key, _, value in said}


def _settled(config: dict[str, Any]) -> Mapping[str, Any]:
    """With `starts` in one form: `starts=64` is their number, and without one, the rest says nothing."""
    number = config.pop("starts", config.pop("starts.number", None))
    kept = {key: value for key, value in config.items() if number is not None or not key.startswith("starts.")}
    return {**kept, "starts.number": number}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def floor(minimum: float) -> float:
    """The lowest loss that agrees with a known minimum."""
    return minimum - ROUNDING * max(1.0, abs(minimum))


def _trace(history: numpy.ndarray, tolerance: float, minimum: float) -> Trace | None:
    columns = history.dtype.names or ()
    name = "best_loss" if "best_loss" in columns else "loss"
    if "full_loss" in columns and not numpy.isnan(history["full_loss"]).all():
        name = "full_loss"
    loss = numpy.array(history[name], dtype=float)
    first = loss[~numpy.isnan(loss)][:1]
    if "violation" in columns:
        loss[~(history["violation"] <= tolerance)] = numpy.nan
        below = (floor(minimum) <= loss) & (loss < minimum)
        loss[below] = 2 * minimum - loss[below]
    if numpy.isnan(loss).all():
        return None
    best = numpy.fmin.accumulate(loss)  # which passes over NaN
    lower = numpy.empty(len(best), dtype=bool)
    lower[0] = not math.isnan(best[0])
    lower[1:] = (best[1:] < best[:-1]) | (numpy.isnan(best[:-1]) & ~numpy.isnan(best[1:]))
    lower[-1] = True
    kept = {column: numpy.array(history[column][lower]) for column in ("step", "evaluations", "seconds")}
    if "all_evaluations" in columns:  # of many starts
        kept["evaluations"] = numpy.array(history["all_evaluations"][lower])
    return Trace(loss=best[lower], first=float(first[0]), **kept)


def _number(value: Any) -> float:
    """JSON has no NaN and no infinities: they are strings in it."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _near(place: Path) -> str:
    if place.is_file():
        return ", that is a file: name the directory of a run"
    runs = Path("runs")
    return "; there is 'runs' here" if runs.is_dir() and place != runs else ", and no runs/ here: make a run first"


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Job 10 comes after job 2."""
    parts: list[tuple[int, int | str]] = []
    for part in path.parts:
        number, dash, name = part.partition("-")
        parts += [(0, int(number)), (1, name)] if number.isdigit() and (dash or not name) else [(1, part)]
    return parts
