"""Levenberg-Marquardt, for sums of squares."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, NonFiniteTrial, Oracle, State, Stuck
from gradopt.optimisers.loss_unit import LossUnit
from gradopt.optimisers.second_order import BETTER, MATRIX_ENTRIES, SecondOrder, capped, check_residuals
from gradopt.optimisers.stacked.levenberg_marquardt import StackedLevenbergMarquardt
from gradopt.optimisers.trust_model import Box, GaussNewton, Krylov, Model, dot, room, scale_of
from gradopt.optimisers.trust_region import TrustSteps
from gradopt.optimisers.trust_rules import MAX_PRODUCTS, first_radius
from gradopt.stacked import StackedOracle


class LevenbergMarquardt(TrustSteps):
    """Gauss-Newton steps inside a trust region, for objectives with residuals (Moré, 1978).

    The Jacobian's columns are scaled by the running maximum of their norms, raised where an unknown of weak influence
    could be thrown far beyond its own size; the step is exact, by a singular value decomposition of the scaled Jacobian
    J (J'J is never formed). Large residuals make these steps crawl: a second model J'J + S learns the residuals' own
    curvature, and whichever has predicted the loss better makes the next step (NL2SOL: Dennis, Gay and Welsch, 1981).
    Bounds are kept by an active set on the model. Robust losses reweigh residuals and rows (Triggs, 2000). A Jacobian
    too large to hold is replaced by its products, in truncated conjugate gradients on J'J (Steihaug, 1983), whose steps
    are projected on the bounds (Bertsekas, 1982).

    Args:
        jacobian: "matrix", "products", or "auto": the matrix up to 1e7 entries.
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

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Make the model at an accepted point; then step to its minimiser inside the radius.

        J'J + S has the squared condition of J, and may have lost the directions in which the loss still falls: where it
        leads nowhere, J'J is asked.

        Raises:
            Stuck, NonFiniteTrial: As `TrustSteps`.
        """
        try:
            super().update(evaluation, oracle)
        except (Stuck, NonFiniteTrial):
            bent, flat = self._model, self._other
            if not self._bends or flat is None or not isinstance(bent, Box):
                raise
            self._bends = self._accepted = False
            self._model, self._other = flat, bent
            super().update(evaluation, oracle)

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

    def stacked(self, oracle: StackedOracle) -> StackedLevenbergMarquardt:
        """What does the same for many starts at once."""
        return StackedLevenbergMarquardt(oracle, jacobian=self._jacobian)

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
                room(evaluation.point, oracle.lower, oracle.upper),
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
