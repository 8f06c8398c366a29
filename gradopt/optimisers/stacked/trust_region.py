"""Newton's method in a trust region for many starts at once, each with a radius of its own."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gradopt.contracts import Halted, NonFiniteTrial, State, Stuck
from gradopt.mistakes import Mistake
from gradopt.optimisers.rows import Rows
from gradopt.optimisers.stacked.loss_unit import StackedLossUnit
from gradopt.optimisers.stacked.trust_model import StackedBox, StackedKrylov, StackedModel
from gradopt.optimisers.trust_model import Newton, dot, room, scale_of, times
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
from gradopt.stacked import Evaluations, StackedOracle

Modelled = Callable[[Tensor, Evaluations, StackedOracle, Tensor], tuple[Tensor, Tensor]]


class StackedTrustSteps:
    """`TrustSteps` of each of many starts.

    Args:
        model: Of all starts.
        modelled: Makes the models of the starts at some places, given their evaluations in the unit and their radii,
            and returns the radii, with the first ones where it was given NaN, and whether the derivatives are finite.
    """

    makes_trials = True

    def __init__(self, oracle: StackedOracle, model: StackedModel, modelled: Modelled) -> None:
        self._model, self._modelled = model, modelled
        scale = torch.zeros_like(oracle.read(), dtype=torch.float64)
        self._unit, self._rows = StackedLossUnit(scale), Rows(len(scale))
        none = scale.new_zeros(len(scale))
        self._rows.put(torch.arange(len(scale)), radius=none + math.nan, largest=none, scale=scale)

    def accepts(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Tensor | None:
        """The starts whose loss fell as the model predicted; their radii are adapted either way."""
        if "loss" not in self._rows:
            return None
        row, here = self._rows.at(places, STEP), self.measured(evaluations, places)
        ratio, quiet = _ratio(here, row)
        length, radius = row["length"], row["radius"]
        terrible = ratio == -math.inf
        grown = torch.where(ratio > GAINS[1], torch.maximum(radius, GROWTH * length), radius)
        cut = torch.where(terrible, CUTS[0], torch.where(ratio < 0, CUTS[1], CUTS[2]))
        radius = torch.where(ratio < GAINS[0], cut * length, grown)
        vain = torch.where(quiet & (ratio <= ACCEPT), row["vain"] + 1, 0)
        self._rows.put(places, radius=radius, terrible=terrible, endless=here.loss == math.inf, vain=vain)
        return (ratio > ACCEPT).cpu()

    def update(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Make the models at the new points; then step to their minimisers inside the radii."""
        here = self.measured(evaluations.at(places), places)
        norm = here.gradient_norm
        largest = torch.maximum(self._rows["largest"][places], norm)
        self._rows.put(places, loss=here.loss, gradient_norm=norm, point=here.point, largest=largest)
        radius, sound = self._modelled(places, here, oracle, self._rows["radius"][places])
        none = torch.zeros_like(sound)
        pinned = none if here.pinned is None else here.pinned.any(1)
        self._rows.put(places, radius=radius, sound=sound, pinned=pinned, terrible=none, endless=none, vain=none.long())
        return self._move(oracle, places)

    def retry(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Step to the minimisers of the models there are, inside smaller radii."""
        return self._move(oracle, places)

    def measured(self, evaluations: Evaluations, places: Tensor) -> Evaluations:
        """The evaluations of some starts in their units; losses and norms are float64."""
        loss, gradient = self._unit.of(evaluations, places)
        norm = evaluations.gradient_norm.double() * self.factors(places)
        return replace(evaluations, loss=loss.to(norm), gradient_norm=norm, gradient=gradient)

    def factors(self, places: Tensor) -> Tensor:
        """The units of the losses of some starts, float64."""
        return self._unit.factors(places).to(self._rows["radius"].device)

    def roots(self, places: Tensor) -> Tensor:
        """Those of their residuals."""
        return self._unit.roots(places).to(self._rows["radius"].device)

    def learning_rate(self) -> Tensor:
        """The radii, in scaled variables."""
        return self._rows["radius"]

    def keep(self, kept: Tensor) -> None:
        """Forget the starts that are not at these places."""
        for part in (self._rows, self._unit, self._model):
            part.keep(kept)

    def state_dict(self) -> State:
        """The units, the radii, the accepted points, and their models, as a rejected step asks them again."""
        return {"rows": self._rows.state_dict(), "unit": self._unit.state_dict(), "model": self._model.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._rows.load_state_dict(state["rows"])
        self._unit.load_state_dict(state["unit"])
        self._model.load_state_dict(state["model"])

    def _move(self, oracle: StackedOracle, places: Tensor) -> Halted | None:
        row = self._rows.at(places, ("radius", "sound", "point", "pinned", "terrible", "endless", "vain"))
        able = (row["sound"] & (row["radius"] > 0) & (row["vain"] < VAIN)).cpu()
        length, change = (torch.zeros_like(row["radius"]) for _ in range(2))
        trial = row["point"].clone()
        if bool(able.any()):
            step, length[able], change[able] = self._model.minimiser(places[able], row["radius"][able])
            trial[able] = oracle.inside(trial[able] + step.to(trial))
        self._rows.put(places, length=length, change=change)
        moves = ((change < 0) & (trial != row["point"]).any(1)).cpu()
        oracle.write(places[moves], trial[moves])
        if bool(moves.all()):
            return None
        cause = torch.where(row["terrible"], torch.where(row["endless"], 3, 2), 0)  # as in CAUSES
        cause = torch.where(row["sound"] & (row["radius"] > 0), cause, 0)
        cause = torch.where(~row["sound"] & row["pinned"], 1, cause)
        return Halted(places[~moves], cause.cpu()[~moves], CAUSES)


class StackedTrustRegion(StackedTrustSteps):
    """`TrustRegion` of each of many starts.

    Args:
        hessian: "matrix", "products", or "auto", which goes by the unknowns of one start.

    Raises:
        Mistake: There are no second derivatives.
    """

    def __init__(self, oracle: StackedOracle, *, hessian: str) -> None:
        whole = takes_whole(hessian, oracle.read().shape[1])
        if not oracle.is_curved():
            raise Mistake(NO_CURVATURE)
        self._boxes, self._paths = StackedBox(Newton, oracle.num_starts), StackedKrylov(oracle.num_starts)
        if whole:
            super().__init__(oracle, self._boxes, self._newton)
        else:
            super().__init__(oracle, self._paths, self._by_products)

    def _newton(
        self, places: Tensor, here: Evaluations, oracle: StackedOracle, radius: Tensor
    ) -> tuple[Tensor, Tensor]:
        point, gradient = here.point.double(), here.gradient.double()
        hessian = oracle.hessian_matrix(places).double() * self.factors(places)[:, None, None]
        sound = hessian.isfinite().all(-1).all(-1) & gradient.isfinite().all(-1)
        hessian = torch.where(sound[:, None, None], hessian, 0.0)
        scale = scale_of(hessian.diagonal(dim1=-2, dim2=-1).abs().sqrt(), self._rows["scale"][places])
        slope = gradient / scale
        first = first_radius(scale * point, slope, dot(slope, times(hessian, slope / scale) / scale))
        self._rows.put(places, scale=scale)
        self._boxes.put(places, Newton(hessian, gradient, scale), scale, room(point, oracle.lower, oracle.upper))
        return torch.where(radius.isnan(), first, radius), sound

    def _by_products(
        self, places: Tensor, here: Evaluations, oracle: StackedOracle, radius: Tensor
    ) -> tuple[Tensor, Tensor]:
        product, gradient = oracle.hessian(places), here.gradient
        assert product is not None, "the first start has second derivatives, and all go through the same operations"
        factor = self.factors(places).to(gradient).unsqueeze(1)

        def measured(vectors: Tensor, asked: Tensor) -> Tensor:
            return product(vectors, asked) * factor

        new = radius.isnan()
        if bool(new.any()):
            first = first_radius(here.point, gradient, dot(gradient, measured(gradient, new)))
            radius = torch.where(new, first, radius)
        enough = forcing(here.gradient_norm, self._rows["largest"][places])
        box = room(here.point, oracle.lower, oracle.upper)
        self._paths.put(places, measured, gradient, radius, enough, MAX_PRODUCTS, box)
        return radius, gradient.isfinite().all(1)


CAUSES = (
    Stuck(NO_STEP),
    Stuck(NOT_FINITE),
    NonFiniteTrial(math.nan, however_short=True),
    NonFiniteTrial(math.inf, however_short=True),
)
"""Why a start cannot be moved."""

STEP = ("radius", "length", "change", "loss", "gradient_norm", "vain")
"""What is remembered of the last step, and of the point it was made from."""


def _ratio(here: Evaluations, row: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Actual over predicted decrease, and whether both are within rounding, as of one start."""
    noise = NOISE * torch.finfo(here.point.dtype).eps * row["loss"].abs()
    fallen, hoped = row["loss"] - here.loss, -row["change"]
    quiet = (fallen.abs() <= noise) & (hoped <= noise)
    fell = here.gradient_norm < row["gradient_norm"]
    ratio = torch.where(quiet | ((fallen == 0) & fell), fell.double(), fallen / hoped)
    finite = here.loss.isfinite() & here.gradient_norm.isfinite()
    return torch.where(here.loss == -math.inf, 1.0, torch.where(finite, ratio, -math.inf)), quiet
