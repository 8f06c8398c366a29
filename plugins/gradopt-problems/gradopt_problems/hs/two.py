"""Hock and Schittkowski's problems in two unknowns."""

import math

import torch
from torch import Tensor, cos, exp, log, sin

from gradopt_problems.hs import HS

INF = math.inf


def valley(a: Tensor, b: Tensor) -> Tensor:
    """Rosenbrock's curved valley, the loss of several problems."""
    return 100 * (b - a**2) ** 2 + (1 - a) ** 2


class HS001(HS):
    """Rosenbrock's valley, n = 2, a bound that is not active."""

    START = (-2.0, 1.0)
    LOWER = (-INF, -1.5)
    BEST = 0.0
    MINIMISER = (1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        return valley(*self.x)


class HS002(HS001):
    """Rosenbrock's valley, n = 2, a bound that is active; the book's start (-2, 1) lies outside it.

    From there descent leads to the other minimum, 4.9412293 at (-1.2210, 1.5).
    """

    LOWER = (-INF, 1.5)
    BEST = 0.050426187893607075
    MINIMISER = (1.2243707487363524, 1.5)


class HS003(HS):
    """A nearly linear function, n = 2, a bound."""

    START = (10.0, 1.0)
    LOWER = (-INF, 0.0)
    BEST = 0.0
    MINIMISER = (0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return b + 1e-5 * (b - a) ** 2


class HS004(HS):
    """A cubic, n = 2, both bounds active."""

    START = (1.125, 0.125)
    LOWER = (1.0, 0.0)
    BEST = 8 / 3
    MINIMISER = (1.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (a + 1) ** 3 / 3 + b


class HS005(HS):
    """A sine and a quadratic (McCormick's function), n = 2, in a box."""

    START = (0.0, 0.0)
    LOWER = (-1.5, -3.0)
    UPPER = (4.0, 3.0)
    BEST = -math.sqrt(3) / 2 - math.pi / 3
    MINIMISER = (0.5 - math.pi / 3, -0.5 - math.pi / 3)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return sin(a + b) + (a - b) ** 2 - 1.5 * a + 2.5 * b + 1


class HS006(HS):
    """A valley whose floor is a constraint, n = 2."""

    START = (-1.2, 1.0)
    BEST = 0.0
    MINIMISER = (1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        return (1 - self.x[0]) ** 2

    def equalities(self) -> Tensor:
        a, b = self.x
        return 10 * (b - a**2)


class HS007(HS):
    """A logarithm on a quartic curve, n = 2."""

    START = (2.0, 2.0)
    BEST = -math.sqrt(3)
    MINIMISER = (0.0, math.sqrt(3))

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return log(1 + a**2) - b

    def equalities(self) -> Tensor:
        a, b = self.x
        return (1 + a**2) ** 2 + b**2 - 4


class HS009(HS):
    """Waves on a line, n = 2; minimisers are (12 k - 3, 16 k - 4)."""

    START = (0.0, 0.0)
    BEST = -0.5
    MINIMISER = (-3.0, -4.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return sin(math.pi * a / 12) * cos(math.pi * b / 16)

    def equalities(self) -> Tensor:
        a, b = self.x
        return 4 * a - 3 * b


class HS010(HS):
    """A linear loss in an ellipse, n = 2."""

    START = (-10.0, 10.0)
    BEST = -1.0
    MINIMISER = (0.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return a - b

    def inequalities(self) -> Tensor:
        a, b = self.x
        return -3 * a**2 + 2 * a * b - b**2 + 1


class HS011(HS):
    """A circle's distance above a parabola, n = 2."""

    START = (4.9, 0.1)
    BEST = -8.498464223154677
    MINIMISER = (1.234772825053297, 1.5246639294900999)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (a - 5) ** 2 + b**2 - 25

    def inequalities(self) -> Tensor:
        a, b = self.x
        return b - a**2


class HS012(HS):
    """A quadratic in an ellipse, n = 2."""

    START = (0.0, 0.0)
    BEST = -30.0
    MINIMISER = (2.0, 3.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return 0.5 * a**2 + b**2 - a * b - 7 * a - 7 * b

    def inequalities(self) -> Tensor:
        a, b = self.x
        return 25 - 4 * a**2 - b**2


class HS014(HS):
    """A distance to a line's part in an ellipse, n = 2; the minimum is 9 - 23 sqrt(7) / 8."""

    START = (2.0, 2.0)
    BEST = 9 - 2.875 * math.sqrt(7)
    MINIMISER = ((math.sqrt(7) - 1) / 2, (math.sqrt(7) + 1) / 4)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (a - 2) ** 2 + (b - 1) ** 2

    def equalities(self) -> Tensor:
        a, b = self.x
        return a - 2 * b + 1

    def inequalities(self) -> Tensor:
        a, b = self.x
        return 1 - a**2 / 4 - b**2


class HS015(HS):
    """Rosenbrock's valley between two curves, n = 2; another minimum has loss 360.38."""

    START = (-2.0, 1.0)
    UPPER = (0.5, INF)
    BEST = 306.5
    MINIMISER = (0.5, 2.0)

    def forward(self, batch: None = None) -> Tensor:
        return valley(*self.x)

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([a * b - 1, a + b**2])


class HS016(HS):
    """Rosenbrock's valley outside two parabolas, n = 2; the book's start (-2, 1) lies outside the bounds.

    Another minimum has loss 23.1447.
    """

    START = (-2.0, 1.0)
    LOWER = (-0.5, -INF)
    UPPER = (0.5, 1.0)
    BEST = 0.25
    MINIMISER = (0.5, 0.25)

    def forward(self, batch: None = None) -> Tensor:
        return valley(*self.x)

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([a + b**2, a**2 + b])


class HS017(HS016):
    """As hs016, inside the parabolas."""

    BEST = 1.0
    MINIMISER = (0.0, 0.0)

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([b**2 - a, a**2 - b])


class HS018(HS):
    """A flat ellipse, n = 2."""

    START = (2.0, 2.0)
    LOWER = (2.0, 0.0)
    UPPER = (50.0, 50.0)
    BEST = 5.0
    MINIMISER = (math.sqrt(250), math.sqrt(2.5))

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return 0.01 * a**2 + b**2

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([a * b - 25, a**2 + b**2 - 25])


class HS019(HS):
    """Cubes in a thin crescent, n = 2."""

    START = (20.1, 5.84)
    LOWER = (13.0, 0.0)
    UPPER = (100.0, 100.0)
    BEST = -6961.8138755801465
    MINIMISER = (14.094999999999997, 0.8429607892154712)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (a - 10) ** 3 + (b - 20) ** 3

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([(a - 5) ** 2 + (b - 5) ** 2 - 100, 82.81 - (b - 5) ** 2 - (a - 6) ** 2])


class HS020(HS):
    """Rosenbrock's valley outside two parabolas and a circle, n = 2; the start lies outside the bounds."""

    START = (-2.0, 1.0)
    LOWER = (-0.5, -INF)
    UPPER = (0.5, INF)
    BEST = 81.5 - 25 * math.sqrt(3)
    MINIMISER = (0.5, math.sqrt(3) / 2)

    def forward(self, batch: None = None) -> Tensor:
        return valley(*self.x)

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([a + b**2, a**2 + b, a**2 + b**2 - 1])


class HS021(HS):
    """A convex quadratic programme, n = 2; the book's start (-1, -1) lies outside the bounds."""

    START = (-1.0, -1.0)
    LOWER = (2.0, -50.0)
    UPPER = (50.0, 50.0)
    BEST = -99.96
    MINIMISER = (2.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return 0.01 * a**2 + b**2 - 100

    def inequalities(self) -> Tensor:
        a, b = self.x
        return 10 * a - b - 10


class HS022(HS):
    """A distance, n = 2, a corner of a line and a parabola."""

    START = (2.0, 2.0)
    BEST = 1.0
    MINIMISER = (1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return (a - 2) ** 2 + (b - 1) ** 2

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([2 - a - b, b - a**2])


class HS023(HS):
    """A distance, n = 2, five inequalities."""

    START = (3.0, 1.0)
    LOWER = -50.0
    UPPER = 50.0
    BEST = 2.0
    MINIMISER = (1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        return self.x @ self.x

    def inequalities(self) -> Tensor:
        a, b = self.x
        return torch.stack([a + b - 1, a**2 + b**2 - 1, 9 * a**2 + b**2 - 9, a**2 - b, b**2 - a])


class HS024(HS):
    """A product of powers in a polygon, n = 2."""

    START = (1.0, 0.5)
    LOWER = 0.0
    BEST = -1.0
    MINIMISER = (3.0, math.sqrt(3))

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return ((a - 3) ** 2 - 9) * b**3 / (27 * math.sqrt(3))

    def inequalities(self) -> Tensor:
        a, b = self.x
        root = math.sqrt(3)
        return torch.stack([a / root - b, a + root * b, 6 - a - root * b])


class HS057(HS):
    """A decay fitted to 44 observations, n = 2, a curve it must stay above; the loss is the sum of squares."""

    START = (0.42, 5.0)
    LOWER = (0.4, -4.0)
    BEST = 0.0284596697229867
    MINIMISER = (0.41995265075780125, 1.284845193624846)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        t = [8, 8, 10, 10, 10, 10, 12, 12, 12, 12, 14, 14, 14, 16, 16, 16, 18, 18, 20, 20, 20, 22, 22, 22, 24, 24, 24]
        t += [26, 26, 26, 28, 28, 30, 30, 30, 32, 32, 34, 36, 36, 38, 38, 40, 42]
        self.constant("t", [float(value) for value in t])
        hundredths = [49, 49, 48, 47, 48, 47, 46, 46, 45, 43, 45, 43, 43, 44, 43, 43, 46, 45, 42, 42, 43, 41, 41, 40]
        hundredths += [42, 40, 40, 41, 40, 41, 41, 40, 40, 40, 38, 41, 40, 40, 41, 38, 40, 40, 39, 39]
        self.constant("y", [value / 100 for value in hundredths])

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x
        return ((self.y - a - (0.49 - a) * exp(-b * (self.t - 8))) ** 2).sum()

    def inequalities(self) -> Tensor:
        a, b = self.x
        return 0.49 * b - a * b - 0.09
