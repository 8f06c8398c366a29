"""Many starts at once: one tensor program for all of them."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, BudgetSpent, Halted, Starts, State
from gradopt.optimisers.stacked.optimiser import StackedOptimiser
from gradopt.stacked import Evaluations, StackedOracle
from gradopt.stopwatch import Stopwatch

MAX_VALUES = 1_000_000
"""Values of a column that a block holds at most: with many starts it has fewer rows."""

HALF = 0.5
"""Part of the starts that must have ended before the others are moved together."""


@dataclass(slots=True)
class Ended:
    """Where each start stood when it ended, and the best it had seen; all of shape (starts, ...), in their order."""

    point: Tensor
    loss: Tensor
    gradient_norm: Tensor
    best_point: Tensor
    best_loss: Tensor
    counts: Tensor

    @classmethod
    def room(cls, number: int, like: Tensor) -> "Ended":
        """For so many starts, with points like the rows of `like`."""
        points, numbers = like.new_zeros(number, like.shape[1]), like.new_zeros(number)
        counts = torch.zeros(3, number, dtype=torch.float64)
        return cls(points, numbers, numbers.clone(), points.clone(), numbers.clone(), counts)


class StackedEngine:
    """An `Engine` of many starts: eager, one evaluation of all after another.

    A start that has ended is put back where it ended after each update, so that no momentum moves it; and once half of
    the starts have ended the others are moved together, so that it costs nothing any more.

    A row is a step of every start. Where the optimiser makes trials, those starts whose trial was refused make more of
    them between two rows, in ever smaller company, until each has a new point: so steps are the same for all, every
    criterion finds only points that were accepted, and what is dear, the search for directions, is done for all at
    once. A start that is halted on the way, or out of budget, is put back to its last point; it ends the block.

    Attributes:
        name: Of what makes the steps.
        starts: Which starts the parameters hold.
        stopwatch: Of what building programs has taken in the run.
    """

    def __init__(self, oracle: StackedOracle, optimiser: StackedOptimiser) -> None:
        self.oracle = oracle
        self.optimiser = optimiser
        self.step = 0
        self.stopwatch = Stopwatch()
        number = oracle.num_starts
        self.starts = Starts(torch.arange(number), torch.ones(number, dtype=torch.bool), torch.zeros(number).long())
        self._ended = Ended.room(number, oracle.read())
        self._live = self.starts.index
        self._frozen: tuple[Tensor, Tensor] | None = None
        self._halted: Halted | None = None
        self._previous: Tensor | None = None
        self._length = 0
        self._began = time.perf_counter()

    @property
    def name(self) -> str:
        return "eager"

    def advance(self, limit: Any, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps of all starts; see `Engine.advance`."""
        if isinstance(limit, Tensor):
            limit = int(limit[self.starts.live].min())
        rows: list[dict[str, Tensor]] = []
        stop = time.perf_counter() + seconds
        most = min(limit, max(1, MAX_VALUES // self.oracle.num_starts))
        while True:
            here = self._searched() if self.optimiser.makes_trials else self.oracle.evaluate()
            now = time.perf_counter()
            row = self._record(here, now)
            rows.append(row)
            if len(rows) >= most or now >= stop or self._halted is not None or self._is_outside(row, bands):
                break
            self._move()
        self._length = len(rows)
        columns = {
            name: torch.stack([row[name] for row in rows]) if len(rows) > 1 else rows[0][name][None] for name in row
        }
        columns["full_loss"], columns["full_gradient_norm"] = columns["loss"], columns["gradient_norm"]
        measured = torch.ones(len(rows), dtype=torch.bool)
        steps = torch.tensor([self.step]).expand(self.oracle.num_starts)
        if self._halted is not None:  # they show the row before once more
            steps = steps.clone()
            steps[self._halted.places] -= 1
        self.starts = Starts(self.starts.index, self.starts.live, steps)
        return Block(self.step - len(rows) + 1, columns, measured, starts=self.starts, halted=self._halted)

    def update(self) -> None:
        """Make the update after the last row of the starts that go on; see `Engine.update`."""
        self._move()

    def _move(self) -> None:
        self._halted = None
        self._halt(self.optimiser.update(self.oracle.last, self.oracle, self._going()))
        self.oracle.project()
        if self._frozen is not None:
            self.oracle.write(*self._frozen)
        self.step += 1

    def rewind(self, row: int) -> None:
        """Nothing to do for the last row: it has not been updated.

        Raises:
            ValueError: An earlier row. A criterion must announce by its bands or `due` the rows it may end at.
        """
        if row != self._length - 1:
            raise ValueError("this engine keeps the last row only: announce rows by bands() or due()")

    def retire(self, ended: Tensor) -> Tensor | None:
        """Note where these starts have ended, and move the others together if they have become few."""
        self._note(ended)
        live = self.starts.live & ~ended
        self._live = live.nonzero().flatten()
        self.starts = Starts(self.starts.index, live, self.starts.steps)
        if live.sum() > HALF * len(live):
            rest = (~live).nonzero().flatten()
            self._frozen = rest, self.oracle.last.point[rest]
            return None
        kept = self._live
        self.oracle.keep(kept)
        self.optimiser.keep(kept)
        self.starts = Starts(self.starts.index[kept], live[kept], self.starts.steps[kept])
        self._live = torch.arange(len(kept))
        self._previous = None if self._previous is None else self._previous[kept]
        self._frozen = None
        return kept

    def ended(self) -> Ended:
        """Of all starts: those that are live still end where they stand."""
        self._note(self.starts.live)
        return self._ended

    def state_dict(self) -> State:
        """The state at the cut after `update()`; tensors have the leading axis starts."""
        return {
            "step": self.step,
            "parameters": [parameter.detach().clone() for parameter in self.oracle.parameters],
            "optimiser": self.optimiser.state_dict(),
            "oracle": self.oracle.state(),
            "starts": (self.starts.index, self.starts.live, self.starts.steps),
            "ended": {name: getattr(self._ended, name).clone() for name in Ended.__slots__},
            "frozen": self._frozen,
            "previous": self._previous,
            "last": self.oracle.last.clone() if self.optimiser.makes_trials else None,
            "halted": self._halted,
            "seconds": time.perf_counter() - self._began,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict()` was taken. The objective and the optimiser are built the same way before."""
        self.step = state["step"]
        for parameter, value in zip(self.oracle.parameters, state["parameters"], strict=True):
            parameter.data = value.clone()
        self.optimiser.load_state_dict(state["optimiser"])
        self.oracle.take(state["oracle"])
        self.starts = Starts(*state["starts"])
        self._live = self.starts.live.nonzero().flatten()
        self._ended = Ended(**{name: value.clone() for name, value in state["ended"].items()})
        self._frozen, self._previous, self._halted = state["frozen"], state["previous"], state["halted"]
        if state["last"] is not None:
            self.oracle.last = state["last"].clone()
        self._began = time.perf_counter() - state["seconds"]

    def _going(self) -> Tensor:
        """The places of the starts that have neither ended nor been halted."""
        return self._without_halted(self._live)

    def _halt(self, halted: Halted | None) -> None:
        """Put these starts back to their last points; the next block says why."""
        self._halted = Halted.joined([self._halted, halted])
        if halted is not None:
            self.oracle.write(halted.places, self.oracle.last.point[halted.places])

    def _searched(self) -> Evaluations:
        """A new point of every start that goes on: trials are made of those that have none yet."""
        oracle, optimiser, before = self.oracle, self.optimiser, self.oracle.last
        trying, here = self._affordable(self._going()), None
        if len(trying) < oracle.num_starts:
            here = before.clone()
        while len(trying):
            found = oracle.evaluate_some(trying)
            accepted = optimiser.accepts(found, oracle, trying)
            if accepted is None:
                accepted = torch.ones_like(trying, dtype=torch.bool)
            refused = found.at(~accepted)
            if here is None:
                here = found  # what is refused in it is not there for long
            else:
                here.put(trying[accepted], found.at(accepted))
            trying = trying[~accepted]
            if len(trying):
                self._halt(optimiser.retry(refused, oracle, trying))
                trying = self._affordable(self._without_halted(trying))
        assert here is not None, "there are starts"
        if self._halted is not None:
            here.put(self._halted.places, before.at(self._halted.places))
        oracle.last = here
        return here

    def _without_halted(self, places: Tensor) -> Tensor:
        return places if self._halted is None else places[~torch.isin(places, self._halted.places)]

    def _affordable(self, trying: Tensor) -> Tensor:
        """Those of these starts that may be evaluated once more; the others are halted."""
        oracle, late = self.oracle, self.step > 0 and time.perf_counter() >= self.oracle.deadline
        spent = (oracle.num_losses[trying] >= oracle.max_evaluations) | late
        if not bool(spent.any()):
            return trying
        places = trying[spent]
        self._halt(Halted(places, torch.zeros_like(places), [BudgetSpent()]))
        return trying[~spent]

    def _record(self, here: Evaluations, now: float) -> dict[str, Tensor]:
        number = len(here.loss)
        step_norm = torch.full((1,), math.nan, dtype=torch.float64).expand(number)
        if self._previous is not None:
            change = here.point - self._previous
            step_norm = torch.maximum(change.amax(1), -change.amin(1)).double().cpu()
        self._previous = here.point
        rate = torch.as_tensor(self.optimiser.learning_rate(), dtype=torch.float64).cpu()
        return {
            "loss": here.loss.double().cpu(),
            "gradient_norm": here.gradient_norm.double().cpu(),
            "step_norm": step_norm,
            "learning_rate": rate.expand(number),
            "seconds": torch.tensor([now - self._began], dtype=torch.float64).expand(number),
            "evaluations": self.oracle.num_losses,
        }

    def _is_outside(self, row: Mapping[str, Tensor], bands: Mapping[str, Band]) -> bool:
        """Whether a start that has not ended has left a band."""
        merged: dict[str, Band] = {}
        for name, band in bands.items():
            name = name.removeprefix("full_")
            merged[name] = merged[name] & band if name in merged else band
        for name, band in merged.items():
            inside = row[name] > band.low
            inside &= row[name] < band.high
            if not bool(inside.all()) and bool((self.starts.live & ~inside).any()):
                return True
        return False

    def _note(self, ended: Tensor) -> None:
        places = ended.nonzero().flatten()
        index, oracle, last = self.starts.index[places], self.oracle, self.oracle.last
        to = self._ended
        to.point[index], to.loss[index] = last.point[places], last.loss[places]
        to.gradient_norm[index] = last.gradient_norm[places]
        to.best_point[index], to.best_loss[index] = oracle.best_point[places], oracle.best_loss[places]
        counts = torch.stack([oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products])
        to.counts[:, index] = counts[:, places]
