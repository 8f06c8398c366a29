"""A run for programs to read, one JSON object a line: what --json prints."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import torch

from gradopt.contracts import Block, Run
from gradopt.description import described
from gradopt.observers.output import Output
from gradopt.result import Result, Results, as_json

PERIOD = 0.5
"""Seconds between two lines about a run that goes on, at least."""

COUNTS = ("evaluations", "all_evaluations", "going")

COLUMNS = ("loss", "full_loss", "best_loss", "gradient_norm", "step_norm", "learning_rate", "violation")
COLUMNS += ("lagrangian_gradient_norm", *COUNTS, "seconds")


class JsonLines:
    """One JSON object a line: the start, how far it has come, and the result.

    The key `event` says which: `start` (facts, config, budgets, the loss), at most twice a second `progress` (the
    columns of the last row, `best`, `seconds_left`), and `result` (what `result.json` says of it). NaN and infinities
    are the strings NaN, Infinity and -Infinity.

    Args:
        stream: Where to write; standard output if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._output = Output(stream)
        self._written = time.perf_counter()
        self._best = math.inf

    def open(self, run: Run) -> None:
        """Say what is about to run."""
        self._run = run
        budgets = {"steps": run.budget, "evaluations": run.max_evaluations, "seconds": run.max_seconds}
        self._say(
            "start",
            facts=run.facts,
            config=run.config,
            directory=run.directory,
            budgets={name: None if limit == math.inf else limit for name, limit in budgets.items()},
            loss=run.start.loss,
            gradient_norm=run.start.gradient_norm,
        )

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Say how far it has come, if it is time."""
        self._best = min(self._best, _lowest(block, self._run.violation_tolerance))
        now = time.perf_counter()
        if now - self._written < PERIOD:
            return
        self._written = now
        row: dict[str, Any] = {name: block[name][-1, 0].item() for name in COLUMNS if name in block.columns}
        row |= {name: int(row[name]) for name in COUNTS if name in row}
        if block["full_loss"] is block["loss"]:
            del row["full_loss"]
        limit = self._run.max_seconds
        left = None if limit == math.inf else max(0.0, limit - row["seconds"])
        best = None if self._best == math.inf else self._best
        self._say("progress", step=block.last_step, **row, best=best, seconds_left=left)

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Say how it ended; of what was raised instead its own line speaks."""
        if result is not None:
            self._say("result", **described(result), directory=result.directory)

    def _say(self, event: str, **content: Any) -> None:
        self._output.line(as_json({"event": event, **content}))


def _lowest(block: Block, tolerance: float) -> float:
    """The lowest finite loss of a block, of the rows that keep the constraints; infinity without any."""
    losses = block["best_loss" if "best_loss" in block.columns else "full_loss"]
    counts = losses.isfinite()
    if "violation" in block.columns:
        counts &= block["violation"] <= tolerance
    return torch.where(counts, losses, math.inf).min().item()
