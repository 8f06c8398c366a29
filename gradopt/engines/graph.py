"""Steps in blocks, by a program that was made from the graph of one: what all fast engines have in common."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gradopt.contracts import MAX_FOLLOWED, Band, Block, BudgetSpent, Evaluation, State
from gradopt.engines.eager import COLUMNS
from gradopt.engines.rates import Rates
from gradopt.engines.state import restore, saved
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle
from gradopt.unknowns import largest

LOSS, GRADIENT_NORM, STEP_NORM, LEARNING_RATE, EVALUATIONS, SECONDS = range(len(COLUMNS))

FEW_RATES = 100
"""Learning rates that a schedule is asked for at once, or twice as many as the last block has used."""

Watch = tuple[int, float, float]
"""A column of the records, and the open interval in which its values need nobody's attention; NaN lies outside."""


class Program(Protocol):
    """Steps on the live tensors of a `StepGraph`: its parameters and its `state()`, which is asked for at each call.

    Attributes:
        step_norm: Of the update that led to where the parameters stand. Whoever puts them there sets it.
        best: The lowest finite loss among the rows since this was last None, the first of equals, and its point as one
            vector. Whoever takes it sets it to None.
    """

    step_norm: float
    best: tuple[float, Tensor] | None

    def run(self, rates: Tensor, watched: Sequence[Watch], stop: float) -> Tensor:
        """Evaluate rows, the first where the parameters stand, and update between them.

        It ends at the first row with a value that is watched and outside its interval, after as many rows as there are
        rates, or once `time.perf_counter()` passes `stop`. The parameters and the state then stand at the last row,
        evaluated and not updated, and `.grad` holds its gradient.

        Args:
            rates: Row r is for the update behind row r; shape (rows, groups), float64.

        Returns:
            Loss, gradient norm and step norm of each row; shape (rows, 3), float64.
        """
        ...

    def update(self, rates: Tensor) -> None:
        """The update behind the last row, at the rates of its groups; it may use what `run` has computed."""
        ...


class GraphEngine:
    """An `Engine` round a program. It takes over from eager behind an update, by `load_state_dict()`."""

    def __init__(self, oracle: AutogradOracle, optimiser: TorchOptimiser, program: Program) -> None:
        self.oracle = oracle
        self.optimiser = optimiser
        self.step = 0
        self._program = program
        self._rates = Rates(optimiser)
        self._next_rates: Tensor | None = None
        self._previous: Tensor | None = None
        self._row: Tensor | None = None
        self._length = 0
        self._follows = sum(parameter.numel() for parameter in oracle.parameters) <= MAX_FOLLOWED
        self._began = time.perf_counter()

    def advance(self, limit: int, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps; see `Engine.advance`."""
        oracle, start = self.oracle, time.perf_counter()
        if oracle.num_losses >= oracle.max_evaluations or start >= oracle.deadline:
            return self._spent()
        limit = int(min(limit, oracle.max_evaluations - oracle.num_losses))
        if self._rates.are_asked:  # what is asked for rows that the time does not allow is asked for again
            limit = min(limit, max(FEW_RATES, 2 * self._length))
        rates = self._rates.ahead(limit)
        known = self._known(rates, bands)
        stop = min(start + seconds, oracle.deadline, self._began + bands.get("seconds", Band()).high)
        records = self._program.run(rates[: len(known)], _watched(bands), stop)
        rows = len(records)
        self._rates.settle(rows - 1)
        self._next_rates = rates[rows - 1]
        oracle.num_losses += rows
        oracle.num_gradients += rows
        self.step += rows - 1
        self._keep_best(records)
        return self._block(torch.cat([records, known[:rows], self._moments(start, rows)], dim=1))

    def update(self) -> None:
        """Make the update after the last row; see `Engine.update`."""
        assert self._next_rates is not None, "update() comes after advance()"
        self._previous = self.oracle.read()
        self._program.update(self._next_rates)
        self.optimiser.advance_schedule()
        self.step += 1

    def rewind(self, row: int) -> None:
        """Nothing to do for the last row, where the parameters stand.

        Raises:
            ValueError: An earlier row. A criterion must announce by its bands or `due` the rows it may end at.
        """
        if row != self._length - 1:
            raise ValueError("a block ends at its first row of interest: announce rows by bands() or due()")

    def state_dict(self) -> State:
        """The state at the cut after `update()`, in the form of every engine."""
        return saved(self.oracle, self.optimiser, self.step, self._previous, time.perf_counter() - self._began)

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict()` of any engine was taken, after its first update at the earliest."""
        restore(state, self.oracle, self.optimiser)
        self.step, self._previous = state["step"], state["previous"]
        self._began = time.perf_counter() - state["seconds"]
        self._program.step_norm = math.nan
        if self._previous is not None:  # of many unknowns it is kept now and then only
            self._program.step_norm = largest(self.oracle.read() - self._previous)

    def _spent(self) -> Block:
        """The budget is spent: back to the last row, and that once more, for the verdict."""
        assert self._row is not None and self._previous is not None, "a budget is spent after the first block"
        self.oracle.write(self._previous)
        self.step -= 1
        row = self._row.clone()
        row[EVALUATIONS], row[SECONDS] = self.oracle.num_losses, time.perf_counter() - self._began
        return self._block(row.unsqueeze(0), BudgetSpent())

    def _known(self, rates: Tensor, bands: Mapping[str, Band]) -> Tensor:
        """Learning rate and number of evaluations of each row to come, up to the first outside their bands."""
        counts = self.oracle.num_losses + torch.arange(1, len(rates) + 1, dtype=torch.float64)
        known = torch.stack([rates[:, 0], counts], dim=1)
        rows = len(known)
        for index, name in enumerate(("learning_rate", "evaluations")):
            if name in bands:
                inside = (known[:, index] > bands[name].low) & (known[:, index] < bands[name].high)
                rows = min([rows, *(torch.nonzero(~inside).flatten() + 1).tolist()[:1]])
        return known[:rows]

    def _moments(self, start: float, rows: int) -> Tensor:
        """Seconds of the rows of a block, spread evenly over the time it took."""
        shares = torch.arange(1, rows + 1, dtype=torch.float64).unsqueeze(1) / rows
        return start - self._began + shares * (time.perf_counter() - start)

    def _keep_best(self, records: Tensor) -> None:
        found, self._program.best = self._program.best, None
        best = self.oracle.best
        if found is None or (best is not None and math.isfinite(best.loss) and found[0] >= best.loss):
            return
        self.oracle.lowest_loss = min(self.oracle.lowest_loss, found[0])
        row = int((records[:, LOSS] == found[0]).nonzero()[0])
        self.oracle.best = _Best(found[0], records[row, GRADIENT_NORM].item(), found[1], self.oracle)

    def _block(self, rows: Tensor, cut_short: BudgetSpent | None = None) -> Block:
        self._row, self._length = rows[-1], len(rows)
        columns: dict[str, Tensor] = dict(zip(COLUMNS, rows.T.unsqueeze(-1), strict=True))
        columns["full_loss"], columns["full_gradient_norm"] = columns["loss"], columns["gradient_norm"]
        first, seen = self.step - len(rows) + 1, torch.ones(len(rows), dtype=torch.bool)
        return Block(first, columns, seen, cut_short, points=[(self.step, self.oracle.read())] if self._follows else ())


class _Best(Evaluation):
    """The best point of a program, which keeps no gradient of it: that is evaluated when somebody asks."""

    def __init__(self, loss: float, gradient_norm: float, point: Tensor, oracle: AutogradOracle) -> None:
        self._oracle = oracle
        self._gradient: Tensor | None = None
        super().__init__(loss, gradient_norm, point, point)

    @property
    def gradient(self) -> Tensor:  # type: ignore  # a value there, evaluated late here
        """As a vector."""
        if self._gradient is None:
            with self._oracle.uncounted():
                self._gradient = self._oracle.gradient(self.point)
        return self._gradient

    @gradient.setter
    def gradient(self, _: Tensor) -> None:  # type: ignore  # it is set late
        """Asked for by the constructor of an `Evaluation` only."""


def _watched(bands: Mapping[str, Band]) -> list[Watch]:
    watched = []
    for name, band in bands.items():
        name = name.removeprefix("full_")  # the full loss is the loss
        if name in COLUMNS[:3]:
            watched.append((COLUMNS.index(name), band.low, band.high))
    return watched
