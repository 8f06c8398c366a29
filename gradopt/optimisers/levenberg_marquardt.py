"""Levenberg-Marquardt, for sums of squares."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, Oracle, State
from gradopt.mistakes import Mistake
from gradopt.optimisers.loss_unit import LossUnit
from gradopt.optimisers.trust_model import Box, GaussNewton, Krylov, Model, dot, room, scale_of, times
from gradopt.optimisers.trust_region import MAX_PRODUCTS, TrustSteps, first_radius

MATRIX_ENTRIES = 10_000_000
"""Entries of the Jacobian up to which `jacobian=auto` takes the whole matrix."""

TINY = torch.finfo(torch.float64).tiny
"""The smallest number with all its digits."""

BETTER = 3.0
"""The other model takes over when the error of its prediction is so many times smaller."""


class LevenbergMarquardt(TrustSteps):
    """Gauss-Newton steps inside a trust region, for objectives with residuals (Moré, 1978).

    The Jacobian's columns are scaled by the running maximum of their norms, raised where an unknown of weak influence
    could be thrown far beyond its own size; the step is exact, by a singular value decomposition of the scaled Jacobian
    J (J'J is never formed). Large residuals make these steps crawl: a second model J'J + S learns the residuals' own
    curvature, and whichever has predicted the loss better makes the next step (NL2SOL: Dennis, Gay and Welsch, 1981).
    Bounds are kept by an active set on the model. Robust losses reweigh residuals and rows (Triggs, 2000). A Jacobian
    too large to hold is replaced by its products, in truncated conjugate gradients on J'J (Steihaug, 1983).

    Args:
        jacobian: "matrix", "products" (which keep no bounds), or "auto": the matrix up to 1e7 entries.
    """

    bounds = True
    residuals = True

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, jacobian: Literal["auto", "matrix", "products"] = "auto"
    ) -> None:
        super().__init__(self._gauss_newton, LossUnit())
        self._jacobian = jacobian
        self._second = SecondOrder()
        self._other: Box | None = None
        self._origin: Tensor | None = None
        self._bends = False
        self._switched = False

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the loss fell as the model predicted. A model that the other one beats by far is left for it, and
        the first rejection that comes of that shrinks no radius.
        """
        model, other, radius = self._model, self._other, self._radius
        accepted = super().accepts(evaluation, oracle)
        if not isinstance(model, Box) or other is None:
            return accepted
        step, change = (evaluation.point - self._point).double().cpu(), self._unit.of(evaluation).loss - self._loss
        error, others = (abs(change - float(one.curvature.change(step))) for one in (model, other))
        switch = math.isfinite(change) and BETTER * others < error
        if switch:
            self._bends = not self._bends
        if switch and not accepted:
            self._model, self._other = other, model
            self._radius = self._radius if self._switched else radius
        self._switched = not accepted and (self._switched or switch)
        return accepted

    def state_dict(self) -> State:
        """That of the steps, of both models, of what S is learnt from, and the start."""
        other = None if self._other is None else self._other.state_dict()
        own = {"second": self._second.state_dict(), "other": other, "origin": self._origin}
        return super().state_dict() | own | {"bends": self._bends, "switched": self._switched}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        super().load_state_dict(state)
        self._second.load_state_dict(state["second"])
        self._other = None if state["other"] is None else Box.restored(state["other"])
        self._bends, self._switched, self._origin = state["bends"], state["switched"], state["origin"]

    def _gauss_newton(self, evaluation: Evaluation, oracle: Oracle, radius: float) -> tuple[Model, float]:
        linear, unit = oracle.linearised(), self._unit
        if radius != radius:
            check_residuals(linear.vjp(linear.residuals) * unit.factor, evaluation.gradient)
        entries = linear.residuals.numel() * evaluation.point.numel()
        if self._jacobian == "products" or (self._jacobian == "auto" and entries > MATRIX_ENTRIES):
            gradient = evaluation.gradient
            if radius != radius:
                image = linear.jvp(gradient) * unit.root
                radius = float(first_radius(evaluation.point, gradient, dot(image, image)))
            return Krylov(
                lambda v: linear.vjp(linear.jvp(v) * unit.root) * unit.root,
                gradient,
                radius,
                self.forcing(evaluation),
                MAX_PRODUCTS,
            ), radius
        residuals, jacobian, point, gradient = (
            t.double().cpu() for t in (linear.residuals, linear.jacobian(), evaluation.point, evaluation.gradient)
        )
        residuals, jacobian = residuals * unit.root, jacobian * unit.root
        scale = self._scale = scale_of(torch.linalg.vector_norm(jacobian, dim=0), self._scale)
        if self._origin is None:
            self._origin = point
        scale = capped(scale, point, self._origin)
        if radius != radius:
            slope = gradient / scale
            image = jacobian @ (slope / scale)
            radius = float(first_radius(scale * point, slope, dot(image, image)))
        space = room(point, oracle.lower, oracle.upper)
        second = self._second.learn(point, gradient, residuals, jacobian)
        flat, bent = (Box(GaussNewton(residuals, jacobian, scale, s), scale, space) for s in (None, second))
        model, self._other = (bent, flat) if self._bends else (flat, bent)
        return model, radius


class SecondOrder:
    """S, (n, n): the sum of each residual times its Hessian, learnt from how J'r changes from point to point.

    The symmetric secant update of NL2SOL (Dennis, Gay and Welsch, 1981, section 3), after S has been sized down to the
    curvature along the last step, so that it vanishes where the residuals do.
    """

    def __init__(self) -> None:
        self._matrix = torch.empty(0)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def learn(self, point: Tensor, gradient: Tensor, residuals: Tensor, jacobian: Tensor) -> Tensor:
        """S at a new point, where the gradient is J'r."""
        last, self._last = self._last, (point, gradient, jacobian)
        if last is None:
            self._matrix = torch.zeros(len(point), len(point), dtype=point.dtype)
        else:
            wanted = gradient - last[2].T @ residuals
            self._matrix = learnt(self._matrix, point - last[0], gradient - last[1], wanted)
        return self._matrix

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)


def learnt(matrix: Tensor, step: Tensor, turn: Tensor, wanted: Tensor) -> Tensor:
    """S after a step, of one start or of many: shapes (..., n, n), then (..., n) each.

    Args:
        turn: How the gradient has changed.
        wanted: What S times the step ought to be.
    """
    along, had = dot(step, turn), times(matrix, step)
    norms = torch.linalg.vector_norm(step, dim=-1) * torch.linalg.vector_norm(turn, dim=-1)
    # Nothing is learnt from a turn that is rounding, or underflows.
    learns = ~((along <= torch.finfo(step.dtype).eps * norms) | (along.square() < TINY))
    along, curvature = torch.where(learns, along, 1.0).unsqueeze(-1), dot(step, had)
    size = torch.where(curvature != 0, (dot(step, wanted) / curvature).abs().clamp(max=1.0), 1.0).unsqueeze(-1)
    rest = wanted - size * had
    pair = (rest / along).unsqueeze(-1) * turn.unsqueeze(-2)
    bend = (dot(step, rest).unsqueeze(-1) / along.square() * turn).unsqueeze(-1) * turn.unsqueeze(-2)
    return torch.where(learns[..., None, None], size.unsqueeze(-1) * matrix + pair + pair.mT - bend, matrix)


def capped(scale: Tensor, point: Tensor, origin: Tensor) -> Tensor:
    """The scale D, raised to |D s| / s_i: a step as long as the size |D s| moves no unknown by more than its own size.
    Of one start or of many, shape (..., n).

    An unknown of weak influence would else be thrown so far that it has none any more, and nothing leads back. Its
    size is s = max(|x|, distance from the start); of one that started at zero none is known, and it is left alone.
    """
    size = torch.maximum(point.abs(), (point - origin).abs())
    needed = torch.linalg.vector_norm(scale * size, dim=-1, keepdim=True) / size
    return torch.where(origin == 0, scale, torch.maximum(scale, needed))


def check_residuals(expected: Tensor, gradient: Tensor) -> None:
    """Refuse residuals that are not those of the loss: its gradient must be J'r. Of one start or of many, (..., n)."""
    errors, sizes = (expected - gradient).abs().amax(-1), gradient.abs().amax(-1)
    enough = torch.finfo(expected.dtype).eps ** 0.25 * torch.maximum(sizes, expected.abs().amax(-1))
    wrong = (errors > enough).flatten().nonzero().flatten()
    if len(wrong):
        error, size = errors.flatten()[wrong[0]].item(), sizes.flatten()[wrong[0]].item()
        raise Mistake(
            "the loss is not half the sum of squares of residuals(): J'r differs from its gradient by "
            f"{error:.2g} of {size:.2g}; leave forward() out, or use lbfgs"
        )
