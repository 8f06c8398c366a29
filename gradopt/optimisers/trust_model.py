"""Quadratic models of a loss round a point, and their minimisers inside a radius and a box."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from gradopt.contracts import State

Spectrum = tuple[Tensor, Tensor, Tensor]
"""Eigenvalues in ascending order (k,), eigenvectors (n, k), the gradient along them (k,), in scaled variables."""


class Model(Protocol):
    """A model that can be minimised for one radius after another."""

    def minimiser(self, radius: float) -> tuple[Tensor, float, float]:
        """The step, its length in scaled variables (at most the radius), and the change of the loss it predicts."""
        ...

    def state_dict(self) -> State:
        """What `restored` makes it again of."""
        ...


class Curvature(Protocol):
    """The quadratic g'p + p'Bp / 2 of a model, restricted to free unknowns where asked."""

    def spectrum(self, free: Tensor, shift: Tensor) -> Spectrum:
        """Of the free unknowns (indices), round the point moved by `shift`."""
        ...

    def change(self, step: Tensor) -> float:
        """The change of the loss that the model predicts for a step."""
        ...

    def state_dict(self) -> State:
        """The arguments it was made of."""
        ...


class Newton:
    """The curvature of a Hessian, in float64 on the CPU; shapes (n, n), (n,), and the scale (n,)."""

    def __init__(self, hessian: Tensor, gradient: Tensor, scale: Tensor) -> None:
        self.hessian, self.gradient, self.scale = hessian, gradient, scale

    def spectrum(self, free: Tensor, shift: Tensor) -> Spectrum:
        scale = self.scale[free]
        values, vectors = torch.linalg.eigh(self.hessian[free][:, free] / (scale[:, None] * scale))
        return values, vectors, vectors.T @ ((self.gradient + self.hessian @ shift)[free] / scale)

    def change(self, step: Tensor) -> float:
        return float(self.gradient @ step + 0.5 * (step @ (self.hessian @ step)))

    def state_dict(self) -> State:
        return {"hessian": self.hessian, "gradient": self.gradient, "scale": self.scale}


class GaussNewton:
    """The curvature J'J of residuals r, (m,), with Jacobian J, (m, n). J'J is never formed: it would square J's
    condition.
    """

    def __init__(self, residuals: Tensor, jacobian: Tensor, scale: Tensor) -> None:
        self.residuals, self.jacobian, self.scale = residuals, jacobian, scale

    def spectrum(self, free: Tensor, shift: Tensor) -> Spectrum:
        left, singular, right = torch.linalg.svd(self.jacobian[:, free] / self.scale[free], full_matrices=False)
        along = singular * (left.T @ (self.residuals + self.jacobian @ shift))
        return singular.square().flip(0), right.T.flip(1), along.flip(0)

    def change(self, step: Tensor) -> float:
        image = self.jacobian @ step
        return float(image @ self.residuals + 0.5 * (image @ image))

    def state_dict(self) -> State:
        return {"residuals": self.residuals, "jacobian": self.jacobian, "scale": self.scale}


class Box:
    """The minimiser of a curvature in a radius and a box: an active set on the model.

    Unknowns that a step would carry over a bound are put on it, and the step is taken again in the others; the
    projected steepest descent step is taken where it is better (a Cauchy point: Conn, Gould and Toint, Trust Region
    Methods, 2000, chapter 12). Without bounds it is the exact minimiser.

    Args:
        room: (lower - point, upper - point), or None.
    """

    def __init__(
        self, curvature: Curvature, gradient: Tensor, scale: Tensor, room: tuple[Tensor, Tensor] | None
    ) -> None:
        self._curvature, self._gradient, self._scale, self._room = curvature, gradient, scale, room
        self._all = torch.arange(len(gradient))
        self._zero = torch.zeros_like(gradient)
        self._whole: Spectrum | None = None
        self._held = self._zero.bool()
        if room is not None:
            self._held = ((room[0] >= 0) & (gradient > 0)) | ((room[1] <= 0) & (gradient < 0))

    def minimiser(self, radius: float) -> tuple[Tensor, float, float]:
        step, change = self._best(radius)
        return step, float((self._scale * step).norm()), change

    def _best(self, radius: float) -> tuple[Tensor, float]:
        if self._room is None:
            if self._whole is None:  # a rejected step asks again with a smaller radius
                self._whole = self._curvature.spectrum(self._all, self._zero)
            step = _solve(self._whole, radius) / self._scale
            return step, self._curvature.change(step)
        candidates = [self._active_set(radius, self._room), self._steepest(radius, self._room)]
        return min(((step, self._curvature.change(step)) for step in candidates), key=lambda pair: pair[1])

    def state_dict(self) -> State:
        return {
            "curvature": self._curvature.state_dict(),
            "gradient": self._gradient,
            "scale": self._scale,
            "room": self._room,
        }

    def _active_set(self, radius: float, room: tuple[Tensor, Tensor]) -> Tensor:
        fixed, shift = self._held.clone(), self._zero.clone()
        while True:
            free = (~fixed).nonzero().flatten()
            left = math.sqrt(max(radius**2 - float((self._scale * shift).square().sum()), 0.0))
            if not len(free) or left == 0:
                return shift
            step = shift.clone()
            step[free] = _solve(self._curvature.spectrum(free, shift), left) / self._scale[free]
            over = ((step < room[0]) | (step > room[1])) & ~fixed
            if not bool(over.any()):
                return step
            shift = torch.where(over, step.clamp(*room), shift)
            fixed |= over

    def _steepest(self, radius: float, room: tuple[Tensor, Tensor]) -> Tensor:
        direction = -(self._gradient / self._scale**2).masked_fill(self._held, 0.0)
        length = float((self._scale * direction).norm())
        if length == 0:
            return self._zero
        steps = [(radius / length * 0.25**k * direction).clamp(*room) for k in range(12)]
        return min(steps, key=self._curvature.change)


class Krylov:
    """The minimiser of a curvature known by its products alone: truncated conjugate gradients (Steihaug, 1983).

    The path of the iterates is kept, so that a smaller radius needs no new products.
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        gradient: Tensor,
        radius: float,
        forcing: float,
        max_products: int,
    ) -> None:
        self._path: list[tuple[Tensor, Tensor, float, float, float]] = []
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
            change += length * slope + 0.5 * length**2 * curvature
            step = step + length * direction
            residual = residual + length * image
            before, square = square, float(residual @ residual)
            if float(step.norm()) >= radius or square <= goal:
                self._path.append((step, torch.zeros_like(step), change, 0.0, 1.0))
                break
            if before == 0:  # its square underflows
                break
            direction = direction * (square / before) - residual

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
            return start + length * direction, change + length * slope + 0.5 * length**2 * curvature
        raise AssertionError("the path has a last node")


def restored(state: State) -> Model:
    """The model of which `state_dict` was taken."""
    if "path" in state:
        model = Krylov.__new__(Krylov)
        model._path = state["path"]
        return model
    kept = state["curvature"]
    curvature: Curvature = Newton(**kept) if "hessian" in kept else GaussNewton(**kept)
    return Box(curvature, state["gradient"], state["scale"], state["room"])


def room(point: Tensor, lower: Tensor | None, upper: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """How far each unknown can move down (<= 0) and up (>= 0), in float64 on the CPU; None without bounds."""
    if lower is None or upper is None:
        return None
    return lower.double().cpu() - point, upper.double().cpu() - point


def scale_of(diagonal: Tensor, before: Tensor | None) -> Tensor:
    """The running maximum of the scale of each unknown; one without influence takes the largest."""
    largest = diagonal.max()
    scale = torch.where(diagonal > 0, diagonal, largest if bool(largest > 0) else torch.ones_like(largest))
    scale = scale.clamp(min=torch.finfo(scale.dtype).eps * largest.item())
    return scale if before is None else torch.maximum(scale, before)


def _solve(spectrum: Spectrum, radius: float) -> Tensor:
    """The minimiser of a quadratic in a ball, in scaled variables (Moré and Sorensen, 1983, with eigenvalues)."""
    values, vectors, along = spectrum
    lowest, largest = values[0].item(), values.abs().max().item()
    tiny = len(values) * torch.finfo(values.dtype).eps * largest
    if lowest > tiny or bool((along[values <= tiny] == 0).all() and lowest >= -tiny):
        newton = torch.where(values > tiny, -along / values, torch.zeros_like(along))
        if float(newton.norm()) <= radius:
            return vectors @ newton
    shift = max(0.0, -lowest)
    low = max(0.0, -lowest + abs(along[0].item()) / radius)
    high = max(0.0, -lowest + float(along.norm()) / radius)
    damping = max(low, shift + max(tiny, 1e-300))
    coefficients, length = -along, math.nan
    for _ in range(50):
        coefficients = -along / (values + damping)
        length = float(coefficients.norm())
        if abs(length - radius) <= 1e-6 * radius or high - low <= 1e-14 * high:
            break
        low, high = (damping, high) if length > radius else (low, damping)
        derivative = float((coefficients.square() / (values + damping)).sum())
        damping += (length / radius - 1) * length**2 / max(derivative, 1e-300)
        if not low < damping < high:
            damping = max(0.5 * (low + high), shift + max(tiny, 1e-300))
    if length < radius and lowest < 0:  # the hard case: the rest of the way along the lowest curvature
        rest = math.sqrt(radius**2 - length**2)
        coefficients[0] += math.copysign(rest, coefficients[0].item() or 1.0)
    return vectors @ coefficients
