"""A file of events in a run's directory, written with TensorBoard's own record writer."""

import io
import itertools
import os
import socket
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboard.summary.writer.record_writer import RecordWriter

from gradopt.observers import events

FLUSH_SECONDS = 2.0
"""What a kill may lose."""

ROOM = 2**14
"""Bytes that are given back where the disk is full: the result is to be written there too."""

_count = itertools.count()
_open: "weakref.WeakSet[EventFile]" = weakref.WeakSet()


class EventFile:
    """Events of one session: a new file in `directory`, never one that is appended to, for readers stop at a torn tail.

    Where the disk is full it raises once, and leaves a file of whole events without the last few. In a forked process
    it is closed: what was not yet written is the parent's.

    Args:
        step: The first step of the session; see `events.started`. None: a file beside that of the session, which begins
            none. TensorBoard's slow loader does not go back to a file once it reads the next: such a file is to be
            opened when the other one is complete.
        order: Put before the time in its name, by which that loader sorts files: `0.` makes it the first to be read.
    """

    def __init__(self, directory: str | Path, *, step: int | None = 0, order: str = "") -> None:
        name = f"events.out.tfevents.{order}{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        self._file = (Path(directory) / name).open("xb", buffering=0)
        self._buffer = io.BytesIO()
        self._writer = RecordWriter(self._buffer)
        self._flushed = time.perf_counter()
        _open.add(self)
        self.put(events.version())
        if step is not None:
            self.put(events.started(step))
        self.flush()

    def write(self, values: Iterable[Any], *, step: int = 0, wall: float | None = None) -> None:
        """Write an event of values made by `events`; it reaches the disk two seconds later, or by `flush`.

        Raises:
            OSError: The disk is full.
        """
        self.put(events.event(values, step=step, wall=wall))
        if time.perf_counter() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def put(self, event: Any) -> None:
        """Write an event of any kind; it reaches the disk by the next `flush`."""
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Hand what is written so far to the system."""
        records = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        self._flushed = time.perf_counter()
        if self._file.closed:
            return
        written = 0
        try:
            while written < len(records):  # a disk that is nearly full takes a part
                written += self._file.write(records[written:])
        except OSError:
            self._file.truncate(self._file.tell() - written + _whole(records[: max(0, written - ROOM)]))
            self._file.close()
            raise

    def close(self) -> None:
        """Write the rest; also at the end of a `with`."""
        self.flush()
        self._file.close()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self) -> None:
        self._file.close()


def _whole(records: bytes) -> int:
    """The length of those that are complete: each has 16 bytes beside its data, and begins with the data's length."""
    end = 0
    while end + 8 <= len(records):
        behind = end + 16 + int.from_bytes(records[end : end + 8], "little")
        if behind > len(records):
            break
        end = behind
    return end


def _leave_all() -> None:
    for file in list(_open):
        file._leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
