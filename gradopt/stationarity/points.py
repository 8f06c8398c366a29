"""The first-order and curvature test of a point, and the steps at which it is worth its products."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import BudgetSpent, Evaluation, Oracle, State
from gradopt.mistakes import Mistake
from gradopt.stationarity.curvature import Curvature, Product, examine, sizes, ways
from gradopt.stationarity.falls import (
    Fall,
    fall,
    fall_round_bend,
    falls_as_promised,
    is_asleep,
    is_lower_beside,
    is_plateau,
    unhindered,
)
from gradopt.stationarity.floors import falls_along_floor
from gradopt.stationarity.ground import is_ground
from gradopt.stationarity.peaks import is_peak
from gradopt.stationarity.tails import tail
from gradopt.verdict import Status

RESTING = 10
"""Steps without any change after which (or at once, where an optimiser finds no better point) the default tolerance is
eps^0.5, and the largest scale counts for all unknowns: closer than that no method comes that compares losses, as their
differences round to nothing.
"""

SUCCESSES = (Status.CONVERGED, Status.NOISE_FLOOR)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a stationary point is.

    Attributes:
        evidence: The numbers behind it by name; `direction`, of shape (1, n), is that of the smallest curvature, in the
            objective's units, of length 1, and `length` the size of the unknowns along it. Where curvature does not
            show it, `fall` is by how much the loss falls along `direction` over `fall_length`; else both are 0.
    """

    status: Status
    evidence: dict[str, Any]

    @property
    def falls(self) -> bool:
        """Whether the loss falls along `direction`, though its slope vanishes: a saddle point or a maximum."""
        return self.status in (Status.SADDLE_POINT, Status.MAXIMUM)


class Suspects(NamedTuple):
    """Masks of unknowns, shape (n,), that may be on a plateau.

    Attributes:
        faded: Their scale has become faint, which may hide a slope of higher order.
        collapsed: It has fallen to nothing.
        asleep: They never had any.
    """

    faded: Tensor
    collapsed: Tensor
    asleep: Tensor


class StationaryPoints:
    """Finds points that are first-order optimal, and tells minima, saddle points, maxima and plateaus apart.

    First-order optimal: |P g|_i <= tolerance * (|H| s)_i for every unknown i, with P the projection on the bounds and
    s = max(|x|, distance from the start). H s is how far the gradient would change if the unknowns moved by their own
    size, so the test says how far the unknowns are from optimal relative to that size, whatever the units of the loss
    and of the unknowns. (|H| s)_i is estimated from below by products of H with s under three patterns of signs.

    It is asked at the start, when the gradient has fallen below what it last needed, and when the steps have doubled.
    Then negative curvature on the free unknowns, below -10 n eps |lambda_max| of the scaled Hessian, makes it a
    saddle point or a maximum. A Newton step that would still lower the loss by more than eps^0.6 of itself, or move an
    unknown by more than eps^0.5 of its size, says that the gradient is small only for the curvature of a valley, and
    the run goes on (unless that step is shorter than the tolerance, and takes half of the loss, or what is nothing to
    how far that has fallen: a loss that vanishes at its minimum never stops falling). Where curvature has become faint,
    the loss itself is asked whether it falls. A plateau, where gradient and curvature of an unknown vanish together and
    the loss does not rise far around, is no minimum: `stalled`.

    Who shares one of these shares its answers: asked twice at one step, it tests once.

    Attributes:
        needed: The gradient norm from which on a test is worth its products.
        due: The step from which on one is made whatever the gradient.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        if tolerance is not None and not tolerance >= 0:
            raise Mistake(f"gradient_tolerance must be 0 or more, got {tolerance}")
        self._tolerance = tolerance
        self._origin: Tensor | None = None
        self._first = math.nan
        self._largest: Tensor | None = None
        self._steepest = 0.0
        self.needed = 0.0
        self.due = 0
        self._still = 0
        self._last_still = -1
        self._num_escapes = 0
        self._asked: tuple[int, bool] | None = None
        self._found: Finding | None = None

    def begin(self, point: Tensor, loss: float) -> None:
        """Note where the run began, the first time this is called."""
        if self._origin is None:
            self._origin, self._first = point, loss

    def is_due(self, step: int, gradient_norm: float) -> bool:
        """Whether a test is worth its products, while the parameters move. It costs nothing to ask."""
        return step >= self.due or not gradient_norm > self.needed

    def look(
        self, evaluation: Evaluation, oracle: Oracle, step: int, *, still: bool, stuck: bool = False
    ) -> Finding | None:
        """What the point is; None if it is not stationary, or no test is due.

        Args:
            evaluation: Of the full loss, where the parameters stand.
            still: Whether the parameters are where they were at the step before; every such step must be asked about.
            stuck: Whether the optimiser finds no better point: the test is then made in any case, as one at rest.
        """
        if self._asked == (step, stuck):
            return self._found
        self._asked, self._found = (step, stuck), None
        self.begin(evaluation.point, evaluation.loss)
        if not still:
            self._still = 0
        else:  # steps that are not asked about have moved the parameters
            self._still = self._still + 1 if step == self._last_still + 1 else 1
            self._last_still = step
        resting = self._still > 0 and self._still % RESTING == 0
        if not (self.is_due(step, evaluation.gradient_norm) or resting or stuck):
            return None
        if not (math.isfinite(evaluation.gradient_norm) and math.isfinite(evaluation.loss)):
            return None
        self._steepest = max(self._steepest, evaluation.gradient_norm)
        self.due = max(step + 20, 2 * step)
        self._found = self.judge(evaluation, oracle, step, resting=stuck or self._still >= RESTING)
        return self._found

    def leave(self) -> None:
        """A lower loss was found beside a saddle point: what the gradient must fall to is asked anew at the next step,
        as near the saddle point it was nothing.
        """
        self.needed = math.inf
        self._num_escapes += 1

    def state_dict(self) -> State:
        """Where the run began, the scales it has seen, and when the next test is due."""
        return {name: value for name, value in vars(self).items() if name not in ("_asked", "_found")}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        vars(self).update(state)

    def judge(self, evaluation: Evaluation, oracle: Oracle, step: int, *, resting: bool) -> Finding | None:
        """The test itself, whether it is due or not; None if the point is not stationary."""
        assert self._origin is not None
        loss, gradient_norm = evaluation.loss, evaluation.gradient_norm
        point, gradient = evaluation.point, evaluation.gradient
        eps = torch.finfo(point.dtype).eps
        tolerance = self._tolerance
        if tolerance is None:
            tolerance = default_tolerance(point.dtype, resting=resting)
        hessian = oracle.hessian()
        enough = gradient_norm / (8 * tolerance) if tolerance else 0.0
        own = self._scale(evaluation, oracle, hessian, step, enough, resting=resting)
        if own is None:
            return None
        self._largest = own if self._largest is None else torch.maximum(self._largest, own)
        unscaled = is_unscaled(gradient, own)
        scale = comparable(own, torch.tensor([resting]))
        box = None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper)
        projected = gradient if box is None else projected_gradient(gradient, point, *box)
        relative = ratio(projected.abs(), scale).item()
        self.needed = min(
            tolerance * scale.max().item(), gradient_norm / 2 if gradient_norm <= self.needed else math.inf
        )
        if relative > max(tolerance, 4 * eps):
            return None
        status = Status.CONVERGED if relative <= tolerance else Status.NOISE_FLOOR
        evidence: dict[str, Any] = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "relative": relative,
            "tolerance": tolerance,
            "step": step,
            "resting": resting,
            "word": "" if box is None else "projected ",
            "curvature": "unchecked",
            "curvature_min": math.nan,
            "fall": 0.0,
            "fall_length": 0.0,
            "num_escapes": self._num_escapes,
        }
        free = free_unknowns(point, gradient, scale * tolerance, box, evaluation.pinned)
        if hessian is None:
            return Finding(status, evidence)
        if not bool(free.any()):
            return Finding(status, evidence | {"curvature": "held"})
        found, refused = examine(hessian, free, sizes(point, self._origin), gradient), oracle.num_refused
        if not found.finite:
            return None
        suspects = self._suspects(own, free, evaluation, found)
        kind = self._kind(found, status, suspects, evaluation, oracle, evidence)
        if kind in SUCCESSES and self._goes_on(found, unscaled & free, evaluation, oracle):
            kind = None
        if kind in SUCCESSES and oracle.num_refused > refused:  # a fall may be where there was no budget to look
            kind = None
        if kind is None:
            self.needed /= found.effort  # what was dear to find out is asked again when more has changed
            return None
        return Finding(kind, evidence)

    def _scale(
        self,
        evaluation: Evaluation,
        oracle: Oracle,
        hessian: Product | None,
        step: int,
        enough: float,
        *,
        resting: bool,
    ) -> Tensor | None:
        """|H| s, None where it is not known or not finite."""
        assert self._origin is not None
        size = torch.maximum(evaluation.point.abs(), (evaluation.point - self._origin).abs())
        if resting and not bool(size.any()):  # a start of zeros that nothing leaves: there is no other unit
            size = torch.ones_like(size)
        if hessian is None:
            scale = _secant_scale(oracle, evaluation, self._origin)
        else:
            scale = gradient_scale(hessian, size, step, enough)
        return scale if scale is not None and bool(scale.isfinite().all()) else None

    def _suspects(self, scale: Tensor, free: Tensor, evaluation: Evaluation, found: Curvature) -> Suspects:
        """Nobody is `faded` or `collapsed` where no unknown has ever had a scale, but others are felt, by their
        curvature or by bounds that hold them: there an unknown without effect is no plateau.
        """
        assert self._largest is not None and self._origin is not None
        point = evaluation.point
        size = torch.maximum(point.abs(), (point - self._origin).abs())
        faded, collapsed = (mask & free for mask in vanishing(scale, size, self._largest))
        asleep = free & (self._largest <= 0) & (evaluation.gradient == 0)
        felt = bool(found.is_curved.any()) or len(found.free) < len(found.size)
        if felt and not bool((self._largest > 0).any()):
            faded, collapsed = torch.zeros_like(faded), torch.zeros_like(collapsed)
        if not torch.equal(point, self._origin):  # who began on a ridge, and stayed there, has shown nothing
            faded = faded | (asleep & (point == 0) & (self._origin == 0))
        return Suspects(faded, collapsed, asleep)

    def _kind(
        self,
        found: Curvature,
        status: Status,
        suspects: Suspects,
        evaluation: Evaluation,
        oracle: Oracle,
        evidence: dict[str, Any],
    ) -> Status | None:
        """What a first-order optimal point is by its curvature, None if it is not one yet; adds to the evidence."""
        assert self._origin is not None
        point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
        moved, eps = not torch.equal(point, self._origin), torch.finfo(point.dtype).eps
        size, way, slopes = sizes(point, self._origin), ways(point, self._origin), found.slopes(gradient)
        evidence |= {"curvature": found.sign, "curvature_min": found.along(0), "curvature_max": found.along(-1)}
        evidence |= {"curvature_error": found.error, "num_flat": int((~found.is_curved).sum())}
        direction = found.direction(point)
        evidence |= {"newton_decrease": found.decrease(slopes), "direction": direction[None]}
        evidence |= {"length": (direction.abs() @ size).item()}
        # A slope as large as ever is small only against a curvature that grows: an edge, as of sqrt at 0.
        vanishes = not moved or evaluation.gradient_norm <= 0.5 * self._steepest
        depth = abs(self._first - loss)
        # Where the loss has vanished, what is left of it bends any way; elsewhere no slope along such a bend is small.
        bends = found.sign == "negative" and not found.is_stationary(slopes) and not abs(loss) <= eps * depth
        if (found.sign == "negative" and not vanishes) or bends:
            return None
        negative, lower = self._way_down(found, suspects.faded, evaluation, oracle)
        if found.sign == "negative" and not negative:
            evidence["curvature"] = "none"
        if lower is not None:  # Escape begins with this very move
            length = lower.step.norm().item()
            evidence |= {"direction": (lower.step / length)[None], "length": length / eps**0.25}
            evidence |= {"fall": lower.depth, "fall_length": length}
        if negative or lower is not None:
            if not vanishes or (negative and not found.is_stationary(slopes)):
                return None
            if moved and not negative and bool(suspects.collapsed.any()):
                return Status.STALLED
            peak = is_peak(evaluation, oracle, found, suspects.faded, way)
            return Status.MAXIMUM if peak else Status.SADDLE_POINT
        if self._has_gone(found, suspects, evaluation, oracle):
            return Status.STALLED
        felt = slopes
        if abs(loss) <= 10 * eps * depth:  # even a slope's rounding, along a direction without curvature, is much of it
            felt = slopes.masked_fill(~found.is_curved & (slopes <= found.noise), 0.0)
        numbers = (found.decrease(felt), loss, depth, evidence["tolerance"])
        taken, now, fallen, tolerance = torch.tensor(numbers, dtype=torch.float64)
        settled = is_settled(
            found.newton_step(felt),
            taken,
            found.is_long(felt),
            loss=now,
            fallen=fallen,
            tolerance=tolerance,
            resting=torch.tensor(evidence["resting"]),
            eps=eps,
        )
        if status is Status.NOISE_FLOOR and found.decrease(slopes) <= found.noise_decrease():
            return status
        return status if bool(settled) else None

    def _way_down(
        self, found: Curvature, faded: Tensor, evaluation: Evaluation, oracle: Oracle
    ) -> tuple[bool, Fall | None]:
        """Whether there is negative curvature for the loss to fall along, and how it falls where that is silent."""
        assert self._origin is not None
        point, loss = evaluation.point, evaluation.loss
        way, fallen = ways(point, self._origin), abs(self._first - loss)
        negative, doubtful = found.sign == "negative", found.sign == "none" or found.is_faint or bool(faded.any())
        if negative and not torch.equal(point, self._origin):
            beside = is_lower_beside(evaluation, oracle, found, way, fallen)
            negative, doubtful = bool(beside), beside is None
        lower = _fall(evaluation, oracle, found, faded, way) if doubtful and not negative else None
        if lower is not None and lower.depth <= loss <= torch.finfo(point.dtype).eps * fallen:
            lower = None  # of a loss that vanishes it is what is left to go
        return negative, lower

    def _has_gone(self, found: Curvature, suspects: Suspects, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether this is no minimum, but a plateau, or a tail into which unknowns have run off."""
        assert self._origin is not None
        origin, way = self._origin, ways(evaluation.point, self._origin)
        if is_asleep(evaluation, oracle, suspects.asleep, way):
            return True
        gone = is_plateau(evaluation, oracle, suspects.collapsed, way, origin)
        gone = gone or tail(evaluation, oracle, origin, abs(self._first - evaluation.loss), found) is not None
        return gone and not is_ground(evaluation, oracle, origin, way)

    def _goes_on(self, found: Curvature, unscaled: Tensor, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the loss falls all the same, along a slope that is small against the scale of the others alone, or
        that is lost in their rounding.
        """
        assert self._origin is not None
        way = ways(evaluation.point, self._origin)
        moves = unhindered(evaluation.gradient, found, unscaled, way)
        fallen = abs(self._first - evaluation.loss)
        if falls_as_promised(evaluation, oracle, moves, way, fallen):
            return True
        return falls_along_floor(evaluation, oracle, found, way, fallen)


def default_tolerance(dtype: torch.dtype, *, resting: bool) -> float:
    """Of the scaled first-order test."""
    eps = torch.finfo(dtype).eps
    return eps**0.5 if resting else eps**0.6


def vanishing(scale: Tensor, size: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """The unknowns whose scale has become faint, which may hide a slope of higher order, and those whose scale has
    fallen to nothing, against its own past or against what the others do to the loss: suspects of a plateau. All are
    where there never was any.

    Args:
        scale, size, largest: (|H| s), s, and the largest the scale has been, shape (..., n); all by the same axes.
    """
    eps, energy, had = torch.finfo(scale.dtype).eps, scale * size, largest > 0
    hidden = (scale > 0) & (energy <= eps**2 * energy.amax(-1, keepdim=True))
    faded = had & (scale <= eps**0.25 * largest)
    collapsed = had & (scale <= eps**2 * largest) | hidden
    ever = had.any(-1, keepdim=True)
    return torch.where(ever, faded, had), torch.where(ever, collapsed, scale <= 0)


def is_unscaled(gradient: Tensor, scale: Tensor) -> Tensor:
    """The unknowns whose gradient is small against the others' scale alone; a mask, shape (..., n)."""
    return (gradient != 0) & (scale <= torch.finfo(scale.dtype).eps * scale.amax(-1, keepdim=True))


def comparable(scale: Tensor, resting: Tensor) -> Tensor:
    """The scale, so that an unknown that nothing moves, and whose gradient is mere rounding, does not block the rest:
    at least eps of the largest. At rest it is the largest for all, as then the rounding of the whole counts.

    Args:
        scale: Shape (..., n).
        resting: Shape (..., 1).
    """
    scale = scale + torch.finfo(scale.dtype).eps * scale.amax(-1, keepdim=True)
    return torch.where(resting.to(scale.device), scale.amax(-1, keepdim=True), scale)


def is_settled(
    step: Tensor,
    decrease: Tensor,
    long: Tensor,
    *,
    loss: Tensor,
    fallen: Tensor,
    tolerance: Tensor,
    resting: Tensor,
    eps: float,
) -> Tensor:
    """Whether a first-order optimal point with no way down is the answer: a Newton step gains nothing there, rather
    than that the gradient is small for the curvature of a valley. Shape (...).

    Args:
        step: The parts of a Newton step in units of the unknowns' sizes; long: which of them rounding does not explain
            though they are long; shape (..., directions).
        decrease: What it takes from the loss; fallen: how far the loss is from that at the start; shape (...).
    """
    longest = step.amax(-1)
    unseen = (decrease <= eps * torch.maximum(10 * loss.abs(), fallen)) & (longest <= eps**0.3)
    unseen |= decrease <= 10 * eps**2 * fallen  # no difference of losses shows it
    gains = (decrease > eps**0.6 * loss.abs()) | long.any(-1)
    vanishes = decrease > 0.4 * loss.abs()  # of order p: p / (2 (p - 1)) of itself
    goes_on = (longest > tolerance) | (~vanishes & (decrease > eps * fallen))
    return resting & unseen | ~(gains & goes_on)


def _fall(evaluation: Evaluation, oracle: Oracle, found: Curvature, suspects: Tensor, way: Tensor) -> Fall | None:
    """Whether and how the loss falls where curvature says nothing, along a line or a curve."""
    straight = fall(evaluation, oracle, found, suspects, way)
    return fall_round_bend(evaluation, oracle, found, suspects, way) if straight is None else straight


def gradient_scale(
    hessian: Callable[[Tensor], Tensor], size: Tensor, seed: int, enough: float | Tensor = 0.0
) -> Tensor:
    """(|H| s)_i, from below: the largest |H (s * signs)|_i over three patterns of signs; shape (..., n) as `size`.

    Two are enough to see that the gradient is far too large: when the scale they give is below `enough`, of shape
    (...). The second is uneven, as signs alone may point along the floor of a valley: that of (x y - 1)^2 is (x, -y).
    """
    generator = torch.Generator().manual_seed(seed)  # new patterns each time: none is blind for ever
    scale, goes_on = torch.zeros_like(size), None
    for pattern in range(3):
        signs = torch.randint(0, 2, size.shape[-1:], generator=generator, dtype=torch.int8).to(size) * 2 - 1
        if pattern == 1:
            signs = signs * (0.5 + 0.5 * torch.rand(size.shape[-1:], generator=generator).to(size))
        wider = torch.maximum(scale, hessian(size * signs).abs())
        scale = wider if goes_on is None else torch.where(goes_on, wider, scale)
        if not pattern:
            continue
        goes_on = ~(scale.amax(-1) < enough).unsqueeze(-1)
        if not bool(goes_on.any()):
            break
    return scale


def _secant_scale(oracle: Oracle, evaluation: Evaluation, origin: Tensor) -> Tensor | None:
    """|H (x - x0)|_i by a difference of gradients on the way back to the start, which lies inside the bounds; pinned
    unknowns stay where they are.
    """
    point, gradient = evaluation.point, evaluation.gradient
    if evaluation.pinned is not None:
        origin = torch.where(evaluation.pinned, point, origin)
    if torch.equal(point, origin):
        return torch.zeros_like(point) if not gradient.any() else None
    step = math.sqrt(torch.finfo(point.dtype).eps)
    try:
        return (gradient - oracle.gradient(point + step * (origin - point))).abs() / step
    except BudgetSpent:
        return None


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Largest quotient over the last axis; 0/0 is 0."""
    return torch.where(numerator == 0, torch.zeros_like(numerator), numerator / denominator).amax(-1)


def free_unknowns(
    point: Tensor, gradient: Tensor, threshold: Tensor, box: tuple[Tensor, Tensor] | None, pinned: Tensor | None
) -> Tensor:
    """A mask of the unknowns no bound holds: at a bound, only a gradient that truly pushes against it holds."""
    if box is None:
        return torch.ones_like(point, dtype=torch.bool)
    held = ((point <= box[0]) & (gradient > threshold)) | ((point >= box[1]) & (gradient < -threshold))
    return ~held if pinned is None else ~(held | pinned)
