"""One evaluation after another, in plain Python: always right, and what every other engine is compared with."""

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from gradopt.contracts import (
    MAX_FOLLOWED,
    Band,
    Block,
    BudgetSpent,
    CutShort,
    Evaluation,
    NonFiniteTrial,
    Optimiser,
    State,
    Stuck,
)
from gradopt.engines.state import restore, saved
from gradopt.evaluations import KEEP_EVERY, LARGE, Uncopied
from gradopt.mistakes import Mistake
from gradopt.oracle import AutogradOracle
from gradopt.stopwatch import Stopwatch, weight

COLUMNS = ("loss", "gradient_norm", "step_norm", "learning_rate", "evaluations", "seconds")
STEP_NORM = COLUMNS.index("step_norm")
LAGRANGIAN = "lagrangian_gradient_norm"
FULL_COLUMNS = ("full_loss", "full_gradient_norm")


class EagerEngine:
    """An `Engine` for any objective and any optimiser. It runs one start.

    The numbers of a row are read together, once, and judged before its update. `seconds` counts from `__init__`.

    From a million unknowns on, where an optimiser of torch moves them, the length of a step and the best point are
    looked at only every 20 steps: that takes a copy of the point, which costs as much as a step. (A step that has moved
    nothing is followed by more looks, so that a run at rest is seen.)

    Attributes:
        stopwatch: Forward, backward and update, of some steps that stand for all. Nothing on another device than the
            CPU, whose work is not done when a call returns.
    """

    def __init__(self, oracle: AutogradOracle, optimiser: Optimiser) -> None:
        self.oracle = oracle
        self.optimiser = optimiser
        self.step = 0
        self._batches = oracle.objective.batches
        self._names = COLUMNS
        if oracle.constraints is not None:
            self._names += ("violation",)
            if hasattr(optimiser, LAGRANGIAN):
                self._names += (LAGRANGIAN,)
        if self._batches is not None:
            self._names += FULL_COLUMNS
        self._evaluation: Evaluation | None = None
        self._row: tuple[float, ...] = ()
        self._previous: Tensor | None = None
        self._cut_short: CutShort | None = None
        self._length = 0
        self._began = time.perf_counter()
        self._points: list[tuple[int, Tensor]] = []
        self.stopwatch = Stopwatch()
        self._is_timed = oracle.parameters[0].device.type == "cpu"
        size = sum(parameter.numel() for parameter in oracle.parameters)
        self._follows = size <= MAX_FOLLOWED
        if size >= LARGE and not getattr(optimiser, "needs_point", True):
            oracle.spare()

    def advance(self, limit: int, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps; see `Engine.advance`."""
        if self._cut_short is not None:  # the update after the last row failed: that row once more, for the verdict
            row = (*self._row[:4], float(self.oracle.num_losses), time.perf_counter() - self._began, *self._row[6:])
            self._points = []
            return self._block([row], [True])
        always, when_measured = self._watched(bands)
        rows: list[tuple[float, ...]] = []
        measured: list[bool] = []
        self._points = []
        stop = time.perf_counter() + seconds
        while True:
            try:
                evaluation, full = self._evaluate()
            except (BudgetSpent, NonFiniteTrial, Stuck) as cause:
                if self._evaluation is None:
                    raise Mistake("the budget of evaluations is too small for one step of this objective") from cause
                self._restore(cause)
                self.step -= 1
                break
            now = time.perf_counter()
            row = self._record(evaluation, full, now)
            rows.append(row)
            if self._follows:
                self._points.append((self.step, evaluation.point))
            measured.append(full is not None)
            if (
                any([not low < row[index] < high and self._counts(row, index) for index, low, high in always])
                or (full is not None and any([not low < row[index] < high for index, low, high in when_measured]))
                or len(rows) == limit
                or now >= stop
                or self.oracle.num_losses >= self.oracle.max_evaluations
            ):
                break
            self.update()
            if self._cut_short is not None:
                break
        return self._block(rows or [self._row], measured or [True])

    def update(self) -> None:
        """Make the update after the last row; see `Engine.update`."""
        assert self._evaluation is not None, "update() comes after advance()"
        evaluation = self._evaluation
        if isinstance(evaluation, Uncopied):
            if self.oracle.num_losses + 2 > self.oracle.max_evaluations:  # the next may not be made: keep the way back
                self._evaluation = evaluation.copied()
            evaluation.leave()
        try:
            self._move(evaluation)
        except (BudgetSpent, NonFiniteTrial, Stuck) as cause:
            self._restore(cause)
            return
        self.step += 1

    def rewind(self, row: int) -> None:
        """Nothing to do for the last row: it has not been updated.

        Raises:
            ValueError: An earlier row. A criterion must announce by its bands or `due` the rows it may end at.
        """
        if self._evaluation is None or row != self._length - 1:
            raise ValueError("the eager engine keeps the last row only: announce rows by bands() or due()")
        if not isinstance(self._evaluation, Uncopied):
            self.oracle.write(self._evaluation.point)

    def state_dict(self) -> State:
        """The state at the cut after `update()`: continuing from it repeats the run bit for bit."""
        seconds = time.perf_counter() - self._began
        return saved(self.oracle, self.optimiser, self.step, self._previous, seconds)

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict()` was taken. The objective and the optimiser are built the same way before."""
        restore(state, self.oracle, self.optimiser)
        self.step, self._previous = state["step"], state["previous"]
        self._began = time.perf_counter() - state["seconds"]

    def _evaluate(self) -> tuple[Evaluation, Evaluation | None]:
        """The next accepted evaluation, and the one over all data where that is due (the same one without batches)."""
        oracle = self.oracle
        full = None
        if self._batches is not None:
            oracle.micro_batches = self._batches.at(self.step)
            if self.step % self._batches.steps_per_epoch == 0:
                full = self._evaluate_full()
        oracle.stopwatch = self._watch()
        evaluation = oracle.evaluate(self._previous)
        while not self.optimiser.accepts(evaluation, oracle):
            self._move(evaluation)
            evaluation = oracle.evaluate(self._previous)
        self._evaluation = evaluation
        return evaluation, evaluation if self._batches is None else full

    def _evaluate_full(self) -> Evaluation | None:
        if not self._is_timed:
            return self.oracle.evaluate_full()
        self.stopwatch.weight = 1  # each is timed: they are few
        self.stopwatch.turn("full loss")
        try:
            return self.oracle.evaluate_full()
        finally:
            self.stopwatch.turn(None)

    def _move(self, evaluation: Evaluation) -> None:
        watch = self.oracle.stopwatch
        before = None if watch is None else watch.turn("update")
        try:
            self.optimiser.update(evaluation, self.oracle)
            self.oracle.project()
        finally:
            if watch is not None:
                watch.turn(before)

    def _watch(self) -> Stopwatch | None:
        """What times the next step, if it is to be timed."""
        times = weight(self.step) if self._is_timed else 0
        if not times:
            return None
        self.stopwatch.weight = times
        return self.stopwatch

    def _record(self, evaluation: Evaluation, full: Evaluation | None, now: float) -> tuple[float, ...]:
        looked = not isinstance(evaluation, Uncopied) or self.step % KEEP_EVERY == 0 or evaluation.step_norm == 0
        self._previous = evaluation.point if looked else None
        self._row = (
            evaluation.loss,
            evaluation.gradient_norm,
            evaluation.step_norm,
            self.optimiser.learning_rate(),
            float(self.oracle.num_losses),
            now - self._began,
        )
        if self.oracle.constraints is not None:
            self._row += (evaluation.violation,)
            if LAGRANGIAN in self._names:
                self._row += (getattr(self.optimiser, LAGRANGIAN),)
        if self._batches is not None:
            self._row += (math.nan, math.nan) if full is None else (full.loss, full.gradient_norm)
        return self._row

    def _restore(self, cause: CutShort) -> None:
        """Back to the last accepted point; the next block says why."""
        self._cut_short = cause
        if self._evaluation is not None:
            self.oracle.restore(self._evaluation)

    def _block(self, rows: list[tuple[float, ...]], measured: list[bool]) -> Block:
        table = torch.tensor(rows, dtype=torch.float64).T.unsqueeze(-1)
        columns: dict[str, Tensor] = dict(zip(self._names, table, strict=True))
        if self._batches is None:
            columns["full_loss"], columns["full_gradient_norm"] = columns["loss"], columns["gradient_norm"]
        self._length = len(rows)
        searching = bool(getattr(self.optimiser, "searching", False))
        first, seen = self.step - len(rows) + 1, torch.tensor(measured)
        return Block(first, columns, seen, self._cut_short, searching, points=self._points)

    def _counts(self, row: tuple[float, ...], index: int) -> bool:
        """Whether the value was measured: a step that was not is inside every band."""
        return index != STEP_NORM or row[index] == row[index] or not self.oracle.is_sparing

    def _watched(self, bands: Mapping[str, Band]) -> tuple[list[tuple[int, float, float]], ...]:
        """(index in the row, low, high) of the columns to check at every row, and at measured rows only."""
        always, when_measured = [], []
        for name, band in bands.items():
            if self._batches is None:  # the full loss is the loss
                name = name.removeprefix("full_")
            watch = when_measured if name in FULL_COLUMNS else always
            watch.append((self._names.index(name), band.low, band.high))
        return always, when_measured
