"""Newton's method in a trust region, and the steps that all trust regions make."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, NonFiniteTrial, Oracle, State, Stuck
from gradopt.mistakes import Mistake
from gradopt.optimisers.loss_unit import LossUnit
from gradopt.optimisers.stacked.trust_region import StackedTrustRegion
from gradopt.optimisers.trust_model import Box, Krylov, Model, Newton, restored, room, scale_of
from gradopt.optimisers.trust_rules import (
    ACCEPT,
    CUTS,
    GAINS,
    GROWTH,
    MAX_PRODUCTS,
    NO_CURVATURE,
    NO_STEP,
    NOISE,
    NOT_FINITE,
    VAIN,
    first_radius,
    forcing,
    takes_whole,
)
from gradopt.stacked import StackedOracle

KEPT = ("_radius", "_loss", "_gradient_norm", "_change", "_length", "_point", "_accepted", "_not_finite")
KEPT += ("_largest", "_vain")


class TrustSteps:
    """Trials inside a radius that follows how well a model predicts the loss (Nocedal and Wright, 2006, algorithm 4.1).

    There is no cap on the radius. A trial that is not finite is a rejection.

    Args:
        modelled: Makes the model at the current point, and the first radius if it is given NaN. It is given the
            evaluation in the unit, and measures what it asks the oracle in it.
        unit: Of the loss.
    """

    def __init__(self, modelled: Callable[[Evaluation, Oracle, float], tuple[Model, float]], unit: LossUnit) -> None:
        self._modelled, self._unit = modelled, unit
        self._radius = math.nan
        self._model: Model | None = None
        self._loss = self._gradient_norm = self._change = self._length = math.nan
        self._point = torch.empty(0)
        self._accepted = True
        self._not_finite: float | None = None
        self._largest, self._vain = 0.0, 0
        self._scale: Tensor | None = None

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the loss fell as the model predicted; the radius is adapted either way."""
        if self._model is None:
            return True
        measured = self._unit.of(evaluation)
        ratio, loss = self._ratio(measured), evaluation.loss
        self._not_finite = None if ratio != -math.inf else math.nan if math.isfinite(loss) else loss
        if ratio == -math.inf:
            self._radius = CUTS[0] * self._length
        elif ratio < GAINS[0]:
            self._radius = (CUTS[1] if ratio < 0 else CUTS[2]) * self._length
        elif ratio > GAINS[1]:
            self._radius = max(self._radius, GROWTH * self._length)
        self._accepted = ratio > ACCEPT
        self._vain = self._vain + 1 if self._is_noise(measured) and not self._accepted else 0
        return self._accepted

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Make the model at an accepted point; then step to its minimiser inside the radius.

        Raises:
            Stuck: The step has shrunk to nothing.
            NonFiniteTrial: Likewise, and even the last trial was not finite.
        """
        if self._accepted or self._model is None:
            evaluation = self._unit.of(evaluation)
            self._loss, self._gradient_norm = evaluation.loss, evaluation.gradient_norm
            self._point = evaluation.point
            self._model, self._radius = self._modelled(evaluation, oracle, self._radius)
        if self._radius == 0 or self._vain >= VAIN:  # halved away
            raise Stuck(NO_STEP)
        step, self._length, self._change = self._model.minimiser(self._radius)
        trial = self._point + step.to(self._point)
        if oracle.lower is not None:
            trial = trial.clamp(oracle.lower, oracle.upper)
        if torch.equal(trial, self._point) or not self._change < 0:
            if self._not_finite is not None:
                raise NonFiniteTrial(self._not_finite, however_short=True)
            raise Stuck(NO_STEP)
        self._accepted = False
        oracle.write(trial)

    def forcing(self, evaluation: Evaluation) -> float:
        """How far conjugate gradients must reduce the residual."""
        self._largest = max(self._largest, evaluation.gradient_norm)
        return float(forcing(*torch.tensor([evaluation.gradient_norm, self._largest], dtype=torch.float64)))

    def learning_rate(self) -> float:
        """The radius, in scaled variables."""
        return self._radius

    def renew(self) -> None:
        """Begin anew at the next evaluation, of a function much like the one before: the radius is kept."""
        self._model, self._accepted = None, True

    def state_dict(self) -> State:
        """The unit of the loss, the radius, the accepted point, and its model, as a rejected step asks it again."""
        kept = {name: getattr(self, name) for name in KEPT}
        model = None if self._model is None else self._model.state_dict()
        return {**kept, "unit": self._unit.state_dict(), "scale": self._scale, "model": model}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        for name in KEPT:
            setattr(self, name, state[name])
        self._unit.load_state_dict(state["unit"])
        self._scale = state["scale"]
        self._model = None if state["model"] is None else restored(state["model"])

    def _ratio(self, evaluation: Evaluation) -> float:
        """Actual over predicted decrease; where both are within rounding the gradient decides: 1 if it fell, else 0.

        So it does where both losses are one number, as where terms cancel to 0: that they differ is lost in rounding.
        """
        if evaluation.loss == -math.inf:
            return 1.0
        if not (math.isfinite(evaluation.loss) and math.isfinite(evaluation.gradient_norm)):
            return -math.inf
        fell = evaluation.gradient_norm < self._gradient_norm
        if self._is_noise(evaluation) or (evaluation.loss == self._loss and fell):
            return 1.0 if fell else 0.0
        return (self._loss - evaluation.loss) / -self._change

    def _is_noise(self, evaluation: Evaluation) -> bool:
        """Whether the decrease, actual and predicted, is within rounding."""
        noise = NOISE * torch.finfo(evaluation.point.dtype).eps * abs(self._loss)
        return abs(self._loss - evaluation.loss) <= noise and -self._change <= noise


class TrustRegion(TrustSteps):
    """Newton steps inside a trust region, on the Hessian or on Hessian-vector products; negative curvature is used.

    With the whole matrix the subproblem is solved exactly by eigenvalues (Moré and Sorensen, 1983), in variables
    scaled by the running maximum of sqrt|diag H|, and bounds are kept by an active set on the model. With products it
    is solved by conjugate gradients that end at the boundary or along negative curvature (Steihaug, 1983), and bounds
    are kept by projection (Bertsekas, 1982).

    Args:
        hessian: "matrix", "products", or "auto": the matrix up to 200 unknowns.
    """

    bounds = True
    second_derivatives = True

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, hessian: Literal["auto", "matrix", "products"] = "auto"
    ) -> None:
        super().__init__(self._newton, LossUnit())
        self._hessian = hessian
        self._whole = takes_whole(hessian, sum(parameter.numel() for parameter in parameters))

    def stacked(self, oracle: StackedOracle) -> StackedTrustRegion:
        """What does the same for many starts at once."""
        return StackedTrustRegion(oracle, hessian=self._hessian)

    def _newton(self, evaluation: Evaluation, oracle: Oracle, radius: float) -> tuple[Model, float]:
        if not self._whole:
            return self._by_products(evaluation, oracle, radius)
        hessian = oracle.hessian_matrix()
        if hessian is None and oracle.pinned is not None:
            raise Stuck(NOT_FINITE)
        if hessian is None:
            raise Mistake(NO_CURVATURE)
        hessian, gradient, point = (t.double().cpu() for t in (hessian, evaluation.gradient, evaluation.point))
        if not bool(hessian.isfinite().all()):
            raise Stuck(NOT_FINITE)
        hessian = hessian * self._unit.factor
        scale = self._scale = scale_of(hessian.diagonal().abs().sqrt(), self._scale)
        if radius != radius:
            slope = gradient / scale
            radius = float(first_radius(scale * point, slope, slope @ (hessian @ (slope / scale) / scale)))
        return Box(Newton(hessian, gradient, scale), scale, room(point, oracle.lower, oracle.upper)), radius

    def _by_products(self, evaluation: Evaluation, oracle: Oracle, radius: float) -> tuple[Model, float]:
        product = oracle.hessian()
        if product is None:
            raise Mistake(NO_CURVATURE)
        gradient, factor = evaluation.gradient, self._unit.factor

        def measured(vector: Tensor) -> Tensor:
            return product(vector) * factor

        if radius != radius:
            radius = float(first_radius(evaluation.point, gradient, gradient @ measured(gradient)))
        box = room(evaluation.point, oracle.lower, oracle.upper)
        return Krylov(measured, gradient, radius, self.forcing(evaluation), MAX_PRODUCTS, box), radius
