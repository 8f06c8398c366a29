"""Losses of statistics and learning on data that a formula generates, so that no random generator has a say."""

import math

import torch
from torch import Tensor, exp
from torch.nn.functional import logsigmoid, softplus

from gradopt_problems.problem import Problem


def spread(m: int, n: int) -> Tensor:
    """M points of the cube [-1, 1]^n, evenly spread: multiples of the square roots of primes, modulo 1 (Weyl)."""
    primes = [p for p in range(2, 200) if all(p % q for q in range(2, math.isqrt(p) + 1))]
    roots = torch.tensor([math.sqrt(p) for p in primes[:n]], dtype=torch.float64)
    return 2 * (torch.arange(1, m + 1, dtype=torch.float64)[:, None] * roots % 1) - 1


class Fit(Problem):
    """A loss on m samples with n features, from 0.

    Attributes:
        SAMPLES, UNKNOWNS: m and n.
    """

    SOURCE = "generated data"
    SAMPLES, UNKNOWNS = 100, 20

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.0] * self.UNKNOWNS, scale)
        data = spread(self.SAMPLES, self.UNKNOWNS + 1)
        truth = 2 * torch.cos(torch.arange(self.UNKNOWNS, dtype=torch.float64))
        self.constant("a", data[:, :-1])
        self.constant("y", self.observe(data[:, :-1] @ truth, data[:, -1]))

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        """What is observed where the linear model says `level`; the noise is even in [-1, 1]."""
        return level + noise


class LogisticRegression(Fit):
    """Logistic regression with a small ridge, n = 20, m = 100."""

    BEST = 0.16885172874440024

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        return torch.sign(level + 3 * noise)

    def forward(self, batch: None = None) -> Tensor:
        return -logsigmoid(self.y * (self.a @ self.x)).mean() + 5e-4 * self.x @ self.x


class SquaredHinge(Fit):
    """A support vector machine with squared hinges, n = 20, m = 100: the second derivative jumps."""

    BEST = 0.1369012082222457

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        return torch.sign(level + 3 * noise)

    def forward(self, batch: None = None) -> Tensor:
        return torch.relu(1 - self.y * (self.a @ self.x)).square().mean() + 5e-4 * self.x @ self.x


class PoissonRegression(Fit):
    """A Poisson likelihood with an exponential link, n = 20, m = 100."""

    BEST = -11.298947047101922

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        return torch.floor(exp(level / 2) + noise + 1)

    def forward(self, batch: None = None) -> Tensor:
        level = self.a @ self.x
        return (exp(level) - self.y * level).mean()


class GammaRegression(Fit):
    """A gamma likelihood with an exponential link, n = 20, m = 100."""

    BEST = 1.1747884460993492

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        return exp(level / 2) * (1.2 + noise)

    def forward(self, batch: None = None) -> Tensor:
        level = self.a @ self.x
        return (level + self.y * exp(-level)).mean()


class PseudoHuberRegression(Fit):
    """A regression with outliers under a smoothed Huber loss, n = 20, m = 100."""

    BEST = 0.09068997078620898

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        return level + 0.1 * noise + torch.where(noise > 0.8, 10.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        return (torch.sqrt(1 + ((self.a @ self.x - self.y) / 0.1) ** 2) - 1).mean() * 0.01


class StudentRegression(PseudoHuberRegression):
    """The same data under Student's t with 3 degrees of freedom, n = 20: not convex."""

    BEST = 1.6070311187238897

    def forward(self, batch: None = None) -> Tensor:
        return 2 * torch.log1p((self.a @ self.x - self.y) ** 2 / (3 * 0.1**2)).mean()


class LogSumExp(Fit):
    """A smoothed maximum of 100 linear functions, n = 20."""

    BEST = 0.927004696206471

    def forward(self, batch: None = None) -> Tensor:
        return torch.logsumexp(5 * (self.a @ self.x + 0.1 * self.y), 0) / 5


class SoftplusNetwork(Fit):
    """A network of one hidden layer of 4 softplus units on 4 features, n = 25, m = 100, with a ridge.

    It is not convex: from the start descent ends at 0.51228, and the lowest of 40 starts is stated.
    """

    UNKNOWNS = 25
    BEST = 0.48838471038364967

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        with torch.no_grad():
            self.x.copy_(scale * torch.sin(torch.arange(1.0, 26.0)))

    def observe(self, level: Tensor, noise: Tensor) -> Tensor:
        return torch.sin(level / 2) + 0.1 * noise

    def forward(self, batch: None = None) -> Tensor:
        weights, shifts, outer, level = self.x[:16].view(4, 4), self.x[16:20], self.x[20:24], self.x[24]
        output = softplus(self.a[:, :4] @ weights + shifts) @ outer + level
        return (output - self.y).square().mean() + 1e-3 * self.x @ self.x


class AnalyticCentre(Fit):
    """The analytic centre of a polytope in a cube, n = 20: logarithms whose domain ends.

    S. Boyd, L. Vandenberghe, Convex Optimization, 2004, exercise 9.30.
    """

    SOURCE = "Boyd, Vandenberghe 2004"
    BEST = -0.7198963881199212

    def forward(self, batch: None = None) -> Tensor:
        return -torch.log(1 - self.a @ self.x).sum() - torch.log1p(-(self.x**2)).sum()


class GaussianCovariance(Problem):
    """The covariance of five Gaussian variables by maximum likelihood, n = 15: a factor whose diagonal is exponential.

    The minimum is log det S + 5, with S the covariance of the data.
    """

    SOURCE = "generated data"

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.0] * 15, scale)
        data = spread(60, 5) @ (torch.eye(5, dtype=torch.float64) + spread(5, 5))
        data = data - data.mean(0)
        self.constant("s", data.T @ data / 60)
        self.register_buffer("below", torch.tril_indices(5, 5, -1), persistent=False)

    def forward(self, batch: None = None) -> Tensor:
        factor = torch.diag(exp(self.x[:5])).index_put((self.below[0], self.below[1]), self.x[5:])
        whitened = torch.linalg.solve_triangular(factor, self.s, upper=False)
        return 2 * self.x[:5].sum() + torch.linalg.solve_triangular(factor, whitened.T, upper=False).trace()

    def minimum(self) -> float:
        return torch.linalg.slogdet(self.s).logabsdet.item() + 5
