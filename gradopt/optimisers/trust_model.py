"""Quadratic models of a loss round a point, and their minimisers inside a radius and a box."""

import math
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, Protocol

import torch
from torch import Tensor

from gradopt.contracts import State

INSIDE = 1e-6
"""A step is on the sphere if its length is, to this part of the radius."""

NARROW = 1e-14
"""An interval of dampings is a point if it is no wider than this part of them."""

MAX_DAMPINGS = 50

P = ParamSpec("P")

LEAST = 1e-300
"""What is divided by is no smaller."""


class Spectrum(NamedTuple):
    """A quadratic in scaled variables; with many starts, those of all of them.

    Attributes:
        values: Eigenvalues in ascending order, (..., k).
        vectors: (..., n, k).
        along: The gradient along them, (..., k).
        rounding: Of the eigenvalues: from it down they may be zero; (...).
    """

    values: Tensor
    vectors: Tensor
    along: Tensor
    rounding: Tensor

    @classmethod
    def of(cls, hessian: Tensor, gradient: Tensor) -> "Spectrum":
        values, vectors = torch.linalg.eigh(hessian)
        rounding = hessian.shape[-1] * torch.finfo(values.dtype).eps * values.abs().amax(-1)
        return cls(values, vectors, times(vectors.mT, gradient), rounding)


class Model(Protocol):
    """A model that can be minimised for one radius after another."""

    def minimiser(self, radius: float) -> tuple[Tensor, float, float]:
        """The step, its length in scaled variables (at most the radius), and the change of the loss it predicts."""
        ...

    def state_dict(self) -> State:
        """What `restored` makes it again of."""
        ...


class Curvature(Protocol):
    """The quadratic g'p + p'Bp / 2 of a model, restricted to free unknowns where asked.

    With many starts it is that of all of them: every tensor has a leading axis.
    """

    def spectrum(self, free: Tensor | None, shift: Tensor) -> Spectrum:
        """Of the free unknowns, a mask (..., n), or of all, round the point moved by `shift`. In it the others are
        there too, along eigenvectors without a gradient.
        """
        ...

    def slope(self, step: Tensor) -> Tensor:
        """The gradient of the model after a step, (..., n)."""
        ...

    def change(self, step: Tensor) -> Tensor:
        """The change of the loss that the model predicts for a step, (...)."""
        ...

    def state_dict(self) -> State:
        """The arguments it was made of."""
        ...


class Newton:
    """The curvature of a Hessian, in float64; shapes (..., n, n), (..., n), and the scale (..., n)."""

    def __init__(self, hessian: Tensor, gradient: Tensor, scale: Tensor) -> None:
        self.hessian, self.gradient, self.scale = hessian, gradient, scale

    def spectrum(self, free: Tensor | None, shift: Tensor) -> Spectrum:
        return Spectrum.of(*_restricted(_scaled(self.hessian, self.scale), self.slope(shift) / self.scale, free))

    def slope(self, step: Tensor) -> Tensor:
        return self.gradient + times(self.hessian, step)

    def change(self, step: Tensor) -> Tensor:
        return dot(step, self.gradient + 0.5 * times(self.hessian, step))

    def state_dict(self) -> State:
        return {"hessian": self.hessian, "gradient": self.gradient, "scale": self.scale}


class GaussNewton:
    """The curvature J'J of residuals r, (..., m), with Jacobian J, (..., m, n), or J'J + S with their second
    derivatives.

    Without S J'J is never formed: it would square J's condition.

    Args:
        second: S, (..., n, n): the sum of each residual times its Hessian, or None.
    """

    def __init__(self, residuals: Tensor, jacobian: Tensor, scale: Tensor, second: Tensor | None = None) -> None:
        self.residuals, self.jacobian, self.scale, self.second = residuals, jacobian, scale, second

    def spectrum(self, free: Tensor | None, shift: Tensor) -> Spectrum:
        scaled = self.jacobian / self.scale.unsqueeze(-2)
        if self.second is not None:
            hessian = scaled.mT @ scaled + _scaled(self.second, self.scale)
            return Spectrum.of(*_restricted(hessian, self.slope(shift) / self.scale, free))
        if free is not None:
            scaled = torch.where(free.unsqueeze(-2), scaled, 0.0)
        left, singular, right = torch.linalg.svd(scaled, full_matrices=False)
        rounding = max(scaled.shape[-2:]) * torch.finfo(singular.dtype).eps * singular[..., 0]
        moved = self.residuals + times(self.jacobian, shift)
        along = torch.where(singular > rounding.unsqueeze(-1), singular * times(left.mT, moved), 0.0)
        return Spectrum(singular.square().flip(-1), right.mT.flip(-1), along.flip(-1), rounding.square())

    def slope(self, step: Tensor) -> Tensor:
        first = times(self.jacobian.mT, self.residuals + times(self.jacobian, step))
        return first if self.second is None else first + times(self.second, step)

    def change(self, step: Tensor) -> Tensor:
        image = times(self.jacobian, step)
        first = dot(image, self.residuals + 0.5 * image)
        return first if self.second is None else first + 0.5 * dot(step, times(self.second, step))

    def state_dict(self) -> State:
        return {name: getattr(self, name) for name in ("residuals", "jacobian", "scale", "second")}


class Box:
    """The minimiser of a curvature in a radius and a box: an active set on the model.

    From one step to a better one, until there is none: the face of the box is chosen by the signs of the multipliers,
    and the model minimised on it. Where unknowns would cross a bound on the way, either all are put on it at once, or
    the way is followed as far as the first bound, and then that to the minimiser on the smaller face (Nocedal and
    Wright, Numerical Optimization, 2006, algorithm 16.3): the one is quick with many bounds, the other gets to the end
    where unknowns are nearly dependent. The projected steepest descent step is taken where it is better (gradient
    projection and faces: Moré and Toraldo, 1991; within a radius: Conn, Gould and Toint, Trust Region Methods, 2000,
    chapter 12). Without bounds it is the exact minimiser.

    Args:
        room: (lower - point, upper - point), or None.
    """

    MAX_FACES = 20
    PATH = tuple(0.25**k for k in range(12))
    """Of the radius: how far along steepest descent is looked."""

    ENOUGH = 1e-4
    """Another face is tried while the last one has gained more than this part of the change."""

    def __init__(self, curvature: Curvature, scale: Tensor, room: tuple[Tensor, Tensor] | None) -> None:
        self.curvature, self._scale, self._room = curvature, scale, room
        self._zero = torch.zeros_like(scale)
        self._whole: Spectrum | None = None

    def minimiser(self, radius: float) -> tuple[Tensor, float, float]:
        step = self._exact(radius) if self._room is None else self._within(radius, *self._room)
        return step, self._length(step), float(self.curvature.change(step))

    def state_dict(self) -> State:
        return {"curvature": self.curvature.state_dict(), "scale": self._scale, "room": self._room}

    @classmethod
    def restored(cls, state: State) -> "Box":
        """The one of which `state_dict` was taken."""
        kept = state["curvature"]
        curvature: Curvature = Newton(**kept) if "hessian" in kept else GaussNewton(**kept)
        return cls(curvature, state["scale"], state["room"])

    def _length(self, step: Tensor) -> float:
        return float((self._scale * step).norm())

    def _exact(self, radius: float) -> Tensor:
        if self._whole is None:  # a rejected step asks again with a smaller radius
            self._whole = self.curvature.spectrum(None, self._zero)
        return _solve(self._whole, radius) / self._scale

    def _within(self, radius: float, lower: Tensor, upper: Tensor) -> Tensor:
        step, change = self._zero, 0.0
        for _ in range(self.MAX_FACES):
            slope = self.curvature.slope(step)
            held = ((step <= lower) & (slope > 0)) | ((step >= upper) & (slope < 0))
            target = self._on_face(radius, lower, upper, held, step)
            trials = [*self._steepest(radius, lower, upper, step, slope.masked_fill(held, 0.0)), target]
            if bool(((target <= lower) | (target >= upper))[~held].any()):
                trials.append(self._walk(radius, lower, upper, held, step))
            changes = [float(self.curvature.change(trial)) for trial in trials]
            lowest = min(range(len(trials)), key=changes.__getitem__)
            if not changes[lowest] < change:
                break
            step, change, before = trials[lowest], changes[lowest], change
            if before - change <= self.ENOUGH * -change:
                break
        return step

    def _on_face(self, radius: float, lower: Tensor, upper: Tensor, held: Tensor, step: Tensor) -> Tensor:
        """The minimiser with the unknowns in `held` left where they are, and those that would cross a bound on it."""
        fixed, shift = held.clone(), torch.where(held, step, 0.0)
        while True:
            free = ~fixed
            left = math.sqrt(max(radius**2 - self._length(shift) ** 2, 0.0))
            if not bool(free.any()) or left == 0:
                return shift * min(1.0, radius / max(self._length(shift), LEAST))
            step = shift + torch.where(free, _solve(self.curvature.spectrum(free, shift), left) / self._scale, 0.0)
            over = ((step < lower) | (step > upper)) & free
            if not bool(over.any()):
                return step
            shift = torch.where(over, step.clamp(lower, upper), shift)
            fixed |= over

    def _walk(self, radius: float, lower: Tensor, upper: Tensor, held: Tensor, step: Tensor) -> Tensor:
        """Where the minimisers on faces lead, each followed as far as the first bound, and then that on its face."""
        fixed = held.clone()
        for _ in range(self.MAX_FACES):
            free = ~fixed
            shift = torch.where(fixed, step, 0.0)
            left = math.sqrt(max(radius**2 - self._length(shift) ** 2, 0.0))
            if not bool(free.any()) or left == 0:
                break
            found = shift + torch.where(free, _solve(self.curvature.spectrum(free, shift), left) / self._scale, 0.0)
            parts = reach(step, found, lower, upper)
            part = float(parts.min().clamp(max=1.0))
            met = (parts <= part) & (parts < 1.0)
            step = torch.where(met, torch.where(found < step, lower, upper), step + part * (found - step))
            if not bool(met.any()):
                break
            fixed |= met
        return step

    def _steepest(self, radius: float, lower: Tensor, upper: Tensor, step: Tensor, slope: Tensor) -> list[Tensor]:
        """Points along the projected path of steepest descent in scaled variables, drawn back into the radius."""
        direction = -slope / self._scale**2
        length = self._length(direction)
        if length == 0:
            return []
        path = [(step + radius / length * part * direction).clamp(lower, upper) for part in self.PATH]
        return [point * min(1.0, radius / max(self._length(point), LEAST)) for point in path]


class Krylov:
    """The minimiser of a curvature known by its products alone: truncated conjugate gradients (Steihaug, 1983).

    The path of the iterates is kept, so that a smaller radius needs no new products. In a box it is followed by the
    unknowns that no bound holds, and its end projected on the box (Bertsekas, Projected Newton methods, 1982), or
    the least along the gradient, if that promises more; the path is then the way there.

    Args:
        gradient: Shape (n,).
        box: How far each unknown can move down (<= 0) and up (>= 0); None without bounds.
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        gradient: Tensor,
        radius: float,
        forcing: float,
        max_products: int,
        box: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._path: list[tuple[Tensor, Tensor, float, float, float]] = []
        if box is not None:
            held = is_held(gradient, box)
            gradient, product = torch.where(held, 0.0, gradient), without(held, product)
        step, residual, change = torch.zeros_like(gradient), gradient, 0.0
        direction = -gradient
        square = first = float(residual @ residual)
        goal = forcing**2 * first
        for _ in range(max_products):
            image = product(direction)
            curvature, slope = float(direction @ image), -square
            self._path.append((step, direction, change, slope, curvature))
            if curvature <= 0:
                break
            length = square / curvature
            change += length * (slope + 0.5 * length * curvature)
            step = step + length * direction
            residual = residual + length * image
            before, square = square, float(residual @ residual)
            if float(step.norm()) >= radius or square <= goal:
                self._path.append((step, torch.zeros_like(step), change, 0.0, 1.0))
                break
            if before == 0:  # its square underflows
                break
            direction = direction * (square / before) - residual
        if box is not None:
            self._path = self._projected(product, gradient, radius, box)

    def _projected(
        self, product: Callable[[Tensor], Tensor], gradient: Tensor, radius: float, box: tuple[Tensor, Tensor]
    ) -> list[tuple[Tensor, Tensor, float, float, float]]:
        """The path to the better of two points in the box: the end of the path so far, and the least downhill."""
        end, _, _ = self.minimiser(radius)
        square, bend = float(gradient @ gradient), float(gradient @ product(gradient))
        downhill = square / bend if bend > 0 else float(end.norm()) / max(math.sqrt(square), LEAST)
        zero, rays = torch.zeros_like(gradient), []
        for step in (end.clamp(*box), (-downhill * gradient).clamp(*box)):
            slope, curvature = float(gradient @ step), float(step @ product(step))
            length = min(1.0, -slope / curvature) if curvature > 0 else 1.0
            change = length * (slope + 0.5 * length * curvature) if slope < 0 else 0.0
            rays.append((change, [(zero, step, 0.0, slope, curvature), (length * step, zero, change, 0.0, 1.0)]))
        change, path = min(rays, key=lambda ray: ray[0])
        return path if change < 0 else [(zero, zero, 0.0, 0.0, 1.0)]

    def minimiser(self, radius: float) -> tuple[Tensor, float, float]:
        step, change = self._end(radius)
        return step, float(step.norm()), change

    def state_dict(self) -> State:
        return {"path": self._path}

    def _end(self, radius: float) -> tuple[Tensor, float]:
        for (start, direction, change, slope, curvature), after in zip(
            self._path, [*self._path[1:], None], strict=True
        ):
            if after is not None and float(after[0].norm()) <= radius:
                continue
            square = float(direction @ direction)
            if square == 0:
                return start, change
            norm, inside = math.sqrt(square), float(start.norm())
            along = float(start @ direction) / norm
            room = math.sqrt(max(radius - inside, 0.0)) * math.sqrt(radius + inside)  # a square could overflow
            length = (math.hypot(along, room) - along) / norm
            if after is None and curvature > 0:  # the products ran out: the whole next step, if it is inside
                length = min(length, -slope / curvature)
            return start + length * direction, change + length * (slope + 0.5 * length * curvature)
        raise AssertionError("the path has a last node")


def is_held(gradient: Tensor, box: tuple[Tensor, Tensor]) -> Tensor:
    """The unknowns that a bound holds against the gradient; a mask, (..., n)."""
    return ((box[0] >= 0) & (gradient > 0)) | ((box[1] <= 0) & (gradient < 0))


def without(held: Tensor, product: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The product, with 0 for those that are held."""
    return lambda *vectors, **others: torch.where(held, 0.0, product(*vectors, **others))


def reach(step: Tensor, target: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Of each unknown (..., n): the part of the way from one step in the box to another at which it meets a bound."""
    move = target - step
    bound = torch.where(move < 0, lower, upper)
    return torch.where(move == 0, math.inf, (bound - step) / move)


def restored(state: State) -> Model:
    """The model of which `state_dict` was taken."""
    if "path" in state:
        model = Krylov.__new__(Krylov)
        model._path = state["path"]
        return model
    return Box.restored(state)


def room(point: Tensor, lower: Tensor | None, upper: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """How far each unknown can move down (<= 0) and up (>= 0) from a point (..., n); None without bounds."""
    if lower is None or upper is None:
        return None
    return lower.to(point) - point, upper.to(point) - point


def scale_of(diagonal: Tensor, before: Tensor | None) -> Tensor:
    """The running maximum of the scale of each unknown, (..., n); one without influence takes the largest."""
    largest = diagonal.amax(-1, keepdim=True)
    scale = torch.where(diagonal > 0, diagonal, torch.where(largest > 0, largest, 1.0))
    scale = torch.maximum(scale, torch.finfo(scale.dtype).eps * largest)
    return scale if before is None else torch.maximum(scale, before)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """The product of (..., m, n) and (..., n)."""
    return matrix @ vector if vector.dim() == 1 else (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def dot(one: Tensor, other: Tensor) -> Tensor:
    """The inner product of vectors (..., n)."""
    return one @ other if one.dim() == 1 else (one * other).sum(-1)


def _scaled(matrix: Tensor, scale: Tensor) -> Tensor:
    """A Hessian (..., n, n) in scaled variables."""
    return matrix / (scale.unsqueeze(-1) * scale.unsqueeze(-2))


def _restricted(hessian: Tensor, slope: Tensor, free: Tensor | None) -> tuple[Tensor, Tensor]:
    """A quadratic that is the same on free unknowns, and has no gradient along the others. The curvature of these is
    the largest on the diagonal, which is neither the least nor more than the largest of the free ones.
    """
    if free is None:
        return hessian, slope
    hessian = torch.where(free.unsqueeze(-1) & free.unsqueeze(-2), hessian, 0.0)
    largest = hessian.diagonal(dim1=-2, dim2=-1).abs().amax(-1, keepdim=True)
    return hessian + torch.diag_embed(torch.where(free, 0.0, largest)), torch.where(free, slope, 0.0)


def _solve(spectrum: Spectrum, radius: float) -> Tensor:
    """The minimiser of a quadratic in a ball, in scaled variables (Moré and Sorensen, 1983, with eigenvalues)."""
    values, vectors, along, _ = spectrum
    lowest, tiny = values[0].item(), float(spectrum.rounding)
    if lowest > tiny or bool((along[values <= tiny] == 0).all() and lowest >= -tiny):
        newton = torch.where(values > tiny, -along / values, torch.zeros_like(along))
        if float(newton.norm()) <= radius:
            return vectors @ newton
    shift = max(0.0, -lowest)
    low = max(0.0, -lowest + abs(along[0].item()) / radius)
    high = max(0.0, -lowest + float(along.norm()) / radius)
    least = shift + max(tiny, LEAST)
    damping = max(low, least)
    coefficients, length = -along, math.nan
    for _ in range(MAX_DAMPINGS):
        coefficients = -along / (values + damping)
        length = float(coefficients.norm())
        if abs(length - radius) <= INSIDE * radius or high - low <= NARROW * high:
            break
        low, high = (damping, high) if length > radius else (low, damping)
        derivative = float((coefficients.square() / (values + damping)).sum())
        damping += (length / radius - 1) * length * length / max(derivative, LEAST)
        if not low < damping < high:
            damping = max(0.5 * (low + high), least)
    if length < radius and lowest < 0:  # the hard case: the rest of the way along the lowest curvature
        rest = math.sqrt((radius - length) * (radius + length))
        coefficients[0] += math.copysign(rest, coefficients[0].item() or 1.0)
    return vectors @ coefficients
