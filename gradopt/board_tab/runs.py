"""The runs under a directory, read from the files that each of them leaves: without torch, and whatever is broken."""

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import yaml

MOST_DIRECTORIES = 50_000
"""Directories that are looked into: a log directory of `/` must not hang TensorBoard."""

FILES = ("result.json", "history.npy", ".hydra/config.yaml")


@dataclass(frozen=True, slots=True)
class Trace:
    """How the best loss fell, from `history.npy`.

    Attributes:
        evaluations, best: At each improvement, shape (improvements,); the first is the start.
        last: The last row, by column.
        is_constrained: Whether a low loss may be of a point that misses constraints.
    """

    evaluations: numpy.ndarray
    best: numpy.ndarray
    last: Mapping[str, float]
    is_constrained: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        name: Its directory, seen from the log directory.
        status: As in `result.json`; `unfinished` without one, `unreadable` where it is broken.
        result: The content of `result.json`.
        config: The leaves of its config by dotted name.
    """

    name: str
    directory: Path
    status: str
    message: str
    result: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    trace: Trace | None = None

    def number(self, name: str, column: str = "") -> float | None:
        """A number of the result, or of the last row of the history, None without either."""
        value = self.result.get(name)
        if value is None and self.trace is not None:
            value = self.trace.last.get(column)
        try:
            return None if value is None else float(value)  # "NaN" and "Infinity" are numbers too
        except (TypeError, ValueError):
            return None


class RunDirectories:
    """The runs under some directories. What has not changed since is not read again.

    Args:
        roots: By the name that goes before those of their runs, "" for none.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = roots
        self._known: dict[Path, tuple[Any, Run | None]] = {}
        self._lock = threading.Lock()
        self._exist = False

    def exist(self) -> bool:
        """Whether there is any run."""
        self._exist = self._exist or any(True for _ in self._runs())
        return self._exist

    def read(self) -> list[Run]:
        """All runs, by name."""
        return sorted(self._runs(), key=lambda run: run.name)

    def _runs(self) -> Iterator[Run]:
        for prefix, root in self._roots.items():
            for place in _candidates(root):
                relative = place.relative_to(root).as_posix()
                run = self._read(place, f"{prefix}/{relative}" if prefix else relative)
                if run is not None:
                    yield run

    def _read(self, place: Path, name: str) -> Run | None:
        stamp = tuple(_stamp(place / file) for file in FILES)
        with self._lock:
            known = self._known.get(place)
            if known is None or known[0] != stamp:
                known = self._known[place] = (stamp, read(place, name))
        return known[1]


def read(place: Path, name: str) -> Run | None:
    """The run in a directory; None where what lies there is not gradopt's."""
    config = _config(place / FILES[2])
    trace = _trace(place / FILES[1])
    ours = {"objective.name", "optimiser.name"} <= config.keys() or trace is not None
    try:
        result = json.loads((place / FILES[0]).read_text(encoding="utf-8"))
        if not isinstance(result, dict) or "gradopt" not in result or not isinstance(result.get("status"), str):
            raise ValueError("it is not what gradopt writes")
    except FileNotFoundError:
        message = "there is no result.json: the run goes on, or was killed"
        return Run(name, place, "unfinished", message, {}, config, trace) if ours else None
    except (OSError, ValueError, RecursionError) as error:
        message = f"result.json cannot be read: {error}"
        return Run(name, place, "unreadable", message, {}, config, trace) if ours else None
    return Run(name, place, result["status"], str(result.get("message", "")), result, config, trace)


def roots(logdir: str, spec: str = "") -> dict[str, Path]:
    """The local directories of TensorBoard's flags --logdir, or --logdir_spec (`name:path,path`), by name."""
    if logdir:
        return {} if "://" in logdir else {"": Path(logdir).expanduser()}
    found = {}
    for part in filter(None, spec.split(",")):
        name, colon, path = part.partition(":")
        if "://" not in part:
            found[name if colon else path or name] = Path(path if colon else name).expanduser()
    return found


def _candidates(root: Path) -> Iterator[Path]:
    """Directories with a file of a run in them."""
    for looked, (place, directories, files) in enumerate(os.walk(root)):
        if looked >= MOST_DIRECTORIES:
            return
        is_hydras = ".hydra" in directories
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        if is_hydras or FILES[0] in files or FILES[1] in files:
            yield Path(place)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _config(file: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    try:
        with file.open("rb") as stream:
            content = yaml.load(stream, Loader=loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return dict(_flat(content)) if isinstance(content, dict) else {}


def _flat(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _trace(file: Path) -> Trace | None:
    try:
        table = numpy.load(file, mmap_mode="r", allow_pickle=False)
        if table.dtype.names is None or not {"step", "loss", "evaluations"} <= set(table.dtype.names) or not len(table):
            return None
        columns = [name for name in ("best_loss", "full_loss", "loss") if name in table.dtype.names]
        losses = numpy.array(table[columns[0]])
        evaluations = numpy.array(table["evaluations"])
        last = {name: float(table[name][-1]) for name in table.dtype.names}
    except (OSError, ValueError, EOFError):  # half written, or not a file of ours
        return None
    best = numpy.fmin.accumulate(numpy.where(numpy.isnan(losses), math.inf, losses))
    improved = numpy.concatenate([[True], best[1:] < best[:-1]])
    last["best_loss"] = float(best[-1])
    return Trace(evaluations[improved], best[improved], last, "violation" in table.dtype.names)
