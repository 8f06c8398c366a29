"""How far a run has come, in one line that is written over while it lasts."""

import math
import time
from collections import deque
from collections.abc import Iterator

import torch

from gradopt.contracts import Block, Run, tested_gradient
from gradopt.observers.output import Output
from gradopt.plurals import counted

PERIOD = 0.1
"""Seconds between two lines, at least: as often as an eye can follow."""

REMEMBERED = 30
"""Lines the pace is measured over: about three seconds."""

DROPPED = ("best", "pace", "gradient", "violation", "left")
DROPPED_OF_MANY = ("pace", "gradient", "left", "best")
"""What is left out of a line that is too long for the terminal, in this order."""


class LiveLine:
    """Step, loss, the best one, gradient, pace, and for how long the budgets last at that pace. It costs nothing where
    there is no terminal.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._run: Run | None = None
        self._best = math.inf
        self._starts = 0
        self._drawn = time.perf_counter()
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=REMEMBERED)

    def open(self, run: Run) -> None:
        """Take over the budgets; a line comes once there is something to wait for."""
        self._run, self._drawn = run, time.perf_counter()

    def record(self, block: Block) -> None:
        """Draw the line anew if it is time."""
        if not self._output.is_terminal or self._run is None:
            return
        losses = block["full_loss"][:, 0]
        self._best = min(self._best, torch.where(losses.isfinite(), losses, math.inf).min().item())
        now = time.perf_counter()
        if not block.last_step and "going" in block.columns:
            self._starts = int(_last(block, "going"))
        if not self._seen:
            if block.last_step:  # the first step is slow, and no measure of those that follow
                self._note(block)
        elif now - self._drawn >= PERIOD:
            self._drawn = now
            self._note(block)
            self._output.live(self._line(block))

    def _note(self, block: Block) -> None:
        self._seen.append((_last(block, "seconds"), block.last_step, _last(block, "evaluations")))

    def _line(self, block: Block) -> str:
        fields = dict(self._fields(block))
        for name in DROPPED_OF_MANY if self._starts else DROPPED:
            if len("  ".join(fields.values())) < self._output.width:
                break
            fields.pop(name, None)
        return "  ".join(fields.values())

    def _fields(self, block: Block) -> Iterator[tuple[str, str]]:
        assert self._run is not None
        limit = self._run.budget
        yield "step", f"step {block.last_step}" + (f" of {limit:.0f}" if math.isfinite(limit) else "")
        if self._starts:
            yield "starts", f"{_last(block, 'going'):.0f} of {counted(self._starts, 'start')}"
            yield "best", f"best {_last(block, 'best_loss'):.7g}"
            yield "loss", f"median {_last(block, 'loss'):.7g}"
        else:
            yield "loss", f"loss {_last(block, 'loss'):.5g}"
            if "violation" not in block.columns and math.isfinite(self._best):  # the lowest may be of a forbidden point
                yield "best", f"best {self._best:.5g}"
        yield "gradient", f"gradient {_last(block, tested_gradient(block.columns)):.1e}"
        if "violation" in block.columns:
            yield "violation", f"violation {_last(block, 'violation'):.1e}"
        (before, *_), (seconds, *_) = self._seen[0], self._seen[-1]
        if seconds > before:
            pace = (self._seen[-1][2] - self._seen[0][2]) / (seconds - before)
            yield "pace", f"{pace:.0f} evals/s" + " a start" * bool(self._starts)
        left = self._left()
        if math.isfinite(left):
            yield "left", f"{clock(left)} left"

    def _left(self) -> float:
        """Seconds until the first budget is used up, at the present pace."""
        assert self._run is not None
        (before, first, few), (seconds, step, evaluations) = self._seen[0], self._seen[-1]
        passed = seconds - before
        left = self._run.max_seconds - seconds
        for limit, old, new in ((self._run.budget, first, step), (self._run.max_evaluations, few, evaluations)):
            if new > old:
                left = min(left, (limit - new) * passed / (new - old))
        return max(0.0, left)


def clock(seconds: float) -> str:
    """As m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _last(block: Block, column: str) -> float:
    return block[column][-1, 0].item()
