"""Failures: endings that are no answer, told apart and named."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.constraints.functions import missed_in_words, worst
from gradopt.contracts import Band, Block, BudgetSpent, Evaluation, Judgement, NonFiniteTrial, Oracle, State, Stuck
from gradopt.stationarity.curvature import Curvature, examine, sizes, ways
from gradopt.stationarity.falls import falls_as_promised
from gradopt.stationarity.floors import falls_along_floor
from gradopt.stationarity.tails import tail
from gradopt.verdict import Status

ROUNDINGS = 100
"""Falls of the loss up to this many of its roundings are lost to a solver that compares losses."""

EVERY = 100
"""Steps between two looks of the criteria that watch a trend, at least."""


def next_look(step: int) -> int:
    """The first step behind `step` at which a trend is looked at: a function of the step alone, so that every engine
    finds it at the same one. 20, 40, 80, then every `EVERY`, then at least 16 times while the steps double.
    """
    if step < 80:
        return next(look for look in (20, 40, 80) if look > step)
    spacing = EVERY << max(0, (step // (16 * EVERY)).bit_length() - 1)
    return (step // spacing + 1) * spacing


class NonFinite:
    """Ends before a loss or gradient that is NaN or +inf moves anything."""

    def bands(self) -> Mapping[str, Band]:
        return {"loss": Band(), "gradient_norm": Band(), "full_loss": Band(), "full_gradient_norm": Band()}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        row = len(block) - 1
        loss, gradient = block["loss"][row, 0].item(), block["gradient_norm"][row, 0].item()
        if block.measured[row] and math.isfinite(loss):
            loss = block["full_loss"][row, 0].item()
        trial = block.cut_short if isinstance(block.cut_short, NonFiniteTrial) else None
        if trial is not None:
            loss = trial.loss
        if loss == -math.inf or (math.isfinite(loss) and math.isfinite(gradient)):
            return None
        before = block["loss"][row - 1, 0].item() if row and trial is None else math.nan
        best = math.nan if oracle.best is None else oracle.best.loss
        return Judgement.one(
            Status.NON_FINITE,
            row,
            loss=loss,
            gradient_norm=gradient,
            step=block.last_step,
            before=before,
            best=best,
            trial=trial is not None,
            however_short=trial is not None and trial.however_short,
        )

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        step, loss = evidence["step"], evidence["loss"]
        if math.isfinite(loss):
            what = f"the gradient is not finite at step {step} though the loss is {loss:.6g}"
            hint = "look for sqrt, abs or a norm at 0, or a division hidden by where()"
        else:
            what = f"the loss became {loss:g} {'inside' if evidence['trial'] else 'at'} step {step}"
            if evidence["before"] == evidence["before"]:
                what += f", after {evidence['before']:.6g} one step earlier"
            hint = "try a smaller learning rate, bounds that keep the unknowns in the domain, or gradient clipping"
            if evidence["however_short"]:
                hint = (
                    "the point lies at the edge of the domain, and every step down leaves it, however short: give the "
                    "unknowns bounds that keep them in it (objective.bounds), or start elsewhere"
                )
            elif evidence["trial"]:
                hint = (
                    "the optimiser stepped out of the domain; try a smaller learning rate, or bounds that keep the "
                    "unknowns in it with an optimiser that takes bounds, such as lbfgs or adam"
                )
            elif step == 0:
                hint = "the objective has no finite value at the start: move x0 into its domain"
        best = f"; the best point kept has loss {evidence['best']:.10g}" if math.isfinite(evidence["best"]) else ""
        return f"{what}; nothing was moved by it{best}. To mend: {hint}"

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


class Diverged:
    """Ends when the loss climbs and does not come back.

    An alarm goes off 1e8 times as far above the best loss as the run has ever moved it; the run has diverged if the
    loss then climbs 1e4 times higher still, or has not come back below the alarm 50 steps later.
    """

    PATIENCE = 50

    @staticmethod
    def ceiling(best: Any, scale: Any) -> Any:
        """The loss of the alarm, from the best loss and by how much the run has moved it; numbers or tensors."""
        return best + 1e8 * scale

    @staticmethod
    def top(alarm_loss: Any, best: Any) -> Any:
        """The loss above which a run whose alarm went off has diverged."""
        return alarm_loss + 1e4 * (alarm_loss - best)

    def __init__(self) -> None:
        self._start = math.nan
        self._best = math.inf
        self._scale = 0.0
        self._alarm_step: int | None = None
        self._alarm_loss = math.inf

    def bands(self) -> Mapping[str, Band]:
        if self._alarm_step is not None:
            return {"full_loss": Band(high=self.top(self._alarm_loss, self._best))}
        return {"full_loss": Band(high=self._ceiling())}

    def due(self, step: int) -> float:
        return math.inf if self._alarm_step is None else self._alarm_step + self.PATIENCE

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        losses = block["full_loss"][block.measured, 0]
        losses = losses[losses.isfinite()]
        if not len(losses):
            return None
        loss, ceiling = losses[-1].item(), self._ceiling()
        if self._start != self._start:
            self._start = losses[0].item()
        before = self._best
        self._best = min(self._best, losses.min().item())
        self._scale = max(self._scale, abs(self._start), self._start - self._best)
        if self._alarm_step is None:
            if before < math.inf and loss >= ceiling:
                self._alarm_step, self._alarm_loss = block.last_step, loss
            return None
        higher = loss > self.top(self._alarm_loss, self._best)
        if not higher and block.last_step < self._alarm_step + self.PATIENCE:
            return None
        if not higher and losses.min() <= self._alarm_loss:
            self._alarm_step, self._scale = None, max(self._scale, self._alarm_loss - self._best)
            return None
        evidence = {"loss": loss, "best": self._best, "start": self._start, "step": block.last_step}
        return Judgement.one(Status.DIVERGED, len(block) - 1, **evidence)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return (
            f"the loss climbed to {evidence['loss']:.3g} at step {evidence['step']} and does not come back "
            f"(start {evidence['start']:.6g}, best {evidence['best']:.10g}, which is returned). To mend: try a "
            "learning rate ten times smaller, or gradient clipping"
        )

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)

    def _ceiling(self) -> float:
        return self.ceiling(self._best, self._scale) if self._scale > 0 else math.inf


class Unbounded:
    """Ends when the loss falls without limit.

    By evidence: the loss is -inf; or it is 1e15 times below the start's (at least -1e15) while the unknowns have grown
    and the gradient has not shrunk. By proof: the objective shows that descent from here never ends, and the loss has
    been falling for a while. Never by evidence when every unknown is bounded on both sides.

    It asks for a proof once the loss has fallen by more than its size at the start (at least 1), and then at the steps
    of `next_look` at which it is lower than at the last.
    """

    FLOOR = -1e15
    """Times the loss at the start, at least 1: the loss below which the evidence counts."""

    def __init__(self) -> None:
        self._loss = math.nan
        self._gradient_norm = math.nan
        self._size = 0.0
        self._floor = -math.inf
        self._low = -math.inf
        self._is_low = False
        self._seen = math.inf

    def bands(self) -> Mapping[str, Band]:
        return {"full_loss": Band(low=self._floor if self._is_low else self._low)}

    def due(self, step: int) -> float:
        return next_look(step) if self._is_low else math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        last = len(block) - 1
        loss = block["full_loss"][last, 0].item()
        gradient_norm = block["full_gradient_norm"][last, 0].item()
        if isinstance(block.cut_short, NonFiniteTrial) and block.cut_short.loss == -math.inf:
            loss = -math.inf
        elif not block.measured[last]:
            return None
        if self._loss != self._loss:
            self._loss, self._gradient_norm, self._size = loss, gradient_norm, oracle.read().abs().max().item()
            self._floor, self._low = self.FLOOR * max(1.0, abs(loss)), loss - max(1.0, abs(loss))
            if loss != -math.inf:
                return None
        self._is_low |= loss <= self._low
        if oracle.constraints is not None and not block["violation"][last, 0] <= oracle.violation_tolerance:
            return None  # a loss may fall for ever where the constraints are missed
        falling = False
        if next_look(block.last_step - 1) == block.last_step:  # where others end a block must change no verdict
            falling = loss < self._low and loss <= self._seen
            self._seen = loss
        if not (falling or loss < self._floor or loss == -math.inf):
            return None
        return self._look(block, oracle, loss, gradient_norm, falling=falling)

    def _look(
        self, block: Block, oracle: Oracle, loss: float, gradient_norm: float, *, falling: bool
    ) -> Judgement | None:
        last, size = len(block) - 1, oracle.read().abs().max().item()
        evidence = {"loss": loss, "start": self._loss, "size": size, "step": block.last_step}
        boxed = (
            oracle.lower is not None
            and oracle.upper is not None
            and bool((oracle.lower.isfinite() & oracle.upper.isfinite()).all())
        )
        evidence["grown"] = grown = size > 10 * self._size
        steep = gradient_norm >= 0.5 * self._gradient_norm
        if loss == -math.inf or (loss < self._floor and grown and steep and not boxed):
            return Judgement.one(Status.UNBOUNDED, last, **evidence, proof=oracle.unbounded_below())
        if loss < self._floor:
            self._floor *= 1e3
        if falling and (proof := oracle.unbounded_below()):
            return Judgement.one(Status.UNBOUNDED, last, **evidence, proof=proof)
        return None

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        if evidence["loss"] == -math.inf and evidence["start"] == -math.inf:
            return "the loss is -inf at the start already: there is no minimum to find; move the start into the domain"
        seen, bounds = "no proof, but the loss falls, the unknowns grow and the gradient does not shrink", "bounds"
        if evidence["loss"] == -math.inf:
            seen = "no proof, but the loss falls for as long as the unknowns grow"
        if not evidence["grown"]:
            seen = "the unknowns have hardly grown, so this is a pole, as log(x) has at 0, or an overflow"
            bounds = "bounds that keep them away from there"
        return (
            f"the loss has fallen from {evidence['start']:.6g} to {evidence['loss']:.3g} at step {evidence['step']}, "
            f"with unknowns up to {evidence['size']:.3g}: {evidence['proof'] or seen}. There is no minimum to find; "
            f"give the unknowns {bounds} (objective.bounds), or check the sign of the objective"
        )

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)


class Stalled:
    """Ends when the parameters have not changed by a single bit for 50 steps, or the optimiser finds no better point,
    and the gradient is not small.

    Where the gradient itself changes as much under perturbations by one rounding as it is large, it cannot be told from
    zero in this dtype: `noise_floor`. Not so where the curvature is negative, where the loss goes on falling the way
    it came or along the floor of a valley, nor where an unknown has run off so far that the loss no longer depends on
    it, or the gradient underflows: gradient and rounding vanish there together.
    """

    PATIENCE = 50

    def __init__(self) -> None:
        self._still = 0
        self._origin: Tensor | None = None
        self._first = math.nan

    def bands(self) -> Mapping[str, Band]:
        return {"step_norm": Band(low=0.0)}

    def due(self, step: int) -> float:
        return (step // EVERY + 1) * EVERY if self._still else math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        if self._origin is None:
            self._origin, self._first = oracle.read(), block["loss"][0, 0].item()
        moved = (block["step_norm"][:, 0] != 0).nonzero()
        self._still = self._still + len(block) if not len(moved) else len(block) - 1 - int(moved[-1])
        if block.searching:
            self._still = 0
            return None
        stuck = block.cut_short if isinstance(block.cut_short, Stuck) else None
        if stuck is None and (block.last_step % EVERY or self._still < self.PATIENCE):
            return None
        gradient_norm = block["gradient_norm"][-1, 0].item()
        loss = block["loss"][-1, 0].item()
        # (A loss of -inf that misses constraints is nobody else's to end.)
        elsewhere = oracle.constraints is None or stuck is None
        if elsewhere and not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return None
        point = oracle.read()
        # Under constraints the gradient of the loss need not vanish, and where it does nothing is solved by it.
        rounding, gone = Rounding(), None
        missed: dict[str, Any] = {"violation": math.nan}
        noise = False
        if oracle.constraints is None:
            rounding = _rounding(oracle)
            here, way = Evaluation(loss, gradient_norm, point, oracle.full_gradient()), point - self._origin
            fallen, reach = abs(self._first - loss), ways(point, self._origin)
            gone = tail(here, oracle, self._origin, fallen, rounding.curvature)
            noise = rounding.hides and not falls_as_promised(here, oracle, [way], reach, fallen)
            if noise and rounding.curvature is not None:
                noise = not falls_along_floor(here, oracle, rounding.curvature, reach, fallen)
        else:
            missed = {"violation": block["violation"][-1, 0].item()}
            missed |= worst(oracle.constraints, oracle.linearised_constraints().residuals)
        status = Status.NOISE_FLOOR if noise and gone is None else Status.STALLED
        return Judgement.one(
            status,
            len(block) - 1,
            step=block.last_step,
            loss=loss,
            gradient_norm=gradient_norm,
            scatter=rounding.scatter,
            learning_rate=block["learning_rate"][-1, 0].item(),
            dtype=str(point.dtype).removeprefix("torch."),
            spacing=point.abs().max().item() * torch.finfo(point.dtype).eps,
            stuck="" if stuck is None else str(stuck),
            loss_rounding=abs(loss) * torch.finfo(point.dtype).eps,
            newton_gain=rounding.gain,
            **missed,
            gone="" if gone is None else _run_off(gone, point),
            underflow=rounding.underflows,
        )

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        if status is Status.NOISE_FLOOR:
            return (
                f"the gradient ({evidence['gradient_norm']:.3g}) is within its own rounding "
                f"({evidence['scatter']:.3g}) at loss {evidence['loss']:.10g}: in {evidence['dtype']} it cannot be "
                "told from zero"
            )
        rate, dtype = evidence["learning_rate"], evidence["dtype"]
        if evidence["gone"]:
            return (
                f"{evidence['gone']} run off to where the loss ({evidence['loss']:.10g}, step {evidence['step']}) no "
                "longer depends on it: this is no minimum. Start elsewhere, or give bounds (objective.bounds)"
            )
        if evidence["underflow"] and math.isnan(evidence["violation"]):
            return (
                f"a plateau: the gradient ({evidence['gradient_norm']:.3g}) underflows in {dtype} (loss "
                f"{evidence['loss']:.10g}, step {evidence['step']}), and no minimum shows. Start elsewhere, or rescale "
                "the objective"
            )
        if evidence["stuck"]:
            return _stuck(evidence)
        if rate == 0:
            cause = "the learning rate is 0; lengthen the schedule"
        elif dtype != "float64":
            cause = (
                f"the steps round to nothing in {dtype}, which resolves {evidence['spacing']:.1g} here; "
                "try dtype=float64 or a larger learning rate"
            )
        else:
            cause = (
                f"steps below {evidence['spacing']:.1g} round to nothing; try a larger learning rate (now {rate:g}), "
                "or rescale the objective"
            )
        return (
            f"the parameters no longer change, though the largest gradient entry is {evidence['gradient_norm']:.3g} "
            f"(loss {evidence['loss']:.10g}, step {evidence['step']}): {cause}"
        )

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)


def _run_off(unknowns: Tensor, point: Tensor) -> str:
    """Who has run off, up to the verb."""
    if len(unknowns) == 1:
        return f"unknown {unknowns[0]}, now {point[unknowns[0]].item():.3g}, has"
    some = ", ".join(f"{index} (now {point[index].item():.3g})" for index in unknowns[:3].tolist())
    return f"unknowns {some}{', ...' * (len(unknowns) > 3)} have together"


def _stuck(evidence: Mapping[str, Any]) -> str:
    """Of an optimiser that finds no better point."""
    dtype, place = evidence["dtype"], f"loss {evidence['loss']:.10g}, step {evidence['step']}"
    if not math.isnan(evidence["violation"]):
        return (
            f"{evidence['stuck']} ({place}; {missed_in_words(evidence)}). To mend: start somewhere else, or look at "
            "the limits"
        )
    if evidence["gradient_norm"] == 0:
        return (
            f"the gradient is 0 here ({place}), but the second derivatives do not show what this point is. It may be "
            "the minimum, on a kink as a norm has at 0: to know, smooth it, as sqrt(x^2 + 1e-6) does abs(x), or "
            "compare losses beside this point"
        )
    hint = (
        "check the gradient, or rescale the objective; or it has a kink here, as abs, relu, max or a norm has "
        "where it turns: smooth it"
    )
    if evidence["newton_gain"] <= ROUNDINGS * evidence["loss_rounding"]:
        hint = (
            f"the loss is rounded by {evidence['loss_rounding']:.1g} here, and a Newton step promises to lower "
            f"it by no more than {evidence['newton_gain']:.1g}: subtract the constant part of the loss"
        )
        hint += ", or try dtype=float64" * (dtype != "float64")
    elif dtype != "float64":
        hint = f"try dtype=float64; else {hint}"
    return (
        f"{evidence['stuck']}, though the largest gradient entry is {evidence['gradient_norm']:.3g} ({place}): {hint}"
    )


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a gradient compares with its own rounding.

    Attributes:
        scatter: Largest change of an entry under perturbations of the unknowns by one rounding, inside the bounds.
        hides: Whether the gradient is no more than that, by what a Newton step makes of either: so a gradient along a
            flat valley is not lost in the rounding across it.
        underflows: Whether it is below the smallest normal number far around, too: its digits are lost, and nothing
            can be said of it.
        gain: What a Newton step would take from the loss; NaN where no curvature would end it.
        curvature: What has been found of it, None if it was not asked.
    """

    scatter: float = 0.0
    hides: bool = False
    underflows: bool = False
    gain: float = math.nan
    curvature: Curvature | None = None


def _rounding(oracle: Oracle) -> Rounding:
    """That of the gradient where the parameters stand.

    It is rounding only if it is small against the change of the gradient over a longer way: at a kink or a wall it is
    as large however short the way is.
    """
    point = oracle.read()
    eps = torch.finfo(point.dtype).eps
    signs = torch.randint(0, 2, (4, *point.shape), generator=torch.Generator().manual_seed(0)) * 2 - 1

    def beside(move: Tensor) -> Tensor:
        moved = point + move
        if oracle.lower is not None and oracle.upper is not None:
            moved = moved.clamp(oracle.lower, oracle.upper)
        return oracle.gradient(moved if oracle.pinned is None else torch.where(oracle.pinned, point, moved))

    size = sizes(point, point)
    try:
        table = torch.stack([beside(sign * point.abs() * eps) for sign in signs.to(point)])
        far = torch.stack([beside(sign * size * eps**0.25) for sign in signs[:2].to(point)])
    except BudgetSpent:
        return Rounding()
    mean = table.mean(0)
    scatter, gradient, hessian = table - mean, mean, oracle.hessian()
    if oracle.lower is not None and oracle.upper is not None:
        gradient = projected_gradient(mean, point, oracle.lower, oracle.upper)
    free = gradient != 0
    largest = scatter.abs().max().item()
    change = (far - mean).abs().max().item() / eps**0.25
    if max(table.abs().max().item(), far.abs().max().item()) < torch.finfo(point.dtype).tiny:
        return Rounding(largest, underflows=True)
    if not largest <= eps**0.5 * change:
        return Rounding(largest)
    if hessian is None or not bool(free.any()):
        return Rounding(largest, hides=gradient.abs().max().item() <= largest)
    found = examine(hessian, free, size, gradient)
    if found.sign == "negative" or not found.finite:
        return Rounding(largest)
    noise = max(found.decrease(found.slopes(row)) for row in scatter)
    slopes = found.slopes(gradient)
    gain = found.decrease(slopes)
    ends = bool(found.is_curved[slopes > 0].all())
    return Rounding(largest, hides=gain <= noise, gain=gain if ends else math.nan, curvature=found)
