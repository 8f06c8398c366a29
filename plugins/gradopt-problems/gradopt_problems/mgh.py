"""The problems of Moré, Garbow and Hillstrom, all sums of squares.

J. J. Moré, B. S. Garbow, K. E. Hillstrom, Testing Unconstrained Optimization Software, ACM Transactions on Mathematical
Software 7 (1981), 17-41. A class's docstring gives the number there. The paper's f is twice the loss, which is half the
sum of squares. `scale` multiplies the standard start; where that is zero, `scale` times ones takes its place for
scale > 1.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from gradopt_problems.problem import Problem


class MGH(Problem):
    """A problem of the collection."""

    SOURCE = "More, Garbow, Hillstrom 1981"


class Rosenbrock(MGH):
    """Rosenbrock's curved valley, n = 2 (1)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([-1.2, 1.0], scale)

    def residuals(self) -> Tensor:
        a, b = self.x
        return torch.stack([10 * (b - a**2), 1 - a])

    def minimiser(self) -> list[float]:
        return [1.0, 1.0]


class FreudensteinRoth(MGH):
    """Freudenstein and Roth's function, n = 2 (2); a second minimum at (11.41..., -0.8968...) has loss 24.4921."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.5, -2.0], scale)

    def residuals(self) -> Tensor:
        a, b = self.x
        return torch.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])

    def minimiser(self) -> list[float]:
        return [5.0, 4.0]


class PowellBadlyScaled(MGH):
    """Powell's badly scaled function, n = 2 (3)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.0, 1.0], scale)

    def residuals(self) -> Tensor:
        a, b = self.x
        return torch.stack([1e4 * a * b - 1, torch.exp(-a) + torch.exp(-b) - 1.0001])

    def minimiser(self) -> list[float]:
        return [1.0981593296999e-5, 9.106146739867]


class BrownBadlyScaled(MGH):
    """Brown's badly scaled function, n = 2 (4)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([1.0, 1.0], scale)

    def residuals(self) -> Tensor:
        a, b = self.x
        return torch.stack([a - 1e6, b - 2e-6, a * b - 2])

    def minimiser(self) -> list[float]:
        return [1e6, 2e-6]


class Beale(MGH):
    """Beale's function, n = 2 (5)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([1.0, 1.0], scale)

    def residuals(self) -> Tensor:
        a, b = self.x
        return torch.stack([1.5 - a * (1 - b), 2.25 - a * (1 - b**2), 2.625 - a * (1 - b**3)])

    def minimiser(self) -> list[float]:
        return [3.0, 0.5]


class JennrichSampson(MGH):
    """Jennrich and Sampson's function, n = 2, m = 10 (6)."""

    BEST = 62.18109117780742

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.3, 0.4], scale)
        self.constant("i", torch.arange(1.0, 11.0))

    def residuals(self) -> Tensor:
        a, b = self.x
        return 2 + 2 * self.i - (torch.exp(self.i * a) + torch.exp(self.i * b))


class HelicalValley(MGH):
    """A helical valley, n = 3 (7)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([-1.0, 0.0, 0.0], scale)

    def residuals(self) -> Tensor:
        a, b, c = self.x
        turn = torch.atan(b / a) / (2 * math.pi) + torch.where(a < 0, 0.5, 0.0)
        return torch.stack([10 * (c - 10 * turn), 10 * (torch.hypot(a, b) - 1), c])

    def minimiser(self) -> list[float]:
        return [1.0, 0.0, 0.0]


class Bard(MGH):
    """Bard's function, n = 3, m = 15 (8)."""

    BEST = 4.10743865328948e-3

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([1.0, 1.0, 1.0], scale)
        u = torch.arange(1.0, 16.0)
        self.constant("u", u)
        self.constant("v", 16 - u)
        self.constant("w", torch.minimum(u, 16 - u))
        self.constant("y", [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])

    def residuals(self) -> Tensor:
        a, b, c = self.x
        return self.y - (a + self.u / (self.v * b + self.w * c))


class Gaussian(MGH):
    """A Gaussian bell, n = 3, m = 15 (9)."""

    BEST = 5.639663848092618e-9

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.4, 1.0, 0.0], scale)
        half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
        self.constant("t", (8 - torch.arange(1.0, 16.0)) / 2)
        self.constant("y", [*half, 0.3989, *half[::-1]])

    def residuals(self) -> Tensor:
        a, b, c = self.x
        return a * torch.exp(-b * (self.t - c) ** 2 / 2) - self.y


class Meyer(MGH):
    """Meyer's thermistor, n = 3, m = 16 (10); NIST's MGH10."""

    BEST = 43.972927585256606

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.02, 4000.0, 250.0], scale)
        self.constant("t", 45 + 5 * torch.arange(1.0, 17.0))
        y = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
        self.constant("y", [float(value) for value in y])

    def residuals(self) -> Tensor:
        a, b, c = self.x
        return a * torch.exp(b / (self.t + c)) - self.y


class Gulf(MGH):
    """The Gulf research and development function, n = 3, m = 99 (11).

    The paper's "y_i m i x_2" is a misprint: with |y_i - x_2|^x_3 the stated solution has loss 0.
    """

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([5.0, 2.5, 0.15], scale)
        t = torch.arange(1.0, 100.0) / 100
        self.constant("t", t)
        self.constant("y", 25 + (-50 * torch.log(t)) ** (2 / 3))

    def residuals(self) -> Tensor:
        a, b, c = self.x
        return torch.exp(-((self.y - b).abs() ** c) / a) - self.t

    def minimiser(self) -> list[float]:
        return [50.0, 25.0, 1.5]


class Box3D(MGH):
    """Box's three-dimensional function, n = 3, m = 10 (12)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.0, 10.0, 20.0], scale)
        self.constant("t", 0.1 * torch.arange(1.0, 11.0))

    def residuals(self) -> Tensor:
        a, b, c = self.x
        t = self.t
        return torch.exp(-t * a) - torch.exp(-t * b) - c * (torch.exp(-t) - torch.exp(-10 * t))

    def minimiser(self) -> list[float]:
        return [1.0, 10.0, 1.0]


class PowellSingular(MGH):
    """Powell's singular function, n = 4 (13)."""

    BEST = 0.0

    def __init__(self, n: int = 4, scale: float = 1.0) -> None:
        super().__init__([3.0, -1.0, 0.0, 1.0] * (n // 4), scale)

    def residuals(self) -> Tensor:
        a, b, c, d = self.x.view(-1, 4).T
        parts = [a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2]
        return torch.stack(parts, 1).flatten()

    def minimiser(self) -> list[float]:
        return [0.0] * self.x.numel()


class Wood(MGH):
    """Wood's function, n = 4 (14)."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([-3.0, -1.0, -3.0, -1.0], scale)

    def residuals(self) -> Tensor:
        a, b, c, d = self.x
        parts = [10 * (b - a**2), 1 - a, math.sqrt(90) * (d - c**2), 1 - c]
        return torch.stack([*parts, math.sqrt(10) * (b + d - 2), (b - d) / math.sqrt(10)])

    def minimiser(self) -> list[float]:
        return [1.0, 1.0, 1.0, 1.0]


class KowalikOsborne(MGH):
    """Kowalik and Osborne's function, n = 4, m = 11 (15); NIST's MGH09."""

    BEST = 1.5375280192461832e-4

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.25, 0.39, 0.415, 0.39], scale)
        self.constant("u", [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
        self.constant("y", [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246])

    def residuals(self) -> Tensor:
        a, b, c, d = self.x
        u = self.u
        return self.y - a * (u**2 + u * b) / (u**2 + u * c + d)


class BrownDennis(MGH):
    """Brown and Dennis's function, n = 4, m = 20 (16)."""

    BEST = 42911.10081317855

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([25.0, 5.0, -5.0, -1.0], scale)
        self.constant("t", torch.arange(1.0, 21.0) / 5)

    def residuals(self) -> Tensor:
        a, b, c, d = self.x
        t = self.t
        return (a + t * b - torch.exp(t)) ** 2 + (c + d * torch.sin(t) - torch.cos(t)) ** 2


class Osborne1(MGH):
    """Osborne's first function, n = 5, m = 33 (17); NIST's MGH17."""

    BEST = 2.7324473487412616e-5

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.5, 1.5, -1.0, 0.01, 0.02], scale)
        y = [844, 908, 932, 936, 925, 908, 881, 850, 818, 784, 751, 718, 685, 658, 628, 603, 580, 558, 538, 522, 506]
        y += [490, 478, 467, 457, 448, 438, 431, 424, 420, 414, 411, 406]
        self.constant("t", 10 * torch.arange(33.0))
        self.constant("y", [value / 1000 for value in y])

    def residuals(self) -> Tensor:
        a, b, c, d, e = self.x
        return self.y - (a + b * torch.exp(-self.t * d) + c * torch.exp(-self.t * e))


class BiggsExp6(MGH):
    """Biggs's EXP6 function, n = 6, m = 13 (18); a second minimum has loss 2.8278e-3."""

    BEST = 0.0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([1.0, 2.0, 1.0, 1.0, 1.0, 1.0], scale)
        t = 0.1 * torch.arange(1.0, 14.0)
        self.constant("t", t)
        self.constant("y", torch.exp(-t) - 5 * torch.exp(-10 * t) + 3 * torch.exp(-4 * t))

    def residuals(self) -> Tensor:
        a, b, c, d, e, f = self.x
        t = self.t
        return c * torch.exp(-t * a) - d * torch.exp(-t * b) + f * torch.exp(-t * e) - self.y

    def minimiser(self) -> list[float]:
        return [1.0, 10.0, 1.0, 5.0, 4.0, 3.0]


class Osborne2(MGH):
    """Osborne's second function, n = 11, m = 65 (19)."""

    BEST = 2.0068868146773867e-2

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5], scale)
        y = [1366, 1191, 1112, 1013, 991, 885, 831, 847, 786, 725, 746, 679, 608, 655, 616, 606, 602, 626, 651, 724]
        y += [649, 649, 694, 644, 624, 661, 612, 558, 533, 495, 500, 423, 395, 375, 372, 391, 396, 405, 428, 429, 523]
        y += [562, 607, 653, 672, 708, 633, 668, 645, 632, 591, 559, 597, 625, 739, 710, 729, 720, 636, 581, 428, 292]
        y += [162, 98, 54]
        self.constant("t", torch.arange(65.0) / 10)
        self.constant("y", [value / 1000 for value in y])

    def residuals(self) -> Tensor:
        x, t = self.x, self.t
        peaks = sum(x[k] * torch.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3))
        return self.y - (x[0] * torch.exp(-t * x[4]) + peaks)


class Watson(MGH):
    """Watson's function, 2 <= n <= 31, m = 31 (20)."""

    MINIMA: ClassVar = {6: 1.1438350267761672e-3, 9: 6.998800690441589e-7, 12: 2.361190549594108e-10}

    def __init__(self, n: int = 6, scale: float = 1.0) -> None:
        super().__init__([0.0] * n if scale == 1.0 else [1.0] * n, scale)
        t, j = torch.arange(1.0, 30.0)[:, None] / 29, torch.arange(float(n))
        self.constant("powers", t**j)
        self.constant("slopes", torch.cat([torch.zeros(29, 1), j[1:] * t ** (j[1:] - 1)], 1))

    def residuals(self) -> Tensor:
        x = self.x
        curve = self.slopes @ x - (self.powers @ x) ** 2 - 1
        return torch.cat([curve, x[:1], x[1:2] - x[:1] ** 2 - 1])

    def minimum(self) -> float | None:
        return self.MINIMA.get(self.x.numel())


class ExtendedRosenbrock(MGH):
    """Rosenbrock's valley in n / 2 pairs of unknowns (21)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__([-1.2, 1.0] * (n // 2), scale)

    def residuals(self) -> Tensor:
        a, b = self.x.view(-1, 2).T
        return torch.stack([10 * (b - a**2), 1 - a], 1).flatten()

    def minimiser(self) -> list[float]:
        return [1.0] * self.x.numel()


class ExtendedPowellSingular(PowellSingular):
    """Powell's singular function in n / 4 quadruples of unknowns (22)."""

    def __init__(self, n: int = 12, scale: float = 1.0) -> None:
        super().__init__(n, scale)


class PenaltyI(MGH):
    """Penalty function I, n unknowns (23)."""

    MINIMA: ClassVar = {4: 1.1249887504499684e-5, 10: 3.543825733545202e-5}

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__(torch.arange(1.0, n + 1), scale)

    def residuals(self) -> Tensor:
        x = self.x
        return torch.cat([math.sqrt(1e-5) * (x - 1), (x @ x - 0.25)[None]])

    def minimum(self) -> float | None:
        return self.MINIMA.get(self.x.numel())


class PenaltyII(MGH):
    """Penalty function II, n unknowns (24)."""

    MINIMA: ClassVar = {4: 4.688146503677722e-6, 10: 1.4683026872837305e-4}

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__([0.5] * n, scale)
        i = torch.arange(2.0, n + 1)
        self.constant("y", torch.exp(i / 10) + torch.exp((i - 1) / 10))
        self.constant("weights", torch.arange(float(n), 0.0, -1.0))

    def residuals(self) -> Tensor:
        x, small = self.x, math.sqrt(1e-5)
        growth = torch.exp(x / 10)
        return torch.cat(
            [
                (x[0] - 0.2)[None],
                small * (growth[1:] + growth[:-1] - self.y),
                small * (growth[1:] - math.exp(-0.1)),
                (self.weights @ x**2 - 1)[None],
            ]
        )

    def minimum(self) -> float | None:
        return self.MINIMA.get(self.x.numel())


class VariablyDimensioned(MGH):
    """A variably dimensioned function, n unknowns (25)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__(1 - torch.arange(1.0, n + 1) / n, scale)
        self.constant("j", torch.arange(1.0, n + 1))

    def residuals(self) -> Tensor:
        x = self.x
        total = self.j @ (x - 1)
        return torch.cat([x - 1, total[None], total[None] ** 2])

    def minimiser(self) -> list[float]:
        return [1.0] * self.x.numel()


class Trigonometric(MGH):
    """A trigonometric function, n unknowns (26); it has several minima."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__([1 / n] * n, scale)
        self.constant("i", torch.arange(1.0, n + 1))

    def residuals(self) -> Tensor:
        x = self.x
        return x.numel() - x.cos().sum() + self.i * (1 - x.cos()) - x.sin()

    def minimiser(self) -> list[float]:
        return [0.0] * self.x.numel()


class BrownAlmostLinear(MGH):
    """Brown's almost-linear function, n unknowns (27)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__([0.5] * n, scale)

    def residuals(self) -> Tensor:
        x = self.x
        return torch.cat([x[:-1] + x.sum() - (x.numel() + 1), (x.prod() - 1)[None]])

    def minimiser(self) -> list[float]:
        return [1.0] * self.x.numel()


class DiscreteBoundaryValue(MGH):
    """A discrete boundary value problem, n unknowns (28)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        t = torch.arange(1.0, n + 1) / (n + 1)
        super().__init__(t * (t - 1), scale)
        self.constant("t", t)

    def residuals(self) -> Tensor:
        x = self.x
        edge = x.new_zeros(1)
        step = 1 / (x.numel() + 1)
        return 2 * x - torch.cat([edge, x[:-1]]) - torch.cat([x[1:], edge]) + step**2 * (x + self.t + 1) ** 3 / 2


class DiscreteIntegral(MGH):
    """A discrete integral equation, n unknowns (29)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        t = torch.arange(1.0, n + 1) / (n + 1)
        super().__init__(t * (t - 1), scale)
        self.constant("t", t)
        self.constant("kernel", torch.minimum(t[:, None], t) * (1 - torch.maximum(t[:, None], t)) / (2 * (n + 1)))

    def residuals(self) -> Tensor:
        return self.x + self.kernel @ (self.x + self.t + 1) ** 3


class BroydenTridiagonal(MGH):
    """Broyden's tridiagonal function, n unknowns (30)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__([-1.0] * n, scale)

    def residuals(self) -> Tensor:
        x = self.x
        edge = x.new_zeros(1)
        return (3 - 2 * x) * x - torch.cat([edge, x[:-1]]) - 2 * torch.cat([x[1:], edge]) + 1


class BroydenBanded(MGH):
    """Broyden's banded function, n unknowns (31)."""

    BEST = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__([-1.0] * n, scale)
        i = torch.arange(n)
        gap = i[:, None] - i
        self.constant("band", ((gap <= 5) & (gap >= -1) & (gap != 0)).to(torch.get_default_dtype()))

    def residuals(self) -> Tensor:
        x = self.x
        return x * (2 + 5 * x**2) + 1 - self.band @ (x * (1 + x))


class LinearFullRank(MGH):
    """A linear function of full rank, n unknowns, m residuals (32); loss (m - n) / 2."""

    def __init__(self, n: int = 10, m: int = 20, scale: float = 1.0) -> None:
        super().__init__([1.0] * n, scale)
        self._m = m

    def residuals(self) -> Tensor:
        x = self.x
        shared = 2 * x.sum() / self._m + 1
        return torch.cat([x - shared, (-shared).expand(self._m - x.numel())])

    def minimum(self) -> float:
        return (self._m - self.x.numel()) / 2

    def minimiser(self) -> list[float]:
        return [-1.0] * self.x.numel()


class LinearRank1(MGH):
    """A linear function of rank 1, n unknowns, m residuals (33); loss m (m - 1) / (4 (2 m + 1))."""

    def __init__(self, n: int = 10, m: int = 20, scale: float = 1.0) -> None:
        super().__init__([1.0] * n, scale)
        self.constant("i", torch.arange(1.0, m + 1))
        self.constant("j", torch.arange(1.0, n + 1))

    def residuals(self) -> Tensor:
        return self.i * (self.j @ self.x) - 1

    def minimum(self) -> float:
        m = self.i.numel()
        return m * (m - 1) / (4 * (2 * m + 1))


class LinearRank1ZeroColumns(MGH):
    """As linear_rank1, with zero columns and rows (34); loss (m^2 + 3 m - 6) / (4 (2 m - 3))."""

    def __init__(self, n: int = 10, m: int = 20, scale: float = 1.0) -> None:
        super().__init__([1.0] * n, scale)
        self.constant("i", torch.arange(1.0, m - 1))
        self.constant("j", torch.arange(2.0, n))

    def residuals(self) -> Tensor:
        inner = self.i * (self.j @ self.x[1:-1]) - 1
        return torch.cat([-torch.ones_like(inner[:1]), inner, -torch.ones_like(inner[:1])])

    def minimum(self) -> float:
        m = self.i.numel() + 2
        return (m**2 + 3 * m - 6) / (4 * (2 * m - 3))


class Chebyquad(MGH):
    """Chebyquad, n unknowns, m = n (35)."""

    MINIMA: ClassVar = {7: 0.0, 8: 1.7584368628389623e-3, 9: 0.0, 10: 2.3863568481876725e-3}

    def __init__(self, n: int = 8, scale: float = 1.0) -> None:
        super().__init__(torch.arange(1.0, n + 1) / (n + 1), scale)
        i = torch.arange(1.0, n + 1)
        self.constant("integrals", torch.where(i % 2 == 0, -1 / (i**2 - 1).clamp(min=1), torch.zeros_like(i)))

    def residuals(self) -> Tensor:
        y = 2 * self.x - 1
        before, here = torch.ones_like(y), y
        means = []
        for _ in range(y.numel()):
            means.append(here.mean())
            before, here = here, 2 * y * here - before
        return torch.stack(means) - self.integrals

    def minimum(self) -> float | None:
        return self.MINIMA.get(self.x.numel())
