"""Levenberg-Marquardt for many starts at once, each with a radius of its own."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gradopt.contracts import Halted, State
from gradopt.linearisation import Linearisation
from gradopt.optimisers.second_order import BETTER, MATRIX_ENTRIES, capped, check_residuals, learnt
from gradopt.optimisers.stacked.trust_model import StackedBox, StackedKrylov
from gradopt.optimisers.stacked.trust_region import StackedTrustSteps
from gradopt.optimisers.trust_model import GaussNewton, Spectrum, dot, room, scale_of, times
from gradopt.optimisers.trust_rules import MAX_PRODUCTS, first_radius, forcing
from gradopt.stacked import Evaluations, StackedOracle


class StackedLevenbergMarquardt(StackedTrustSteps):
    """`LevenbergMarquardt` of each of many starts.

    Args:
        jacobian: "matrix", "products", or "auto", which goes by the entries of the Jacobian of one start.
    """

    def __init__(self, oracle: StackedOracle, *, jacobian: str) -> None:
        self._boxes, self._paths = StackedBox(Either, oracle.num_starts), StackedKrylov(oracle.num_starts)
        whole = jacobian != "products" and (jacobian == "matrix" or oracle.num_jacobian_entries() <= MATRIX_ENTRIES)
        if whole:
            super().__init__(oracle, self._boxes, self._gauss_newton)
        else:
            super().__init__(oracle, self._paths, self._by_products)

    def accepts(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Tensor | None:
        """Whose loss fell as the model predicted. A model that the other one beats by far is left for it, and the first
        rejection that comes of that shrinks no radius.
        """
        before = None if "bends" not in self._rows else self._rows.at(places, ("radius", "loss", "point", *SWITCHES))
        accepted = super().accepts(evaluations, oracle, places)
        if before is None or accepted is None:
            return accepted
        here, refused = self.measured(evaluations, places), ~accepted.to(before["bends"].device)
        step, change = (evaluations.point - before["point"]).double(), here.loss - before["loss"]
        errors = (change.unsqueeze(1) - self._curvature(places).changes(step)).abs()
        own, others = torch.where(before["bends"].unsqueeze(1), errors.flip(1), errors).unbind(1)
        switch = change.isfinite() & (BETTER * others < own)
        bends, swaps = before["bends"] ^ switch, switch & refused
        radius = torch.where(swaps & ~before["switched"], before["radius"], self._rows["radius"][places])
        self._rows.put(places, bends=bends, switched=refused & (before["switched"] | switch), radius=radius)
        some = swaps.cpu()
        self._boxes.change(places[some], bends=bends[some])
        return accepted

    def _move(self, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """As `LevenbergMarquardt.update`: a start that the model with S leads nowhere asks the other one."""
        halted = super()._move(oracle, places)
        if halted is None or "bends" not in self._rows:
            return halted
        bends = self._rows["bends"][halted.places].cpu()
        others, again = Halted(halted.places[~bends], halted.code[~bends], halted.causes), halted.places[bends]
        if not len(again):
            return halted
        no = torch.zeros_like(self._rows["bends"][again])
        self._rows.put(again, bends=no)
        self._boxes.change(again, bends=no)
        return Halted.joined([others, super()._move(oracle, again)])

    def _gauss_newton(
        self, places: Tensor, here: Evaluations, oracle: StackedOracle, radius: Tensor
    ) -> tuple[Tensor, Tensor]:
        linear, root = oracle.linearised(places), self.roots(places)
        self._check(linear, places, here, radius)
        point, gradient = here.point.double(), here.gradient.double()
        residuals = linear.residuals.double() * root.unsqueeze(1)
        jacobian = linear.jacobian().double() * root[:, None, None]
        sound = jacobian.isfinite().all(-1).all(-1) & residuals.isfinite().all(-1) & gradient.isfinite().all(-1)
        residuals = torch.where(sound.unsqueeze(1), residuals, 0.0)
        jacobian = torch.where(sound[:, None, None], jacobian, 0.0)
        if "bends" not in self._rows:
            no = torch.zeros_like(sound)
            second = jacobian.new_zeros(*jacobian.shape[:1], *jacobian.shape[2:], jacobian.shape[2])
            self._rows.put(places, origin=point, bends=no, switched=no, second=second)
        else:
            last = self._rows.at(places, ("place", "slope", "second"))
            wanted = gradient - times(self._curvature(places).jacobian.mT, residuals)
            second = learnt(last["second"], point - last["place"], gradient - last["slope"], wanted)
        row = self._rows.at(places, ("scale", "origin", "bends"))
        own = scale_of(torch.linalg.vector_norm(jacobian, dim=-2), row["scale"])
        self._rows.put(places, second=second, place=point, slope=gradient, scale=own)
        scale = capped(own, point, row["origin"])
        slope = gradient / scale
        image = times(jacobian, slope / scale)
        radius = torch.where(radius.isnan(), first_radius(scale * point, slope, dot(image, image)), radius)
        curvature = Either(residuals, jacobian, scale, second, row["bends"])
        self._boxes.put(places, curvature, scale, room(point, oracle.lower, oracle.upper))
        return radius, sound

    def _by_products(
        self, places: Tensor, here: Evaluations, oracle: StackedOracle, radius: Tensor
    ) -> tuple[Tensor, Tensor]:
        linear, gradient = oracle.linearised(places), here.gradient
        self._check(linear, places, here, radius)
        root = self.roots(places).to(gradient).unsqueeze(1)
        new = radius.isnan()
        if bool(new.any()):
            image = linear.jvp(gradient) * root
            radius = torch.where(new, first_radius(here.point, gradient, dot(image, image)), radius)

        def product(vectors: Tensor, asked: Tensor) -> Tensor:
            return linear.vjp(linear.jvp(vectors) * root) * root

        enough = forcing(here.gradient_norm, self._rows["largest"][places])
        box = room(here.point, oracle.lower, oracle.upper)
        self._paths.put(places, product, gradient, radius, enough, MAX_PRODUCTS, box)
        return radius, gradient.isfinite().all(1)

    def _check(self, linear: Linearisation, places: Tensor, here: Evaluations, radius: Tensor) -> None:
        if bool(radius.isnan().any()):
            factor = self.factors(places).to(here.gradient).unsqueeze(1)
            check_residuals(linear.vjp(linear.residuals) * factor, here.gradient)

    def _curvature(self, places: Tensor) -> "Either":
        curvature = self._boxes.curvature(places)
        assert isinstance(curvature, Either)
        return curvature


SWITCHES = ("bends", "switched")
"""Whether the model of a start has S, and whether it has been left for the other one since the last step."""


class Either:
    """The curvature J'J of some starts, and J'J + S of those that bend; as `GaussNewton`, with a leading axis.

    Args:
        second: S, (starts, n, n).
        bends: A mask, (starts,).
    """

    def __init__(self, residuals: Tensor, jacobian: Tensor, scale: Tensor, second: Tensor, bends: Tensor) -> None:
        self.residuals, self.jacobian, self.scale, self.second, self.bends = residuals, jacobian, scale, second, bends
        self._chosen = GaussNewton(residuals, jacobian, scale, torch.where(bends[:, None, None], second, 0.0))

    def spectrum(self, free: Tensor | None, shift: Tensor) -> Spectrum:
        parts = list(self._parts(free, shift))
        if len(parts) == 1:
            return parts[0][1]
        whole = [torch.zeros(len(shift), *part.shape[1:]).to(part) for part in parts[0][1]]
        for mask, found in parts:
            for own, given in zip(whole, found, strict=True):
                own[mask] = given
        return Spectrum(*whole)

    def slope(self, step: Tensor) -> Tensor:
        return self._chosen.slope(step)

    def change(self, step: Tensor) -> Tensor:
        return self._chosen.change(step)

    def changes(self, step: Tensor) -> Tensor:
        """Those that J'J and J'J + S predict, shape (starts, 2)."""
        flat = GaussNewton(self.residuals, self.jacobian, self.scale).change(step)
        return torch.stack([flat, flat + 0.5 * dot(step, times(self.second, step))], dim=1)

    def state_dict(self) -> State:
        return {name: getattr(self, name) for name in ("residuals", "jacobian", "scale", "second", "bends")}

    def _parts(self, free: Tensor | None, shift: Tensor) -> Iterator[tuple[Tensor, Spectrum]]:
        """The spectra of those without S, and of those with it, and which they are; as many values of each."""
        for mask, second in ((~self.bends, None), (self.bends, self.second)):
            if bool(mask.any()):
                own = GaussNewton(
                    self.residuals[mask],
                    self.jacobian[mask],
                    self.scale[mask],
                    None if second is None else second[mask],
                )
                yield mask, _filled(own.spectrum(None if free is None else free[mask], shift[mask]))


def _filled(spectrum: Spectrum) -> Spectrum:
    """With n values: zeros, along nothing, where there are fewer residuals than unknowns."""
    missing = spectrum.vectors.shape[-2] - spectrum.values.shape[-1]
    if not missing:
        return spectrum
    values, vectors, along = (torch.nn.functional.pad(part, (missing, 0)) for part in spectrum[:3])
    return Spectrum(values, vectors, along, spectrum.rounding)
