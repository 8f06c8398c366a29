"""Convergence: the one road to success without a target."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import Band, Block, BudgetSpent, Judgement, Oracle, State, Stuck
from gradopt.criteria.curvature import Curvature, examine, falls, is_plateau, sizes
from gradopt.criteria.failure import EVERY
from gradopt.mistakes import Mistake
from gradopt.verdict import Status

RESTING = 10
"""Steps without any change after which (or at once, where an optimiser finds no better point) the default tolerance is
eps^0.5, and the largest scale counts for all unknowns: closer than that no method comes that compares losses, as their
differences round to nothing.
"""


class Target:
    """Ends at the first loss at or below `value`."""

    def __init__(self, value: float) -> None:
        if not math.isfinite(value):
            raise Mistake(f"target must be a finite loss, got {value}")
        self.value = value

    def bands(self) -> Mapping[str, Band]:
        return {"full_loss": Band(low=self.value)}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        reached = (block.measured & (block["full_loss"][:, 0] <= self.value)).nonzero()
        if not len(reached):
            return None
        row = int(reached[0])
        loss = block["full_loss"][row, 0].item()
        return Judgement.one(Status.TARGET_REACHED, row, loss=loss, target=self.value, step=block.first_step + row)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return (
            f"the loss {evidence['loss']:.10g} is at or below the target {evidence['target']:.10g} "
            f"(step {evidence['step']})"
        )

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


class Convergence:
    """Ends at a point that is first-order optimal and has no negative curvature.

    First-order optimal: |P g|_i <= tolerance * (|H| s)_i for every unknown i, with P the projection on the bounds and
    s = max(|x|, distance from the start). H s is how far the gradient would change if the unknowns moved by their own
    size, so the test says how far the unknowns are from optimal relative to that size, whatever the units of the loss
    and of the unknowns. (|H| s)_i is estimated from below by products of H with s under three patterns of signs.

    It is asked at the start, when the gradient has fallen below what it last needed, and when the steps have doubled.
    Then negative curvature on the free unknowns, below -10 n eps |lambda_max| of the scaled Hessian, makes it a
    saddle point or a maximum. A Newton step that would still lower the loss by more than eps^0.6 of itself, or move an
    unknown by more than eps^0.5 of its size, says that the gradient is small only for the curvature of a valley, and
    the run goes on (unless that step is shorter than the tolerance: a loss that vanishes at its minimum never stops
    falling). A plateau, where gradient and curvature of an unknown vanish together and the loss stays the same far
    around, is no minimum: `stalled`.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        if tolerance is not None and not tolerance >= 0:
            raise Mistake(f"gradient_tolerance must be 0 or more, got {tolerance}")
        self._tolerance = tolerance
        self._origin: Tensor | None = None
        self._first = math.nan
        self._largest: Tensor | None = None
        self._needed = 0.0
        self._next = 0
        self._overdue = False
        self._still = 0

    def bands(self) -> Mapping[str, Band]:
        gradient = Band(low=math.inf if self._overdue else self._needed)
        return {"full_gradient_norm": gradient, "step_norm": Band(low=0.0)}

    def due(self, step: int) -> float:
        return self._next

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        step = block.last_step
        self._overdue = step >= self._next and not bool(block.measured[-1])
        if self._overdue:  # the full loss was not evaluated here: ask at the next row where it is
            self._next = step + EVERY
            return None
        gradient_norm = block["full_gradient_norm"][-1, 0].item()
        if self._origin is None:
            self._origin, self._first = oracle.read(), block["full_loss"][-1, 0].item()
        if block.searching:
            return None
        self._still = self._still + 1 if block["step_norm"][-1, 0] == 0 else 0
        stuck = isinstance(block.cut_short, Stuck)
        resting = self._still > 0 and self._still % RESTING == 0
        if block.cut_short is not None and not stuck:
            return None
        if step < self._next and gradient_norm > self._needed and not (resting or stuck):
            return None
        if not (math.isfinite(gradient_norm) and math.isfinite(block["full_loss"][-1, 0].item())):
            return None
        self._next = max(step + 20, 2 * step)
        return self._judge_point(block, oracle, gradient_norm, resting=stuck or self._still >= RESTING)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        place = f"at step {evidence['step']}, loss {evidence['loss']:.10g}"
        gradient = f"{evidence['word']}gradient {evidence['gradient_norm']:.3g}"
        if status in (Status.SADDLE_POINT, Status.MAXIMUM):
            what = "a maximum" if status is Status.MAXIMUM else "a saddle point"
            return (
                f"the gradient vanishes ({evidence['gradient_norm']:.3g}), but this is {what}: the loss falls along a "
                f"direction of curvature {evidence['curvature_min']:.3g} ({place}). To mend: start somewhere else"
            )
        if status is Status.STALLED:
            return (
                f"a plateau: gradient ({evidence['gradient_norm']:.3g}) and curvature vanish, and the loss stays the "
                f"same when an unknown moves by a tenth of its size ({place}). To mend: start somewhere else"
            )
        relative = f"{evidence['relative']:.2g} of its scale (tolerance {evidence['tolerance']:.2g})"
        if status is Status.NOISE_FLOOR:
            return (
                f"{gradient} is at its own rounding, {relative}, and cannot be told from zero in this dtype ({place})"
            )
        curvature = {
            "positive": f"the curvature is positive (smallest {evidence['curvature_min']:.3g})",
            "none": f"the curvature is nowhere negative (smallest found {evidence['curvature_min']:.3g})",
            "held": "every unknown is held by a bound",
            "unchecked": "the curvature is unchecked: the objective has no second derivatives",
        }[evidence["curvature"]]
        return f"first-order optimal, {gradient} is {relative}, and {curvature} ({place})"

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)

    def _judge_point(self, block: Block, oracle: Oracle, gradient_norm: float, *, resting: bool) -> Judgement | None:
        assert self._origin is not None
        row, loss = len(block) - 1, block["full_loss"][-1, 0].item()
        point, gradient = oracle.read(), oracle.full_gradient()
        eps = torch.finfo(point.dtype).eps
        tolerance = self._tolerance
        if tolerance is None:
            tolerance = eps**0.5 if resting else eps**0.6
        size = torch.maximum(point.abs(), (point - self._origin).abs())
        hessian = oracle.hessian()
        if hessian is None:
            scale = _secant_scale(oracle, point, gradient, self._origin)
        else:
            scale = _scale(hessian, size, block.last_step, enough=gradient_norm / (8 * tolerance) if tolerance else 0.0)
        if scale is None:
            return None
        suspects = self._collapsed(scale)
        # eps * max keeps an unknown that nothing moves, and whose gradient is mere rounding, from blocking the rest.
        scale = scale + eps * scale.max()
        if resting:  # likewise the rounding of the whole
            scale = scale.max().expand_as(scale)
        projected = gradient
        if oracle.lower is not None and oracle.upper is not None:
            projected = projected_gradient(gradient, point, oracle.lower, oracle.upper)
        relative = _ratio(projected.abs(), scale)
        self._needed = min(
            tolerance * scale.max().item(), gradient_norm / 2 if gradient_norm <= self._needed else math.inf
        )
        if relative > max(tolerance, 4 * eps):
            return None
        status = Status.CONVERGED if relative <= tolerance else Status.NOISE_FLOOR
        evidence: dict[str, Any] = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "relative": relative,
            "tolerance": tolerance,
            "step": block.last_step,
            "resting": resting,
            "word": "" if oracle.lower is None else "projected ",
            "curvature": "unchecked",
            "curvature_min": math.nan,
        }
        free = _free(point, gradient, scale * tolerance, oracle)
        if hessian is None:
            return Judgement.one(status, row, **evidence)
        if not bool(free.any()):
            return Judgement.one(status, row, **evidence | {"curvature": "held"})
        found = examine(hessian, free, sizes(point, self._origin), gradient)
        kind = self._kind(found, status, suspects & free, oracle, evidence)
        return None if kind is None else Judgement.one(kind, row, **evidence)

    def _kind(
        self, found: Curvature, status: Status, suspects: Tensor, oracle: Oracle, evidence: dict[str, Any]
    ) -> Status | None:
        """What a first-order optimal point is by its curvature, None if it is not one yet; adds to the evidence."""
        assert self._origin is not None
        point, gradient, loss = oracle.read(), oracle.full_gradient(), evidence["loss"]
        size, slopes = sizes(point, self._origin), found.slopes(gradient)
        decrease = found.decrease(slopes)
        evidence |= {"curvature": found.sign, "curvature_min": found.along(0), "curvature_max": found.along(-1)}
        evidence |= {"newton_decrease": decrease, "direction": found.direction(point).unsqueeze(0)}
        if found.sign == "negative" or (found.sign == "none" and falls(oracle, found, size, gradient, loss)):
            if not found.is_stationary(slopes):
                return None
            return Status.MAXIMUM if found.is_maximum else Status.SADDLE_POINT
        if is_plateau(oracle, suspects, size, loss):
            return Status.STALLED
        eps, step = torch.finfo(point.dtype).eps, found.newton_step(slopes)
        if status is Status.NOISE_FLOOR and decrease <= found.noise_decrease():
            return status
        unseen = decrease <= eps * max(10 * abs(loss), abs(self._first - loss)) and bool((step <= eps ** (1 / 3)).all())
        if evidence["resting"] and unseen:  # no difference of losses shows the rest
            return status
        long = (step > eps**0.5) & (slopes > found.noise) & found.is_curved
        gains = decrease > eps**0.6 * abs(loss) or bool(long.any())
        return None if gains and step.max() > evidence["tolerance"] else status

    def _collapsed(self, scale: Tensor) -> Tensor:
        """The unknowns whose scale has fallen to nothing, or all if there never was any: suspects of a plateau."""
        self._largest = scale if self._largest is None else torch.maximum(self._largest, scale)
        collapsed = scale <= torch.finfo(scale.dtype).eps ** 2 * self._largest
        return collapsed & (self._largest > 0) if bool(self._largest.any()) else collapsed


def _scale(hessian: Callable[[Tensor], Tensor], size: Tensor, seed: int, enough: float) -> Tensor:
    """(|H| s)_i, from below: the largest |H (s * signs)|_i over three patterns of signs.

    One pattern is enough to see that the gradient is far too large: when the scale it gives is below `enough`.
    """
    generator = torch.Generator().manual_seed(seed)  # new patterns each time: none is blind for ever
    scale = torch.zeros_like(size)
    for _ in range(3):
        signs = torch.randint(0, 2, size.shape, generator=generator).to(size) * 2 - 1
        scale = torch.maximum(scale, hessian(size * signs).abs())
        if scale.max().item() < enough:
            break
    return scale


def _secant_scale(oracle: Oracle, point: Tensor, gradient: Tensor, origin: Tensor) -> Tensor | None:
    """|H (x - x0)|_i by a difference of gradients on the way back to the start, which lies inside the bounds."""
    if torch.equal(point, origin):
        return torch.zeros_like(point) if not gradient.any() else None
    step = math.sqrt(torch.finfo(point.dtype).eps)
    try:
        return (gradient - oracle.gradient(point + step * (origin - point))).abs() / step
    except BudgetSpent:
        return None


def _ratio(numerator: Tensor, denominator: Tensor) -> float:
    """Largest quotient; 0/0 is 0."""
    quotient = torch.where(numerator == 0, torch.zeros_like(numerator), numerator / denominator)
    return quotient.max().item()


def _free(point: Tensor, gradient: Tensor, threshold: Tensor, oracle: Oracle) -> Tensor:
    """The unknowns no bound holds: at a bound, only a gradient that truly pushes against it holds."""
    if oracle.lower is None or oracle.upper is None:
        return torch.ones_like(point, dtype=torch.bool)
    held = ((point <= oracle.lower) & (gradient > threshold)) | ((point >= oracle.upper) & (gradient < -threshold))
    return ~held
