"""The curvature at a stationary point: what kind of point it is, and how far a Newton step would still go."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_DENSE = 200
"""Free unknowns up to which the Hessian is taken whole; beyond it Lanczos finds its extreme eigenvalues."""

NUM_LANCZOS = 30
"""Steps of Lanczos at least, and between two looks at whether it may end: the smallest eigenvalue known to `SURE` of
itself.
"""

MAX_LANCZOS = 400

NUM_FLAT = 4
"""Flat directions that are followed far."""

SURE = 0.1

NUM_ROUGH = 3
"""Products by which the curvature of each of many unknowns is estimated."""

MAX_BASIS, MOST_BASIS = 2**26, 2**29
"""Numbers the vectors of Lanczos may hold all together; and for the least of them, 4 GB: with more than 18 million
unknowns there are fewer, and a success says how far its curvature is known.
"""

CHUNK = 2**18
"""Unknowns whose entries in the vectors of Lanczos are combined at a time."""

TINY = 1e-300

Product = Callable[[Tensor], Tensor]


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
        error: How far from the smallest value the next eigenvalue may be, in the objective's units. That none is
            smaller yet is proven only for 0; otherwise the random start makes it likely.
        room: The same for the largest, in these units.
        finite: Whether all second derivatives were; those that were not count as 0, and nothing can be said.
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
    error: float = 0.0
    room: float = 0.0
    finite: bool = True

    @property
    def sign(self) -> str:
        """ "negative", "positive", or "none": nowhere negative, though not proven positive everywhere."""
        if self.values[0] < -self.threshold:
            return "negative"
        return "positive" if self.values[0] > self.threshold and self.complete else "none"

    @property
    def effort(self) -> float:
        """How many times the products of the shortest look it took; 1 where the Hessian was taken whole."""
        unknowns, directions = self.vectors.shape
        return 1.0 if unknowns <= NUM_DENSE else max(1.0, directions / NUM_LANCZOS)

    @property
    def never_rises(self) -> bool:
        """Whether no direction is curved upwards, for all that is known; many unknowns must be curved downwards."""
        if self.complete:
            return bool(self.values[-1] <= self.threshold)
        return len(self.free) == len(self.size) and bool(self.values[-1] + self.room < -self.threshold)

    @property
    def is_faint(self) -> bool:
        """Some direction has so little of it that a slope of higher order could hide there."""
        return bool(is_faint(self.values, torch.finfo(self.size.dtype).eps))

    @property
    def is_curved(self) -> Tensor:
        """Which directions are not flat; a mask."""
        return self.values.abs() > self.threshold

    def direction(self, like: Tensor) -> Tensor:
        """Of the smallest eigenvalue, in the objective's units, of length 1."""
        found = self.move(self.vectors[:, 0], like)
        return found / found.norm()

    def along(self, index: int) -> float:
        """The curvature along an eigenvector in the objective's units."""
        return self.values[index].item() / max((self.units * self.vectors[:, index]).square().sum().item(), TINY)

    def newton_move(self, gradient: Tensor, but: Tensor | None = None) -> Tensor:
        """A Newton step along the directions of positive curvature, shape (n,), but for those in a mask."""
        along = self.vectors.T @ (self.units * gradient[self.free].double().cpu())
        steep = self.values > self.threshold
        parts = torch.where(steep if but is None else steep & ~but, -along / self.values, 0.0)
        return self.move(self.vectors @ parts, gradient)

    def move(self, direction: Tensor, like: Tensor) -> Tensor:
        """A direction in these units, shape (k,), as a move of all unknowns, shape (n,)."""
        return torch.zeros_like(like).index_put((self.free,), (self.units * direction).to(like))

    def slopes(self, gradient: Tensor) -> Tensor:
        """The gradient, of shape (n,), along each direction."""
        return (self.vectors.T @ (self.units * gradient[self.free].double().cpu())).abs()

    def decrease(self, slopes: Tensor) -> float:
        """What a Newton step would take from the loss; along flat directions, one move by the unknowns' own size."""
        return newton_decrease(slopes, self.values, self.lengths, self.is_curved).item()

    def noise_decrease(self) -> float:
        """The same for a gradient of mere rounding, along the directions that are curved."""
        return self.decrease(self.noise.masked_fill(~self.is_curved, 0.0))

    def newton_step(self, slopes: Tensor) -> Tensor:
        """The parts of a Newton step along each direction, in units of the unknowns' sizes; flat directions are taken
        to have as much curvature as rounding leaves room for.
        """
        return newton_step(slopes, self.values, self.lengths, torch.tensor(self.threshold, dtype=slopes.dtype))

    def is_long(self, slopes: Tensor) -> Tensor:
        """Which of these parts are long, and not by rounding."""
        step = self.newton_step(slopes)
        return is_long(step, slopes, self.noise, self.is_curved, torch.finfo(self.size.dtype).eps)

    def is_stationary(self, slopes: Tensor) -> bool:
        """Whether the loss has its extremum within a thousandth of the unknowns' sizes in each direction of negative
        curvature. Elsewhere such a direction is merely a slope that steepens.
        """
        return bool((self.newton_step(slopes)[self.values < -self.threshold] <= 1e-3).all())


def examine(hessian: Product, free: Tensor, size: Tensor, gradient: Tensor) -> Curvature:
    """The curvature on the free unknowns: all of it for few, by Lanczos for many.

    The unknowns are scaled by their own curvature, that of many by a few products, so that units do not matter.

    Args:
        free: The unknowns no bound holds; a mask with at least one True.
        size: Of each unknown, positive.
    """
    indices = free.nonzero().flatten()
    scale, n = size[indices].double().cpu(), len(indices)
    eps, finite = torch.finfo(gradient.dtype).eps, True

    def restricted(vector: Tensor) -> Tensor:
        nonlocal finite
        whole = torch.zeros_like(gradient).index_put((indices,), (scale * vector).to(gradient))
        image = scale * hessian(whole)[indices].double().cpu()
        finite &= bool(image.isfinite().all())
        return image if finite else torch.where(image.isfinite(), image, 0.0)

    if n <= NUM_DENSE:
        matrix = torch.stack([restricted(row) for row in torch.eye(n, dtype=torch.float64)])
        own, values, vectors, noise = spectrum(matrix, eps)
        strength, error, room = matrix.abs().sum(1).max().item(), 0.0, 0.0
    else:
        own = _rough_curvature(restricted, n, eps)
        slope = scale * gradient[indices].double().cpu() / own
        rounding = flatness(torch.ones(1), len(gradient), eps).item()
        values, vectors, (error, room) = _lanczos(lambda v: restricted(v / own) / own, slope, rounding)
        error /= max((scale / own * vectors[:, 0]).square().sum().item(), TINY)
        most = values.abs().max()
        strength = (most * own.max().square()).item()
        noise = 10 * eps * most * torch.stack([(row * own).norm() for row in vectors.T])
    return Curvature(
        values=values,
        vectors=vectors,
        size=size,
        units=scale / own,
        lengths=torch.stack([(row / own).abs().max() for row in vectors.T]),
        noise=noise,
        strength=strength,
        threshold=flatness(values, len(gradient), eps).item(),
        free=indices,
        complete=n <= NUM_DENSE and n == len(gradient),
        error=error,
        room=room,
        finite=finite,
    )


def spectrum(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The eigenvalues and eigenvectors of Hessians on the free unknowns, these scaled by their own curvature.

    Args:
        matrix: Shape (..., k, k), in units of the unknowns' sizes.
        eps: Of the dtype it was computed in.

    Returns:
        The factors by which the unknowns are divided, shape (..., k); values, vectors; the noise of the gradient along
        each direction, by rounding.
    """
    own = _own_curvature(matrix)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / (2 * own.unsqueeze(-1) * own.unsqueeze(-2)))
    rounding = 10 * eps * matrix.abs().sum(-1) / own
    return own, values, vectors, (vectors.abs().mT @ rounding.unsqueeze(-1)).squeeze(-1)


def flatness(values: Tensor, n: int, eps: float) -> Tensor:
    """Up to which an eigenvalue is 0, for all that rounding tells; shape (...) of values (..., k). The roundings of
    many unknowns are of either sign.
    """
    return 10 * min(n, math.sqrt(n * NUM_DENSE)) * eps * values.abs().amax(-1)


def is_faint(values: Tensor, eps: float) -> Tensor:
    """Whether the smallest curvature is so little that a slope of higher order could hide there; shape (...)."""
    return values[..., 0] <= eps**0.25 * values[..., -1]


def is_faint_beside(values: Tensor, eps: float) -> Tensor:
    """Which directions have so little curvature, beside the largest, that unknowns may run off along them together; a
    mask, shape (..., directions).
    """
    return values.abs() <= eps**0.5 * values.abs().amax(-1, keepdim=True)


def newton_decrease(slopes: Tensor, values: Tensor, lengths: Tensor, curved: Tensor) -> Tensor:
    """What a Newton step would take from the loss; along flat directions, one move by the unknowns' own size."""
    return torch.where(curved, slopes.square() / (2 * values.abs() + TINY), slopes / lengths).sum(-1)


def newton_step(slopes: Tensor, values: Tensor, lengths: Tensor, threshold: Tensor) -> Tensor:
    """The parts of a Newton step along each direction, in units of the unknowns' sizes."""
    return slopes / torch.maximum(values.abs(), threshold.clamp(min=TINY)) * lengths


def is_long(step: Tensor, slopes: Tensor, noise: Tensor, curved: Tensor, eps: float) -> Tensor:
    """Which parts of a Newton step are long, and not by rounding."""
    return (step > eps**0.5) & (slopes > noise) & curved


def _own_curvature(matrix: Tensor) -> Tensor:
    """sqrt|H_ii| of each unknown; of its largest entry where that is zero, as in x y; 1 where it has none."""
    diagonal, largest = matrix.diagonal(dim1=-2, dim2=-1).abs(), matrix.abs().amax(-1)
    own = torch.where(diagonal > 0, diagonal, largest).sqrt()
    return torch.where(own > 0, own, 1.0)


def _rough_curvature(product: Product, n: int, eps: float) -> Tensor:
    """The square root of each unknown's curvature, with that it has together with others, by products with random
    signs; at least eps^0.25 of the largest, 1 where there is none. In units of it a curvature that is faint for an
    unknown of little weight is as large as any: Lanczos finds it among thousands at once.
    """
    generator, found = torch.Generator().manual_seed(0), torch.zeros(n, dtype=torch.float64)
    for _ in range(NUM_ROUGH):
        signs = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
        found = torch.maximum(found, product(signs * (0.5 + 0.5 * torch.rand(n, generator=generator).double())).abs())
    largest = found.max().item()
    if not 0 < largest < math.inf:
        return torch.ones(n, dtype=torch.float64)
    return found.sqrt().clamp(min=eps**0.25 * math.sqrt(largest))


def sizes(point: Tensor, origin: Tensor) -> Tensor:
    """The size of each unknown: its value, or eps^0.25 of the way it has come where it is near zero; never zero. Of
    one point or of many, shape (..., n).
    """
    return _nowhere_zero(torch.maximum(point.abs(), torch.finfo(point.dtype).eps ** 0.25 * (point - origin).abs()))


def ways(point: Tensor, origin: Tensor) -> Tensor:
    """How far each unknown may reach: its value or the way it has come, whichever is more; never zero."""
    return _nowhere_zero(torch.maximum(point.abs(), (point - origin).abs()))


def _nowhere_zero(size: Tensor) -> Tensor:
    largest = size.amax(-1, keepdim=True)
    return torch.where(size > torch.finfo(size.dtype).eps * largest, size, torch.where(largest > 0, largest, 1.0))


def _lanczos(product: Product, slope: Tensor, flat: float) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Extreme eigenpairs by Lanczos with full reorthogonalisation (Golub and Van Loan, Matrix Computations, 10.3), and
    the residuals of the smallest and the largest: an eigenvalue is no farther away (Parlett, The Symmetric Eigenvalue
    Problem, 4.5).

    It starts from the gradient and noise of the same size: the one gives the Newton step, the other lets it find
    directions to which the gradient is orthogonal. It goes on as long as the smallest eigenvalue is not settled: one
    that is faint among large ones comes last.
    """
    n = len(slope)
    noise = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = noise / noise.norm()
    if slope.any():
        slope = slope / slope.abs().max()  # its norm alone may underflow
        first = first + slope / slope.norm()
    least = max(2, min(NUM_LANCZOS, MOST_BASIS // n))
    most = min(n, max(least, min(MAX_LANCZOS, MAX_BASIS // n)))
    basis = torch.empty(most, n, dtype=torch.float64)
    basis[0] = first / first.norm()
    matrix = torch.zeros(most, most, dtype=torch.float64)
    for k in range(1, most + 1):
        image = product(basis[k - 1])
        matrix[k - 1, k - 1] = image @ basis[k - 1]
        for known in (basis[max(0, k - 2) : k], basis[:k]):  # most is along the last two; what is left, twice over
            image = image - known.T @ (known @ image)
        beta = image.norm()
        ends = beta <= 1e-12 * max(1e-300, matrix.diagonal()[:k].abs().max().item())
        if ends or k == most or k % NUM_LANCZOS == 0:
            values, vectors = torch.linalg.eigh(matrix[:k, :k])
            error, room = (0.0, 0.0) if ends else (beta * vectors[-1, [0, -1]].abs()).tolist()
            if ends or k == most or error <= max(SURE * abs(values[0].item()), flat * values.abs().max().item()):
                for part in basis[:k].split(CHUNK, 1):  # in place, as they may be all the memory there is
                    part.copy_(vectors.T @ part)
                return values, basis[:k].T, (error, room)
        matrix[k - 1, k] = matrix[k, k - 1] = beta
        basis[k] = image / beta
    raise AssertionError("the last step returns")
