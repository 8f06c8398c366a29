"""Whether the loss falls beside a point whose gradient vanishes: the loss itself is asked where curvature is silent."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle
from gradopt.stationarity.curvature import NUM_DENSE, NUM_FLAT, TINY, Curvature

SHORTER = (1.0, 1e-2, 1e-4)
"""Parts of a length over which a gradient may show a curvature."""

WEAK = 1e3
"""Directions of positive curvature up to this many times the negative one lead to no floor on which to ask for that."""

ASLEEP = (-0.5, -0.75, -0.9, -0.97, -0.99, -1.0, -2.0, 1.0)
"""Moves of an unknown, as parts of its value, by which it may come to where the loss depends on it."""

NUM_ASLEEP = 20
"""Unknowns that are moved one by one, after all of them together."""

NUM_MIXED = 8
"""Mixtures of flat directions along which the loss is asked."""

REACH = 1 / 8
"""How far a flat direction is followed: eps to this power of the way an unknown may reach, so that a fall of up to
sixth order shows above the rounding of the loss.
"""

FAR = (0.25, 1.0)
"""The same where a constant hides even that, but the gradient, which knows of no constant, points downhill there."""

NUM_SCATTERED = 6
"""Points within rounding of another that show how far the loss is rounded."""

NUM_SLOPES = 4
"""Directions without curvature along which a slope is looked into, the steepest first."""


class Landscape(Protocol):
    """As much of an oracle as the tests of flat directions ask; that may be a Lagrangian's, too."""

    lower: Tensor | None
    upper: Tensor | None

    def read(self) -> Tensor:
        """The unknowns."""
        ...

    def loss(self, point: Tensor) -> float:
        """Its value at another point, counted as a loss."""
        ...

    def gradient(self, point: Tensor) -> Tensor:
        """Its gradient at another point, shape (n,), counted as a loss and a gradient."""
        ...


@dataclass(frozen=True, slots=True)
class Fall:
    """A move of the unknowns, shape (n,), and by how much the loss falls along it."""

    step: Tensor
    depth: float


def is_lower_beside(
    evaluation: Evaluation, oracle: Oracle, curvature: Curvature, way: Tensor, fallen: float
) -> bool | None:
    """Whether the loss is lower along the direction of negative curvature than where the other directions lead: on a
    floor that is curved, the direction is negative only for the height above the floor. True, too, where rounding hides
    what the curvature promises, and it is as negative on the floor; None where it is mere rounding itself. What is left
    of a loss that vanishes bends this way and that, too, but not to below 0.

    Args:
        way: How far each unknown may reach.
        fallen: By how much the loss has fallen so far.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    direction, eps = curvature.direction(point), torch.finfo(way.dtype).eps
    weak = curvature.values <= WEAK * curvature.values[0].abs()  # of the same noise, where that is all it is
    try:
        floor = inside(point + curvature.newton_move(gradient, weak), oracle)
        base = oracle.loss(floor)
        if not base <= loss:
            floor, base = point, loss
        for part in (1.0, 0.1, 0.01):
            length = part * eps**0.25 * (direction.abs() @ way).item()
            promised = -0.5 * curvature.along(0) * length**2
            noise = 10 * eps * max(abs(base), abs(base - loss))
            if not promised > 2 * noise:
                if not _bends_down(floor, oracle, direction, curvature.along(0), length):
                    return None
                return _is_negative_on_floor(floor, oracle, curvature, weak)
            sides = [inside(floor + sign * length * direction, oracle) for sign in (1.0, -1.0)]
            sides = [side for side in sides if not torch.equal(side, floor)]
            for bent in (False, True):  # straight, and round the bend of the floor, as in Peano's (y - x^2)(y - 3 x^2)
                if bent:
                    sides = [
                        inside(side + curvature.newton_move(oracle.gradient(side), weak), oracle) for side in sides
                    ]
                # A slope along the floor lowers one side, a curvature their mean.
                mean = sum(map(oracle.loss, sides)) / max(len(sides), 1)
                if not math.isfinite(mean) or (sides and mean < base - max(noise, 0.25 * promised)):
                    return not 0 <= mean <= base <= eps * fallen
    except BudgetSpent:
        return True
    return False


def _bends_down(floor: Tensor, oracle: Oracle, direction: Tensor, curvature: float, length: float) -> bool:
    """Whether the gradient changes along the direction as that curvature says, over some length or one much shorter: a
    curvature of mere rounding, which it is of the terms of the Hessian that cancel, says nothing of the gradient.
    """

    def slope(step: float) -> float:
        return (oracle.gradient(inside(floor + step * direction, oracle)) @ direction).item()

    here = slope(0.0)

    def bends(step: float) -> bool:
        expected = curvature * step
        return expected != 0 and 0.5 <= (slope(step) - here) / expected <= 2  # it may underflow

    lengths = [length * part for part in SHORTER]
    return any(bends(one) and bends(-one) and bends(one / 2) for one in lengths)


def _is_negative_on_floor(floor: Tensor, oracle: Oracle, curvature: Curvature, weak: Tensor) -> bool:
    """Whether the curvature is negative there, too, in that direction. The floor of a bent valley is level: what is
    left of the gradient gives its tangent a curvature of either sign.
    """
    here = oracle.read()
    direction = curvature.move(curvature.vectors[:, 0], here)
    try:
        oracle.write(inside(floor + curvature.newton_move(oracle.gradient(floor), weak), oracle))
        hessian = oracle.hessian()
        least = max(curvature.threshold, 0.1 * abs(curvature.values[0].item()))  # else it was what led off the floor
        return hessian is None or (direction @ hessian(direction)).item() < -least
    finally:
        oracle.write(here)


def fall(evaluation: Evaluation, oracle: Landscape, curvature: Curvature, suspects: Tensor, way: Tensor) -> Fall | None:
    """By how much the loss falls, more than rounding explains, where curvature says nothing: along the direction of the
    smallest, as x^3 does at 0, along the suspects, or along mixtures of flat directions, as x y z does at 0. None if it
    does not.

    Args:
        suspects: A mask of unknowns whose curvature has vanished.
        way: How far each unknown may reach; eps^0.25 of it is looked at, and eps^`REACH` where rounding hides whether
            the loss rises there, as that of a large constant does; and for mixtures. Then `FAR` of it.
    """
    eps, direction = torch.finfo(way.dtype).eps, curvature.direction(evaluation.point)
    axes = [(direction.abs() @ way).item() * direction]
    for index in suspects.nonzero().flatten()[:NUM_DENSE]:
        axes.append(torch.zeros_like(direction).index_fill(0, index, way[index].item()))
    moves = [(number == 0, [part * move for part in (eps**0.25, eps**REACH)]) for number, move in enumerate(axes)]
    moves += [(True, [move]) for move in mixtures(curvature, way)]
    try:
        for mixed, longer in moves:
            for move in longer:
                found, rises = _lower_side(evaluation, oracle, curvature, move, mixed=mixed)
                if found is not None:
                    return found if _is_seen(found.depth, evaluation, oracle, way) else None
                if rises:
                    break
            else:
                found = _far_fall(evaluation, oracle, longer[-1], way)
                if found is not None and _is_seen(found.depth, evaluation, oracle, way):
                    return found
    except BudgetSpent:
        pass  # what could be looked at shows no fall
    return None


def _lower_side(
    evaluation: Evaluation, oracle: Landscape, curvature: Curvature, move: Tensor, *, mixed: bool
) -> tuple[Fall | None, bool]:
    """The fall to the side of a move on which the loss is lower, if one is; and whether it rises on both, by more than
    rounding.

    Args:
        mixed: Whether the move is of several unknowns, and not quite along the direction that is meant.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    eps, rises = torch.finfo(point.dtype).eps, True
    steps = [inside(point + side, oracle) - point for side in (move, -move)]
    losses = [oracle.loss(point + step) for step in steps]
    for step, lower, other in zip(steps, losses, reversed(losses), strict=True):
        part = (step / curvature.size).square().sum().item() if mixed else 0.0
        astray, slope = len(point) * curvature.strength * part, (gradient @ step).item()
        if is_lower(lower, loss, slope, astray, eps) and _keeps_falling(step, (lower, loss, other), point, oracle):
            return Fall(step, loss - lower), False
        rises &= is_lower(loss, lower, slope, astray, eps)
    return None, rises


def _far_fall(evaluation: Evaluation, oracle: Landscape, move: Tensor, way: Tensor) -> Fall | None:
    """The fall to the side of a move, both sides of which are as high as the point for all that rounding tells, where
    the gradient points downhill half the move off, at its end and at twice that, and then the loss falls as well.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    eps = torch.finfo(point.dtype).eps

    def points_down(side: Tensor, part: float) -> bool:
        step = inside(point + part * side, oracle) - point
        return bool(step.any()) and (oracle.gradient(point + step) @ step).item() < -2 * abs((gradient @ step).item())

    for side in (move, -move):
        if not all(points_down(side, part) for part in (1.0, 0.5, 2.0)):
            continue
        whole = side / max((side.abs() / way).max().item(), TINY)
        for part in FAR:
            step = inside(point + part * whole, oracle) - point
            lower, half = oracle.loss(point + step), oracle.loss(point + step / 2)
            is_seen = is_lower(lower, loss, (gradient @ step).item(), 0.0, eps) and half <= loss
            if is_seen and loss - half <= 0.4 * (loss - lower):
                return Fall(step, loss - lower)
    return None


def mixtures(curvature: Curvature, way: Tensor) -> list[Tensor]:
    """Moves along random mixtures of the flat directions, shape (n,) each; none where there are not two of them."""
    flat = (~curvature.is_curved).nonzero().flatten()
    if len(flat) < 2:
        return []
    signs = torch.randint(0, 2, (NUM_MIXED, len(flat)), generator=torch.Generator().manual_seed(0)) * 2 - 1
    parts = torch.zeros(NUM_MIXED, len(curvature.values), dtype=torch.float64)
    parts[:, flat] = signs.double()
    moves = [curvature.move(curvature.vectors @ row, way) for row in parts]
    reach = torch.finfo(way.dtype).eps ** REACH
    return [reach / max((move.abs() / way).max().item(), TINY) * move for move in moves]


def is_lower(lower: Any, loss: Any, slope: Any, astray: Any, eps: float) -> Any:
    """Whether a loss beside a point is lower than there, by more than rounding and the slope explain; of numbers, or
    of tensors of one shape.

    Args:
        astray: By how much the loss may differ as the direction is not quite right.
    """
    largest = torch.maximum(loss.abs(), lower.abs()) if isinstance(loss, Tensor) else max(abs(loss), abs(lower))
    return lower < loss - 10 * eps * (largest + astray) - 2 * abs(slope)


def scatter(point: Tensor, loss: float, oracle: Landscape, way: Tensor) -> float:
    """The largest change of the loss at a point when every unknown moves by one rounding of its way: that of its terms,
    however far they cancel.
    """
    signs = torch.randint(0, 2, (NUM_SCATTERED, len(way)), generator=torch.Generator().manual_seed(2)) * 2 - 1
    step = torch.finfo(way.dtype).eps * way
    return max(abs(oracle.loss(inside(point + row * step, oracle)) - loss) for row in signs.to(way))


def _is_seen(fall: float, evaluation: Evaluation, oracle: Landscape, way: Tensor) -> bool:
    """Whether a fall is more than the rounding of the loss's terms, which may cancel, as data and a model do."""
    try:
        return fall > 4 * scatter(evaluation.point, evaluation.loss, oracle, way)
    except BudgetSpent:
        return True


def _keeps_falling(step: Tensor, losses: tuple[float, float, float], point: Tensor, oracle: Landscape) -> bool:
    """Whether the loss is no higher half the way and twice as far either: noise is lower in one place alone. And unless
    it falls on both sides, half the way is worth less than half the fall: on the way down to a minimum that is near it
    is worth more.

    Args:
        losses: At the end of the step, at the point, and as far on its other side.
    """
    lower, loss, other = losses
    half, twice = (oracle.loss(inside(point + part * step, oracle)) for part in (0.5, 2.0))
    return max(half, twice) <= loss and (other <= loss or loss - half <= 0.4 * (loss - lower))


def fall_round_bend(
    evaluation: Evaluation, oracle: Oracle, curvature: Curvature, suspects: Tensor, way: Tensor
) -> Fall | None:
    """By how much the loss falls along a curve: along a flat direction or a suspect, and then where the curved ones
    lead from there. So does Peano's (y - x^2)(y - 3 x^2) at 0, which rises along every line. None if it does not.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    eps = torch.finfo(way.dtype).eps

    def round_bend(move: Tensor, own: Tensor | None) -> tuple[Tensor, float]:
        beside = inside(point + move, oracle)
        there = inside(beside + curvature.newton_move(oracle.gradient(beside), own), oracle)
        return there - point, oracle.loss(there)

    flats: list[tuple[Tensor, Tensor | None]] = [
        (curvature.move(curvature.vectors[:, index], way), None)
        for index in (~curvature.is_curved).nonzero().flatten()[:NUM_FLAT]
    ]
    for index in suspects.nonzero().flatten()[:NUM_FLAT]:  # nothing leads back along the suspect itself
        own = (curvature.vectors[curvature.free == index].abs() > 0.5).any(0)
        flats.append((torch.zeros_like(way).index_fill(0, index, 1.0), own))
    for flat, own in flats:
        move = eps**REACH / max((flat.abs() / way).max().item(), TINY) * flat
        for sign in (1.0, -1.0):
            try:
                step, lower = round_bend(sign * move, own)
                slack = 10 * eps * (max(abs(loss), abs(lower)) + curvature.strength * eps)
                falls = lower < loss - slack - 2 * abs((gradient @ step).item())
                if falls and round_bend(0.5 * sign * move, own)[1] <= loss:  # and not beyond a rise
                    return Fall(step, loss - lower) if _is_seen(loss - lower, evaluation, oracle, way) else None
            except BudgetSpent:
                return None
    return None


def unhindered(gradient: Tensor, curvature: Curvature, suspects: Tensor, way: Tensor) -> list[Tensor]:
    """Moves, shape (n,) each, along directions without curvature to speak of, so that a slope is small only against
    those of others.

    Args:
        suspects: A mask of unknowns that are such directions by themselves.
    """
    slopes, flat = curvature.slopes(gradient), ~curvature.is_curved
    order = slopes.masked_fill(~flat | (slopes <= curvature.noise), 0.0).argsort(descending=True)[:NUM_SLOPES]
    moves = [curvature.move(curvature.vectors[:, index], way) for index in order if flat[index]]
    steepest = (gradient.abs() * suspects).argsort(descending=True)[:NUM_SLOPES]
    return moves + [torch.zeros_like(way).index_fill(0, index, 1.0) for index in steepest if suspects[index]]


def falls_as_promised(
    evaluation: Evaluation, oracle: Landscape, moves: list[Tensor], way: Tensor, fallen: float
) -> bool:
    """Whether a gradient that seems to be nothing is none of its rounding: along one of the moves the loss falls by
    what it says, over a way on which that can be seen, and over twice that way.

    Args:
        way: How far each unknown may reach; a tenth of it is looked at, or as far as it takes to see the fall.
        fallen: By how much the loss has fallen so far; eps^2 of that is its rounding where it vanishes.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    eps = torch.finfo(way.dtype).eps
    noise, least = 20 * eps, 10 * eps**2 * fallen

    def falls(move: Tensor) -> bool:
        slope = (gradient @ move).item()
        if slope == 0 or not math.isfinite(slope):
            return False
        length = max(0.1 / max((move.abs() / way).max().item(), TINY), 5 * (noise * abs(loss) + least) / abs(slope))
        for part in (1.0, 2.0):
            there = inside(point - math.copysign(part * length, slope) * move, oracle)
            promised, lower = -(gradient @ (there - point)).item(), oracle.loss(there)
            seen = promised > noise * max(abs(loss), abs(lower)) + least
            if not (seen and 0.5 * promised <= loss - lower <= 2 * promised):
                return False
        return True

    try:
        return any(falls(move) for move in moves)
    except BudgetSpent:
        return False


def is_plateau(evaluation: Evaluation, oracle: Landscape, suspects: Tensor, way: Tensor, origin: Tensor) -> bool:
    """Whether the loss does not rise, by more than rounding or underflow explain, when one of the suspects moves by
    half its way to one side, and that is no mere slope. At a minimum it rises on both, whatever its order; unless the
    others have taken all effect from the suspect, as a factor does that has become 0.

    Args:
        suspects: A mask of unknowns.
        origin: Where the run began, shape (n,).
    """
    point, loss, number = evaluation.point, evaluation.loss, torch.finfo(way.dtype)
    same = 10 * number.eps * abs(loss) + number.tiny / number.eps
    try:
        for index in suspects.nonzero().flatten()[:NUM_DENSE]:
            step = torch.zeros_like(point).index_fill(0, index, 0.5 * way[index].item())
            for move in (step, -step):
                there = inside(point + move, oracle)
                rise = oracle.loss(there) - loss if not torch.equal(there, point) else math.inf
                slope = (evaluation.gradient @ (there - point)).item()
                is_slope = rise < -same and 0.5 * slope > rise > 2 * slope
                if rise <= same and not is_slope and not _depends_on_others(evaluation, oracle, index, origin, same):
                    return True
    except BudgetSpent:
        pass  # what could be looked at is none
    return False


def is_asleep(evaluation: Evaluation, oracle: Landscape, suspects: Tensor, way: Tensor) -> bool:
    """Whether the loss is lower, by more than rounding, within reach of unknowns on which it does not depend here: a
    saturated tanh, a bell or a dead unit begins where nothing is felt of them.

    Args:
        suspects: A mask of the unknowns that never had any effect.
    """
    point, loss, eps = evaluation.point, evaluation.loss, torch.finfo(way.dtype).eps
    unit, indices = torch.where(point != 0, point, way), suspects.nonzero().flatten()
    if not len(indices):
        return False
    groups = [indices, *(indices[:NUM_ASLEEP].split(1) if len(indices) > 1 else ())]
    try:
        for group in groups:
            move = torch.zeros_like(point).index_put((group,), unit[group])
            if any(oracle.loss(inside(point + part * move, oracle)) < loss - 10 * eps * abs(loss) for part in ASLEEP):
                return True
    except BudgetSpent:
        pass  # what could be looked at is not lower
    return False


def _depends_on_others(evaluation: Evaluation, oracle: Landscape, index: Tensor, origin: Tensor, same: float) -> bool:
    """Whether an unknown has no effect on its way, now that the others are where they are, though it had where they
    began.
    """

    def with_own(point: Tensor, own: Tensor) -> float:
        return oracle.loss(inside(point.index_put((index,), own), oracle))

    here, point = evaluation.point[index], evaluation.point
    back = [torch.lerp(here, origin[index], part) for part in (0.25, 0.5, 1.0)]
    if torch.equal(here, origin[index]) or any(abs(with_own(point, own) - evaluation.loss) > same for own in back):
        return False
    first, other = oracle.loss(origin), with_own(origin, here)
    return not abs(other - first) <= 10 * torch.finfo(point.dtype).eps * max(abs(first), abs(other))


def inside(point: Tensor, oracle: Landscape) -> Tensor:
    """The point, moved into the bounds."""
    if oracle.lower is None or oracle.upper is None:
        return point
    return point.clamp(oracle.lower, oracle.upper)
