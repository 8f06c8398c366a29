"""Smooth functions with many minima, in boxes: for multi-start and global methods.

Formulas and boxes after M. Jamil, X.-S. Yang, A literature survey of benchmark functions for global optimisation
problems, International Journal of Mathematical Modelling and Numerical Optimisation 4 (2013), 150-194, which names the
first sources; docstrings name what differs. The starts are ours, away from the minimiser: from most of them descent
ends in another minimum. Minima are recomputed to all digits.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, cos, exp, sin, sqrt

from gradopt import Mistake
from gradopt_problems.problem import Problem


class Multimodal(Problem):
    """A function of the collection with a fixed number of unknowns.

    Attributes:
        START: Of the run.
    """

    SOURCE = "Jamil, Yang 2013"
    START: ClassVar[tuple[float, ...]] = ()

    def __init__(self) -> None:
        super().__init__(self.START)


class Sized(Multimodal):
    """A function of the collection in n unknowns.

    Attributes:
        START: Its entries are repeated n times in turn.
        EACH: What each unknown adds to the minimum.
        POINT: Each unknown at the minimiser.
    """

    EACH = 0.0
    POINT = 0.0

    def __init__(self, n: int = 2) -> None:
        if n < 1:
            raise Mistake(f"{type(self).__name__} needs n of 1 or more, got {n}")
        Problem.__init__(self, [self.START[i % len(self.START)] for i in range(n)])

    def minimum(self) -> float:
        return self.EACH * self.x.numel()

    def minimiser(self) -> list[float]:
        return [self.POINT] * self.x.numel()


class Rastrigin(Sized):
    """A bowl with a grid of cosines, n unknowns."""

    START = (2.9, -1.8, 3.3)
    LOWER, UPPER = -5.12, 5.12

    def forward(self, batch: None = None) -> Tensor:
        return (10 + self.x**2 - 10 * cos(2 * math.pi * self.x)).sum()


class Ackley(Sized):
    """A funnel with ripples, n unknowns; its tip at the minimiser has no derivative."""

    START = (12.7, -8.3, 5.6)
    LOWER, UPPER = -32.768, 32.768

    def forward(self, batch: None = None) -> Tensor:
        n = self.x.numel()
        radius = torch.linalg.vector_norm(self.x) / math.sqrt(n)
        return -20 * exp(-0.2 * radius) - exp(cos(2 * math.pi * self.x).mean()) + 20 + math.e


class Griewank(Sized):
    """A wide bowl with a product of cosines, n unknowns."""

    START = (150.0, -220.0, 90.0)
    LOWER, UPPER = -600.0, 600.0

    def forward(self, batch: None = None) -> Tensor:
        roots = torch.arange(1, self.x.numel() + 1, dtype=self.x.dtype, device=self.x.device).sqrt()
        return self.x @ self.x / 4000 - cos(self.x / roots).prod() + 1


class Schwefel(Sized):
    """Schwefel's function 2.26, n unknowns: the best minima lie at opposite ends of the box."""

    START = (-100.0, 180.0, 30.0)
    LOWER, UPPER = -500.0, 500.0
    EACH = -418.9828872724338
    POINT = 420.96874635998194

    def forward(self, batch: None = None) -> Tensor:
        return -(self.x * sin(sqrt(self.x.abs()))).sum()


class Levy(Sized):
    """Levy and Montalvo's function in the form of Laguna and Marti (2005), n unknowns."""

    START = (-4.0, 6.0, -7.5)
    LOWER, UPPER = -10.0, 10.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        w = 1 + (self.x - 1) / 4
        inner = ((w[:-1] - 1) ** 2 * (1 + 10 * sin(math.pi * w[:-1] + 1) ** 2)).sum()
        return sin(math.pi * w[0]) ** 2 + inner + (w[-1] - 1) ** 2 * (1 + sin(2 * math.pi * w[-1]) ** 2)


class LevyMontalvo(Sized):
    """Levy and Montalvo's second function, n unknowns, 15^n minima."""

    START = (-3.1, 2.6, 4.2)
    LOWER, UPPER = -5.0, 5.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        x = self.x
        inner = ((x[:-1] - 1) ** 2 * (1 + sin(3 * math.pi * x[1:]) ** 2)).sum()
        return 0.1 * (sin(3 * math.pi * x[0]) ** 2 + inner + (x[-1] - 1) ** 2 * (1 + sin(2 * math.pi * x[-1]) ** 2))


class Michalewicz(Sized):
    """Steep valleys in a plain, n unknowns up to 10, exponent 20."""

    START = (1.0, 2.6, 1.9)
    LOWER, UPPER = 0.0, math.pi
    POINTS = (
        2.2029055201726093,
        1.5707963267948966,
        1.2849915705529245,
        1.9230584698663629,
        1.720469772565841,
        1.5707963267948966,
        1.454413971362379,
        1.7560865209450263,
        1.6557174168210291,
        1.5707963267948966,
    )
    LEVELS = (
        -0.8013034100985533,
        -1.0,
        -0.959091269896007,
        -0.9384624184720844,
        -0.9888010806215034,
        -1.0,
        -0.9932271353558825,
        -0.98287203627221,
        -0.9963943649251024,
        -1.0,
    )

    def forward(self, batch: None = None) -> Tensor:
        i = torch.arange(1, self.x.numel() + 1, dtype=self.x.dtype, device=self.x.device)
        return -(sin(self.x) * sin(i * self.x**2 / math.pi) ** 20).sum()

    def minimum(self) -> float | None:
        n = self.x.numel()
        return math.fsum(self.LEVELS[:n]) if n <= len(self.LEVELS) else None

    def minimiser(self) -> list[float] | None:
        n = self.x.numel()
        return list(self.POINTS[:n]) if n <= len(self.POINTS) else None


class StyblinskiTang(Sized):
    """A quartic in each of n unknowns, 2^n minima."""

    START = (3.0, 1.0)
    LOWER, UPPER = -5.0, 5.0
    EACH = -39.16616570377142
    POINT = -2.903534027771177

    def forward(self, batch: None = None) -> Tensor:
        return 0.5 * (self.x**4 - 16 * self.x**2 + 5 * self.x).sum()


class Salomon(Sized):
    """Rings round the minimiser, n unknowns; like a tip there."""

    START = (30.0, -41.0)
    LOWER, UPPER = -100.0, 100.0

    def forward(self, batch: None = None) -> Tensor:
        radius = torch.linalg.vector_norm(self.x)
        return 1 - cos(2 * math.pi * radius) + 0.1 * radius


class CosineMixture(Sized):
    """A bowl with cosines (Breiman and Cutler 1993), n unknowns: sum x^2 - 0.1 sum cos(5 pi x)."""

    START = (0.7, -0.6)
    LOWER, UPPER = -1.0, 1.0
    EACH = -0.1

    def forward(self, batch: None = None) -> Tensor:
        return self.x @ self.x - 0.1 * cos(5 * math.pi * self.x).sum()


class Wavy(Sized):
    """Cosines that fade, n unknowns: 1 - mean cos(10 x) exp(-x^2 / 2) (Courrieu 1997)."""

    START = (1.5, -0.9)
    LOWER, UPPER = -math.pi, math.pi

    def forward(self, batch: None = None) -> Tensor:
        return 1 - (cos(10 * self.x) * exp(-(self.x**2) / 2)).mean()


class Shubert(Multimodal):
    """A product of two sums of cosines, n = 2: 760 minima, 18 of them lowest."""

    START = (1.0, 3.0)
    LOWER, UPPER = -10.0, 10.0
    BEST = -186.73090883102384
    MINIMISER = (-1.425128428319761, -7.0835064076515595)

    def forward(self, batch: None = None) -> Tensor:
        i = torch.arange(1, 6, dtype=self.x.dtype, device=self.x.device)
        return (i * cos((i + 1) * self.x[:, None] + i)).sum(1).prod()


class Branin(Multimodal):
    """Branin's function, n = 2, three minima, all lowest; at (-pi, 12.275) one of them."""

    START = (2.5, 7.5)
    LOWER, UPPER = (-5.0, 0.0), (10.0, 15.0)
    BEST = 5 / (4 * math.pi)
    MINIMISER = (math.pi, 2.275)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        valley = b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6
        return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * cos(a) + 10


class GoldsteinPrice(Multimodal):
    """Goldstein and Price's polynomial, n = 2, four minima."""

    START = (1.5, 0.9)
    LOWER, UPPER = -2.0, 2.0
    BEST = 3.0
    MINIMISER = (0.0, -1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        first = 19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2
        second = 18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2
        return (1 + (a + b + 1) ** 2 * first) * (30 + (2 * a - 3 * b) ** 2 * second)


class SixHumpCamel(Multimodal):
    """The six-hump camel, n = 2, two of six minima lowest."""

    START = (1.6, 0.7)
    LOWER, UPPER = (-3.0, -2.0), (3.0, 2.0)
    BEST = -1.0316284534898774
    MINIMISER = (-0.08984201310031806, 0.7126564030207396)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + 4 * (b**2 - 1) * b**2


class ThreeHumpCamel(Multimodal):
    """The three-hump camel, n = 2."""

    START = (-1.9, 1.2)
    LOWER, UPPER = -5.0, 5.0
    BEST = 0.0
    MINIMISER = (0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return 2 * a**2 - 1.05 * a**4 + a**6 / 6 + a * b + b**2


class Easom(Multimodal):
    """A spike in a plain on which the gradient underflows, n = 2; the start feels it."""

    START = (0.9, 4.6)
    LOWER, UPPER = -100.0, 100.0
    BEST = -1.0
    MINIMISER = (math.pi, math.pi)

    def forward(self, batch: None = None) -> Tensor:
        return -cos(self.x).prod() * exp(-((self.x - math.pi) ** 2).sum())


class DropWave(Multimodal):
    """Rings on water, n = 2."""

    START = (1.3, -2.1)
    LOWER, UPPER = -5.12, 5.12
    BEST = -1.0
    MINIMISER = (0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        radius = torch.linalg.vector_norm(self.x)
        return -(1 + cos(12 * radius)) / (0.5 * self.x @ self.x + 2)


class Schaffer2(Multimodal):
    """Schaffer's second function, n = 2: saddles of waves."""

    START = (4.0, -1.5)
    LOWER, UPPER = -100.0, 100.0
    BEST = 0.0
    MINIMISER = (0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return 0.5 + (sin(a**2 - b**2) ** 2 - 0.5) / (1 + 0.001 * (a**2 + b**2)) ** 2


class Bohachevsky(Multimodal):
    """Bohachevsky's first function, n = 2."""

    START = (1.8, -2.3)
    LOWER, UPPER = -100.0, 100.0
    BEST = 0.0
    MINIMISER = (0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return a**2 + 2 * b**2 - 0.3 * cos(3 * math.pi * a) - 0.4 * cos(4 * math.pi * b) + 0.7


class Bird(Multimodal):
    """Mishra's bird, n = 2, two lowest minima."""

    START = (-4.0, 4.0)
    LOWER, UPPER = -2 * math.pi, 2 * math.pi
    BEST = -106.7645367492647
    MINIMISER = (4.701043130249553, 3.15293850372493)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return sin(a) * exp((1 - cos(b)) ** 2) + cos(b) * exp((1 - sin(a)) ** 2) + (a - b) ** 2


class Adjiman(Multimodal):
    """A saddle with a fraction, n = 2; the minimum lies on a bound."""

    START = (-0.5, 0.5)
    LOWER, UPPER = (-1.0, -1.0), (2.0, 1.0)
    BEST = -2.0218067833597866
    MINIMISER = (2.0, 0.10578346945171692)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return cos(a) * sin(b) - a / (b**2 + 1)


class Forrester(Multimodal):
    """Forrester, Sobester and Keane's function (2008), n = 1."""

    START = (0.2,)
    LOWER, UPPER = 0.0, 1.0
    BEST = -6.0207400557670825
    MINIMISER = (0.7572487578418559,)

    def forward(self, batch: None = None) -> Tensor:
        (a,) = self.x
        return (6 * a - 2) ** 2 * sin(12 * a - 4)


class GramacyLee(Multimodal):
    """Gramacy and Lee's function (2012), n = 1."""

    START = (1.3,)
    LOWER, UPPER = 0.5, 2.5
    BEST = -0.8690111349894997
    MINIMISER = (0.5485634445276053,)

    def forward(self, batch: None = None) -> Tensor:
        (a,) = self.x
        return sin(10 * math.pi * a) / (2 * a) + (a - 1) ** 4


class Hartmann3(Multimodal):
    """Hartmann's function, n = 3, four minima.

    The value -3.86278214782 that is often quoted belongs to 0.03815 in the place of 0.0381 in the table.
    """

    START = (0.6, 0.2, 0.3)
    LOWER, UPPER = 0.0, 1.0
    BEST = -3.8627797873326624
    MINIMISER = (0.11458887665506895, 0.5556488946169301, 0.8525469846866774)
    RATES: ClassVar = [[3.0, 10.0, 30.0], [0.1, 10.0, 35.0], [3.0, 10.0, 30.0], [0.1, 10.0, 35.0]]
    CENTRES: ClassVar = [[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]

    def __init__(self) -> None:
        super().__init__()
        self.constant("heights", [1.0, 1.2, 3.0, 3.2])
        self.constant("rates", self.RATES)
        self.constant("centres", [[value / 10000 for value in row] for row in self.CENTRES])

    def forward(self, batch: None = None) -> Tensor:
        return -self.heights @ exp(-(self.rates * (self.x - self.centres) ** 2).sum(1))


class Hartmann6(Hartmann3):
    """Hartmann's function, n = 6."""

    START = (0.5, 0.8, 0.6, 0.4, 0.3, 0.2)
    BEST = -3.322368011415515
    MINIMISER = (
        0.20168951100670543,
        0.15001069182345797,
        0.476873974221897,
        0.2753324304940561,
        0.31165161660011326,
        0.6573005340656204,
    )
    RATES: ClassVar = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ]
    CENTRES: ClassVar = [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]


class Shekel5(Multimodal):
    """Shekel's foxholes, n = 4, five of them."""

    START = (6.5, 5.5, 6.5, 5.5)
    LOWER, UPPER = 0.0, 10.0
    BEST = -10.153199679058227
    MINIMISER = (4.000037152819676, 4.00013327659156, 4.000037152819676, 4.00013327659156)
    HOLES = 5

    def __init__(self) -> None:
        super().__init__()
        pairs = [(4, 4), (1, 1), (8, 8), (6, 6), (3, 7), (2, 9), (5, 3), (8, 1), (6, 2), (7, 3.6)]
        centres = [(a, b, a, b) if a != 5 else (5, 5, 3, 3) for a, b in pairs]
        widths = [0.1, 0.2, 0.2, 0.4, 0.4, 0.6, 0.3, 0.7, 0.5, 0.5]
        self.constant("centres", centres[: self.HOLES])
        self.constant("widths", widths[: self.HOLES])

    def forward(self, batch: None = None) -> Tensor:
        return -(1 / (((self.x - self.centres) ** 2).sum(1) + self.widths)).sum()


class Shekel7(Shekel5):
    """Shekel's foxholes, n = 4, seven of them."""

    BEST = -10.40294056681866
    MINIMISER = (4.000572916185823, 4.000689366185305, 3.9994897088591506, 3.9996061588586316)
    HOLES = 7


class Shekel10(Shekel5):
    """Shekel's foxholes, n = 4, ten of them."""

    BEST = -10.536409816692045
    MINIMISER = (4.000746531592046, 4.000592934138532, 3.9996633980403224, 3.9995098005868077)
    HOLES = 10
