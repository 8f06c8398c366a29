"""A file of events in a run's directory, written with TensorBoard's own record writer."""

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboard.summary.writer.record_writer import RecordWriter

from gradopt.observers import events

FLUSH_SECONDS = 2.0
"""What a kill may lose."""


class EventFile:
    """Events of one session: a new file in `directory`, never one that is appended to, for readers stop at a torn tail.

    Args:
        step: The first step of the session; see `events.started`. None: a file beside that of the session, which begins
            none. TensorBoard's slow loader does not go back to a file once it reads the next: such a file is to be
            opened when the other one is complete.
    """

    def __init__(self, directory: str | Path, *, step: int | None = 0) -> None:
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (Path(directory) / name).open("xb")
        self._writer = RecordWriter(self._file)
        self._flushed = time.perf_counter()
        self._put(events.version())
        if step is not None:
            self._put(events.started(step))

    def write(self, values: Iterable[Any], *, step: int = 0, wall: float | None = None) -> None:
        """Write an event of values made by `events`; it reaches the disk two seconds later, or by `flush`."""
        self._put(events.event(values, step=step, wall=wall))
        if time.perf_counter() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand what is written so far to the system."""
        self._writer.flush()
        self._flushed = time.perf_counter()

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()

    def _put(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
