"""Many starts at once: one tensor program for all of them."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, Starts, State
from gradopt.optimisers.stacked import StackedTorchOptimiser
from gradopt.stacked import Evaluations, StackedOracle

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

    Attributes:
        starts: Which starts the parameters hold.
    """

    def __init__(self, oracle: StackedOracle, optimiser: StackedTorchOptimiser) -> None:
        self.oracle = oracle
        self.optimiser = optimiser
        self.step = 0
        number = oracle.num_starts
        self.starts = Starts(torch.arange(number), torch.ones(number, dtype=torch.bool), torch.zeros(number).long())
        self._ended = Ended.room(number, oracle.read())
        self._frozen: tuple[Tensor, Tensor] | None = None
        self._previous: Tensor | None = None
        self._length = 0
        self._began = time.perf_counter()

    def advance(self, limit: Any, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps of all starts; see `Engine.advance`."""
        if isinstance(limit, Tensor):
            limit = int(limit[self.starts.live].min())
        rows: list[dict[str, Tensor]] = []
        stop = time.perf_counter() + seconds
        most = min(limit, max(1, MAX_VALUES // self.oracle.num_starts))
        while True:
            now = time.perf_counter()
            row = self._record(self.oracle.evaluate(), now)
            rows.append(row)
            if len(rows) >= most or now >= stop or self._is_outside(row, bands):
                break
            self.update()
        self._length = len(rows)
        columns = {
            name: torch.stack([row[name] for row in rows]) if len(rows) > 1 else rows[0][name][None] for name in row
        }
        columns["full_loss"], columns["full_gradient_norm"] = columns["loss"], columns["gradient_norm"]
        measured = torch.ones(len(rows), dtype=torch.bool)
        steps = torch.tensor([self.step]).expand(self.oracle.num_starts)
        self.starts = Starts(self.starts.index, self.starts.live, steps)
        return Block(self.step - len(rows) + 1, columns, measured, starts=self.starts)

    def update(self) -> None:
        """Make the update after the last row of the starts that go on; see `Engine.update`."""
        self.optimiser.update(self.oracle.last, self.oracle)
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
        self.starts = Starts(self.starts.index, live, self.starts.steps)
        if live.sum() > HALF * len(live):
            rest = (~live).nonzero().flatten()
            self._frozen = rest, self.oracle.last.point[rest]
            return None
        kept = live.nonzero().flatten()
        self.oracle.keep(kept)
        self.optimiser.keep(kept)
        self.starts = Starts(self.starts.index[kept], live[kept], self.starts.steps[kept])
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
        self._ended = Ended(**{name: value.clone() for name, value in state["ended"].items()})
        self._frozen, self._previous = state["frozen"], state["previous"]
        self._began = time.perf_counter() - state["seconds"]

    def _record(self, here: Evaluations, now: float) -> dict[str, Tensor]:
        number = len(here.loss)
        step_norm = torch.full((1,), math.nan, dtype=torch.float64).expand(number)
        if self._previous is not None:
            change = here.point - self._previous
            step_norm = torch.maximum(change.amax(1), -change.amin(1)).double().cpu()
        self._previous = here.point
        same = {"learning_rate": self.optimiser.learning_rate(), "seconds": now - self._began}
        return {
            "loss": here.loss.double().cpu(),
            "gradient_norm": here.gradient_norm.double().cpu(),
            "step_norm": step_norm,
            **{name: torch.tensor([value], dtype=torch.float64).expand(number) for name, value in same.items()},
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
