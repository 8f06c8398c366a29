"""The curvature at a stationary point: what kind of point it is, and how far a Newton step would still go."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradopt.contracts import BudgetSpent, Evaluation, Oracle

NUM_DENSE = 200
"""Free unknowns up to which the Hessian is taken whole; beyond it Lanczos finds its extreme eigenvalues."""

NUM_LANCZOS = 30

NUM_MIXED = 8
MIXED_REACH = 1e-2
"""Mixtures of flat directions along which the loss is asked, and how far, in units of the way an unknown may reach."""

NUM_BENT = 4
"""Flat directions from which the loss is followed round a bend."""

TINY = 1e-300

Product = Callable[[Tensor], Tensor]


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


@dataclass(frozen=True, slots=True)
class Curvature:
    """Eigenvalues of the Hessian of the loss on k free unknowns, in units in which they are comparable.

    Attributes:
        values: In ascending order; directions up to `threshold` are flat, for all that rounding tells.
        vectors: Shape (k, directions), in those units.
        size: Of each unknown, as it was given; shape (n,).
        units: Of the unknowns, shape (k,): what a coordinate of 1 stands for.
        lengths: Of each direction: the largest move of an unknown in units of its own size.
        noise: Of the gradient along each direction, by rounding.
        strength: The change of the loss, to second order, when all unknowns move by their own size.
        free: The indices of the free unknowns.
        complete: Whether these are all eigenvalues, of all unknowns.
    """

    values: Tensor
    vectors: Tensor
    size: Tensor
    units: Tensor
    lengths: Tensor
    noise: Tensor
    strength: float
    threshold: float
    free: Tensor
    complete: bool

    @property
    def sign(self) -> str:
        """ "negative", "positive", or "none": nowhere negative, though not proven positive everywhere."""
        if self.values[0] < -self.threshold:
            return "negative"
        return "positive" if self.values[0] > self.threshold and self.complete else "none"

    @property
    def is_maximum(self) -> bool:
        """It is negative in every direction."""
        return self.complete and bool(self.values[-1] < -self.threshold)

    @property
    def is_faint(self) -> bool:
        """Some direction has so little of it that a slope of higher order could hide there."""
        eps = torch.finfo(self.size.dtype).eps
        return bool(self.values[0] <= eps**0.25 * self.values[-1])

    @property
    def is_curved(self) -> Tensor:
        """Which directions are not flat; a mask."""
        return self.values.abs() > self.threshold

    def direction(self, like: Tensor) -> Tensor:
        """Of the smallest eigenvalue, in the objective's units, of length 1."""
        found = torch.zeros_like(like).index_put((self.free,), (self.units * self.vectors[:, 0]).to(like))
        return found / found.norm()

    def along(self, index: int) -> float:
        """The curvature along an eigenvector in the objective's units."""
        return self.values[index].item() / max((self.units * self.vectors[:, index]).square().sum().item(), TINY)

    def newton_move(self, gradient: Tensor) -> Tensor:
        """A Newton step along the directions of positive curvature, shape (n,)."""
        along = self.vectors.T @ (self.units * gradient[self.free].double().cpu())
        parts = torch.where(self.values > self.threshold, -along / self.values, 0.0)
        return torch.zeros_like(gradient).index_put((self.free,), (self.units * (self.vectors @ parts)).to(gradient))

    def mixtures(self, way: Tensor) -> list[Tensor]:
        """Moves along random mixtures of the flat directions, shape (n,) each; none where there are not two of them.

        Args:
            way: How far each unknown may reach.
        """
        flat = self.vectors[:, ~self.is_curved]
        count = flat.shape[1]
        if count < 2:
            return []
        signs = torch.randint(0, 2, (NUM_MIXED, count), generator=torch.Generator().manual_seed(0)) * 2 - 1
        found = []
        for row in signs.to(flat):
            move = torch.zeros_like(way).index_put((self.free,), (self.units * (flat @ row)).to(way))
            found.append(MIXED_REACH / max((move.abs() / way).max().item(), TINY) * move)
        return found

    def slopes(self, gradient: Tensor) -> Tensor:
        """The gradient, of shape (n,), along each direction."""
        return (self.vectors.T @ (self.units * gradient[self.free].double().cpu())).abs()

    def decrease(self, slopes: Tensor) -> float:
        """What a Newton step would take from the loss; along flat directions, one move by the unknowns' own size."""
        return (
            torch.where(self.is_curved, slopes.square() / (2 * self.values.abs() + TINY), slopes / self.lengths)
            .sum()
            .item()
        )

    def noise_decrease(self) -> float:
        """The same for a gradient of mere rounding, along the directions that are curved."""
        return self.decrease(self.noise.masked_fill(~self.is_curved, 0.0))

    def newton_step(self, slopes: Tensor) -> Tensor:
        """The parts of a Newton step along each direction, in units of the unknowns' sizes; flat directions are taken
        to have as much curvature as rounding leaves room for.
        """
        return slopes / self.values.abs().clamp(min=max(self.threshold, TINY)) * self.lengths

    def is_stationary(self, slopes: Tensor) -> bool:
        """Whether the loss has its extremum within a thousandth of the unknowns' sizes in each direction of negative
        curvature. Elsewhere such a direction is merely a slope that steepens.
        """
        return bool((self.newton_step(slopes)[self.values < -self.threshold] <= 1e-3).all())


def examine(hessian: Product, free: Tensor, size: Tensor, gradient: Tensor) -> Curvature:
    """The curvature on the free unknowns: all of it for few, by Lanczos for many.

    Few unknowns are scaled by their own curvature, many by their size, so that the objective's units do not matter.

    Args:
        free: The unknowns no bound holds; a mask with at least one True.
        size: Of each unknown, positive.
    """
    indices = free.nonzero().flatten()
    scale, n = size[indices].double().cpu(), len(indices)
    eps = torch.finfo(gradient.dtype).eps

    def restricted(vector: Tensor) -> Tensor:
        whole = torch.zeros_like(gradient).index_put((indices,), (scale * vector).to(gradient))
        return scale * hessian(whole)[indices].double().cpu()

    if n <= NUM_DENSE:
        matrix = torch.stack([restricted(row) for row in torch.eye(n, dtype=torch.float64)])
        rows = matrix.abs().sum(1)
        own = _own_curvature(matrix)
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / (2 * own[:, None] * own))
        noise, strength = vectors.abs().T @ (10 * eps * rows / own), rows.max().item()
    else:
        own = torch.ones(n, dtype=torch.float64)
        values, vectors = _lanczos(restricted, scale * gradient[indices].double().cpu())
        strength = values.abs().max().item()
        noise = torch.full_like(values, 10 * eps * strength)
    return Curvature(
        values=values,
        vectors=vectors,
        size=size,
        units=scale / own,
        lengths=(vectors / own[:, None]).abs().amax(0),
        noise=noise,
        strength=strength,
        threshold=10 * len(gradient) * eps * values.abs().max().item(),
        free=indices,
        complete=n <= NUM_DENSE and n == len(gradient),
    )


def _own_curvature(matrix: Tensor) -> Tensor:
    """sqrt|H_ii| of each unknown; of its largest entry where that is zero, as in x y; 1 where it has none."""
    diagonal, largest = matrix.diagonal().abs(), matrix.abs().amax(1)
    own = torch.where(diagonal > 0, diagonal, largest).sqrt()
    return torch.where(own > 0, own, 1.0)


def sizes(point: Tensor, origin: Tensor) -> Tensor:
    """The size of each unknown: its value, or eps^0.25 of the way it has come where it is near zero; never zero."""
    size = torch.maximum(point.abs(), torch.finfo(point.dtype).eps ** 0.25 * (point - origin).abs())
    largest = size.max().item()
    return torch.where(size > torch.finfo(size.dtype).eps * largest, size, largest if largest > 0 else 1.0)


def ways(point: Tensor, origin: Tensor) -> Tensor:
    """How far each unknown may reach: its value or the way it has come, whichever is more; never zero."""
    way = torch.maximum(point.abs(), (point - origin).abs())
    largest = way.max().item()
    return torch.where(way > torch.finfo(way.dtype).eps * largest, way, largest if largest > 0 else 1.0)


def is_lower_beside(evaluation: Evaluation, oracle: Landscape, curvature: Curvature, way: Tensor) -> bool:
    """Whether the loss is lower along the direction of negative curvature than where the other directions lead: on a
    floor that is curved, the direction is negative only for the height above the floor. True, too, where rounding hides
    what the curvature promises.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    direction, eps = curvature.direction(point), torch.finfo(way.dtype).eps
    try:
        floor = _inside(point + curvature.newton_move(gradient), oracle)
        base = oracle.loss(floor)
        if not base <= loss:
            floor, base = point, loss
        for part in (1.0, 0.1, 0.01):
            length = part * eps**0.25 * (direction.abs() @ way).item()
            promised = -0.5 * curvature.along(0) * length**2
            noise = 10 * eps * max(abs(base), abs(base - loss))
            if part == 1.0 and not promised > 2 * noise:
                return True
            for sign in (1.0, -1.0):
                beside = oracle.loss(_inside(floor + sign * length * direction, oracle))
                if not math.isfinite(beside) or beside < base - max(noise, 0.25 * promised):
                    return True
    except BudgetSpent:
        return True
    return False


def fall(
    evaluation: Evaluation, oracle: Landscape, curvature: Curvature, suspects: Tensor, way: Tensor
) -> Tensor | None:
    """A move, shape (n,), by which the loss falls, by more than rounding explains, where curvature says nothing: along
    the direction of the smallest, as x^3 does at 0, along the suspects, or along mixtures of flat directions, as x y z
    does at 0. None if it does not.

    Args:
        suspects: A mask of unknowns whose curvature has vanished.
        way: How far each unknown may reach; eps^0.25 of it is looked at, and `MIXED_REACH` for mixtures.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    eps = torch.finfo(way.dtype).eps
    direction = curvature.direction(point)
    moves = [eps**0.25 * (direction.abs() @ way).item() * direction]
    for index in suspects.nonzero().flatten()[:NUM_DENSE]:
        moves.append(torch.zeros_like(point).index_fill(0, index, eps**0.25 * way[index].item()))
    num_plain = len(moves)
    moves += curvature.mixtures(way)
    for number, move in enumerate(moves):
        for sign in (1.0, -1.0):
            there = _inside(point + sign * move, oracle)
            step = there - point
            try:
                lower = oracle.loss(there)
            except BudgetSpent:
                return None
            mixed = number == 0 or number >= num_plain
            part = (step / curvature.size).square().sum().item() if mixed else 0.0
            astray = len(point) * curvature.strength * part  # as the direction is not quite right
            slack = 10 * eps * (max(abs(loss), abs(lower)) + astray)
            if lower < loss - slack - 2 * abs((gradient @ step).item()) and _keeps_falling(step, loss, point, oracle):
                return step
    return None


def _keeps_falling(step: Tensor, loss: float, point: Tensor, oracle: Landscape) -> bool:
    """Whether the loss is no higher half the way and twice as far either: noise is lower in one place alone."""
    try:
        return all(oracle.loss(_inside(point + part * step, oracle)) <= loss for part in (0.5, 2.0))
    except BudgetSpent:
        return False


def fall_round_bend(evaluation: Evaluation, oracle: Oracle, curvature: Curvature, way: Tensor) -> Tensor | None:
    """A move, shape (n,), by which the loss falls along a curve: along a flat direction, and then where the curved ones
    lead from there. So does Peano's (y - x^2)(y - 3 x^2) at 0, which rises along every line. None if it does not.
    """
    point, gradient, loss = evaluation.point, evaluation.gradient, evaluation.loss
    eps = torch.finfo(way.dtype).eps
    for index in (~curvature.is_curved).nonzero().flatten()[:NUM_BENT]:
        flat = torch.zeros_like(way).index_put(
            (curvature.free,), (curvature.units * curvature.vectors[:, index]).to(way)
        )
        move = MIXED_REACH / max((flat.abs() / way).max().item(), TINY) * flat
        for sign in (1.0, -1.0):
            try:
                beside = _inside(point + sign * move, oracle)
                there = _inside(beside + curvature.newton_move(oracle.gradient(beside)), oracle)
                lower = oracle.loss(there)
            except BudgetSpent:
                return None
            step = there - point
            slack = 10 * eps * (max(abs(loss), abs(lower)) + curvature.strength * eps)
            if lower < loss - slack - 2 * abs((gradient @ step).item()):
                return step
    return None


def is_plateau(evaluation: Evaluation, oracle: Landscape, suspects: Tensor, way: Tensor) -> bool:
    """Whether the loss does not rise, by more than rounding or underflow explain, when one of the suspects moves by
    half its way to one side, and that is no mere slope. At a minimum it rises on both, whatever its order.

    Args:
        suspects: A mask of unknowns.
    """
    point, loss, number = evaluation.point, evaluation.loss, torch.finfo(way.dtype)
    same = 10 * number.eps * abs(loss) + number.tiny / number.eps
    for index in suspects.nonzero().flatten()[:NUM_DENSE]:
        step = torch.zeros_like(point).index_fill(0, index, 0.5 * way[index].item())
        for move in (step, -step):
            there = _inside(point + move, oracle)
            try:
                rise = oracle.loss(there) - loss if not torch.equal(there, point) else math.inf
            except BudgetSpent:
                return False
            slope = (evaluation.gradient @ (there - point)).item()
            is_slope = rise < -same and 0.5 * slope > rise > 2 * slope
            if rise <= same and not is_slope:
                return True
    return False


def _inside(point: Tensor, oracle: Landscape) -> Tensor:
    if oracle.lower is None or oracle.upper is None:
        return point
    return point.clamp(oracle.lower, oracle.upper)


def _lanczos(product: Product, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Extreme eigenpairs by Lanczos with full reorthogonalisation (Golub and Van Loan, Matrix Computations, 10.3).

    It starts from the gradient and noise of the same size: the one gives the Newton step, the other lets it find
    directions to which the gradient is orthogonal.
    """
    n = len(slope)
    noise = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis = noise / noise.norm()
    if slope.any():
        slope = slope / slope.abs().max()  # its norm alone may underflow
        basis = basis + slope / slope.norm()
    basis = (basis / basis.norm()).unsqueeze(0)
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for _ in range(min(n, NUM_LANCZOS)):
        image = product(basis[-1])
        alphas.append(image @ basis[-1])
        for _ in range(2):  # once is not enough in floating point, twice is (Kahan, Parlett)
            image = image - basis.T @ (basis @ image)
        beta = image.norm()
        if beta <= 1e-12 * max(1e-300, max(abs(alpha.item()) for alpha in alphas)):
            break
        betas.append(beta)
        basis = torch.cat([basis, (image / beta).unsqueeze(0)])
    k = len(alphas)
    matrix = torch.diag(torch.stack(alphas))
    if k > 1:
        off = torch.stack(betas[: k - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, basis[:k].T @ vectors
