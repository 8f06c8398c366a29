"""TensorBoard event files, written on a schedule with TensorBoard's own record writer."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from gradopt.contracts import Block, Run
from gradopt.observers import events
from gradopt.observers.event_file import EventFile
from gradopt.result import Result, Results

METRICS_SHARE = 0.05
"""Share of the time that evaluating metrics may take."""

EVERY_STEP = 64
"""Steps logged one by one; later ones at about this many points for each doubling of the steps: under 1000 a run."""


class TensorBoard:
    """Scalars, config and final result of the run for TensorBoard, in the run directory.

    One event holds all values of a step. The first and the last step are always there, and so is all that was logged up
    to two seconds before a kill. A new file each session; files are never appended to.
    """

    def __init__(self) -> None:
        self._file: EventFile | None = None
        self._last_logged = -1
        self._best = math.inf
        self._known: set[str] = set()
        self._metrics_free = 0.0
        self._pending: tuple[Block, Callable[[], Mapping[str, float]]] | None = None

    def open(self, run: Run) -> None:
        """Open the file, write the config and the start of the session."""
        if run.directory is None:
            return
        self._file = EventFile(run.directory)
        self._wall = time.time()
        self._file.write(
            [
                events.text("run/facts", events.table(run.facts)),
                events.text("run/config", f"```yaml\n{_yaml(run.config)}```"),
                events.session_start(dict(_flat(run.config)), wall=self._wall),
            ]
        )

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Write the rows that are due."""
        if self._file is None:
            return
        losses = block["best_loss" if "best_loss" in block.columns else "full_loss"][:, 0]
        finite = torch.where(losses.isfinite(), losses, math.inf)
        best = torch.cummin(torch.cat([torch.tensor([self._best], dtype=torch.float64), finite]), dim=0).values[1:]
        self._best = best[-1].item()
        for row in (index for index in range(len(block)) if _due(block.first_step + index)):
            self._row(block, row, best[row].item(), {})
        started = time.perf_counter()
        if block.first_step == 0 or (block.measured[-1] and started >= self._metrics_free):
            values = metrics()
            if values:
                self._scalars(block, len(block) - 1, {f"metrics/{name}": value for name, value in values.items()})
            ended = time.perf_counter()
            self._metrics_free = ended + (ended - started) / METRICS_SHARE
        self._pending = (block, metrics)

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Write the last step, the verdict and the end of the session."""
        if self._file is None:
            return
        shown = result.best_start if isinstance(result, Results) else result
        if self._pending is not None:
            block, _ = self._pending
            last = len(block) - 1
            if self._last_logged < block.last_step:
                self._row(block, last, self._best, {})
            if shown is not None:
                final = {f"metrics/{name}": value for name, value in shown.metrics.items()}
                self._scalars(block, last, {"final/loss": shown.fun, "final/steps": float(shown.nit), **final})
        text = str(result) if result is not None else f"{type(error).__name__}: {error}"
        success = shown is not None and not shown.status.failure
        self._file.write([events.text("run/verdict", text), events.session_end(success=success)])
        self._file.close()

    def _row(self, block: Block, row: int, best: float, extra: Mapping[str, float]) -> None:
        values = {
            "opt/loss": block["loss"][row, 0].item(),
            "opt/best_loss": best,
            "opt/gradient_norm": block["gradient_norm"][row, 0].item(),
            "opt/step_norm": block["step_norm"][row, 0].item(),
            "opt/learning_rate": block["learning_rate"][row, 0].item(),
            "time/evaluations": block["evaluations"][row, 0].item(),
        }
        if "going" in block.columns:
            values["opt/going"] = block["going"][row, 0].item()
        if "violation" in block.columns:
            values["opt/violation"] = block["violation"][row, 0].item()
            del values["opt/best_loss"]  # the lowest is of a point that misses the constraints
        if block["full_loss"] is not block["loss"] and block.measured[row]:
            values["opt/full_loss"] = block["full_loss"][row, 0].item()
        if block.first_step + row == 0:  # there is no step before the first row
            del values["opt/step_norm"]
        self._scalars(block, row, {**values, **extra})
        self._last_logged = block.first_step + row

    def _scalars(self, block: Block, row: int, values: Mapping[str, float]) -> None:
        assert self._file is not None
        made = [
            events.scalar(tag, value) if tag in self._known else events.described_scalar(tag, value)
            for tag, value in values.items()
        ]
        self._known.update(values)
        self._file.write(made, step=block.first_step + row, wall=self._wall + block["seconds"][row, 0].item())


def _due(step: int) -> bool:
    return step < EVERY_STEP or step % (1 << (step // EVERY_STEP).bit_length() - 1) == 0


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The config's leaves by dotted name; without `seed`, so that runs that differ only in it form one group."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "seed":
            yield f"{prefix}{name}", value


def _yaml(config: Mapping[str, Any], indent: str = "") -> str:
    text = ""
    for name, value in config.items():
        text += f"{indent}{name}:"
        text += f"\n{_yaml(value, indent + '  ')}" if isinstance(value, Mapping) and value else f" {value}\n"
    return text
