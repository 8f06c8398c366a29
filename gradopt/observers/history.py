"""The history of a run: every step in float64, in memory or on disk."""

import math
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path

import numpy
import torch
from torch import Tensor

from gradopt.contracts import Block, Run
from gradopt.result import Result, Results

MAX_VALUES = 1_000_000
"""Values kept of a run; beyond them only every second, then every fourth step, ... of what comes is kept."""

HEADER = 1024
"""Bytes before the first row."""

ROOM = 2**16
"""Bytes that a history file gives back where the disk is full: the result is to be written there too."""

COLUMNS = ("step", "loss", "gradient_norm", "step_norm", "learning_rate", "evaluations", "seconds", "violation")
COLUMNS += ("lagrangian_gradient_norm",)
MANY = ("best_loss", "all_evaluations", "going")
FULL = ("full_loss", "full_gradient_norm")


class History:
    """The columns of all rows in memory, for `Result.history`."""

    def __init__(self) -> None:
        self._thinned = Thinned()
        self._blocks: list[Mapping[str, Tensor]] = []

    def open(self, run: Run) -> None:
        """Nothing to prepare."""

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Keep the block's rows that are due."""
        self._blocks.append(self._thinned.table(block))

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Nothing to finish."""

    def columns(self) -> dict[str, Tensor]:
        """Shape (steps,) each, float64; `step` says which."""
        if not self._blocks:
            return {}
        return {name: torch.cat([block[name] for block in self._blocks]) for name in self._blocks[0]}


class HistoryFile:
    """Every step of the run in `history.npy`, in float64: numpy.load gives the columns by name.

    Rows are appended in chunks, and the header says how many there are: what a kill loses is the last chunk. Where the
    disk is full it raises once, and keeps the rows before without the last few.
    """

    def __init__(self) -> None:
        self._thinned = Thinned()
        self._file: FileIO | None = None
        self._rows = 0
        self._pending: list[numpy.ndarray] = []
        self._written = 0.0

    def open(self, run: Run) -> None:
        """Create the file."""
        if run.directory is not None:
            self._file = (Path(run.directory) / "history.npy").open("wb", buffering=0)

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Append; written out at most twice a second."""
        table = self._thinned.table(block)
        if self._file is None or not len(table["step"]):
            return
        self._pending.append(torch.stack(list(table.values()), dim=1).numpy())
        self._names = tuple(table)
        now = block["seconds"][-1, 0].item()
        if now - self._written >= 0.5:
            self._written = now
            self._flush()

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Write the rest."""
        if self._file is not None:
            self._flush()
            self._file.close()

    def _flush(self) -> None:
        assert self._file is not None
        if not self._pending:
            return
        rows = numpy.ascontiguousarray(numpy.concatenate(self._pending), "<f8")
        self._pending.clear()
        width = rows.itemsize * rows.shape[1]
        try:
            if self._rows == 0:
                self._write(0, self._header(0))
            self._write(HEADER + self._rows * width, rows.tobytes())
            self._write(0, self._header(self._rows + len(rows)))
        except OSError:
            self._rows = max(0, (self._file.seek(0, 2) - HEADER - ROOM) // width)
            self._file.truncate(HEADER + self._rows * width)
            self._write(0, self._header(self._rows))
            self._file.close()
            raise
        self._rows += len(rows)

    def _write(self, place: int, content: bytes) -> None:
        assert self._file is not None
        self._file.seek(place)
        rest = memoryview(content)
        while rest:  # a disk that is nearly full takes a part
            rest = rest[self._file.write(rest) :]

    def _header(self, rows: int) -> bytes:
        """Version 1.0 of the npy format, padded to `HEADER` bytes so that it can be written again in place."""
        fields = ", ".join(f"('{name}', '<f8')" for name in self._names)
        text = f"{{'descr': [{fields}], 'fortran_order': False, 'shape': ({rows},), }}"
        return (
            b"\x93NUMPY\x01\x00"
            + (HEADER - 10).to_bytes(2, "little")
            + text.ljust(HEADER - 11).encode("latin1")
            + b"\n"
        )


class Thinned:
    """Rows of blocks as columns, fewer and fewer of them once `MAX_VALUES` is reached."""

    def __init__(self) -> None:
        self.stride = 1
        self._count = 0

    def table(self, block: Block) -> dict[str, Tensor]:
        """The rows to keep: columns of shape (rows,), `step` first."""
        names = [name for name in COLUMNS[1:] + FULL + MANY if name in block.columns]
        if block["full_loss"] is block["loss"]:
            names = [name for name in names if name not in FULL]
        steps = torch.arange(block.first_step, block.last_step + 1, dtype=torch.float64)
        keep = (steps % self.stride == 0).nonzero().flatten() if self.stride > 1 else slice(None)
        kept = {"step": steps[keep], **{name: block[name][keep, 0] for name in names}}
        self._count += len(kept["step"]) * len(kept)
        self.stride = 2 ** max(0, math.ceil(math.log2(max(1.0, self._count / MAX_VALUES))))
        return kept
