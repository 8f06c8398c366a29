"""Hock and Schittkowski's problems in three and four unknowns."""

import math

import torch
from torch import Tensor, exp, log, sin, sqrt

from gradopt_problems.hs import HS
from gradopt_problems.hs.two import valley

INF = math.inf


class HS026(HS):
    """A quartic on a curved surface, n = 3, whose Hessian is singular at the minimisers (t, t, t)."""

    START = (-2.6, 2.0, 2.0)
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return (a - b) ** 2 + (b - c) ** 4

    def equalities(self) -> Tensor:
        a, b, c = self.x
        return (1 + b**2) * a + c**4 - 3


class HS027(HS):
    """A flat valley on a curved surface, n = 3."""

    START = (2.0, 2.0, 2.0)
    BEST = 0.04
    MINIMISER = (-1.0, 1.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, _ = self.x
        return 0.01 * (a - 1) ** 2 + (b - a**2) ** 2

    def equalities(self) -> Tensor:
        a, _, c = self.x
        return a + c**2 + 1


class HS028(HS):
    """A quadratic on a plane, n = 3."""

    START = (-4.0, 1.0, 1.0)
    BEST = 0.0
    MINIMISER = (0.5, -0.5, 0.5)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return (a + b) ** 2 + (b + c) ** 2

    def equalities(self) -> Tensor:
        a, b, c = self.x
        return a + 2 * b + 3 * c - 1


class HS029(HS):
    """A product in an ellipsoid, n = 3; four minimisers differ in signs."""

    START = (1.0, 1.0, 1.0)
    BEST = -16 * math.sqrt(2)
    MINIMISER = (4.0, 2 * math.sqrt(2), 2.0)

    def forward(self, batch: None = None) -> Tensor:
        return -self.x.prod()

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return 48 - a**2 - 2 * b**2 - 4 * c**2


class HS030(HS):
    """A distance outside a cylinder, n = 3."""

    START = (1.0, 1.0, 1.0)
    LOWER = (1.0, -10.0, -10.0)
    UPPER = 10.0
    BEST = 1.0
    MINIMISER = (1.0, 0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        return self.x @ self.x

    def inequalities(self) -> Tensor:
        a, b, _ = self.x
        return a**2 + b**2 - 1


class HS031(HS):
    """A quadratic behind a hyperbola, n = 3."""

    START = (1.0, 1.0, 1.0)
    LOWER = (-10.0, 1.0, -10.0)
    UPPER = (10.0, 10.0, 1.0)
    BEST = 6.0
    MINIMISER = (1 / math.sqrt(3), math.sqrt(3), 0.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return 9 * a**2 + b**2 + 9 * c**2

    def inequalities(self) -> Tensor:
        a, b, _ = self.x
        return a * b - 1


class HS032(HS):
    """A quadratic on a simplex, n = 3."""

    START = (0.1, 0.7, 0.2)
    LOWER = 0.0
    BEST = 1.0
    MINIMISER = (0.0, 0.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return (a + 3 * b + c) ** 2 + 4 * (a - b) ** 2

    def equalities(self) -> Tensor:
        return 1 - self.x.sum()

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return 6 * b + 4 * c - a**3 - 3


class HS033(HS):
    """A cubic in a cone outside a sphere, n = 3.

    From the start descent may end at (0, 0, 2), which is stationary with loss -4 and no minimum.
    """

    START = (0.0, 0.0, 3.0)
    LOWER = 0.0
    UPPER = (INF, INF, 5.0)
    BEST = math.sqrt(2) - 6
    MINIMISER = (0.0, math.sqrt(2), math.sqrt(2))

    def forward(self, batch: None = None) -> Tensor:
        a, _, c = self.x
        return (a - 1) * (a - 2) * (a - 3) + c

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return torch.stack([c**2 - b**2 - a**2, self.x @ self.x - 4])


class HS034(HS):
    """A linear loss under nested exponentials, n = 3; the minimum is -log log 10."""

    START = (0.0, 1.05, 2.9)
    LOWER = 0.0
    UPPER = (100.0, 100.0, 10.0)
    BEST = -math.log(math.log(10))
    MINIMISER = (math.log(math.log(10)), math.log(10), 10.0)

    def forward(self, batch: None = None) -> Tensor:
        return -self.x[0]

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return torch.stack([b - exp(a), c - exp(b)])


class HS035(HS):
    """Beale's quadratic programme, n = 3."""

    START = (0.5, 0.5, 0.5)
    LOWER = 0.0
    BEST = 1 / 9
    MINIMISER = (4 / 3, 7 / 9, 4 / 9)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return 9 - 8 * a - 6 * b - 4 * c + 2 * a**2 + 2 * b**2 + c**2 + 2 * a * b + 2 * a * c

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return 3 - a - b - 2 * c


class HS036(HS):
    """The largest parcel in a box, n = 3."""

    START = (10.0, 10.0, 10.0)
    LOWER = 0.0
    UPPER = (20.0, 11.0, 42.0)
    BEST = -3300.0
    MINIMISER = (20.0, 11.0, 15.0)

    def forward(self, batch: None = None) -> Tensor:
        return -self.x.prod()

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return 72 - a - 2 * b - 2 * c


class HS037(HS036):
    """The largest parcel, n = 3, girth within limits."""

    UPPER = 42.0
    BEST = -3456.0
    MINIMISER = (24.0, 12.0, 12.0)

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return torch.stack([72 - a - 2 * b - 2 * c, a + 2 * b + 2 * c])


class HS038(HS):
    """Wood's function (Colville 4), n = 4, in a box whose bounds are not active."""

    START = (-3.0, -1.0, -3.0, -1.0)
    LOWER = -10.0
    UPPER = 10.0
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        coupled = 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)
        return valley(a, b) + 90 * (d - c**2) ** 2 + (1 - c) ** 2 + coupled


class HS039(HS):
    """A linear loss on two curved surfaces, n = 4."""

    START = (2.0, 2.0, 2.0, 2.0)
    BEST = -1.0
    MINIMISER = (1.0, 1.0, 0.0, 0.0)

    def forward(self, batch: None = None) -> Tensor:
        return -self.x[0]

    def equalities(self) -> Tensor:
        a, b, c, d = self.x
        return torch.stack([b - a**3 - c**2, a**2 - b - d**2])


class HS040(HS):
    """A product on three curved surfaces, n = 4; the signs of the last two may change together."""

    START = (0.8, 0.8, 0.8, 0.8)
    BEST = -0.25
    MINIMISER = (2 ** (-1 / 3), 2 ** (-1 / 2), 2 ** (-11 / 12), 2 ** (-1 / 4))

    def forward(self, batch: None = None) -> Tensor:
        return -self.x.prod()

    def equalities(self) -> Tensor:
        a, b, c, d = self.x
        return torch.stack([a**3 + b**2 - 1, a**2 * d - c, d**2 - b])


class HS041(HS):
    """A product on a plane, n = 4, in a box; the book's start lies outside it."""

    START = (2.0, 2.0, 2.0, 2.0)
    LOWER = 0.0
    UPPER = (1.0, 1.0, 1.0, 2.0)
    BEST = 52 / 27
    MINIMISER = (2 / 3, 1 / 3, 1 / 3, 2.0)

    def forward(self, batch: None = None) -> Tensor:
        return 2 - self.x[:3].prod()

    def equalities(self) -> Tensor:
        a, b, c, d = self.x
        return a + 2 * b + 2 * c - d


class HS042(HS):
    """A distance to a circle, n = 4; the minimum is 28 - 10 sqrt(2)."""

    START = (1.0, 1.0, 1.0, 1.0)
    BEST = 28 - 10 * math.sqrt(2)
    MINIMISER = (2.0, 2.0, 0.6 * math.sqrt(2), 0.8 * math.sqrt(2))

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        return (a - 1) ** 2 + (b - 2) ** 2 + (c - 3) ** 2 + (d - 4) ** 2

    def equalities(self) -> Tensor:
        a, _, c, d = self.x
        return torch.stack([a - 2, c**2 + d**2 - 2])


class HS043(HS):
    """Rosen and Suzuki's quadratic with quadratic constraints, n = 4."""

    START = (0.0, 0.0, 0.0, 0.0)
    BEST = -44.0
    MINIMISER = (0.0, 1.0, 2.0, -1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        return a**2 + b**2 + 2 * c**2 + d**2 - 5 * a - 5 * b - 21 * c + 7 * d

    def inequalities(self) -> Tensor:
        a, b, c, d = self.x
        return torch.stack(
            [
                8 - a**2 - b**2 - c**2 - d**2 - a + b - c + d,
                10 - a**2 - 2 * b**2 - c**2 - 2 * d**2 + a + d,
                5 - 2 * a**2 - b**2 - c**2 - 2 * a + b + d,
            ]
        )


class HS044(HS):
    """Konno's indefinite quadratic programme, n = 4; from the start descent may end at (3, 0, 4, 0) with loss -13."""

    START = (0.0, 0.0, 0.0, 0.0)
    LOWER = 0.0
    BEST = -15.0
    MINIMISER = (0.0, 3.0, 0.0, 4.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        return a - b - c - a * c + a * d + b * c - b * d

    def inequalities(self) -> Tensor:
        a, b, c, d = self.x
        return torch.stack([8 - a - 2 * b, 12 - 4 * a - b, 12 - 3 * a - 4 * b, 8 - 2 * c - d, 8 - c - 2 * d, 5 - c - d])


class HS060(HS):
    """A quartic on a curved surface, n = 3, in a box."""

    START = (2.0, 2.0, 2.0)
    LOWER = -10.0
    UPPER = 10.0
    BEST = 0.03256820025506984
    MINIMISER = (1.1048590197333166, 1.1966741822882572, 1.535262260325326)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return (a - 1) ** 2 + (a - b) ** 2 + (b - c) ** 4

    def equalities(self) -> Tensor:
        a, b, c = self.x
        return a * (1 + b**2) + c**4 - 4 - 3 * math.sqrt(2)


class HS061(HS):
    """A quadratic on two parabolic cylinders, n = 3; at the book's start 0 the constraints are degenerate."""

    START = (0.0, 0.0, 0.0)
    BEST = -143.64614219778025
    MINIMISER = (5.326770135563928, -2.118998632218976, 3.2104642253505506)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return 4 * a**2 + 2 * b**2 + 2 * c**2 - 33 * a + 16 * b - 24 * c

    def equalities(self) -> Tensor:
        a, b, c = self.x
        return torch.stack([3 * a - 2 * b**2 - 7, 4 * a - c**2 - 11])


class HS062(HS):
    """Logarithms on a simplex, n = 3."""

    START = (0.7, 0.2, 0.1)
    LOWER = 0.0
    UPPER = 1.0
    BEST = -26272.514487318258
    MINIMISER = (0.6178126908126924, 0.3282022231196692, 0.0539850860676385)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        first = 255 * log((a + b + c + 0.03) / (0.09 * a + b + c + 0.03))
        second = 280 * log((b + c + 0.03) / (0.07 * b + c + 0.03))
        third = 290 * log((c + 0.03) / (0.13 * c + 0.03))
        return -32.174 * (first + second + third)

    def equalities(self) -> Tensor:
        return self.x.sum() - 1


class HS063(HS):
    """A concave quadratic on a circle, n = 3."""

    START = (2.0, 2.0, 2.0)
    LOWER = 0.0
    BEST = 961.7151721300521
    MINIMISER = (3.51212134187472, 0.21698794151522274, 3.552171154827017)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return 1000 - a**2 - 2 * b**2 - c**2 - a * b - a * c

    def equalities(self) -> Tensor:
        a, b, c = self.x
        return torch.stack([8 * a + 14 * b + 7 * c - 56, self.x @ self.x - 25])


class HS064(HS):
    """Reciprocals, n = 3."""

    START = (1.0, 1.0, 1.0)
    LOWER = 1e-5
    BEST = 6299.8424279215205
    MINIMISER = (108.73470491089891, 85.12621279089379, 204.32459661260555)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return 5 * a + 50000 / a + 20 * b + 72000 / b + 10 * c + 144000 / c

    def inequalities(self) -> Tensor:
        a, b, c = self.x
        return 1 - 4 / a - 32 / b - 120 / c


class HS065(HS):
    """A quadratic in a ball, n = 3; the book's start (-5, 5, 0) lies outside the bounds."""

    START = (-5.0, 5.0, 0.0)
    LOWER = (-4.5, -4.5, -5.0)
    UPPER = (4.5, 4.5, 5.0)
    BEST = 0.9535288568047826
    MINIMISER = (3.6504617252130367, 3.6504617252130367, 4.620417555320008)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c = self.x
        return (a - b) ** 2 + (a + b - 10) ** 2 / 9 + (c - 5) ** 2

    def inequalities(self) -> Tensor:
        return 48 - self.x @ self.x


class HS066(HS034):
    """As hs034 with another linear loss."""

    BEST = 0.518163274181541
    MINIMISER = (0.18412648792284764, 1.2021678731970429, 3.3273223225990955)

    def forward(self, batch: None = None) -> Tensor:
        return 0.2 * self.x[2] - 0.8 * self.x[0]


class HS071(HS):
    """Bartholomew-Biggs' product and sphere, n = 4."""

    START = (1.0, 5.0, 5.0, 1.0)
    LOWER = 1.0
    UPPER = 5.0
    BEST = 17.014017289156303
    MINIMISER = (1.0, 4.7429996372644165, 3.821149984184874, 1.3794082931726726)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        return a * d * (a + b + c) + c

    def equalities(self) -> Tensor:
        return self.x @ self.x - 40

    def inequalities(self) -> Tensor:
        return self.x.prod() - 25


class HS072(HS):
    """A linear loss with reciprocals, n = 4: optimal sample sizes."""

    START = (1.0, 1.0, 1.0, 1.0)
    LOWER = 0.001
    UPPER = (4e5, 3e5, 2e5, 1e5)
    BEST = 727.6793577896129
    MINIMISER = (193.40742727194635, 179.54707603227456, 185.01806335815152, 168.70679112724056)

    def forward(self, batch: None = None) -> Tensor:
        return 1 + self.x.sum()

    def inequalities(self) -> Tensor:
        a, b, c, d = 1 / self.x
        return torch.stack(
            [
                0.0401 - 4 * a - 2.25 * b - c - 0.25 * d,
                0.010085 - 0.16 * a - 0.36 * b - 0.64 * c - 0.64 * d,
            ]
        )


class HS073(HS):
    """Cattle feed, n = 4."""

    START = (1.0, 1.0, 1.0, 1.0)
    LOWER = 0.0
    BEST = 29.894378159143354
    MINIMISER = (0.6355215686350698, 0.0, 0.3127018807515235, 0.05177655061340676)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        return 24.55 * a + 26.75 * b + 39 * c + 40.5 * d

    def equalities(self) -> Tensor:
        return self.x.sum() - 1

    def inequalities(self) -> Tensor:
        a, b, c, d = self.x
        spread = 1.645 * sqrt(0.28 * a**2 + 0.19 * b**2 + 20.5 * c**2 + 0.62 * d**2)
        return torch.stack(
            [2.3 * a + 5.6 * b + 11.1 * c + 1.3 * d - 5, 12 * a + 11.9 * b + 41.8 * c + 52.1 * d - 21 - spread]
        )


class HS074(HS):
    """Power flow, n = 4."""

    START = (0.0, 0.0, 0.0, 0.0)
    LOWER = (0.0, 0.0, -0.55, -0.55)
    UPPER = (1200.0, 1200.0, 0.55, 0.55)
    BEST = 5126.498109595272
    MINIMISER = (679.9453198512115, 1026.0671326104648, 0.11887636449310197, -0.3962335532032102)
    _GAP = 0.55

    def forward(self, batch: None = None) -> Tensor:
        a, b, _, _ = self.x
        return 3 * a + 1e-6 * a**3 + 2 * b + 2e-6 / 3 * b**3

    def equalities(self) -> Tensor:
        a, b, c, d = self.x
        return torch.stack(
            [
                1000 * sin(-c - 0.25) + 1000 * sin(-d - 0.25) + 894.8 - a,
                1000 * sin(c - 0.25) + 1000 * sin(c - d - 0.25) + 894.8 - b,
                1000 * sin(d - 0.25) + 1000 * sin(d - c - 0.25) + 1294.8,
            ]
        )

    def inequalities(self) -> Tensor:
        _, _, c, d = self.x
        return torch.stack([d - c + self._GAP, c - d + self._GAP])


class HS075(HS074):
    """As hs074 with tighter limits."""

    LOWER = (0.0, 0.0, -0.48, -0.48)
    UPPER = (1200.0, 1200.0, 0.48, 0.48)
    BEST = 5174.41269537774
    MINIMISER = (776.1590265860596, 925.1951384690917, 0.05110892853835119, -0.4288910714616488)
    _GAP = 0.48


class HS076(HS):
    """Murtagh and Sargent's quadratic programme, n = 4."""

    START = (0.5, 0.5, 0.5, 0.5)
    LOWER = 0.0
    BEST = -4.6818181818181825
    MINIMISER = (0.27272727272727276, 2.090909090909091, 0.0, 0.5454545454545455)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d = self.x
        return a**2 + 0.5 * b**2 + c**2 + 0.5 * d**2 - a * c + c * d - a - 3 * b + c - d

    def inequalities(self) -> Tensor:
        a, b, c, d = self.x
        return torch.stack([5 - a - 2 * b - c - d, 4 - 3 * a - b - 2 * c + d, b + 4 * c - 1.5])
