"""Convergence under constraints: optimal to first order by multipliers of its own, and no way down along them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import mending
from gradopt.constraints.functions import excess
from gradopt.constraints.multipliers import Multipliers, least_squares, projected
from gradopt.constraints.tangent import Tangent
from gradopt.contracts import Band, Block, BudgetSpent, Evaluation, Judgement, Oracle, State, Stuck
from gradopt.criteria.convergence import Convergence
from gradopt.stationarity.curvature import NUM_FLAT, Curvature, examine, sizes, ways
from gradopt.stationarity.falls import REACH, fall, is_plateau
from gradopt.stationarity.points import RESTING, SUCCESSES, StationaryPoints, free_unknowns, gradient_scale
from gradopt.verdict import Status

NUM_RESTORED = 3
"""Gauss-Newton moves by which a point beside is brought back to the constraints."""

ROWS_PER_STEP = 16
"""Rows of the Jacobian that may be taken for each step: with more constraints it is asked less often."""


class ConstrainedConvergence:
    """Ends at a point that keeps the constraints, is first-order optimal, and has no negative curvature along them.

    The multipliers are its own: of right sign, by least squares, on the constraints that are active. First-order
    optimal is then what it is for `Convergence`, said of the Lagrangian L = f + y'c: |P grad L|_i <= tolerance *
    (|H_L| s)_i (or no more than the rounding of the sum). The constraints are kept if the unknowns would have to move
    by no more than eps^0.5 of their size; and being off their limits must change the loss by no more than eps^0.6 of
    itself, unless they would have to move by less than eps^0.75 (as with a loss that vanishes). Curvature is that of
    H_L on the tangent space of the bounds and constraints that truly push.

    It is asked only where the constraints are kept. So a point that misses them is never a success.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        self._plain = Convergence(StationaryPoints(tolerance))  # whose check of the tolerance, and words, are the same
        self._tolerance = tolerance
        self._feasible = 0.0
        self._first = math.nan
        self._needed = math.inf
        self._scaled = self._next = 0
        self._still = 0
        self._sloped = False
        self._largest: Tensor | None = None

    def bands(self) -> Mapping[str, Band]:
        return {"violation": Band(low=self._feasible), "step_norm": Band(low=0.0)}

    def due(self, step: int) -> float:
        return max(self._next, step + 1) if self._next > step + 1 else math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        step, violation = block.last_step, block["violation"][-1, 0].item()
        self._feasible = oracle.violation_tolerance
        self._sloped |= bool((block["gradient_norm"] > 0).any())
        if self._first != self._first:
            self._first = block["loss"][0, 0].item()
        self._still = self._still + 1 if block["step_norm"][-1, 0] == 0 else 0
        stuck = isinstance(block.cut_short, Stuck)
        if (block.cut_short is not None and not stuck) or not violation <= self._feasible:
            return None
        resting = stuck or (self._still > 0 and self._still % RESTING == 0)
        if step < self._next and not resting:
            return None
        if not (math.isfinite(block["gradient_norm"][-1, 0].item()) and math.isfinite(block["loss"][-1, 0].item())):
            return None
        assert oracle.constraints is not None
        self._next = step + 1 + len(oracle.constraints.lower) // ROWS_PER_STEP
        return self._judge_point(block, oracle, resting=resting)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        if status in (Status.SADDLE_POINT, Status.MAXIMUM):
            what = "a maximum" if status is Status.MAXIMUM else "a saddle point"
            curvature = "without curvature"
            if evidence["curvature"] == "negative":
                curvature = f"of curvature {evidence['curvature_min']:.3g}"
            return (
                f"the gradient of the Lagrangian vanishes ({evidence['gradient_norm']:.3g}) and the constraints are "
                f"kept, but this is {what}: along them the loss falls in a direction {curvature} (at step "
                f"{evidence['step']}, loss {evidence['loss']:.10g}). To mend: start somewhere else"
            )
        held = "the constraints and bounds leave no direction free"
        text = self._plain.sentence(status, evidence).replace("every unknown is held by a bound", held)
        return f"{text}; the constraints are kept to {evidence['violation']:.2g} of the unknowns' size"

    def state_dict(self) -> State:
        return {name: value for name, value in vars(self).items() if name != "_plain"}

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)

    def _judge_point(self, block: Block, oracle: Oracle, *, resting: bool) -> Judgement | None:
        point, loss = oracle.read(), block["loss"][-1, 0].item()
        origin = oracle.origin if oracle.origin is not None else point
        eps = torch.finfo(point.dtype).eps
        tolerance = self._tolerance
        if tolerance is None:
            tolerance = eps**0.5 if resting else eps**0.6
        found, size = multipliers(oracle, oracle.full_gradient()), sizes(point, origin)
        box = None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper)
        left = projected(found, point, box)
        norm = left.abs().max().item()
        if norm > self._needed and block.last_step < self._scaled and not resting:
            return None
        self._scaled = max(block.last_step + 20, 2 * block.last_step)
        hessian = oracle.hessian(found.values)
        rounding = 8 * eps / max(tolerance, 4 * eps) * found.terms
        if hessian is None:
            curved, scale = torch.zeros_like(point), found.terms
        else:
            moved = torch.maximum(point.abs(), (point - origin).abs())
            curved = gradient_scale(hessian, moved, block.last_step)
            scale = curved + eps * curved.max() + rounding
        self._largest = curved if self._largest is None else torch.maximum(self._largest, curved)
        if resting:
            scale = torch.maximum(scale.max().expand_as(scale), rounding)
        relative = torch.where(left == 0, 0.0, left.abs() / scale).max().item()
        self._needed = min(tolerance * scale.max().item(), norm / 2 if norm <= self._needed else math.inf)
        close = (eps**0.6 if resting else eps**0.75) if self._tolerance is None else tolerance
        misses = bool((found.slacks > close * _reach(oracle, found, point, origin)).any())
        wrong, steep = found.complementarity(), float(oracle.full_gradient().abs() @ ways(point, origin))
        if not relative <= max(tolerance, 4 * eps) or (misses and wrong > eps**0.6 * abs(loss)):
            return None
        if wrong > max(close, eps**0.6) * max(abs(loss), steep):  # multipliers without end: no constraint qualification
            return None
        status = Status.CONVERGED if relative <= tolerance else Status.NOISE_FLOOR
        evidence: dict[str, Any] = {
            "loss": loss,
            "violation": block["violation"][-1, 0].item(),
            "gradient_norm": norm,
            "relative": relative,
            "tolerance": tolerance,
            "step": block.last_step,
            "resting": resting,
            "word": "Lagrangian's " if box is None else "Lagrangian's projected ",
            "active": len(found.active),
            "curvature": "unchecked",
            "curvature_min": math.nan,
            "num_escapes": 0,
        }
        row = len(block) - 1
        if hessian is None:
            return Judgement.one(status, row, **evidence)
        free = free_unknowns(point, found.gradient, scale * tolerance, box, oracle.pinned)
        curvature = along_constraints(oracle, found, free, size, scale * tolerance)
        if curvature is None:
            return Judgement.one(status, row, **evidence | {"curvature": "held"})
        felt = bool(curvature.is_curved.any()) or bool((found.values != 0).any()) or not bool(free.all())
        idle = felt & ((point == origin) | _constrained(oracle, torch.arange(len(found.values), device=point.device)))
        flat = self._collapsed(curved, idle) & free & ~_constrained(oracle, found.active)
        faded = self._faded(curved) & free
        refused = oracle.num_refused
        kind = self._kind(curvature, _Lagrangian(oracle, found), status, (flat, faded), size, evidence)
        if kind in SUCCESSES and oracle.num_refused > refused:  # a fall may be where there was no budget to look
            kind = None
        return None if kind is None else Judgement.one(kind, row, **evidence)

    def _kind(
        self,
        found: Curvature,
        lagrangian: "_Lagrangian",
        status: Status,
        suspects: tuple[Tensor, Tensor],
        size: Tensor,
        evidence: dict[str, Any],
    ) -> Status | None:
        """What a first-order optimal point is by its curvature, None if it is not one yet; adds to the evidence."""
        if not found.finite:
            return None
        (flat, faded), point, gradient = suspects, lagrangian.read(), lagrangian.slope
        loss = evidence["loss"]
        slopes = found.slopes(gradient)
        decrease = found.decrease(slopes)
        evidence |= {"curvature": found.sign, "curvature_min": found.along(0), "curvature_max": found.along(-1)}
        evidence |= {"curvature_error": found.error}
        evidence |= {"newton_decrease": decrease, "direction": found.direction(point).unsqueeze(0)}
        here = Evaluation(lagrangian.value(loss), evidence["gradient_norm"], point, gradient)
        none = torch.zeros_like(flat)
        hidden = found.sign == "none" and fall(here, lagrangian, found, none, size) is not None
        if found.sign == "none" or bool(faded.any()):
            hidden = hidden or lagrangian.falls_along(here, found, faded)
        if found.sign == "negative" or hidden:
            kind = Status.MAXIMUM if lagrangian.is_peak(found) else Status.SADDLE_POINT
            return kind if found.is_stationary(slopes) else None
        if is_plateau(here, lagrangian, flat, size, lagrangian.origin):
            return Status.STALLED
        eps, step = torch.finfo(point.dtype).eps, found.newton_step(slopes)
        if status is Status.NOISE_FLOOR and decrease <= found.noise_decrease():
            return status
        long = (step > eps**0.5) & (slopes > found.noise) & found.is_curved
        if not (decrease > eps**0.6 * abs(loss) or bool(long.any())):
            return status
        unseen = decrease <= eps * max(10 * abs(loss), abs(self._first - loss)) and bool((step <= eps**0.3).all())
        if step.max() > evidence["tolerance"] and not (evidence["resting"] and unseen):
            return None
        # What a Newton step gains cannot be seen, or is most of a loss of nearly 0; so it is near x^3 = 0, too.
        return status if fall(here, lagrangian, found, none, size) is None else None

    def _faded(self, scale: Tensor) -> Tensor:
        """The unknowns whose curvature has become so faint that a slope of higher order could hide there."""
        assert self._largest is not None
        return (self._largest > 0) & (scale <= torch.finfo(scale.dtype).eps ** 0.25 * self._largest) & self._sloped

    def _collapsed(self, scale: Tensor, idle: Tensor) -> Tensor:
        """The unknowns whose curvature has fallen to nothing; those that never had any, too, unless they are `idle`:
        not moved by the loss, in which others are felt. A loss without any slope anywhere is constant, and every point
        that keeps the constraints its minimum.
        """
        assert self._largest is not None
        had = self._largest > 0
        collapsed = scale <= torch.finfo(scale.dtype).eps ** 2 * self._largest
        return collapsed & (had | ~idle) & self._sloped


class _Lagrangian:
    """The `Landscape` of L."""

    def __init__(self, oracle: Oracle, found: Multipliers) -> None:
        self._oracle, self._weights, self.slope = oracle, found.values, found.gradient
        self._active = found.active
        self.origin = oracle.read() if oracle.origin is None else oracle.origin
        self.lower, self.upper = oracle.lower, oracle.upper
        self.read = oracle.read

    def value(self, loss: float) -> float:
        """L at the current parameters, where the loss is this."""
        return loss + float(self._weights @ self._oracle.linearised_constraints().residuals)

    def is_peak(self, curvature: Curvature) -> bool:
        """Whether all of the curvature is negative, no bound holds an unknown, and no inequality pushes: away from one
        that does the loss rises.
        """
        limits = self._oracle.constraints
        assert limits is not None
        pushes = bool((self._weights != 0)[limits.lower != limits.upper].any())
        falls = curvature.complete and bool(curvature.values[-1] < -curvature.threshold)
        return falls and not pushes and len(curvature.free) == len(curvature.size)

    def falls_along(self, here: Evaluation, curvature: Curvature, suspects: Tensor) -> bool:
        """Whether L falls, by more than rounding explains, along a flat direction or a suspect, bent back to the
        constraints.
        """
        point = here.point
        way = ways(point, self.origin)
        eps = torch.finfo(way.dtype).eps
        flats = [
            curvature.move(curvature.vectors[:, index], way)
            for index in (~curvature.is_curved).nonzero().flatten()[:NUM_FLAT]
        ]
        flats += [torch.zeros_like(way).index_fill(0, index, 1.0) for index in suspects.nonzero().flatten()[:NUM_FLAT]]
        try:
            for flat in flats:
                move = eps**REACH / max((flat.abs() / way).max().item(), math.ulp(0.0)) * flat
                for part in (move, -move):
                    losses = [self.loss(self._kept(point + share * part, point)) for share in (0.5, 1.0)]
                    slack = 10 * eps * (abs(here.loss) + curvature.strength * eps)
                    if losses[0] <= here.loss and losses[1] < here.loss - slack:
                        return True
        except BudgetSpent:
            pass  # what has been looked at shows no fall
        return False

    def _kept(self, point: Tensor, here: Tensor) -> Tensor:
        """The point, moved so that the active constraints are what they are here (Gauss and Newton's least moves)."""
        oracle, active = self._oracle, self._active
        values = oracle.linearised_constraints().residuals[active]
        try:
            for _ in range(NUM_RESTORED if len(active) else 0):
                oracle.write(self._inside(point))
                linear = oracle.linearised_constraints()
                missed = (values - linear.residuals[active]).double().cpu()
                matrix = linear.jacobian(active).double().cpu()
                point = oracle.read() + torch.linalg.lstsq(matrix, missed, driver="gelsd").solution.to(point)
        finally:
            oracle.write(here)
        return self._inside(point)

    def _inside(self, point: Tensor) -> Tensor:
        return point if self.lower is None or self.upper is None else point.clamp(self.lower, self.upper)

    def gradient(self, point: Tensor) -> Tensor:
        """Of L at another point."""
        here, gradient = self._oracle.read(), self._oracle.gradient(point)
        self._oracle.write(point)
        try:
            return gradient + self._oracle.linearised_constraints().vjp(self._weights)
        finally:
            self._oracle.write(here)

    def loss(self, point: Tensor) -> float:
        """L at another point."""
        here, loss = self._oracle.read(), self._oracle.loss(point)
        self._oracle.write(point)
        try:
            return self.value(loss)
        finally:
            self._oracle.write(here)


def endless(oracle: Oracle) -> str | None:
    """What to say where the multipliers grow without end, as on the way to a cusp: to a point where the constraints
    meet no constraint qualification (Nocedal and Wright, 2006, section 12.2). None elsewhere.

    Growing is to weigh more than eps^-0.25 times the loss, by what each changes when the unknowns move by their own
    size or by their distance from the start.
    """
    if oracle.constraints is None:
        return None
    point, gradient = oracle.read(), oracle.full_gradient()
    found = multipliers(oracle, gradient)
    if not len(found.active):
        return None
    moved = torch.maximum(point.abs(), (point - (point if oracle.origin is None else oracle.origin)).abs())
    changes = oracle.linearised_constraints().jacobian(found.active).abs() @ moved
    weights = found.values[found.active].abs() * changes
    least = torch.finfo(point.dtype).eps ** -0.25 * float(gradient.abs() @ moved)
    if not 0 < least < weights.max().item() < math.inf:
        return None
    row = int(found.active[weights.argmax()])
    indices = oracle.constraints.by_name(torch.arange(len(found.values), device=point.device))
    name = next(name for name, part in indices.items() if bool((part == row).any()))
    return (
        f"the multipliers grow without end (of {name!r} to {found.values[row].item():.2g}): the gradients of the "
        "active constraints and bounds do not add up to that of the loss here, as at a cusp. If this is the answer, no "
        "multipliers can prove it; to have a proof, state the constraints in another way"
    )


def multipliers(oracle: Oracle, gradient: Tensor) -> Multipliers:
    """By least squares, at the current parameters, where the loss has this gradient."""
    assert oracle.constraints is not None
    linear, point = oracle.linearised_constraints(), oracle.read()
    rows = torch.arange(len(linear.residuals), device=point.device)
    jacobian = linear.jacobian(rows)
    return least_squares(
        gradient,
        jacobian if oracle.pinned is None else jacobian.masked_fill(oracle.pinned, 0.0),
        linear.residuals,
        (oracle.constraints.lower, oracle.constraints.upper),
        point,
        None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper),
        sizes(point, point if oracle.origin is None else oracle.origin),
        oracle.violation_tolerance,
    )


def along_constraints(
    oracle: Oracle, found: Multipliers, free: Tensor, size: Tensor, threshold: Tensor
) -> Curvature | None:
    """The curvature of the Lagrangian along the constraints that push by more than `threshold`, in unknowns that are
    free; None where no direction is left.
    """
    assert oracle.constraints is not None
    hessian = oracle.hessian(found.values)
    if hessian is None or not bool(free.any()):
        return None
    jacobian = (
        oracle.linearised_constraints().jacobian(found.active) if len(found.active) else size.new_zeros(0, len(size))
    )
    equal = (oracle.constraints.lower == oracle.constraints.upper)[found.active]
    pushes = (found.values[found.active, None] * jacobian).abs() > threshold
    normals = (jacobian * size)[equal | pushes.any(1)][:, free]
    tangent, indices = Tangent(normals), free.nonzero().flatten()
    if not tangent.dimension:
        return None
    units = size[indices].double().cpu()

    def restricted(coordinates: Tensor) -> Tensor:
        whole = torch.zeros_like(size).index_put(
            (indices,), (units * tangent.into(coordinates.double().cpu())).to(size)
        )
        return tangent.coordinates(units * hessian(whole)[indices].double().cpu()).to(coordinates)

    ones = torch.ones(tangent.dimension, dtype=torch.bool)
    slope = tangent.coordinates(units * found.gradient[indices].double().cpu()).to(size.dtype)
    inside = examine(restricted, ones, torch.ones_like(slope), slope)
    vectors = tangent.into(inside.units[:, None] * inside.vectors)
    return replace(inside, vectors=vectors, units=units, lengths=vectors.abs().amax(0), size=size, free=indices)


def _reach(oracle: Oracle, found: Multipliers, point: Tensor, origin: Tensor) -> Tensor:
    """How much each active constraint changes when the unknowns move by their size towards its limit, as
    `Evaluation.violation` has it.
    """
    moved = torch.maximum(point.abs(), (point - origin).abs())
    if not len(found.active) or not moved.any():
        return found.scales
    assert oracle.constraints is not None
    linear, limits = oracle.linearised_constraints(), oracle.constraints
    jacobian = linear.jacobian(found.active)
    if oracle.lower is not None and oracle.upper is not None:
        missed = excess(linear.residuals, limits.lower, limits.upper)[found.active]
        jacobian = mending(jacobian, missed, point, oracle.lower, oracle.upper)
    return jacobian.abs() @ moved


def _constrained(oracle: Oracle, rows: Tensor) -> Tensor:
    """The unknowns that some of these constraints depend on, shape (n,): active ones determine them where L is flat."""
    if not len(rows):
        return torch.zeros_like(oracle.read(), dtype=torch.bool)
    return (oracle.linearised_constraints().jacobian(rows) != 0).any(0)
