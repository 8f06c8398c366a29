"""The runs under TensorBoard's log directory: kept while their files are as they were, whatever is broken."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradopt.comparison.records import FILES, SUMMARY, TORN, Record, read

log = logging.getLogger("gradopt")

MOST_DIRECTORIES = 50_000
"""Directories that are looked into: a log directory of `/` must not hang TensorBoard."""


class RunDirectories:
    """The runs under some directories. What has not changed since is not read again.

    Args:
        roots: By the name that goes before those of their runs, "" for none.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = roots
        self._known: dict[Path, tuple[Any, Record | None]] = {}
        self._lock = threading.Lock()
        self._exist = False

    def exist(self) -> bool:
        """Whether there is any run."""
        self._exist = self._exist or any(True for _ in self._runs())
        return self._exist

    def read(self) -> dict[str, Record]:
        """All runs by name: their directory, seen from the log directory. Unchanged ones are the same objects."""
        return dict(sorted(self._runs()))

    def _runs(self) -> Iterator[tuple[str, Record]]:
        for prefix, root in self._roots.items():
            for place in _candidates(root):
                record = self._read(place)
                if record is not None:
                    yield (Path(prefix) / place.relative_to(root)).as_posix(), record

    def _read(self, place: Path) -> Record | None:
        stamp = tuple(_stamp(place / file) for file in FILES)
        with self._lock:
            known = self._known.get(place)
            if known is None or known[0] != stamp:
                known = self._known[place] = (stamp, _sound(place))
        return known[1]


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
    """Directories with a file of a run in them, behind links too, as TensorBoard reads them; each once."""
    seen: set[tuple[int, int]] = set()
    for looked, (place, directories, files) in enumerate(os.walk(root, followlinks=True)):
        if looked >= MOST_DIRECTORIES:
            return
        identity = _identity(Path(place))
        if identity is None or identity in seen:  # it has vanished, or links go round
            directories.clear()
            continue
        seen.add(identity)
        has_config = ".hydra" in directories
        directories[:] = sorted(name for name in directories if name != SUMMARY and not name.startswith("."))
        if has_config or not FILES.keys().isdisjoint(files):
            yield Path(place)


def _sound(place: Path) -> Record | None:
    """The run in a directory; None where what lies there is another program's. What is broken may be anybody's, and is
    a run that says so.
    """
    try:
        record = read(place)
        is_ours = "gradopt" in record.result or {"objective.name", "optimiser.name"} <= record.config.keys()
        is_ours = is_ours or record.trace is not None
        return record if record.broken or is_ours else None
    except Exception as error:  # as no reader foresees
        log.warning("the gradopt tab cannot read %s", place, exc_info=True)
        return Record(place, {}, {"message": f"{type(error).__name__}: {error}"}, TORN)


def _identity(place: Path) -> tuple[int, int] | None:
    try:
        state = place.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size
