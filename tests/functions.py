"""Functions with known minima, saddles and holes, for the tables of the tests."""

import torch
from torch import Tensor


def cubic(x: Tensor) -> Tensor:
    """The lesson's polynomial: no stationary point, unbounded below."""
    return 5 * x**3 + 2 * x**2 + 4 * x + 8


def parabola(x: Tensor) -> Tensor:
    return ((x - 3) ** 2).sum()


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def quadratic_1e6(x: Tensor) -> Tensor:
    """Condition number 1e6, minimum 0 at 1."""
    return 0.5 * (torch.logspace(0, -6, len(x), dtype=x.dtype) * (x - 1) ** 2).sum()


def barrier(x: Tensor) -> Tensor:
    """Steep and bounded: two logarithmic walls, minimum at 0."""
    return -torch.log(1 - x) - torch.log(1 + x)


def flat_valley(x: Tensor) -> Tensor:
    """Slope 1e-3 over a long way, minimum 1e-3 n at 0."""
    return 1e-3 * torch.sqrt(1 + x**2).sum()


def hill(x: Tensor) -> Tensor:
    """A maximum at 0 between two minima."""
    return (x**4 - x**2).sum()


def saddle(x: Tensor) -> Tensor:
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4


def inflection(x: Tensor) -> Tensor:
    """Gradient and Hessian vanish at 0, which is no minimum."""
    return (x**3).sum()


def far_floor(x: Tensor) -> Tensor:
    """float32 cannot see the loss change near x = 1."""
    return 1e8 + ((x - 3) ** 2).sum()


def cubic_sum(x: Tensor) -> Tensor:
    """The lesson's polynomial of a vector of one unknown, or the sum over more."""
    return cubic(x).sum()
