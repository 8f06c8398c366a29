"""Smooth losses without bounds that are not of Moré, Garbow and Hillstrom's collection.

Test functions of CUTE (I. Bongartz, A. R. Conn, N. Gould, P. L. Toint, ACM Transactions on Mathematical Software 21
(1995), 123-160) and of N. Andrei (An unconstrained optimization test functions collection, Advanced Modeling and
Optimization 10 (2008), 147-161). Their loss is the literature's f, also where it is a sum of squares.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, cos, exp, sin, tan

from gradopt import Mistake
from gradopt_problems.problem import Problem


class Smooth(Problem):
    """A function in n unknowns.

    Attributes:
        START: Its entries are repeated n times in turn.
        LEAST, STEP: The least n, and what n must be a multiple of.
        POINT: Each unknown at the minimiser, None where they differ.
        MINIMA: The minimum by n, where it is no closed form.
    """

    SOURCE = "CUTE"
    START: ClassVar[tuple[float, ...]] = ()
    LEAST = 2
    STEP = 1
    POINT: float | None = None
    MINIMA: ClassVar[dict[int, float]] = {}

    def __init__(self, n: int = 50, scale: float = 1.0) -> None:
        if n < self.LEAST or n % self.STEP:
            multiple = f", a multiple of {self.STEP}" if self.STEP > 1 else ""
            raise Mistake(f"{type(self).__name__} needs n of {self.LEAST} or more{multiple}, got {n}")
        super().__init__([self.START[i % len(self.START)] for i in range(n)], scale)
        self.constant("i", torch.arange(1.0, n + 1))

    def minimum(self) -> float | None:
        return self.MINIMA.get(self.x.numel()) if self.BEST is None else self.BEST

    def minimiser(self) -> list[float] | None:
        return None if self.POINT is None else [self.POINT] * self.x.numel()


class Arwhead(Smooth):
    """A quartic whose Hessian is an arrowhead."""

    START = (1.0,)
    BEST = 0.0

    def forward(self, batch: None = None) -> Tensor:
        x, last = self.x[:-1], self.x[-1]
        return ((x**2 + last**2) ** 2 - 4 * x + 3).sum()

    def minimiser(self) -> list[float]:
        return [1.0] * (self.x.numel() - 1) + [0.0]


class Bdqrtic(Smooth):
    """A quartic whose Hessian is a band and an arrowhead."""

    START = (1.0,)
    LEAST = 5
    MINIMA: ClassVar = {50: 178.4887052104703}

    def forward(self, batch: None = None) -> Tensor:
        x = self.x
        inner = x[:-4] ** 2 + 2 * x[1:-3] ** 2 + 3 * x[2:-2] ** 2 + 4 * x[3:-1] ** 2 + 5 * x[-1] ** 2
        return ((3 - 4 * x[:-4]) ** 2 + inner**2).sum()


class Cragglvy(Smooth):
    """The extended function of Cragg and Levy, powers up to the eighth."""

    START = (2.0,)
    LEAST = 4
    STEP = 2
    MINIMA: ClassVar = {50: 15.372509465428696}

    def __init__(self, n: int = 50, scale: float = 1.0) -> None:
        super().__init__(n, scale)
        with torch.no_grad():
            self.x[0] = scale

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x[:-2:2], self.x[1:-2:2], self.x[2::2], self.x[3::2]
        high = (exp(a) - b) ** 4 + 100 * (b - c) ** 6 + (tan(c - d) + c - d) ** 4
        return (high + a**8 + (d - 1) ** 2).sum()


class Dixmaana(Smooth):
    """Dixon and Maany's function with even weights, n a multiple of 3."""

    START = (2.0,)
    LEAST = 3
    STEP = 3
    BEST = 1.0
    POINT = 0.0
    WEIGHTS = (1.0, 0.0, 0.125, 0.125)
    POWERS = (0, 0, 0, 0)

    def __init__(self, n: int = 60, scale: float = 1.0) -> None:
        super().__init__(n, scale)

    def forward(self, batch: None = None) -> Tensor:
        x, n, third = self.x, self.x.numel(), self.x.numel() // 3
        a, b, c, d = (weight * (self.i / n) ** power for weight, power in zip(self.WEIGHTS, self.POWERS, strict=True))
        neighbours = (b[:-1] * x[:-1] ** 2 * (x[1:] + x[1:] ** 2) ** 2).sum()
        far = (c[: 2 * third] * x[: 2 * third] ** 2 * x[third:] ** 4).sum()
        return 1 + (a * x**2).sum() + neighbours + far + (d[:third] * x[:third] * x[2 * third :]).sum()


class Dixmaanb(Dixmaana):
    """As dixmaana, with neighbours coupled."""

    WEIGHTS = (1.0, 0.0625, 0.0625, 0.0625)


class Dixmaane(Dixmaana):
    """As dixmaana, with weights that grow."""

    POWERS = (1, 0, 0, 1)


class Dixmaani(Dixmaana):
    """As dixmaana, with weights that grow as squares: condition n^2."""

    POWERS = (2, 0, 0, 2)


class Dqdrtic(Smooth):
    """A diagonal quadratic."""

    START = (3.0,)
    LEAST = 3
    BEST = 0.0
    POINT = 0.0

    def forward(self, batch: None = None) -> Tensor:
        x = self.x**2
        return (x[:-2] + 100 * x[1:-1] + 100 * x[2:]).sum()


class Edensch(Smooth):
    """The extended function of Dennis and Schnabel."""

    START = (0.0,)
    MINIMA: ClassVar = {50: 303.28459202076465}

    def forward(self, batch: None = None) -> Tensor:
        x, y = self.x[:-1], self.x[1:]
        return 16 + ((x - 2) ** 4 + (x * y - 2 * y) ** 2 + (y + 1) ** 2).sum()


class Engval1(Smooth):
    """A sum of quartics of neighbours."""

    START = (2.0,)
    MINIMA: ClassVar = {50: 53.58221488520762}

    def forward(self, batch: None = None) -> Tensor:
        x, y = self.x[:-1], self.x[1:]
        return ((x**2 + y**2) ** 2 - 4 * x + 3).sum()


class Fletchcr(Smooth):
    """Fletcher's chained valley, whose floor is a curve."""

    START = (0.0,)
    BEST = 0.0

    def forward(self, batch: None = None) -> Tensor:
        x, y = self.x[:-1], self.x[1:]
        return 100 * ((y - x + 1 - x**2) ** 2).sum()


class Genhumps(Smooth):
    """A bowl with humps, zeta = 2; it has other minima."""

    START = (-506.2, 506.2)
    BEST = 0.0
    POINT = 0.0

    def __init__(self, n: int = 5, scale: float = 1.0) -> None:
        super().__init__(n, scale)

    def forward(self, batch: None = None) -> Tensor:
        humps, squares = sin(2 * self.x) ** 2, 0.05 * self.x**2
        return (humps[:-1] * humps[1:] + squares[:-1] + squares[1:]).sum()


class Liarwhd(Smooth):
    """Valleys that share an unknown; an arrowhead."""

    START = (4.0,)
    BEST = 0.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        return (4 * (self.x**2 - self.x[0]) ** 2 + (self.x - 1) ** 2).sum()


class Nondia(Smooth):
    """Shanno's valley with a full row."""

    START = (-1.0,)
    BEST = 0.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        return (self.x[0] - 1) ** 2 + 100 * ((self.x[0] - self.x[:-1] ** 2) ** 2).sum()


class Nondquar(Smooth):
    """Quartics of neighbours; the Hessian is singular at the minimiser."""

    START = (1.0, -1.0)
    LEAST = 3
    BEST = 0.0
    POINT = 0.0

    def forward(self, batch: None = None) -> Tensor:
        x = self.x
        return (x[0] - x[1]) ** 2 + (x[-2] + x[-1]) ** 2 + ((x[:-2] + x[1:-1] + x[-1]) ** 4).sum()


class Power(Smooth):
    """The square of a quadratic: (sum i x_i^2)^2."""

    START = (1.0,)
    BEST = 0.0
    POINT = 0.0

    def forward(self, batch: None = None) -> Tensor:
        return (self.i * self.x**2).sum() ** 2


class Quartc(Smooth):
    """Fourth powers of distances."""

    START = (2.0,)
    BEST = 0.0

    def forward(self, batch: None = None) -> Tensor:
        return ((self.x - self.i) ** 4).sum()

    def minimiser(self) -> list[float]:
        return self.i.tolist()


class Sinquad(Smooth):
    """Sines and squares, coupled to the first and last unknown."""

    START = (0.1,)
    LEAST = 3
    BEST = 0.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        first, inner, last = self.x[0], self.x[1:-1], self.x[-1]
        middle = ((sin(inner - last) - first**2 + inner**2) ** 2).sum()
        return (first - 1) ** 4 + middle + (last**2 - first**2) ** 2


class Tridia(Smooth):
    """Shanno's tridiagonal quadratic; the minimiser halves from one unknown to the next."""

    START = (1.0,)
    BEST = 0.0

    def forward(self, batch: None = None) -> Tensor:
        return (self.x[0] - 1) ** 2 + (self.i[1:] * (2 * self.x[1:] - self.x[:-1]) ** 2).sum()

    def minimiser(self) -> list[float]:
        return [2.0**-i for i in range(self.x.numel())]


class Woods(Smooth):
    """The extended function of Wood, n a multiple of 4."""

    START = (-3.0, -1.0, -3.0, -1.0)
    LEAST = 4
    STEP = 4
    BEST = 0.0
    POINT = 1.0

    def __init__(self, n: int = 48, scale: float = 1.0) -> None:
        super().__init__(n, scale)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x.view(-1, 4).T
        first = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
        return (first + 10 * (b + d - 2) ** 2 + 0.1 * (b - d) ** 2).sum()


class Dixon3dq(Smooth):
    """Dixon's tridiagonal quadratic, condition n^2."""

    START = (-1.0,)
    BEST = 0.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        x = self.x
        return (x[0] - 1) ** 2 + ((x[1:-1] - x[2:]) ** 2).sum() + (x[-1] - 1) ** 2


class Cosine(Smooth):
    """Cosines of neighbours: the minimum is 1 - n, on a curve."""

    START = (1.0,)

    def forward(self, batch: None = None) -> Tensor:
        return cos(self.x[:-1] ** 2 - 0.5 * self.x[1:]).sum()

    def minimum(self) -> float:
        return 1.0 - self.x.numel()


class ChainedRosenbrock(Smooth):
    """Rosenbrock's valley through all unknowns; another minimum is near (-1, 1, 1, ...)."""

    SOURCE = "Rosenbrock 1960, chained"
    START = (-1.2, 1.0)
    BEST = 0.0
    POINT = 1.0

    def forward(self, batch: None = None) -> Tensor:
        x, y = self.x[:-1], self.x[1:]
        return (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum()


class ChebyshevRosenbrock(Smooth):
    """Nesterov's valley along Chebyshev polynomials: its length grows as 2^n."""

    SOURCE = "Gurbuzbalaban, Overton 2012"
    START = (-1.0, *[1.0] * 99)
    BEST = 0.0
    POINT = 1.0

    def __init__(self, n: int = 6, scale: float = 1.0) -> None:
        super().__init__(n, scale)

    def forward(self, batch: None = None) -> Tensor:
        x, y = self.x[:-1], self.x[1:]
        return (x[0] - 1) ** 2 / 4 + ((y - 2 * x**2 + 1) ** 2).sum()


class PerturbedQuadratic(Smooth):
    """A quadratic with growing curvatures and a full Hessian: sum i x_i^2 + (sum x_i)^2 / 100."""

    SOURCE = "Andrei 2008"
    START = (0.5,)
    BEST = 0.0
    POINT = 0.0

    def forward(self, batch: None = None) -> Tensor:
        return (self.i * self.x**2).sum() + self.x.sum() ** 2 / 100


class Raydan1(Smooth):
    """Exponentials less their arguments, weights i / 10; the minimum is n (n + 1) / 20."""

    SOURCE = "Andrei 2008"
    START = (1.0,)
    POINT = 0.0

    def forward(self, batch: None = None) -> Tensor:
        return (self.i / 10 * (exp(self.x) - self.x)).sum()

    def minimum(self) -> float:
        n = self.x.numel()
        return n * (n + 1) / 20


class Diagonal3(Smooth):
    """Exponentials less sines: sum exp(x_i) - i sin x_i."""

    SOURCE = "Andrei 2008"
    START = (1.0,)
    MINIMA: ClassVar = {50: -1063.8553662302309}

    def forward(self, batch: None = None) -> Tensor:
        return (exp(self.x) - self.i * sin(self.x)).sum()


class Trid(Smooth):
    """Neumaier's third function, a quadratic; the minimum is -n (n + 4) (n - 1) / 6."""

    SOURCE = "Neumaier"
    START = (0.0,)

    def forward(self, batch: None = None) -> Tensor:
        return ((self.x - 1) ** 2).sum() - (self.x[1:] * self.x[:-1]).sum()

    def minimum(self) -> float:
        n = self.x.numel()
        return -n * (n + 4) * (n - 1) / 6

    def minimiser(self) -> list[float]:
        n = self.x.numel()
        return [float(i * (n + 1 - i)) for i in range(1, n + 1)]


class Zakharov(Smooth):
    """A bowl with the square and the fourth power of a sum."""

    SOURCE = "Jamil, Yang 2013"
    START = (1.0,)
    BEST = 0.0
    POINT = 0.0

    def __init__(self, n: int = 10, scale: float = 1.0) -> None:
        super().__init__(n, scale)

    def forward(self, batch: None = None) -> Tensor:
        total = (self.i * self.x).sum() / 2
        return self.x @ self.x + total**2 + total**4


class Himmelblau(Problem):
    """Himmelblau's function, n = 2: four minima, all 0."""

    SOURCE = "Himmelblau 1972"
    BEST = 0.0
    MINIMISER = (3.0, 2.0)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([-1.2, 1.0], scale)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2


class MinimalSurface(Problem):
    """The area of a surface over the unit square between two waves, n = 64 heights of a grid; ours, after MINPACK-2."""

    SOURCE = "after Averick et al. 1992"
    SIZE = 8
    BEST = 2.1781062368836657

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([0.0] * self.SIZE**2, scale)
        waves = torch.sin(2 * math.pi * torch.linspace(0, 1, self.SIZE + 2))
        frame = torch.zeros(self.SIZE + 2, self.SIZE + 2)
        frame[0], frame[-1] = waves, -waves
        self.constant("frame", frame)

    def forward(self, batch: None = None) -> Tensor:
        h = self.frame + torch.nn.functional.pad(self.x.view(self.SIZE, self.SIZE), (1, 1, 1, 1))
        cells = self.SIZE + 1
        total = self.x.new_zeros(())
        for rows, columns in ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))):
            across, down = h.diff(dim=1)[rows], h.diff(dim=0)[:, columns]
            total = total + torch.sqrt(1 + cells**2 * (across**2 + down**2)).sum()
        return total / (2 * cells**2)


class LennardJones(Problem):
    """The energy of seven atoms, n = 21: the minimum is a pentagonal bipyramid; three others are higher.

    M. R. Hoare, P. Pal, Advances in Physics 20 (1971), 161. Turning and moving the atoms changes nothing, so the
    Hessian has six zeros.
    """

    SOURCE = "Hoare, Pal 1971"
    BEST = -16.505384168012213

    def __init__(self, scale: float = 1.0) -> None:
        ring = [(math.cos(2 * math.pi * k / 5), math.sin(2 * math.pi * k / 5), 0.1 * k - 0.2) for k in range(5)]
        super().__init__([value for atom in [*ring, (0.1, 0.0, 0.8), (0.0, -0.1, -0.7)] for value in atom], scale)
        self.register_buffer("pairs", torch.triu_indices(7, 7, 1), persistent=False)

    def forward(self, batch: None = None) -> Tensor:
        atoms, (first, second) = self.x.view(7, 3), self.pairs
        inverse = ((atoms[first] - atoms[second]) ** 2).sum(1) ** -3
        return 4 * (inverse**2 - inverse).sum()
