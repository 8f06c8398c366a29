"""Convergence: the one road to success without a target."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import Band, Block, BudgetSpent, Judgement, Oracle, State
from gradopt.criteria.failure import EVERY
from gradopt.mistakes import Mistake
from gradopt.verdict import Status

NUM_DENSE = 50
"""Free unknowns up to which the Hessian is taken whole; beyond it Lanczos finds its extreme eigenvalues."""

NUM_LANCZOS = 30

RESTING = 10
"""Steps without any change after which the default tolerance is eps^0.5, and the largest scale counts for all unknowns:
closer than that no method comes that compares losses, as their differences round to nothing."""


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
    Then negative curvature on the free unknowns, below -10 n eps |lambda_max|, makes it a saddle point or a maximum;
    and a Newton step, H^-1 g, that would still move an unknown by more than eps^(1/3) of the largest size says that the
    gradient is small only for the curvature of a valley, and the run goes on.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        if tolerance is not None and not tolerance >= 0:
            raise Mistake(f"gradient_tolerance must be 0 or more, got {tolerance}")
        self._tolerance = tolerance
        self._origin: Tensor | None = None
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
            self._origin = oracle.read()
        self._still = self._still + 1 if block["step_norm"][-1, 0] == 0 else 0
        resting = self._still > 0 and self._still % RESTING == 0
        if (step < self._next and gradient_norm > self._needed and not resting) or block.cut_short is not None:
            return None
        if not (math.isfinite(gradient_norm) and math.isfinite(block["full_loss"][-1, 0].item())):
            return None
        self._next = max(step + 20, 2 * step)
        return self._judge_point(block, oracle, gradient_norm)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        place = f"at step {evidence['step']}, loss {evidence['loss']:.10g}"
        gradient = f"{evidence['word']}gradient {evidence['gradient_norm']:.3g}"
        if status in (Status.SADDLE_POINT, Status.MAXIMUM):
            what = "a maximum" if status is Status.MAXIMUM else "a saddle point"
            return (
                f"the gradient vanishes ({evidence['gradient_norm']:.3g}), but this is {what}: the loss falls along a "
                f"direction of curvature {evidence['curvature_min']:.3g} ({place}). To mend: start somewhere else"
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

    def _judge_point(self, block: Block, oracle: Oracle, gradient_norm: float) -> Judgement | None:
        assert self._origin is not None
        row, loss = len(block) - 1, block["full_loss"][-1, 0].item()
        point, gradient = oracle.read(), oracle.full_gradient()
        eps = torch.finfo(point.dtype).eps
        tolerance = self._tolerance
        if tolerance is None:
            tolerance = eps**0.5 if self._still >= RESTING else eps**0.6
        size = torch.maximum(point.abs(), (point - self._origin).abs())
        hessian = oracle.hessian()
        if hessian is None:
            scale = _secant_scale(oracle, point, gradient, self._origin)
        else:
            scale = _scale(hessian, size, block.last_step, enough=gradient_norm / (8 * tolerance) if tolerance else 0.0)
        if scale is None:
            return None
        # eps * max keeps an unknown that nothing moves, and whose gradient is mere rounding, from blocking the rest.
        scale = scale + eps * scale.max()
        if self._still >= RESTING:  # likewise the rounding of the whole
            scale = scale.max().expand_as(scale)
        projected = gradient
        if oracle.lower is not None and oracle.upper is not None:
            projected = projected_gradient(gradient, point, oracle.lower, oracle.upper)
        relative = _ratio(projected.abs(), scale)
        self._needed = min(
            tolerance * scale.max().item(), gradient_norm / 2 if gradient_norm <= self._needed else math.inf
        )
        noise = 4 * eps
        if relative > max(tolerance, noise):
            return None
        word = "" if oracle.lower is None else "projected "
        evidence = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "relative": relative,
            "tolerance": tolerance,
            "step": block.last_step,
            "word": word,
            "curvature": "unchecked",
            "curvature_min": math.nan,
        }
        status = Status.CONVERGED if relative <= tolerance else Status.NOISE_FLOOR
        if hessian is not None:
            free = _free(point, gradient, scale * tolerance, oracle)
            curvature, found = _curvature(hessian, free, point, size, gradient, loss, oracle)
            evidence |= found
            if curvature is not None:
                status = curvature
            elif found.get("newton_step", 0.0) > eps ** (1 / 3) * size.max().item():
                return None
        return Judgement.one(status, row, **evidence)


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


def _curvature(
    hessian: Callable[[Tensor], Tensor],
    free: Tensor,
    point: Tensor,
    size: Tensor,
    gradient: Tensor,
    loss: float,
    oracle: Oracle,
) -> tuple[Status | None, dict[str, Any]]:
    """The failure that negative curvature on the free unknowns proves (None if there is none), and the evidence."""
    indices = free.nonzero().flatten()
    n = len(indices)
    if n == 0:
        return None, {"curvature": "held"}

    def restricted(vector: Tensor) -> Tensor:
        return hessian(torch.zeros_like(point).index_put((indices,), vector.to(point)))[indices].double().cpu()

    slope = gradient[indices].double().cpu()
    values, vectors = _dense(restricted, n) if n <= NUM_DENSE else _lanczos(restricted, slope)
    smallest, largest = values[0].item(), values[-1].item()
    direction = torch.zeros_like(point).index_put((indices,), vectors[:, 0].to(point))
    threshold = 10 * len(point) * torch.finfo(point.dtype).eps * max(abs(smallest), abs(largest))
    along = vectors.T @ slope
    newton = (along / values).masked_fill(values.abs() <= threshold, 0.0)
    evidence: dict[str, Any] = {
        "curvature_min": smallest,
        "curvature_max": largest,
        "newton_step": (vectors @ newton).abs().max().item(),
        "direction": direction.unsqueeze(0),
    }
    if smallest < -threshold:
        status = Status.MAXIMUM if largest < -threshold and n == len(point) else Status.SADDLE_POINT
        return status, evidence | {"curvature": "negative"}
    if smallest > threshold:
        return None, evidence | {"curvature": "positive" if n <= NUM_DENSE else "none"}
    if _falls(direction, point, size, gradient, threshold, loss, oracle):
        return Status.SADDLE_POINT, evidence | {"curvature": "higher order"}
    return None, evidence | {"curvature": "none"}


def _falls(
    direction: Tensor, point: Tensor, size: Tensor, gradient: Tensor, threshold: float, loss: float, oracle: Oracle
) -> bool:
    """Whether the loss falls along a direction of no curvature, as x^3 does at 0, by more than rounding explains."""
    eps = torch.finfo(point.dtype).eps
    length = eps**0.25 * max(size.max().item(), eps if size.any() else 1.0)
    for sign in (1.0, -1.0):
        there = point + sign * length * direction
        if oracle.lower is not None and oracle.upper is not None:
            there = there.clamp(oracle.lower, oracle.upper)
        step = there - point
        try:
            lower = oracle.loss(there)
        except BudgetSpent:
            return False
        explained = (
            10 * eps * max(abs(loss), abs(lower)) + 2 * abs((gradient @ step).item()) + threshold * (step @ step).item()
        )
        if lower < loss - explained:
            return True
    return False


def _dense(product: Callable[[Tensor], Tensor], n: int) -> tuple[Tensor, Tensor]:
    matrix = torch.stack([product(row) for row in torch.eye(n, dtype=torch.float64)])
    return torch.linalg.eigh((matrix + matrix.T) / 2)


def _lanczos(product: Callable[[Tensor], Tensor], slope: Tensor) -> tuple[Tensor, Tensor]:
    """Extreme eigenpairs by Lanczos with full reorthogonalisation (Golub and Van Loan, Matrix Computations, 10.3).

    It starts from the gradient and noise of the same size: the one gives the Newton step, the other lets it find
    directions to which the gradient is orthogonal.
    """
    n = len(slope)
    noise = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis = noise / noise.norm()
    if slope.any():
        basis = basis + slope / slope.norm()
    basis = (basis / basis.norm()).unsqueeze(0)
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for _ in range(min(n, NUM_LANCZOS)):
        image = product(basis[-1])
        alphas.append(image @ basis[-1])
        for _ in range(2):  # once is not enough in floating point, twice is (Kahan, Parlett)
            image = image - basis.T @ (basis @ image)
        beta = image.norm()
        if beta <= 1e-12 * max(1e-300, max(abs(alpha.item()) for alpha in alphas)):
            break
        betas.append(beta)
        basis = torch.cat([basis, (image / beta).unsqueeze(0)])
    k = len(alphas)
    matrix = torch.diag(torch.stack(alphas))
    if k > 1:
        off = torch.stack(betas[: k - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, basis[:k].T @ vectors
