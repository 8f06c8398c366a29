"""What a run writes for TensorBoard: curves on a schedule, histograms now and then, texts, its row among hparams."""

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Attempt, Block, Run
from gradopt.hyperparameters import leaves
from gradopt.observers import events, report
from gradopt.observers.curves import BAND, DESCRIPTIONS, SUCCESS, Curves, Schedule, final
from gradopt.observers.event_file import EventFile
from gradopt.result import Result, Results
from gradopt.unknowns import split

SHARE = 0.05
"""Of the time, that metrics may take, and histograms as well."""

FEW = 8
"""Unknowns that are drawn one by one; more are shown in histograms."""

MOST_HISTOGRAMS = 16
"""Parameters that each have a histogram; more have one together."""

SPREAD = "log10 of the starts' losses over the known minimum, or of those that are positive where none is known."

SPARSE = 8
"""Factor between the steps of two histograms: ten of them reach a thousand million steps."""


class TensorBoard:
    """Curves, histograms, config and verdict of the run for TensorBoard, in the run directory.

    One event holds all values of a step. The first and the last step are always there, and so is all that was logged up
    to two seconds before a kill. A new file each session; files are never appended to.
    """

    def __init__(self) -> None:
        self._file: EventFile | None = None
        self._known: set[str] = set()
        self._metrics, self._histograms = Allowance(SHARE), Allowance(SHARE)
        self._last_histogram = -1
        self._logged = -1
        self._block: Block | None = None
        self._points: dict[int, Tensor] = {}

    def open(self, run: Run) -> None:
        """Open the file, write the config and the start of the session."""
        if run.directory is None:
            return
        self._run, self._wall = run, time.time()
        self._curves, self._schedule = Curves(run), Schedule()
        many = run.point is None
        self._names = _names({name: part[0] if many else part for name, part in run.parameters.items()})
        self._is_few = bool(self._names)
        self._file = EventFile(run.directory, step=run.step)
        facts = events.text("run/facts", events.table(run.facts, "fact"))
        values = [facts, *_begun(run, self._wall)]
        self._file.write(values, step=run.step, wall=self._wall)

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Write the rows that are due."""
        if self._file is None:
            return
        if self._block is None:
            self._wall = time.time() - block["seconds"][-1, 0].item()  # which a resumed run counts from its very start
            self._write(block, 0, [events.margin_charts(BAND)] if "losses" in block.columns else [])
        self._curves.see(block)
        self._block = block
        self._points = dict(block.points) if self._is_few else {}
        last, rows = len(block) - 1, list(self._schedule.rows(block))
        for row in rows:
            self._row(block, row)
        if rows and self._logged < block.last_step and len(self._points) < len(block):  # a program has but the last one
            self._scalars(block, last, self._unknowns(block.last_step))
        if block.first_step == self._run.step or (block.measured[-1] and self._metrics.is_free):
            with self._metrics:
                values = metrics()
            self._scalars(block, last, {f"metrics/{name}": value for name, value in values.items()})
        if block.last_step >= SPARSE * self._last_histogram and self._histograms.is_free:
            with self._histograms:
                self._write(block, last, self._distributions(block))
            self._last_histogram = max(1, block.last_step)

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Write the last step, the verdict and the end of the session."""
        if self._file is None:
            return
        if self._block is not None:
            last = len(self._block) - 1
            if self._logged < self._block.last_step:
                self._row(self._block, last)
            if result is not None:
                self._write(self._block, last, self._final_distributions(self._block, result))
            self._scalars(self._block, last, {SUCCESS: -1.0} if result is None else final(result))
        step = self._run.step if self._block is None else self._block.last_step
        best = result.best_start if isinstance(result, Results) else result
        told = _raised(error) if result is None else report.ending(result)
        success = best is not None and not best.status.failure
        verdict = events.text("run/verdict", events.table(told, "verdict"))
        self._file.write([verdict, events.session_end(success=success)], step=step)
        self._file.close()

    def fail(self, attempt: Attempt, error: BaseException | None) -> None:
        """Write all that is known of a run that was never opened."""
        if attempt.directory is None:
            return
        with EventFile(attempt.directory, step=None) as file:
            verdict = events.text("run/verdict", events.table(_raised(error), "verdict"))
            failed = [events.scalar(SUCCESS, -1.0), events.session_end(success=False)]
            file.write([*_begun(attempt, time.time()), verdict, *failed])

    def _row(self, block: Block, row: int) -> None:
        self._logged = block.first_step + row
        self._scalars(block, row, self._curves.at(block, row) | self._unknowns(self._logged))

    def _unknowns(self, step: int) -> dict[str, float]:
        """One by one, where they are few and the point of that step is at hand."""
        if step not in self._points:
            return {}
        return {f"x/{name}": value for name, value in zip(self._names, self._points[step].tolist(), strict=True)}

    def _scalars(self, block: Block, row: int, values: Mapping[str, float]) -> None:
        """Those that TensorBoard can draw: its charts break on others, and the verdict says how a loss ended in one."""
        values = {tag: value for tag, value in values.items() if abs(value) <= events.LARGEST}  # which no NaN is
        self._write(
            block,
            row,
            [
                events.scalar(tag, value)
                if tag in self._known
                else events.described_scalar(tag, value, tag, DESCRIPTIONS.get(tag, ""))
                for tag, value in values.items()
            ],
        )
        self._known.update(values)

    def _write(self, block: Block, row: int, values: Iterable[Any]) -> None:
        assert self._file is not None
        values = list(values)
        if values:
            wall = self._wall + block["seconds"][row, 0].item()
            self._file.write(values, step=block.first_step + row, wall=wall)

    def _distributions(self, block: Block) -> Iterator[Any]:
        """Histograms at the last row: of many unknowns and their gradient, and of many losses."""
        if "losses" in block.columns:
            yield from _spread(self._curves.log10(block["losses"][-1]))
        run = self._run
        if run.point is not None and not self._is_few:
            yield from _histograms("unknowns", run.point(), run.parameters)
        if run.gradient is not None and not self._is_few and block.measured[-1]:
            yield from _histograms("gradient", run.gradient(), run.parameters)

    def _final_distributions(self, block: Block, result: Result | Results) -> Iterator[Any]:
        """The same of the result, unless they were just written."""
        if block.last_step <= self._last_histogram:
            return
        if isinstance(result, Results):
            yield from _spread(self._curves.log10(result.fun.cpu()))
        elif not self._is_few:
            yield from _histograms("unknowns", _flat(result.x), self._run.parameters)
            yield from _histograms("gradient", _flat(result.jac), self._run.parameters)


class Allowance:
    """A share of the time that something may take: it is free again when what it has taken is no more than that."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._free = 0.0

    @property
    def is_free(self) -> bool:
        return time.perf_counter() >= self._free

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        ended = time.perf_counter()
        self._free = ended + (ended - self._began) / self._share


def _begun(run: Run | Attempt, wall: float) -> Iterator[Any]:
    """The start of the session, and the config. Runs of a sweep that differ in their seed only are one group; one that
    is part of no sweep is its own. The table has room for the first word of a group's name.
    """
    config, place = dict(leaves(run.config)), Path(run.directory or "")
    group = f"{place.name}, {place.parent}"
    if run.sweep is not None:
        own = {name: value for name, value in config.items() if name != "seed"}
        digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:8]
        name = run.chosen.get("optimiser", "")
        group = f"{name} {digest}, {run.sweep}".lstrip()
    yield events.session_start(run.chosen, group=group, wall=wall)
    if config:
        yield events.text("run/config", events.table(config, "key"))


def _raised(error: BaseException | None) -> dict[str, str]:
    """The rows of the verdict's table, where there is none."""
    return {"status": "error", "reason": f"{type(error).__name__}: {error}"}


def _names(parameters: Mapping[str, Tensor]) -> list[str]:
    """Of the unknowns, such as x[0] or b1; none where they are too many."""
    if sum(part.numel() for part in parameters.values()) > FEW:
        return []
    return [
        f"{name}[{', '.join(map(str, place))}]" if place else name
        for name, part in parameters.items()
        for place in itertools.product(*map(range, part.shape))
    ]


def _flat(x: Any) -> Tensor:
    parts = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]
    return torch.cat([part.reshape(-1) for part in parts])


def _spread(logarithms: Tensor) -> Iterator[Any]:
    if len(logarithms):
        yield events.histogram("ms/log10_loss", logarithms, description=SPREAD)


def _histograms(group: str, vector: Tensor, parameters: Mapping[str, Tensor]) -> Iterator[Any]:
    if len(parameters) > MOST_HISTOGRAMS:
        yield events.histogram(f"{group}/all", vector.cpu())
        return
    for name, part in zip(parameters, split(vector, list(parameters.values())), strict=True):
        yield events.histogram(f"{group}/{name}", part.cpu())
