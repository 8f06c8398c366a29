"""The criteria of many starts: each start is judged as it would be in a run of its own.

They say what the criteria of one start say, and in their words. What is remembered is a tensor of shape (starts, ...).
Whatever takes more than a few numbers is asked of one start after another, by the criterion of one start.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, Judgement, NonFiniteTrial, State, Stuck
from gradopt.criteria.convergence import Convergence
from gradopt.criteria.failure import EVERY, Diverged, NonFinite, Stalled, Unbounded
from gradopt.stacked import StackedOracle
from gradopt.stationarity.points import StationaryPoints
from gradopt.stationarity.stacked import CURVATURES, StackedPoints
from gradopt.verdict import Status

AGAIN = 10
"""Steps after which the scales of losses are brought up to date, once the first steps are over."""


FIRST_STEPS = 20
"""As long as these last they are brought up to date at each step."""


def next_looks(steps: Tensor) -> Tensor:
    """`next_look` of each start."""
    lengths = torch.frexp((steps // (16 * EVERY)).double()).exponent.long()
    spacing = EVERY * 2 ** (lengths - 1).clamp(min=0)
    soon = torch.where(steps < 20, 20, torch.where(steps < 40, 40, 80))
    return torch.where(steps < 80, soon, (steps // spacing + 1) * spacing)


class _PerStart:
    """Remembers tensors with a leading axis of starts, and numbers that are the same for all."""

    def keep(self, kept: Tensor) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[kept])

    def state_dict(self) -> State:
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)


class StackedNonFinite(_PerStart):
    """`NonFinite` of each start."""

    def bands(self) -> Mapping[str, Band]:
        return {"loss": Band(), "gradient_norm": Band()}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: StackedOracle) -> Judgement | None:
        loss, norm = _with_trials(block), block["gradient_norm"][-1]
        if _is_finite(loss) and _is_finite(norm):
            return None
        bad = ~((loss.abs() < math.inf) & (norm.abs() < math.inf)) & (loss != -math.inf) & _live(block)
        places = bad.nonzero().flatten()
        if not len(places):
            return None
        if len(block) > 1:
            before = block["loss"][-2, places]
        else:
            before = block.columns.get("loss_before", torch.full_like(block["loss"], math.nan))[0, places]
        trial, short = block.halted_by(NonFiniteTrial)[places], _however_short(block)[places]
        before = before.masked_fill(trial, math.nan)
        numbers = {"loss": loss[places], "gradient_norm": norm[places], "before": before}
        best = oracle.best_loss[places].double().cpu()
        evidence = {**numbers, "best": best, "step": block.steps[places], "trial": trial, "however_short": short}
        return Judgement.last(Status.NON_FINITE, block, places, **evidence)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return NonFinite().sentence(status, evidence)


class StackedDiverged(_PerStart):
    """`Diverged` of each start."""

    def __init__(self) -> None:
        self._start = self._best = self._scale = torch.empty(0)
        self._alarm_loss = self._alarm_step = self._top = torch.empty(0)
        self._next = 0

    def bands(self) -> Mapping[str, Band]:
        return {"full_loss": Band(high=self._top)} if len(self._top) else {}

    def due(self, step: Tensor) -> Tensor | float:
        return self._alarm_step + Diverged.PATIENCE if len(self._alarm_step) else math.inf

    def judge(self, block: Block, oracle: StackedOracle) -> Judgement | None:
        last, live = block["loss"][-1], _live(block)
        if not len(self._best):
            self._start, self._scale = last, torch.zeros_like(last)
            self._best = self._alarm_loss = self._alarm_step = torch.full_like(last, math.inf)
            self._top = self._best.clone()
        over = (last >= self._top) & (last < math.inf)
        if not bool(over.any()) and block.last_step < self._next:
            return None
        self._next = block.last_step + (1 if block.last_step < FIRST_STEPS else AGAIN)
        losses = block.columns.get("lowest_loss", block["loss"])
        lowest = torch.where(losses.abs() < math.inf, losses, math.inf).amin(0)
        alarmed = self._alarm_step < math.inf
        self._best = torch.minimum(self._best, lowest)
        self._scale = torch.maximum(self._scale, torch.maximum(self._start.abs(), self._start - self._best))
        late = alarmed & (block.steps >= self._alarm_step + Diverged.PATIENCE)
        higher = alarmed & (last > Diverged.top(self._alarm_loss, self._best))
        back = late & ~higher & (lowest <= self._alarm_loss)
        ends = (higher | late) & ~back & live
        places = ends.nonzero().flatten()
        self._scale = torch.where(back, torch.maximum(self._scale, self._alarm_loss - self._best), self._scale)
        begins = over & ~alarmed
        self._alarm_loss = torch.where(begins, last, self._alarm_loss)
        self._alarm_step = torch.where(begins, block.steps.double(), self._alarm_step)
        self._alarm_step = torch.where(back | ends | ~live, math.inf, self._alarm_step)
        self._top = self._limit()
        if not len(places):
            return None
        numbers = {"loss": last[places], "best": self._best[places], "start": self._start[places]}
        return Judgement.last(Status.DIVERGED, block, places, **numbers, step=block.steps[places])

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return Diverged().sentence(status, evidence)

    def _limit(self) -> Tensor:
        """The loss from which on a start alarms, or once it has, from which on it has diverged."""
        ceiling = torch.where(self._scale > 0, Diverged.ceiling(self._best, self._scale), math.inf)
        return torch.where(self._alarm_step < math.inf, Diverged.top(self._alarm_loss, self._best), ceiling)


class StackedUnbounded(_PerStart):
    """`Unbounded` of each start."""

    def __init__(self) -> None:
        self._loss = self._gradient_norm = self._size = self._floor = self._low = self._seen = torch.empty(0)
        self._is_low = torch.zeros(1, dtype=torch.bool)

    def bands(self) -> Mapping[str, Band]:
        return {"full_loss": Band(low=torch.where(self._is_low, self._floor, self._low))} if len(self._floor) else {}

    def due(self, step: Tensor) -> Tensor | float:
        return torch.where(self._is_low, next_looks(step).double(), math.inf)

    def judge(self, block: Block, oracle: StackedOracle) -> Judgement | None:
        loss, norm = _with_trials(block), block["gradient_norm"][-1]
        falling: Tensor | None = None
        if not len(self._floor):
            self._loss, self._gradient_norm = loss.clone(), norm.clone()
            self._size = oracle.last.point.abs().amax(1).double().cpu()
            scale = loss.nan_to_num(neginf=0.0).abs().clamp(min=1.0)
            self._floor, self._low = Unbounded.FLOOR * scale, loss - scale
            self._seen, self._is_low = torch.full_like(loss, math.inf), torch.zeros_like(loss, dtype=torch.bool)
        self._is_low |= loss <= self._low
        if oracle.has_proofs:
            looked = next_looks(block.steps - 1) == block.steps  # where others end a block must change no verdict
            falling = looked & (loss < self._low) & (loss <= self._seen)
            self._seen = torch.where(looked, loss, self._seen)
        fallen = (loss < self._floor) if falling is None else falling | (loss < self._floor)
        places = fallen.nonzero().flatten()
        places = places[_live(block)[places]]
        if not len(places):
            return None
        now, size = loss[places], oracle.last.point[places].abs().amax(1).double().cpu()
        deep = now < self._floor[places]
        grown, steep = size > 10 * self._size[places], norm[places] >= 0.5 * self._gradient_norm[places]
        ends = (now == -math.inf) | (deep & grown & steep & (not _boxed(oracle)))
        self._floor[places] *= torch.where(deep & ~ends, 1e3, 1.0)
        asked = (ends if falling is None else ends | falling[places]).tolist()
        proofs = [_proof(oracle, place) if ask else None for place, ask in zip(places.tolist(), asked, strict=True)]
        ends |= torch.tensor([proof is not None for proof in proofs])
        if not bool(ends.any()):
            return None
        numbers = {"loss": now[ends], "start": self._loss[places][ends], "size": size[ends], "grown": grown[ends]}
        proof = [proofs[index] for index in ends.nonzero().flatten().tolist()]
        return Judgement.last(
            Status.UNBOUNDED, block, places[ends], **numbers, step=block.steps[places[ends]], proof=proof
        )

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return Unbounded().sentence(status, evidence)


class StackedConvergence:
    """`Convergence` of each start."""

    def __init__(self, points: StackedPoints) -> None:
        self._points = points

    def bands(self) -> Mapping[str, Band]:
        return {"full_gradient_norm": Band(low=self._points.needed), "step_norm": Band(low=0.0, high=math.inf)}

    def due(self, step: Tensor) -> Tensor | float:
        return self._points.due(step)

    def judge(self, block: Block, oracle: StackedOracle) -> Judgement | None:
        stuck, live, still = block.halted_by(Stuck), _live(block), block["step_norm"][-1] == 0
        if block.halted is not None:
            live, still = live.clone(), still.clone()
            live[block.halted.places] = still[block.halted.places] = False
            live |= stuck & _live(block)
        found = self._points.look(oracle, block.steps, still, live, stuck)
        if found is None:
            return None
        row = torch.full_like(found.code, len(block) - 1)
        common = {
            "step": block.steps[found.places],
            "word": "" if oracle.lower is None else "projected ",
            "num_escapes": 0,
        }
        return Judgement(found.code, row, {**found.evidence, **common}, found.places)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        told = {**evidence, "curvature": CURVATURES[int(evidence["curvature"])], "num_flat": int(evidence["num_flat"])}
        return Convergence(StationaryPoints()).sentence(status, told)

    def keep(self, kept: Tensor) -> None:
        self._points.keep(kept)

    def state_dict(self) -> State:
        return self._points.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._points.load_state_dict(state)


class StackedStalled(_PerStart):
    """`Stalled` of each start."""

    def __init__(self) -> None:
        self._still = self._origin = self._first = torch.empty(0)
        self._next = self._before = torch.zeros(1, dtype=torch.int64)

    def bands(self) -> Mapping[str, Band]:
        return {}

    def due(self, step: Tensor) -> Tensor | float:
        return self._next

    def judge(self, block: Block, oracle: StackedOracle) -> Judgement | None:
        steps = block["step_norm"]
        if not len(self._origin):
            self._origin, self._first = oracle.last.point, block["loss"][0]
            self._still = torch.zeros(steps.shape[1], dtype=torch.int64)
            self._before = torch.full_like(self._still, -1)
        # What was not recorded of the rows in between has moved: a row without a move ends a block.
        unseen = block.steps - self._before > len(block)
        self._still = torch.where(unseen, 0, self._still)
        for row in steps:
            self._still = torch.where(row == 0, self._still + 1, 0)
        looked = block.steps >= self._next
        self._before, self._next = block.steps, (block.steps // EVERY + 1) * EVERY
        asked = (looked & (self._still >= Stalled.PATIENCE)) | block.halted_by(Stuck)
        places = (asked & _live(block)).nonzero().flatten().tolist()
        judged = [(place, self._alone(block, oracle, place)) for place in places]
        found = [(place, one) for place, one in judged if one is not None]
        if not found:
            return None
        code = torch.cat([one.code for _, one in found])
        evidence = {name: [one.evidence[name] for _, one in found] for name in found[0][1].evidence}
        return Judgement(code, torch.full_like(code, len(block) - 1), evidence, torch.tensor([p for p, _ in found]))

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return Stalled().sentence(status, evidence)

    def _alone(self, block: Block, oracle: StackedOracle, place: int) -> Judgement | None:
        stalled = Stalled()
        stalled.load_state_dict(
            {
                "_origin": self._origin[place],
                "_first": self._first[place].item(),
                "_still": int(self._still[place]) - len(block),
            }
        )
        with oracle.alone(place) as one:
            return stalled.judge(block.of(place), one)


def _is_finite(numbers: Tensor) -> bool:
    """Whether all are, in as few passes as there can be: NaN is the least and the largest of numbers it is among."""
    low, high = numbers.aminmax()
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _live(block: Block) -> Tensor:
    assert block.starts is not None, "the criteria of many starts are for a run of many"
    return block.starts.live


def _with_trials(block: Block) -> Tensor:
    """The losses of the last row; of the starts that a trial has halted, those of the trials."""
    loss, halted = block["loss"][-1], block.halted
    if halted is None:
        return loss
    trials = [cause.loss if isinstance(cause, NonFiniteTrial) else math.nan for cause in halted.causes]
    halts = block.halted_by(NonFiniteTrial)
    told = torch.zeros_like(loss)
    told[halted.places] = torch.tensor(trials, dtype=loss.dtype)[halted.code]
    return torch.where(halts, told, loss)


def _however_short(block: Block) -> Tensor:
    """The starts whose trials were not finite however short they were; a mask."""
    mask, halted = torch.zeros(block["loss"].shape[1], dtype=torch.bool), block.halted
    if halted is not None:
        short = [isinstance(cause, NonFiniteTrial) and cause.however_short for cause in halted.causes]
        mask[halted.places] = torch.tensor(short)[halted.code]
    return mask


def _boxed(oracle: StackedOracle) -> bool:
    """Whether every unknown is bounded on both sides."""
    if oracle.lower is None or oracle.upper is None:
        return False
    return bool((oracle.lower.isfinite() & oracle.upper.isfinite()).all())


def _proof(oracle: StackedOracle, place: int) -> str | None:
    """Of one start, if its objective proves anything."""
    if not oracle.has_proofs:
        return None
    with oracle.alone(place) as one:
        return one.unbounded_below()
