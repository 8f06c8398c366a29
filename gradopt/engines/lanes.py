"""Steps of many starts by a program, each start at a step of its own."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import pinned
from gradopt.contracts import Band, Block, Starts, State
from gradopt.engines.lane import NUMBERS, Lanes, LanesProgram, Visit
from gradopt.engines.patience import patience
from gradopt.engines.purity import Refusal
from gradopt.engines.rates import Rates
from gradopt.engines.stacked import StackedEngine
from gradopt.mistakes import Mistake
from gradopt.optimisers.stacked.optimiser import StackedTorchOptimiser
from gradopt.stacked import Evaluations, StackedOracle
from gradopt.waits import Abandoned

log = logging.getLogger("gradopt")

WATCHED = ("loss", "gradient_norm", "step_norm")

FIRST_ROWS = 4
"""Of a start at the first visit, which tells how long a row takes."""

WORTH_ROWS, WORTH, MOST_SECONDS = 32, 3.0, 1.0
"""Rows of a visit that there are at least, and how many times as long it takes as what was done since the last one;
unless that takes longer than these seconds.
"""

GATE_STARTS, GATE_ROWS = 16, 12
"""Starts and steps that the program and eager both make before the program goes on alone."""

TOLERANCE = {torch.float32: 5e-3, torch.float64: 6e-6}
"""Share of the largest entry by which a number may be off there: the cube root of the rounding of the dtype."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs eagerly: the starts, and what moves them."""

    oracle: StackedOracle
    optimiser: StackedTorchOptimiser


class LanesEngine(StackedEngine):
    """An engine of many starts that begins eager and goes on with a program.

    A visit runs each start to its own next row outside the bands or next due step, or up to a common number of rows: so
    starts lag behind others. A block has one row, the last one of each start; its step is that of the last of them.

    Args:
        asked: The name of the program.
        build: Makes the program, and proves it; raises `Refusal` where there is none.
        patience: Seconds of eager steps after which it is made; 0: at once, and a refusal is a mistake.
    """

    def __init__(self, parts: Parts, asked: str, build: Callable[[], LanesProgram], patience: float) -> None:
        super().__init__(parts.oracle, parts.optimiser)
        self._asked = asked
        self._build: Callable[[], LanesProgram] | None = build
        self._patience = patience
        self._made: tuple[LanesProgram, Lanes, Tensor] | None = None
        self._adapter = parts.optimiser.inner
        self._rates = Rates(self._adapter)
        self._low, self._pending = 0, False
        self._pace, self._returned = math.inf, math.inf
        self._spent = 0.0
        if patience == 0:
            program = self._proved(build)
            self._build = lambda: program

    @property
    def name(self) -> str:
        """Of the engine that makes the next step."""
        return "eager" if self._made is None else self._asked

    def advance(self, limit: Any, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps of each start; see `Engine.advance`."""
        if self._made is None:
            began = time.perf_counter()
            block = super().advance(limit, bands, seconds)
            self._spent += time.perf_counter() - began
            return block
        program, lanes, _ = self._made
        live, number = self.starts.live, self.oracle.num_starts
        limit = torch.as_tensor(limit).expand(number)
        watched, limit = self._limits(bands, limit)
        steps = lanes.steps.cpu()
        before = torch.where(live, steps, torch.iinfo(torch.int64).max).min().item()
        ahead = torch.where(live, steps, 0).max().item() - before
        rows = int(min(limit[live].max().item(), self._rows_in(seconds)))
        due = steps - int(not self._pending) + limit
        common = self._settled(int(before))
        rates = self._rates.ahead(int(ahead) + rows + 1)
        self._rates.settle(0)
        rows = min(rows, len(rates) - int(ahead)) if len(rates) <= ahead + rows else rows
        table = program.table(common, rates)
        began = time.perf_counter()
        self._visit(table, rows, due, watched)
        made = lanes.made.cpu()
        now = self._returned = time.perf_counter()
        self._pace = (now - began) / (number * rows)
        return self._block(lanes, made, rates, now)

    def update(self) -> None:
        """Make the update after the last row of the starts that go on; see `Engine.update`. A program makes it together
        with the rows that follow.
        """
        if self._made is not None:
            self._pending = True
            return
        super().update()
        spent = min(self._spent, self.oracle.deadline - time.perf_counter())
        if self._build is not None and (self._patience == 0 or spent >= patience(self._patience)):
            with self.stopwatch.during("building a program"):
                self._take_over(self._build)

    def retire(self, ended: Tensor) -> Tensor | None:
        """As `StartsEngine.retire`."""
        kept = super().retire(ended)
        if self._made is not None and kept is not None:
            self._made[1].keep(kept)
        return kept

    def state_dict(self) -> State:
        """The state at the cut after `update()`; tensors have the leading axis starts."""
        if self._made is None:
            return {**super().state_dict(), "lanes": None}
        self._flush()
        _, lanes, common = self._made
        own = {name: getattr(lanes, name).clone() for name in ("steps", "made", *NUMBERS)}
        lists = {name: [one.clone() for one in getattr(lanes, name)] for name in ("gradients", "points")}
        return {**super().state_dict(), "lanes": {**own, **lists}, "common": common.clone(), "low": self._low}

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict()` was taken."""
        super().load_state_dict(state)
        self._made, self._pending = None, False
        if state["lanes"] is not None and self._build is not None:
            kept: dict[str, Any] = {
                name: [one.clone() for one in value] if isinstance(value, list) else value.clone()
                for name, value in state["lanes"].items()
            }
            self._made = self._build(), Lanes(**kept), state["common"].clone()
            self._low = state["low"]

    def _proved(self, build: Callable[[], LanesProgram]) -> LanesProgram:
        try:
            return build()
        except Refusal as refusal:
            raise self._mistake(refusal) from refusal

    def _mistake(self, refusal: Refusal) -> Mistake:
        return Mistake(f"engine={self._asked} cannot run this: {refusal}; use engine=eager, or engine=auto")

    def _take_over(self, build: Callable[[], LanesProgram]) -> None:
        """Go on with the program, from where all starts stand at the same step."""
        self._build = None
        try:
            program = build()
            parameters, states = self._tensors(program)
            if not program.fits(parameters, states):
                raise Refusal("the optimiser keeps a state that is not one of each start")
        except Refusal as refusal:
            if self._patience == 0:
                raise self._mistake(refusal) from refusal
            log.info("engine: eager to the end: %s", refusal)
            return
        except Abandoned:
            return
        self._build = lambda: program
        oracle, number = self.oracle, self.oracle.num_starts
        lanes = Lanes.of(parameters, torch.full((number,), self.step))
        finite = oracle.best_loss.abs() < math.inf
        lanes.lowest = torch.where(finite, oracle.best_loss.double(), math.inf)
        lanes.lowest_size.copy_(oracle.best_norm)  # each in memory of its own: the program writes there
        lanes.points = [part.clone(memory_format=torch.contiguous_format) for part in oracle.split(oracle.best_point)]
        lanes.loss.copy_(oracle.last.loss)
        lanes.size.copy_(oracle.last.gradient_norm)
        change = oracle.read() - oracle.last.point
        lanes.moved = torch.maximum(change.amax(1), -change.amin(1)).double()
        oracle.num_evaluations = torch.full((number,), oracle.num_evaluations)
        common = [self._state(slot).item() for slot in program.slots()[1]]
        self._made = program, lanes, torch.tensor([float(one) for one in common], dtype=torch.float64)
        self._low = self.step

    def _rows_in(self, seconds: float) -> int:
        """How many rows of all starts there is time for. To take starts into the cache and back must be worth it, and
        so must all that is asked of many between two visits: so there may be more than the pulse of the loop allows.
        """
        if self._pace == math.inf:
            return FIRST_ROWS
        row, between = self._pace * self.oracle.num_starts, max(0.0, time.perf_counter() - self._returned)
        return int(max(1, seconds / row, min(max(WORTH_ROWS, WORTH * between / row), MOST_SECONDS / row)))

    def _state(self, slot: tuple[int, str]) -> Tensor:
        return self._adapter.optimizer.state[self.oracle.parameters[slot[0]]][slot[1]]

    def _tensors(self, program: LanesProgram) -> tuple[list[Tensor], list[Tensor]]:
        """The live parameters, and the states that each start has."""
        return [p.detach() for p in self.oracle.parameters], [self._state(slot) for slot in program.slots()[0]]

    def _limits(self, bands: Mapping[str, Band], limit: Tensor) -> tuple[list[Tensor], Tensor]:
        """Low and high of the columns that are watched, and how many rows of each start the others allow."""
        merged: dict[str, Band] = {}
        for name, band in bands.items():
            name = name.removeprefix("full_")
            merged[name] = merged[name] & band if name in merged else band
        for name in merged.keys() - set(WATCHED):
            if name == "evaluations":
                limit = torch.minimum(limit, (merged[name].high - self.oracle.num_losses).clamp(min=1).long())
            elif name != "seconds":  # the clock ends a visit
                limit = torch.ones_like(limit)
        watched = [merged.get(name, Band()) for name in WATCHED]
        sides = [side for band in watched for side in (band.low, band.high)]
        return [torch.as_tensor(side, dtype=torch.float64).reshape(-1).contiguous() for side in sides], limit

    def _settled(self, low: int) -> Tensor:
        """What steps have in common, at the step of the start that lags most; the schedule comes to there, too."""
        assert self._made is not None
        program, lanes, common = self._made
        if low > self._low:
            rates = self._rates.ahead(low - self._low + 1)
            self._rates.settle(low - self._low)
            common = program.table(common, rates)[low - self._low, : program.num_common].clone()
            self._made, self._low = (program, lanes, common), low
        return common

    def _flush(self) -> None:
        """Make the updates that are still to come."""
        assert self._made is not None
        if not self._pending:
            return
        program, lanes, common = self._made
        steps = lanes.steps.cpu()
        ahead = torch.where(self.starts.live, steps, self._low).max().item() - self._low
        rates = self._rates.ahead(int(ahead) + 1)
        self._rates.settle(0)
        limits, _ = self._limits({}, torch.ones(1, dtype=torch.int64))
        self._visit(program.table(common, rates), 0, steps, limits)

    def _visit(self, table: Tensor, limit: int, due: Tensor, bands: Sequence[Tensor]) -> None:
        """Let the program run, on the device of the parameters; see `Visit`."""
        assert self._made is not None
        program, lanes, _ = self._made
        parameters, states = self._tensors(program)
        live, table, due, *bands = [one.to(parameters[0].device) for one in (self.starts.live, table, due, *bands)]
        program.run(lanes, Visit(live, parameters, states, table, self._low, limit, due, bands, self._pending))
        self._pending = False

    def _block(self, lanes: Lanes, made: Tensor, rates: Tensor, now: float) -> Block:
        """What the starts have come to, as the oracle and the criteria read it."""
        oracle, live = self.oracle, self.starts.live
        point, like = oracle.read(), oracle.best_loss
        gradient = oracle.joined(lanes.gradients).clone()
        mask = self._pinned(point, gradient)
        oracle.last = Evaluations(lanes.loss.to(like), lanes.size.to(like), point, gradient, mask)
        oracle.num_evaluations = oracle.num_evaluations + made
        found = lanes.lowest < math.inf
        oracle.best_loss = torch.where(found, lanes.lowest.to(like), oracle.best_loss)
        oracle.best_norm = torch.where(found, lanes.lowest_size.to(like), oracle.best_norm)
        oracle.best_point = oracle.joined(lanes.points)
        steps, loss, size, moved = [
            one.to("cpu", copy=True) for one in (lanes.steps, lanes.loss, lanes.size, lanes.moved)
        ]
        low = int(torch.where(live, steps, torch.iinfo(torch.int64).max).min())
        rate = rates[:, 0].contiguous()[(steps - self._low).clamp(0, len(rates) - 1)]
        columns = {
            "loss": loss,
            "gradient_norm": size,
            "step_norm": moved,
            "loss_before": lanes.before.cpu(),
            "lowest_loss": lanes.bottom.cpu(),
            "learning_rate": rate,
            "evaluations": oracle.num_losses,
            "seconds": torch.tensor([now - self._began], dtype=torch.float64).expand(len(steps)),
        }
        columns = {name: column.unsqueeze(0) for name, column in columns.items()}
        columns["full_loss"], columns["full_gradient_norm"] = columns["loss"], columns["gradient_norm"]
        self.starts = Starts(self.starts.index, live, steps)
        self.step, self._length = low, 1
        return Block(low, columns, torch.ones(1, dtype=torch.bool), starts=self.starts)

    def _pinned(self, point: Tensor, gradient: Tensor) -> Tensor | None:
        """The mask of `pinned`. The program has put zeros where derivatives are infinite: they are asked for anew."""
        oracle = self.oracle
        if oracle.lower is None or oracle.upper is None:
            return None
        suspects = (((point <= oracle.lower) | (point >= oracle.upper)) & (gradient == 0)).any(1).nonzero().flatten()
        if not len(suspects):
            return None
        found = pinned(oracle.gradients_at(point[suspects]), point[suspects], oracle.lower, oracle.upper)
        if found is None:
            return None
        mask = torch.zeros_like(point, dtype=torch.bool)
        mask[suspects] = found
        return mask


def prove(program: LanesProgram, parts: Callable[[], Parts]) -> None:
    """Let a few starts make the same steps by the program and by eager.

    Args:
        parts: Of these starts, made anew at each call.

    Raises:
        Refusal: They do not give the same records but for rounding.
    """
    eager, ours = (LanesEngine(parts(), program.name, lambda: program, patience) for patience in (math.inf, 0.0))
    for row in range(GATE_ROWS):
        one, other = eager.advance(1, {}, 1.0), ours.advance(1, {}, 1.0)
        tolerance = TOLERANCE[eager.oracle.last.loss.dtype]
        for name in WATCHED:
            usual, new = one[name][-1], other[name][-1]
            finite = usual.isfinite()
            scale = usual[finite].abs().max().item() if bool(finite.any()) else 0.0
            same = (usual == new) | (usual.isnan() & new.isnan()) | ((usual - new).abs() <= tolerance * scale)
            if not bool(same.all()):
                raise Refusal(
                    f"at step {row} its {name.replace('_', ' ')} is not that of eager: the loss or the optimiser has "
                    "state that no trace shows"
                )
        eager.update()
        ours.update()
