"""The models of `trust_model` for many starts at once: every tensor has a leading axis of starts, and masks decide."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from gradopt.contracts import State
from gradopt.optimisers.rows import Rows
from gradopt.optimisers.trust_model import (
    INSIDE,
    LEAST,
    MAX_DAMPINGS,
    NARROW,
    Box,
    Curvature,
    Spectrum,
    is_held,
    reach,
    without,
)

C = TypeVar("C", bound=Curvature)


class StackedModel(Protocol):
    """The models of all starts, each of which can be minimised for one radius after another."""

    def minimiser(self, places: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of some starts the step, its length in scaled variables (at most the radius), and the predicted change."""
        ...

    def keep(self, kept: Tensor) -> None:
        """Forget the starts that are not at these places."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class StackedBox:
    """The minimiser of the curvature of each start in a radius and a box: `Box` by masks.

    Args:
        kind: Makes curvatures of what their `state_dict` says.
        number: Of starts.
    """

    def __init__(self, kind: Callable[..., Curvature], number: int) -> None:
        self._kind = kind
        self._curvatures, self._boxes, self._spectra = Rows(number), Rows(number), Rows(number)

    def put(self, places: Tensor, curvature: Curvature, scale: Tensor, room: tuple[Tensor, Tensor] | None) -> None:
        """Set the models of some starts.

        Args:
            room: (lower - point, upper - point), or None.
        """
        self._curvatures.put(places, **{name: v for name, v in curvature.state_dict().items() if v is not None})
        sides = {} if room is None else {"lower": room[0], "upper": room[1]}
        known = torch.zeros(len(scale), dtype=torch.bool, device=scale.device)
        self._boxes.put(places, scale=scale, known=known, **sides)

    def change(self, places: Tensor, **fields: Tensor) -> None:
        """Set something else in the curvatures of some starts."""
        self._curvatures.put(places, **fields)
        self._boxes["known"][places] = False

    def curvature(self, places: Tensor) -> Curvature:
        """Those of some starts."""
        return self._kind(**self._curvatures.at(places))

    def minimiser(self, places: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        curvature, box = self.curvature(places), self._boxes.at(places)
        scale = box["scale"]
        if "lower" in box:
            step = _within(_Confined(curvature, scale, box["lower"], box["upper"], radius))
        else:
            step = solve(self._spectrum(places), radius) / scale
        return step, _length(scale, step), curvature.change(step)

    def keep(self, kept: Tensor) -> None:
        for rows in (self._curvatures, self._boxes, self._spectra):
            rows.keep(kept)

    def state_dict(self) -> State:
        return {name: getattr(self, name).state_dict() for name in ("_curvatures", "_boxes", "_spectra")}

    def load_state_dict(self, state: State) -> None:
        for name, rows in state.items():
            getattr(self, name).load_state_dict(rows)

    def _spectrum(self, places: Tensor) -> Spectrum:
        """Those of some starts; a rejected step asks again for the one there is."""
        new = places[~self._boxes["known"][places].to(places.device)]
        if len(new):
            found = self.curvature(new).spectrum(None, torch.zeros_like(self._boxes["scale"][new]))
            self._spectra.put(new, **found._asdict())
            self._boxes["known"][new] = True
        return Spectrum(**self._spectra.at(places))


class StackedKrylov:
    """The minimisers of curvatures known by their products alone: `Krylov` by masks.

    Of the nodes of each path it keeps steps and directions, shape (starts, nodes, n), the predicted changes, slopes and
    curvatures, (starts, nodes), and their number.
    """

    def __init__(self, number: int) -> None:
        self._paths = Rows(number)

    def put(
        self,
        places: Tensor,
        product: Callable[[Tensor, Tensor], Tensor],
        gradient: Tensor,
        radius: Tensor,
        forcing: Tensor,
        max_products: int,
        box: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Follow the path of each of some starts.

        Args:
            product: Of the curvatures with vectors (starts, n); it is given a mask of the starts that ask for it, and
                what it returns for the others is of no account.
            gradient: Shape (starts, n).
            radius, forcing: Shape (starts,), float64.
            box: How far each unknown can move down and up, shape (starts, n) each; None without bounds.
        """
        if box is not None:
            held = is_held(gradient, box)
            gradient, product = torch.where(held, 0.0, gradient), without(held, product)
        step, residual, direction = torch.zeros_like(gradient), gradient, -gradient
        square = _dots(residual, residual)
        goal, change = forcing**2 * square, torch.zeros_like(square)
        going = torch.ones_like(square, dtype=torch.bool)
        ended, count = ~going, torch.zeros_like(square, dtype=torch.int64)
        nodes: list[tuple[Tensor, ...]] = []
        for _ in range(max_products):
            image = product(direction, going)
            curvature = torch.where(going, _dots(direction, image), 1.0)
            nodes.append((step, direction, change, torch.where(going, -square, 0.0), curvature))
            count += going | ended
            going = going & (curvature > 0)
            length = torch.where(going, square / curvature, 0.0)
            change = change + length * (-square + 0.5 * length * curvature)
            moved = length.to(step).unsqueeze(1)
            step = torch.where(going.unsqueeze(1), step + moved * direction, step)
            residual = torch.where(going.unsqueeze(1), residual + moved * image, residual)
            before, square = square, torch.where(going, _dots(residual, residual), square)
            ended = going & ((_norms(step) >= radius) | (square <= goal))
            going = going & ~ended & (before != 0)  # its square may underflow
            turned = direction * (square / before).to(direction).unsqueeze(1) - residual
            direction = torch.where(going.unsqueeze(1), turned, 0.0)
            if not bool(going.any()):
                break
        if bool(ended.any()):  # a last node, from where nothing leads on
            nodes.append((step, direction, change, torch.zeros_like(square), torch.ones_like(square)))
            count += ended
        self._keep_paths(places, nodes, count)
        if box is not None:
            self._project(places, product, gradient, radius, box)

    def _project(
        self,
        places: Tensor,
        product: Callable[[Tensor, Tensor], Tensor],
        gradient: Tensor,
        radius: Tensor,
        box: tuple[Tensor, Tensor],
    ) -> None:
        """Put the path to the better of two points in the box in the place of each, as `Krylov` does."""
        end, _, _ = self.minimiser(places, radius)
        all_of, zero = torch.ones_like(radius, dtype=torch.bool), torch.zeros_like(gradient)
        square, bend = _dots(gradient, gradient), _dots(gradient, product(gradient, all_of))
        away = _norms(end) / square.sqrt().clamp(min=LEAST)
        downhill = torch.where(bend > 0, square / torch.where(bend > 0, bend, 1.0), away)
        rays = []
        for step in (end.clamp(*box), (-downhill.to(gradient).unsqueeze(1) * gradient).clamp(*box)):
            slope, curvature = _dots(gradient, step), _dots(step, product(step, all_of))
            curved = curvature > 0
            length = torch.where(curved, -slope / torch.where(curved, curvature, 1.0), 1.0).clamp(max=1.0)
            change = torch.where(slope < 0, length * (slope + 0.5 * length * curvature), 0.0)
            rays.append((step, slope, curvature, length, change))
        second = rays[1][-1] < rays[0][-1]
        step, slope, curvature, length, change = (
            torch.where(second.unsqueeze(1) if one.dim() == 2 else second, other, one)
            for one, other in zip(*rays, strict=True)
        )
        falls = change < 0
        step = torch.where(falls.unsqueeze(1), step, 0.0)
        last = (length.to(step).unsqueeze(1) * step, zero, change, torch.zeros_like(slope), torch.ones_like(slope))
        first = (
            zero,
            step,
            torch.zeros_like(slope),
            torch.where(falls, slope, 0.0),
            torch.where(falls, curvature, 1.0),
        )
        self._keep_paths(places, [first, last], 1 + falls.long())

    def minimiser(self, places: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        path = self._paths.at(places)
        counts = path["count"]
        numbers, rows = (torch.arange(size, device=counts.device) for size in path["step"].shape[1::-1])
        # A step is longer than the one before: the path leaves the ball once.
        inside = (path["step"].norm(dim=2).double() <= radius.unsqueeze(1)) & (numbers < counts.unsqueeze(1))
        node = inside.cumprod(1).sum(1).clamp(min=1) - 1
        start, direction, change, slope, curvature = (path[name][rows, node] for name in PATH)
        square = _dots(direction, direction)
        still = square == 0
        norm, within = torch.where(still, 1.0, square).sqrt(), _norms(start)
        along = _dots(start, direction) / norm
        room = (radius - within).clamp(min=0.0).sqrt() * (radius + within).sqrt()  # a square could overflow
        length = (torch.hypot(along, room) - along) / norm
        ended = (node == counts - 1) & (curvature > 0)  # the products ran out: the whole next step, if it is inside
        length = torch.where(ended, torch.minimum(length, -slope / curvature), length)
        length = torch.where(still, 0.0, length)
        step = start + length.to(start).unsqueeze(1) * direction
        return step, _norms(step), change + length * (slope + 0.5 * length * curvature)

    def keep(self, kept: Tensor) -> None:
        self._paths.keep(kept)

    def state_dict(self) -> State:
        return self._paths.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._paths.load_state_dict(state)

    def _keep_paths(self, places: Tensor, nodes: list[tuple[Tensor, ...]], count: Tensor) -> None:
        columns = {name: torch.stack(column, 1) for name, column in zip(PATH, zip(*nodes, strict=True), strict=True)}
        for name, column in columns.items():
            if name in self._paths:
                self._paths.widen(name, column.shape[1])
                missing = self._paths[name].shape[1] - column.shape[1]
                rest = column.new_zeros(len(column), missing, *column.shape[2:])
                columns[name] = torch.cat([column, rest], dim=1)
        self._paths.put(places, **columns, count=count)


PATH = ("step", "direction", "change", "slope", "curvature")
"""Of a node of a path in `StackedKrylov`."""


def solve(spectrum: Spectrum, radius: Tensor) -> Tensor:
    """The minimisers of quadratics in balls of radius (starts,), in scaled variables (Moré and Sorensen, 1983, with
    eigenvalues); as that of one in `trust_model`.
    """
    values, vectors, along, tiny = spectrum
    lowest, faint = values[:, 0], values <= tiny.unsqueeze(1)
    idle = ~(faint & (along != 0)).any(1) & (lowest >= -tiny)
    newton = torch.where(faint, 0.0, -along / torch.where(faint, 1.0, values))
    plain = ((lowest > tiny) | idle) & (newton.norm(dim=1) <= radius)
    if bool(plain.all()):
        return _combined(vectors, newton)
    least = (-lowest).clamp(min=0.0) + tiny.clamp(min=LEAST)
    low = (-lowest + along[:, 0].abs() / radius).clamp(min=0.0)
    high = (-lowest + along.norm(dim=1) / radius).clamp(min=0.0)
    damping, done = torch.maximum(low, least), plain.clone()
    coefficients, length = newton, newton.norm(dim=1)
    for _ in range(MAX_DAMPINGS):
        raised = values + damping.unsqueeze(1)
        coefficients = -along / raised
        length = coefficients.norm(dim=1)
        done |= ((length - radius).abs() <= INSIDE * radius) | (high - low <= NARROW * high)
        if bool(done.all()):
            break
        longer = length > radius
        low, high = torch.where(longer, damping, low), torch.where(longer, high, damping)
        derivative = (coefficients.square() / raised).sum(1)
        newer = damping + (length / radius - 1) * length * length / derivative.clamp(min=LEAST)
        newer = torch.where((low < newer) & (newer < high), newer, torch.maximum(0.5 * (low + high), least))
        damping = torch.where(done, damping, newer)
    hard = (length < radius) & (lowest < 0)  # the rest of the way along the lowest curvature
    rest = torch.where(hard, ((radius - length) * (radius + length)).clamp(min=0.0).sqrt(), 0.0)
    first = coefficients[:, 0]
    coefficients[:, 0] = first + torch.where(first < 0, -rest, rest)
    return _combined(vectors, torch.where(plain.unsqueeze(1), newton, coefficients))


def at(curvature: C, places: Tensor) -> C:
    """Some of these curvatures."""
    fields = curvature.state_dict()
    return type(curvature)(**{name: value if value is None else value[places] for name, value in fields.items()})


@dataclass(frozen=True, slots=True)
class _Confined:
    """Curvatures of some starts, each in a ball and a box.

    Attributes:
        scale: Of the variables in which the ball is one; shape (starts, n), as `lower` and `upper`.
        lower, upper: Of a step.
        radius: Shape (starts,).
    """

    curvature: Curvature
    scale: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor

    def at(self, places: Tensor) -> "_Confined":
        """Some of them."""
        rest = (self.scale, self.lower, self.upper, self.radius)
        return _Confined(at(self.curvature, places), *(field[places] for field in rest))


def _within(whole: _Confined) -> Tensor:
    step, change = torch.zeros_like(whole.scale), torch.zeros_like(whole.radius)
    going = torch.arange(len(step), device=step.device)
    for _ in range(Box.MAX_FACES):
        part, here = whole.at(going), step[going]
        slope = part.curvature.slope(here)
        held = ((here <= part.lower) & (slope > 0)) | ((here >= part.upper) & (slope < 0))
        target = _on_face(part, held, here)
        trials = [*_steepest(part, here, slope.masked_fill(held, 0.0)), target]
        crosses = (((target <= part.lower) | (target >= part.upper)) & ~held).any(1).nonzero().flatten()
        if len(crosses):
            walked = here.clone()  # of no gain where nothing is walked
            walked[crosses] = _walk(part.at(crosses), held[crosses], here[crosses])
            trials.append(walked)
        changes = torch.stack([part.curvature.change(trial) for trial in trials]).nan_to_num(nan=math.inf)
        best, before = changes.argmin(0), change[going]
        now = changes.gather(0, best.unsqueeze(0)).squeeze(0)
        better = now < before
        chosen = torch.stack(trials)[best, torch.arange(len(going), device=step.device)]
        step[going[better]], change[going[better]] = chosen[better], now[better]
        going = going[better & (before - now > Box.ENOUGH * -now)]
        if not len(going):
            break
    return step


def _on_face(whole: _Confined, held: Tensor, step: Tensor) -> Tensor:
    """The minimisers with the unknowns in `held` left where they are, and those that would cross a bound on it."""
    fixed, shift = held.clone(), torch.where(held, step, 0.0)
    result = torch.zeros_like(step)
    open_ = torch.arange(len(step), device=step.device)
    while len(open_):
        free, moved, size = ~fixed[open_], shift[open_], whole.radius[open_]
        used = _length(whole.scale[open_], moved)
        left = (size.square() - used.square()).clamp(min=0.0).sqrt()
        none = ~free.any(1) | (left == 0)
        result[open_[none]] = (moved * (size / used.clamp(min=LEAST)).clamp(max=1.0).unsqueeze(1))[none]
        open_, free, moved, left = open_[~none], free[~none], moved[~none], left[~none]
        if not len(open_):
            break
        part = whole.at(open_)
        inner = solve(part.curvature.spectrum(free, moved), left) / part.scale
        found = moved + torch.where(free, inner, 0.0)
        over = ((found < part.lower) | (found > part.upper)) & free
        result[open_] = found
        shift[open_] = torch.where(over, found.clamp(part.lower, part.upper), moved)
        fixed[open_] |= over
        open_ = open_[over.any(1)]
    return result


def _walk(whole: _Confined, held: Tensor, step: Tensor) -> Tensor:
    """Where the minimisers on faces lead, each followed as far as the first bound, and then that on its face."""
    fixed, step = held.clone(), step.clone()
    going = torch.arange(len(step), device=step.device)
    for _ in range(Box.MAX_FACES):
        free, here = ~fixed[going], step[going]
        shift = torch.where(free, 0.0, here)
        length = _length(whole.scale[going], shift)
        left = (whole.radius[going].square() - length.square()).clamp(min=0.0).sqrt()
        some = free.any(1) & (left > 0)
        going, free, here, shift, left = going[some], free[some], here[some], shift[some], left[some]
        if not len(going):
            break
        part = whole.at(going)
        inner = solve(part.curvature.spectrum(free, shift), left) / part.scale
        found = shift + torch.where(free, inner, 0.0)
        parts = reach(here, found, part.lower, part.upper)
        share = parts.amin(1, keepdim=True).clamp(max=1.0)
        met = (parts <= share) & (parts < 1.0)
        bound = torch.where(found < here, part.lower, part.upper)
        step[going] = torch.where(met, bound, here + share * (found - here))
        fixed[going] |= met
        going = going[met.any(1)]
    return step


def _steepest(whole: _Confined, step: Tensor, slope: Tensor) -> list[Tensor]:
    """Points along the projected paths of steepest descent in scaled variables, drawn back into the radius."""
    scale, radius = whole.scale, whole.radius
    direction = -slope / scale**2
    length = _length(scale, direction)
    direction = direction * torch.where(length > 0, radius / length, 0.0).unsqueeze(1)
    path = [(step + share * direction).clamp(whole.lower, whole.upper) for share in Box.PATH]
    return [point * (radius / _length(scale, point).clamp(min=LEAST)).clamp(max=1.0).unsqueeze(1) for point in path]


def _length(scale: Tensor, step: Tensor) -> Tensor:
    return (scale * step).norm(dim=1)


def _combined(vectors: Tensor, coefficients: Tensor) -> Tensor:
    return (vectors @ coefficients.unsqueeze(-1)).squeeze(-1)


def _dots(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1).double()


def _norms(vectors: Tensor) -> Tensor:
    return vectors.norm(dim=1).double()
