"""Hock and Schittkowski's problems in five unknowns and more."""

import math

import torch
from torch import Tensor, exp, log, sin, sqrt

from gradopt import Constraint
from gradopt_problems.hs import HS

INF = math.inf


class HS045(HS):
    """A product in a box, n = 5, at whose corner the minimum is; the book's start lies outside the bounds."""

    START = (2.0, 2.0, 2.0, 2.0, 2.0)
    LOWER = 0.0
    UPPER = (1.0, 2.0, 3.0, 4.0, 5.0)
    BEST = 1.0
    MINIMISER = UPPER

    def forward(self, batch: None = None) -> Tensor:
        return 2 - self.x.prod() / 120


class HS046(HS):
    """Powers up to the sixth on two curved surfaces, n = 5; the Hessian is singular at the minimiser."""

    START = (math.sqrt(2) / 2, 1.75, 0.5, 2.0, 2.0)
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0, 1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - b) ** 2 + (c - 1) ** 2 + (d - 1) ** 4 + (e - 1) ** 6

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([a**2 * d + sin(d - e) - 1, b + c**4 * d**2 - 2])


class HS047(HS):
    """A cube and quartics on three curved surfaces, n = 5.

    The book gives 0 at (1, 1, 1, 1, 1), which is stationary but, for the cube, no minimum: the loss falls to
    -0.0267 near it.
    """

    START = (2.0, math.sqrt(2), -1.0, 2 - math.sqrt(2), 0.5)
    BEST = -0.026714182693940863
    MINIMISER = (0.6770043948666403, 0.726089472652032, 1.2154912142370975, 1.7513294192355415, 1.4770952856177322)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - b) ** 2 + (b - c) ** 3 + (c - d) ** 4 + (d - e) ** 4

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([a + b**2 + c**3 - 3, b - c**2 + d - 1, a * e - 1])


class HS048(HS):
    """A quadratic on two planes, n = 5."""

    START = (3.0, 5.0, -3.0, 2.0, -2.0)
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0, 1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - 1) ** 2 + (b - c) ** 2 + (d - e) ** 2

    def equalities(self) -> Tensor:
        _, _, c, d, e = self.x
        return torch.stack([self.x.sum() - 5, c - 2 * (d + e) + 3])


class HS049(HS):
    """Powers up to the sixth on two planes, n = 5."""

    START = (10.0, 7.0, 2.0, -3.0, 0.8)
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0, 1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - b) ** 2 + (c - 1) ** 2 + (d - 1) ** 4 + (e - 1) ** 6

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([a + b + c + 4 * d - 7, c + 5 * e - 6])


class HS050(HS):
    """Squares and a quartic on three planes, n = 5."""

    START = (35.0, -31.0, 11.0, 5.0, -5.0)
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0, 1.0, 1.0)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - b) ** 2 + (b - c) ** 2 + (c - d) ** 4 + (d - e) ** 2

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([a + 2 * b + 3 * c - 6, b + 2 * c + 3 * d - 6, c + 2 * d + 3 * e - 6])


class HS051(HS):
    """A quadratic on three planes, n = 5."""

    START = (2.5, 0.5, 2.0, -1.0, 0.5)
    BEST = 0.0
    MINIMISER = (1.0, 1.0, 1.0, 1.0, 1.0)
    _SLOPE, _LEVEL = 1.0, 4.0

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (self._SLOPE * a - b) ** 2 + (b + c - 2) ** 2 + (d - 1) ** 2 + (e - 1) ** 2

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([a + 3 * b - self._LEVEL, c + d - 2 * e, b - e])


class HS052(HS051):
    """As hs051 with another slope, n = 5."""

    START = (2.0, 2.0, 2.0, 2.0, 2.0)
    BEST = 1859 / 349
    MINIMISER = (-33 / 349, 11 / 349, 180 / 349, -158 / 349, 11 / 349)
    _SLOPE, _LEVEL = 4.0, 0.0


class HS053(HS051):
    """As hs051 in a box, n = 5."""

    START = (2.0, 2.0, 2.0, 2.0, 2.0)
    LOWER = -10.0
    UPPER = 10.0
    BEST = 176 / 43
    MINIMISER = (-33 / 43, 11 / 43, 27 / 43, -5 / 43, 11 / 43)
    _LEVEL = 0.0


class HS056(HS):
    """The parcel of hs036 with its bounds as sines, n = 7; many minimisers."""

    START = (1.0, 1.0, 1.0, *[math.asin(math.sqrt(1 / 4.2))] * 3, math.asin(math.sqrt(5 / 7.2)))
    BEST = -3.456
    MINIMISER = (2.4, 1.2, 1.2, math.asin(math.sqrt(4 / 7)), *[math.asin(math.sqrt(2 / 7))] * 2, math.pi / 2)

    def forward(self, batch: None = None) -> Tensor:
        return -self.x[:3].prod()

    def equalities(self) -> Tensor:
        a, b, c = self.x[:3]
        squares = sin(self.x[3:]) ** 2
        return torch.cat([self.x[:3] - 4.2 * squares[:3], (a + 2 * b + 2 * c - 7.2 * squares[3])[None]])


class HS077(HS):
    """Powers up to the sixth on two curved surfaces, n = 5."""

    START = (2.0, 2.0, 2.0, 2.0, 2.0)
    BEST = 0.24150512879017869
    MINIMISER = (1.1661721897092985, 1.1821113888027044, 1.3802570431454597, 1.5060362736230457, 0.6109201960430908)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - 1) ** 2 + (a - b) ** 2 + (c - 1) ** 2 + (d - 1) ** 4 + (e - 1) ** 6

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([a**2 * d + sin(d - e) - 2 * math.sqrt(2), b + c**4 * d**2 - 8 - math.sqrt(2)])


class HS078(HS):
    """A product on three curved surfaces, n = 5."""

    START = (-2.0, 1.5, 2.0, -1.0, -1.0)
    BEST = -2.919700408963679
    MINIMISER = (-1.7171435703943823, 1.5957096901835544, 1.8272457529271946, -0.7636430781841304, -0.7636430781841304)

    def forward(self, batch: None = None) -> Tensor:
        return self.x.prod()

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        return torch.stack([self.x @ self.x - 10, b * c - 5 * d * e, a**3 + b**3 + 1])


class HS079(HS):
    """Squares and quartics on three curved surfaces, n = 5."""

    START = (2.0, 2.0, 2.0, 2.0, 2.0)
    BEST = 0.07877682087105692
    MINIMISER = (1.1911274563110514, 1.3626031649617423, 1.4728179315120877, 1.635016619167993, 1.6790814361664075)

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e = self.x
        return (a - 1) ** 2 + (a - b) ** 2 + (b - c) ** 2 + (c - d) ** 4 + (d - e) ** 4

    def equalities(self) -> Tensor:
        a, b, c, d, e = self.x
        root = math.sqrt(2)
        return torch.stack([a + b**2 + c**3 - 2 - 3 * root, b - c**2 + d + 2 - 2 * root, a * e - 2])


class HS080(HS078):
    """The exponential of hs078's product, in a box, n = 5."""

    START = (-2.0, 2.0, 2.0, -1.0, -1.0)
    LOWER = (-2.3, -2.3, -3.2, -3.2, -3.2)
    UPPER = (2.3, 2.3, 3.2, 3.2, 3.2)
    BEST = 0.05394984777027198
    MINIMISER = (-1.7171435703943823, 1.5957096901835544, 1.8272457529271946, -0.7636430781841305, -0.7636430781841305)

    def forward(self, batch: None = None) -> Tensor:
        return exp(self.x.prod())


class HS081(HS080):
    """As hs080, with a term that vanishes where the constraints hold."""

    def forward(self, batch: None = None) -> Tensor:
        a, b = self.x[:2]
        return exp(self.x.prod()) - 0.5 * (a**3 + b**3 + 1) ** 2


class HS083(HS):
    """Colville 3, n = 5: three functions between limits on both sides."""

    START = (78.0, 33.0, 27.0, 27.0, 27.0)
    LOWER = START
    UPPER = (102.0, 45.0, 45.0, 45.0, 45.0)
    BEST = -30665.538671783317
    MINIMISER = (78.0, 33.0, 29.99525602568161, 45.0, 36.775812905788186)

    def forward(self, batch: None = None) -> Tensor:
        a, _, c, _, e = self.x
        return 5.3578547 * c**2 + 0.8356891 * a * e + 37.293239 * a - 40792.141

    def levels(self) -> Tensor:
        """What lies between the limits."""
        a, b, c, d, e = self.x
        return torch.stack(
            [
                85.334407 + 0.0056858 * b * e + 0.0006262 * a * d - 0.0022053 * c * e,
                80.51249 + 0.0071317 * b * e + 0.0029955 * a * b + 0.0021813 * c**2,
                9.300961 + 0.0047026 * c * e + 0.0012547 * a * c + 0.0019085 * c * d,
            ]
        )

    def constraints(self) -> list[Constraint]:
        """The levels between their limits."""
        return [Constraint(self.levels, (0.0, 90.0, 20.0), (92.0, 110.0, 25.0))]


class HS086(HS):
    """Colville 1, n = 5: a cubic with ten linear inequalities."""

    START = (0.0, 0.0, 0.0, 0.0, 1.0)
    LOWER = 0.0
    BEST = -32.34867896572271
    MINIMISER = (0.3, 0.33346760653460716, 0.39999999999999997, 0.42831010478169873, 0.22396487356079808)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        for name, values in _COLVILLE.items():
            self.constant(name, values)

    def forward(self, batch: None = None) -> Tensor:
        x = self.x
        return self.e @ x + x @ self.c @ x + self.d @ x**3

    def inequalities(self) -> Tensor:
        return self.a @ self.x - self.b


class HS093(HS):
    """A transformer, n = 6."""

    START = (5.54, 4.4, 12.02, 11.8, 0.702, 0.852)
    LOWER = 0.0
    BEST = 135.0759628291518
    MINIMISER = (
        5.332666335528811,
        4.656744059172021,
        10.43299194046828,
        12.082306340063699,
        0.7526074362238322,
        0.8786508746591392,
    )

    def forward(self, batch: None = None) -> Tensor:
        _, _, _, _, e, f = self.x
        iron, copper = self._parts()
        return 0.0204 * iron + 0.0187 * copper + 0.0607 * iron * e**2 + 0.0437 * copper * f**2

    def inequalities(self) -> Tensor:
        _, _, _, _, e, f = self.x
        iron, copper = self._parts()
        return torch.stack([0.001 * self.x.prod() - 2.07, 1 - 0.00062 * iron * e**2 - 0.00058 * copper * f**2])

    def _parts(self) -> tuple[Tensor, Tensor]:
        a, b, c, d, _, _ = self.x
        return a * d * (a + b + c), b * c * (a + 1.57 * b + d)


class HS100(HS):
    """Asaadi's polynomials, n = 7."""

    START = (1.0, 2.0, 0.0, 4.0, 0.0, 1.0, 1.0)
    BEST = 680.630057374402
    MINIMISER = (
        2.33049937287957,
        1.951372372896889,
        -0.47754139238887167,
        4.36572623365581,
        -0.6244869705268175,
        1.0381310186079586,
        1.5942267116118685,
    )

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e, f, g = self.x
        squares = (a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2
        return squares + 10 * e**6 + 7 * f**2 + g**4 - 4 * f * g - 10 * f - 8 * g

    def inequalities(self) -> Tensor:
        a, b, c, d, e, f, g = self.x
        return torch.stack(
            [
                127 - 2 * a**2 - 3 * b**4 - c - 4 * d**2 - 5 * e,
                282 - 7 * a - 3 * b - 10 * c**2 - d + e,
                196 - 23 * a - b**2 - 6 * f**2 + 8 * g,
                -4 * a**2 - b**2 + 3 * a * b - 2 * c**2 - 5 * f + 11 * g,
            ]
        )


class HS101(HS):
    """Beck and Ecker's geometric programme, n = 7, exponent -1/4; the loss lies between limits too."""

    START = (6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0)
    LOWER = (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01)
    UPPER = 10.0
    BEST = 1809.764765571414
    MINIMISER = (
        2.8561585557551465,
        0.6108230308034504,
        2.150812562164474,
        4.71287370924123,
        0.9994875408574644,
        1.347507504828331,
        0.03165276650277429,
    )
    _EXPONENT = -0.25

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e, f, g = self.x
        return (
            10 * a * d**2 * g**self._EXPONENT / (b * f**3)
            + 15 * c * d / (a * b**2 * e * sqrt(g))
            + 20 * b * f / (a**2 * d * e**2)
            + 25 * a**2 * b**2 * sqrt(e) * g / (c * f**2)
        )

    def inequalities(self) -> Tensor:
        a, b, c, d, e, f, g = self.x
        third = 1 / 3
        first = 0.5 * sqrt(a) * g / (c * f**2) + 0.7 * a**3 * b * f * sqrt(g) / c**2
        second = 1.3 * b * f / (sqrt(a) * c * e) + 0.8 * c * f**2 / (d * e)
        fourth = 2 * a * e * g**third / (c**1.5 * f) + 0.1 * b * e / (sqrt(c) * f * sqrt(g))
        fifth = 0.2 * b * sqrt(e) * g**third / (a**2 * d) + 0.3 * sqrt(a) * b**2 * c * d**third * g**0.25 / e ** (2 / 3)
        return torch.stack(
            [
                1 - first - 0.2 * c * f ** (2 / 3) * g**0.25 / (b * sqrt(d)),
                1 - second - 3.1 * sqrt(b) * f**third / (a * d**2 * e),
                1 - fourth - b * sqrt(c) * e / a - 0.65 * c * e * g / (b**2 * f),
                1 - fifth - 0.4 * c * e * g**0.75 / (a**3 * b**2) - 0.5 * d * sqrt(g) / c**2,
            ]
        )

    def constraints(self) -> list[Constraint]:
        """The inequalities, and the limits of the loss."""
        return [*super().constraints(), Constraint(self.forward, 100.0, 3000.0, "the loss")]


class HS102(HS101):
    """As hs101 with exponent 1/8."""

    BEST = 911.8805714301083
    MINIMISER = (
        3.89625319107028,
        0.8093587601054143,
        2.664385993775489,
        4.30091287479402,
        0.853554935248584,
        1.0952874445761032,
        0.027310459657719256,
    )
    _EXPONENT = 0.125


class HS103(HS101):
    """As hs101 with exponent 1/2."""

    BEST = 543.6679584662807
    MINIMISER = (
        4.394104510526406,
        0.8544687387974248,
        2.843230313950895,
        3.39997866768656,
        0.7229261330073027,
        0.8704063818044576,
        0.024638826327228504,
    )
    _EXPONENT = 0.5


class HS104(HS):
    """Dembo's optimal reactor, n = 8; the loss lies between limits too."""

    START = (6.0, 3.0, 0.4, 0.2, 6.0, 6.0, 1.0, 0.5)
    LOWER = 0.1
    UPPER = 10.0
    BEST = 3.9511634401033566
    MINIMISER = (
        6.4651140283691,
        2.2327086479852287,
        0.6673974912866293,
        0.595756422900371,
        5.932675677909847,
        5.527234564976939,
        1.0133220089025614,
        0.4006682291257031,
    )

    def forward(self, batch: None = None) -> Tensor:
        a, b, _, _, _, _, g, h = self.x
        return 0.4 * (a / g) ** 0.67 + 0.4 * (b / h) ** 0.67 + 10 - a - b

    def inequalities(self) -> Tensor:
        a, b, c, d, e, f, g, h = self.x
        return torch.stack(
            [
                1 - 0.0588 * e * g - 0.1 * a,
                1 - 0.0588 * f * h - 0.1 * a - 0.1 * b,
                1 - 4 * c / e - 2 / (c**0.71 * e) - 0.0588 * g / c**1.3,
                1 - 4 * d / f - 2 / (d**0.71 * f) - 0.0588 * h / d**1.3,
            ]
        )

    def constraints(self) -> list[Constraint]:
        """The inequalities, and the limits of the loss."""
        return [*super().constraints(), Constraint(self.forward, 1.0, 4.2, "the loss")]


class HS106(HS):
    """Avriel and Williams' heat exchanger, n = 8, badly scaled; the book's 7049.330923 is not the minimum."""

    START = (5000.0, 5000.0, 5000.0, 200.0, 350.0, 150.0, 225.0, 425.0)
    LOWER = (100.0, 1000.0, 1000.0, 10.0, 10.0, 10.0, 10.0, 10.0)
    UPPER = (10000.0, 10000.0, 10000.0, 1000.0, 1000.0, 1000.0, 1000.0, 1000.0)
    BEST = 7049.2480205286665
    MINIMISER = (
        579.306684425355,
        1359.9706680516554,
        5109.970668051656,
        182.0176995811199,
        295.6011732779338,
        217.98230041888007,
        286.41652630318606,
        395.6011732779338,
    )

    def forward(self, batch: None = None) -> Tensor:
        return self.x[:3].sum()

    def inequalities(self) -> Tensor:
        a, b, c, d, e, f, g, h = self.x
        return torch.stack(
            [
                1 - 0.0025 * (d + f),
                1 - 0.0025 * (e + g - d),
                1 - 0.01 * (h - e),
                a * f - 833.33252 * d - 100 * a + 83333.333,
                b * g - 1250 * e - b * d + 1250 * d,
                c * h - 1250000 - c * e + 2500 * e,
            ]
        )


class HS108(HS):
    """The largest hexagon of diameter 1 (Himmelblau 16), n = 9; its minimiser is not unique, and minima are many."""

    START = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    LOWER = (*[-INF] * 8, 0.0)
    BEST = -math.sqrt(3) / 2

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e, f, g, h, i = self.x
        return -0.5 * (a * d - b * c + c * i - e * i + e * h - f * g)

    def inequalities(self) -> Tensor:
        a, b, c, d, e, f, g, h, i = self.x
        return torch.stack(
            [
                1 - c**2 - d**2,
                1 - i**2,
                1 - e**2 - f**2,
                1 - a**2 - (b - i) ** 2,
                1 - (a - e) ** 2 - (b - f) ** 2,
                1 - (a - g) ** 2 - (b - h) ** 2,
                1 - (c - e) ** 2 - (d - f) ** 2,
                1 - (c - g) ** 2 - (d - h) ** 2,
                1 - g**2 - (h - i) ** 2,
                a * d - b * c,
                c * i,
                -e * i,
                e * h - f * g,
            ]
        )


class HS110(HS):
    """Squared logarithms less a root of the product, n = 10, in a box."""

    START = (9.0,) * 10
    LOWER = 2.001
    UPPER = 9.999
    BEST = -45.778469707446284
    MINIMISER = (9.350265833069384,) * 10

    def forward(self, batch: None = None) -> Tensor:
        x = self.x
        return (log(x - 2) ** 2 + log(10 - x) ** 2).sum() - x.prod() ** 0.2


class HS111(HS):
    """Chemical equilibrium in logarithms, n = 10."""

    START = (-2.3,) * 10
    LOWER = -100.0
    UPPER = 100.0
    BEST = -47.761090859365865
    MINIMISER = (
        -3.2023115885512135,
        -1.9123665970809793,
        -0.24442674775038448,
        -6.561177271658378,
        -0.7230979632953046,
        -7.274232280188138,
        -3.5972374223277797,
        -4.020316730690848,
        -3.2883768813602527,
        -2.3343717392206127,
    )

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.constant("c", _EQUILIBRIUM)

    def forward(self, batch: None = None) -> Tensor:
        return (exp(self.x) * (self.c + self.x - torch.logsumexp(self.x, 0))).sum()

    def equalities(self) -> Tensor:
        return _balances(exp(self.x))


class HS112(HS):
    """Chemical equilibrium (Bracken and McCormick), n = 10; the book's -47.707579 is not the minimum."""

    START = (0.1,) * 10
    LOWER = 1e-6
    BEST = -47.761090859365865
    MINIMISER = (
        0.0406680873556901,
        0.14773035434082224,
        0.7831533540092338,
        0.0014142198090301226,
        0.48524664869927275,
        0.0006931720784210643,
        0.027399310714003332,
        0.017947279584925417,
        0.03731436591303037,
        0.09687132386577688,
    )

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.constant("c", _EQUILIBRIUM)

    def forward(self, batch: None = None) -> Tensor:
        return (self.x * (self.c + log(self.x / self.x.sum()))).sum()

    def equalities(self) -> Tensor:
        return _balances(self.x)


class HS113(HS):
    """Wong's problem 2, n = 10, eight inequalities."""

    START = (2.0, 3.0, 5.0, 5.0, 1.0, 2.0, 7.0, 3.0, 6.0, 10.0)
    BEST = 24.306209068179776
    MINIMISER = (
        2.1719963712554553,
        2.363682973697281,
        8.77392573847685,
        5.095984487948453,
        0.9906547649638593,
        1.4305739789363159,
        1.321644208161703,
        9.828725807886322,
        8.280091670098345,
        8.375926663921323,
    )

    def forward(self, batch: None = None) -> Tensor:
        a, b, c, d, e, f, g, h, i, j = self.x
        first = a**2 + b**2 + a * b - 14 * a - 16 * b + (c - 10) ** 2 + 4 * (d - 5) ** 2 + (e - 3) ** 2
        return first + 2 * (f - 1) ** 2 + 5 * g**2 + 7 * (h - 11) ** 2 + 2 * (i - 10) ** 2 + (j - 7) ** 2 + 45

    def inequalities(self) -> Tensor:
        a, b, c, d, e, f, g, h, i, j = self.x
        return torch.stack(
            [
                105 - 4 * a - 5 * b + 3 * g - 9 * h,
                -10 * a + 8 * b + 17 * g - 2 * h,
                8 * a - 2 * b - 5 * i + 2 * j + 12,
                -3 * (a - 2) ** 2 - 4 * (b - 3) ** 2 - 2 * c**2 + 7 * d + 120,
                -5 * a**2 - 8 * b - (c - 6) ** 2 + 2 * d + 40,
                -0.5 * (a - 8) ** 2 - 2 * (b - 4) ** 2 - 3 * e**2 + f + 30,
                -(a**2) - 2 * (b - 2) ** 2 + 2 * a * b - 14 * e + 6 * f,
                3 * a - 6 * b - 12 * (i - 8) ** 2 + 7 * j,
            ]
        )


class HS117(HS086):
    """Colville 2, n = 15: the dual of hs086, so that its minimum is hs086's with the other sign."""

    START = (*[0.001] * 6, 60.0, *[0.001] * 8)
    BEST = 32.348678965722705
    MINIMISER = (
        0.0,
        0.0,
        5.174040727698168,
        0.0,
        3.061108687758452,
        11.839545664800728,
        0.0,
        0.0,
        0.1038961907706154,
        0.0,
        0.3,
        0.3334676065346067,
        0.3999999999999999,
        0.4283101047816986,
        0.2239648735607983,
    )

    def forward(self, batch: None = None) -> Tensor:
        first, last = self.x[:10], self.x[10:]
        return -self.b @ first + last @ self.c @ last + 2 * self.d @ last**3

    def inequalities(self) -> Tensor:
        first, last = self.x[:10], self.x[10:]
        return 2 * self.c @ last + 3 * self.d * last**2 + self.e - first @ self.a


class HS118(HS):
    """A production plan, n = 15: a quadratic programme with linear inequalities."""

    START = (20.0, 55.0, 15.0, *[20.0, 60.0, 20.0] * 4)
    LOWER = (8.0, 43.0, 3.0, *[0.0] * 12)
    UPPER = (21.0, 57.0, 16.0, *[90.0, 120.0, 60.0] * 4)
    BEST = 664.82045
    MINIMISER = (8.0, 49.0, 3.0, 1.0, 56.0, 0.0, 1.0, 63.0, 6.0, 3.0, 70.0, 12.0, 5.0, 77.0, 18.0)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.constant("linear", [2.3, 1.7, 2.2])
        self.constant("square", [1e-4, 1e-4, 1.5e-4])
        self.constant("demand", [60.0, 50.0, 70.0, 85.0, 100.0])

    def forward(self, batch: None = None) -> Tensor:
        plan = self.x.view(5, 3)
        return (self.linear * plan + self.square * plan**2).sum()

    def changes(self) -> Tensor:
        """Of each product from one period to the next, shape (4, 3)."""
        return self.x.view(5, 3).diff(dim=0)

    def inequalities(self) -> Tensor:
        return self.x.view(5, 3).sum(1) - self.demand

    def constraints(self) -> list[Constraint]:
        """Demand, and limits on the changes."""
        return [*super().constraints(), Constraint(self.changes, (-7.0, -7.0, -7.0), (6.0, 7.0, 6.0))]


_COLVILLE = {
    "a": [
        [-16.0, 2.0, 0.0, 1.0, 0.0],
        [0.0, -2.0, 0.0, 0.4, 2.0],
        [-3.5, 0.0, 2.0, 0.0, 0.0],
        [0.0, -2.0, 0.0, -4.0, -1.0],
        [0.0, -9.0, -2.0, 1.0, -2.8],
        [2.0, 0.0, -4.0, 0.0, 0.0],
        [-1.0, -1.0, -1.0, -1.0, -1.0],
        [-1.0, -2.0, -3.0, -2.0, -1.0],
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [1.0, 1.0, 1.0, 1.0, 1.0],
    ],
    "b": [-40.0, -2.0, -0.25, -4.0, -4.0, -1.0, -40.0, -60.0, 5.0, 1.0],
    "c": [
        [30.0, -20.0, -10.0, 32.0, -10.0],
        [-20.0, 39.0, -6.0, -31.0, 32.0],
        [-10.0, -6.0, 10.0, -6.0, -10.0],
        [32.0, -31.0, -6.0, 39.0, -20.0],
        [-10.0, 32.0, -10.0, -20.0, 30.0],
    ],
    "d": [4.0, 8.0, 10.0, 6.0, 2.0],
    "e": [-15.0, -27.0, -36.0, -18.0, -12.0],
}
_EQUILIBRIUM = (-6.089, -17.164, -34.054, -5.914, -24.721, -14.986, -24.100, -10.708, -26.662, -22.179)


def _balances(amounts: Tensor) -> Tensor:
    """The amounts of hydrogen, nitrogen and oxygen less what there is."""
    a, b, c, d, e, f, g, h, i, j = amounts
    return torch.stack([a + 2 * b + 2 * c + f + j - 2, d + 2 * e + f + g - 1, c + g + h + 2 * i + j - 1])
