"""Levenberg-Marquardt, for sums of squares."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from gradopt.contracts import Evaluation, Linearised, Oracle
from gradopt.mistakes import Mistake
from gradopt.optimisers.trust_model import Box, GaussNewton, Krylov, Model, room, scale_of
from gradopt.optimisers.trust_region import MAX_PRODUCTS, TrustSteps, first_radius

MATRIX_ENTRIES = 10_000_000
"""Entries of the Jacobian up to which `jacobian=auto` takes the whole matrix."""


class LevenbergMarquardt(TrustSteps):
    """Gauss-Newton steps inside a trust region, for objectives with residuals (Moré, 1978).

    The Jacobian's columns are scaled by the running maximum of their norms; the step is exact, by a singular value
    decomposition of the scaled Jacobian J (J'J is never formed). Bounds are kept by an active set on the model. Robust
    losses reweigh residuals and rows (Triggs, 2000). A Jacobian too large to hold is replaced by its products, in
    truncated conjugate gradients on J'J (Steihaug, 1983).

    Args:
        jacobian: "matrix", "products" (which keep no bounds), or "auto": the matrix up to 1e7 entries.
    """

    bounds = True
    residuals = True

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, jacobian: Literal["auto", "matrix", "products"] = "auto"
    ) -> None:
        super().__init__(self._gauss_newton)
        self._jacobian = jacobian

    def _gauss_newton(self, evaluation: Evaluation, oracle: Oracle, radius: float) -> tuple[Model, float]:
        linear = oracle.linearised()
        if radius != radius:
            _check(linear, evaluation)
        entries = linear.residuals.numel() * evaluation.point.numel()
        if self._jacobian == "products" or (self._jacobian == "auto" and entries > MATRIX_ENTRIES):
            gradient = evaluation.gradient
            if radius != radius:
                radius = first_radius(evaluation.point, gradient, float(linear.jvp(gradient).square().sum()))
            return Krylov(
                lambda v: linear.vjp(linear.jvp(v)), gradient, radius, self.forcing(evaluation), MAX_PRODUCTS
            ), radius
        residuals, jacobian, point, gradient = (
            t.double().cpu() for t in (linear.residuals, linear.jacobian(), evaluation.point, evaluation.gradient)
        )
        scale = self._scale = scale_of(torch.linalg.vector_norm(jacobian, dim=0), self._scale)
        if radius != radius:
            slope = gradient / scale
            radius = first_radius(scale * point, slope, float((jacobian @ (slope / scale)).square().sum()))
        model = GaussNewton(residuals, jacobian, scale)
        return Box(model, scale, room(point, oracle.lower, oracle.upper)), radius


def _check(linear: Linearised, evaluation: Evaluation) -> None:
    """Refuse residuals that are not those of the loss: its gradient must be J'r."""
    expected = linear.vjp(linear.residuals)
    error, size = (expected - evaluation.gradient).abs().max().item(), evaluation.gradient.abs().max().item()
    if error > torch.finfo(expected.dtype).eps ** 0.25 * max(size, expected.abs().max().item()):
        raise Mistake(
            "the loss is not half the sum of squares of residuals(): J'r differs from its gradient by "
            f"{error:.2g} of {size:.2g}; leave forward() out, or use lbfgs"
        )
