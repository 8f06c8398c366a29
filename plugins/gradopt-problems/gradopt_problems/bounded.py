"""Smooth problems in boxes, some of whose bounds are active at the minimum.

Most are sums of squares of Moré, Garbow and Hillstrom (see `mgh`), from the same starts, moved into the box. Boxes
marked (Gay) are those of D. M. Gay, A trust-region approach to linearly constrained optimization, Lecture Notes in
Mathematics 1066, Springer 1984, 72-105; the others are ours. The minima are computed anew; they agree with Gay's where
he gives them: his f is twice the loss.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradopt_problems import mgh
from gradopt_problems.problem import Problem

INF = math.inf


class Boxed(Problem):
    """A problem in a box: put before the class of the free problem.

    Attributes:
        SIZE: Arguments of the free problem.
    """

    SOURCE = "More, Garbow, Hillstrom 1981; box"
    SIZE: ClassVar[dict[str, Any]] = {}

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale=scale, **self.SIZE)  # pyright: ignore[reportCallIssue] # it is the free problem's

    def minimum(self) -> float | None:
        return self.BEST

    def minimiser(self) -> list[float] | None:
        return None if self.MINIMISER is None else list(self.MINIMISER)


class Rosenbrock(Boxed, mgh.Rosenbrock):
    """Rosenbrock's valley cut off at 1/2, n = 2."""

    LOWER, UPPER = (-2.0, -2.0), (0.5, 2.0)
    BEST = 0.125
    MINIMISER = (0.5, 0.25)


class FreudensteinRoth(Boxed, mgh.FreudensteinRoth):
    """Freudenstein and Roth's function, n = 2."""

    LOWER, UPPER = (0.0, -5.0), (4.5, 5.0)
    BEST = 0.1814979789103564
    MINIMISER = (4.5, 4.008538677445135)


class PowellBadlyScaled(Boxed, mgh.PowellBadlyScaled):
    """Powell's badly scaled function, n = 2 (Gay: f = 0.15125900e-9)."""

    LOWER, UPPER = (0.0, 1.0), (1.0, 9.0)
    BEST = 7.562968362191923e-11
    MINIMISER = (1.1111111112629459e-05, 9.0)


class BrownBadlyScaled(Boxed, mgh.BrownBadlyScaled):
    """Brown's badly scaled function, n = 2 (Gay: f = 784)."""

    LOWER, UPPER = (0.0, 3e-5), (1e6, 100.0)
    BEST = 391.999999647592
    MINIMISER = (999999.99916, 3e-05)


class Beale(Boxed, mgh.Beale):
    """Beale's function, n = 2: the free minimum lies on a bound (Gay: f = 0)."""

    LOWER, UPPER = (0.6, 0.5), (10.0, 100.0)
    BEST = 0.0
    MINIMISER = (3.0, 0.5)


class HelicalValley(Boxed, mgh.HelicalValley):
    """The helical valley, n = 3 (Gay: f = 0.99042212)."""

    LOWER, UPPER = (-100.0, -1.0, -1.0), (0.8, 1.0, 1.0)
    BEST = 0.4952110604807
    MINIMISER = (0.8, -0.5619366456706896, -0.96493407531518)


class Bard(Boxed, mgh.Bard):
    """Bard's function, n = 3."""

    LOWER, UPPER = 0.0, (1.0, 1.0, 2.0)
    BEST = 0.23550437494383464
    MINIMISER = (0.0, 1.0, 2.0)


class Gaussian(Boxed, mgh.Gaussian):
    """The Gaussian function, n = 3, the free minimum inside (Gay: f = 0.11279300e-7)."""

    LOWER, UPPER = (0.398, 1.0, -0.5), (4.2, 2.0, 0.1)
    BEST = 5.639663848092668e-09
    MINIMISER = (0.3989561378395951, 1.0000190844962107, 0.0)


class Gulf(Boxed, mgh.Gulf):
    """The Gulf research and development function, n = 3."""

    LOWER, UPPER = (0.1, 0.0, 0.0), (10.0, 10.0, 10.0)
    BEST = 2.5608428577915845
    MINIMISER = (10.0, 10.0, 0.6169611484769717)


class Box3D(Boxed, mgh.Box3D):
    """Box's three-dimensional function, n = 3, m = 10 (Gay's box; his f = 0.30998153e-5 is that of m = 3)."""

    LOWER, UPPER = (0.0, 5.0, 0.0), (2.0, 9.5, 20.0)
    BEST = 5.717409013207209e-05
    MINIMISER = (1.037944132770036, 9.5, 0.9722275854201357)


class PowellSingular(Boxed, mgh.PowellSingular):
    """Powell's singular function, n = 4 (Gay: f = 0.18781963e-3)."""

    LOWER, UPPER = (0.1, -20.0, -1.0, -1.0), (100.0, 20.0, 1.0, 50.0)
    BEST = 9.39098150291517e-05
    MINIMISER = (0.1, -0.009982234157320425, 0.04307310782090479, 0.04378374152808778)


class Wood(Boxed, mgh.Wood):
    """Wood's function, n = 4 (Gay: f = 1.5567008)."""

    LOWER, UPPER = -100.0, (0.0, 10.0, 100.0, 100.0)
    BEST = 0.7783504002192825
    MINIMISER = (0.0, 0.0053388568603708235, 1.3997288764704865, 1.9608274605730476)


class KowalikOsborne(Boxed, mgh.KowalikOsborne):
    """Kowalik and Osborne's function, n = 4."""

    LOWER, UPPER = (0.0, 0.2, 0.2, 0.0), (0.42, 0.42, 0.42, 0.42)
    BEST = 0.0001680155937550659
    MINIMISER = (0.19276933309646765, 0.30064877060404904, 0.2, 0.17825783560351535)


class BrownDennis(Boxed, mgh.BrownDennis):
    """Brown and Dennis's function, n = 4 (Gay: f = 0.88860479e5)."""

    LOWER, UPPER = (-10.0, 0.0, -100.0, -20.0), (100.0, 15.0, 0.0, 0.2)
    BEST = 44430.23988375023
    MINIMISER = (-10.0, 12.677818288630913, -0.4855279925816282, 0.2)


class Osborne1(Boxed, mgh.Osborne1):
    """Osborne's first function, n = 5."""

    LOWER, UPPER = (0.3, 0.0, -2.0, 0.0, 0.0), (0.5, 2.0, -0.5, 0.5, 0.02)
    BEST = 0.0005621729013313978
    MINIMISER = (0.3601986033873048, 2.0, -1.4979032153926772, 0.012134801252795233, 0.02)


class BiggsExp6(Boxed, mgh.BiggsExp6):
    """Biggs's EXP6 function, n = 6 (Gay: f = 0.53209865e-3)."""

    LOWER, UPPER = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0), (2.0, 8.0, 1.0, 7.0, 5.0, 5.0)
    BEST = 0.0002660493295391171
    MINIMISER = (0.9056765386943371, 8.0, 0.9043444023648466, 6.534399059952034, 4.486866781719963, 5.0)


class Osborne2(Boxed, mgh.Osborne2):
    """Osborne's second function, n = 11: narrower peaks than the data want."""

    LOWER = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.5, 4.0, 1.0, 3.5, 5.0)
    UPPER = (1.4, 0.8, 1.0, 0.6, 0.7, 3.0, 5.0, 7.0, 2.5, 5.0, 6.0)
    BEST = 0.02157239820112146
    MINIMISER = (
        1.2954433414297963,
        0.4098395985568218,
        0.6295099951256949,
        0.6,
        0.7,
        1.0,
        1.5,
        4.520764619470555,
        2.4318446555058024,
        4.554900506223385,
        5.665790311048361,
    )


class Watson(Boxed, mgh.Watson):
    """Watson's function, n = 9 (Gay: f = 0.37401397e-1)."""

    SIZE: ClassVar = {"n": 9}
    LOWER, UPPER = (-1e-5, 0.0, 0.0, 0.0, 0.0, -3.0, 0.0, -3.0, 0.0), (1e-5, 0.9, 0.1, 1.0, 1.0, 0.0, 4.0, 0.0, 2.0)
    BEST = 0.01870069889659229
    MINIMISER = (
        -1e-05,
        0.9,
        0.1,
        0.6300969132578812,
        0.0,
        -2.209655401655257,
        4.0,
        -2.5939317783169447,
        0.6868306878339104,
    )


class ExtendedRosenbrock(Boxed, mgh.ExtendedRosenbrock):
    """Rosenbrock's valley in five pairs, n = 10, each cut off at 1/2 (Gay)."""

    LOWER, UPPER = (-50.0, 0.0) * 5, (0.5, 100.0) * 5
    BEST = 0.625
    MINIMISER = (0.5, 0.25) * 5


class PenaltyI(Boxed, mgh.PenaltyI):
    """Penalty function I, n = 10 (Gay: f = 7.5625699)."""

    LOWER = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    UPPER = 100.0
    BEST = 3.781284999936364
    MINIMISER = (
        1.8181785123874053e-06,
        1.0,
        1.8181785123874053e-06,
        1.8181785123874053e-06,
        1.8181785123874053e-06,
        1.0,
        1.8181785123874051e-06,
        1.8181785123874053e-06,
        1.8181785123874053e-06,
        1.0,
    )


class PenaltyII(Boxed, mgh.PenaltyII):
    """Penalty function II, n = 10."""

    LOWER = (-10.0, 0.1, 0.0, 0.05, 0.0, -10.0, 0.0, 0.2, 0.0, 0.0)
    UPPER = (50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 0.5, 50.0)
    BEST = 0.0001471722270625986
    MINIMISER = (
        0.19998132964438803,
        0.1,
        0.017125696750284084,
        0.05,
        0.04395748362538034,
        0.06741363837683693,
        0.10442234981516585,
        0.2,
        0.3054601980469749,
        0.3250977952720678,
    )


class VariablyDimensioned(Boxed, mgh.VariablyDimensioned):
    """The variably dimensioned function, n = 10, three unknowns held back."""

    LOWER = -5.0
    UPPER = (0.9, 5.0, 0.8, 5.0, 5.0, 0.7, 5.0, 5.0, 5.0, 5.0)
    BEST = 0.07919117793182552
    MINIMISER = (
        0.9,
        1.0147058870283965,
        0.8,
        1.0294117740567932,
        1.0367647175709915,
        0.7,
        1.051470604599388,
        1.0588235481135864,
        1.0661764916277845,
        1.0735294351419828,
    )


class BrownAlmostLinear(Boxed, mgh.BrownAlmostLinear):
    """Brown's almost-linear function, n = 10, below the free minimum."""

    LOWER, UPPER = 0.0, (2.0, 2.0, 2.0, 2.0, 2.0, 0.9, 0.9, 2.0, 2.0, 2.0)
    BEST = 0.0048230004475397275
    MINIMISER = (
        0.9657070702601135,
        0.9657070702601134,
        0.9657070702601135,
        0.9657070702601125,
        0.9657070702601128,
        0.9,
        0.9,
        0.9657070702601133,
        0.9657070702601134,
        1.4926783193715711,
    )


class DiscreteBoundaryValue(Boxed, mgh.DiscreteBoundaryValue):
    """A discrete boundary value problem above an obstacle, n = 10."""

    LOWER, UPPER = -0.06, 1.0
    BEST = 0.00043493312359215824
    MINIMISER = (
        -0.0166239505696894,
        -0.029866040091863163,
        -0.0402991024405082,
        -0.04832861900905196,
        -0.054211113578374506,
        -0.05808260938013587,
        -0.06,
        -0.06,
        -0.055977806866490544,
        -0.03910941553138358,
    )


class BroydenTridiagonal(Boxed, mgh.BroydenTridiagonal):
    """Broyden's tridiagonal function, n = 10, in a tube."""

    LOWER, UPPER = -1.0, -0.45
    BEST = 0.010192006550321235
    MINIMISER = (
        -0.5707308279200006,
        -0.6818299006252331,
        -0.7022713489692262,
        -0.7056765783873773,
        -0.7053556786900688,
        -0.7027057834371306,
        -0.6950885474007785,
        -0.6739505289624488,
        -0.6150061918073713,
        -0.45,
    )


class BroydenBanded(Boxed, mgh.BroydenBanded):
    """Broyden's banded function, n = 10, half of it held above -0.4."""

    LOWER, UPPER = (-0.4, -1.0) * 5, 0.0
    BEST = 2.528913721880598
    MINIMISER = (
        -0.4,
        -0.4669817813815592,
        -0.4,
        -0.5677572146856389,
        -0.4,
        -0.6383017526030147,
        -0.4,
        -0.6314490985897745,
        -0.4,
        -0.5913475663797364,
    )


class LinearFullRank(Boxed, mgh.LinearFullRank):
    """Linear least squares, n = 10, with bounds."""

    LOWER, UPPER = (-0.5, -2.0, -1.5, 0.0, -2.0) * 2, 2.0
    BEST = 6.250000000000001
    MINIMISER = (-0.5, -1.0, -1.0, 0.0, -1.0, -0.5, -1.0, -1.0, 0.0, -1.0)


class Chebyquad(Boxed, mgh.Chebyquad):
    """Chebyquad, n = 8, its points kept off the ends."""

    LOWER, UPPER = 0.06, 0.94
    BEST = 0.0027496002799228736
    MINIMISER = (0.2049091671498671, 0.5, 0.27616619977681134, 0.06, 0.7950908328501328, 0.5, 0.7238338002231886, 0.94)


class Grid(Problem):
    """A function on the interior of the unit square, zero on its edge, and its quadratic energy; n = size^2 unknowns.

    Attributes:
        SIZE: Points of the grid along a side.
    """

    SOURCE = "More, Toraldo 1991"
    SIZE = 8

    def __init__(self) -> None:
        super().__init__([0.0] * self.SIZE**2)

    def energy(self, load: float) -> Tensor:
        """Of a membrane under a load: the integral of |grad u|^2 / 2 - load u, by finite differences."""
        u = torch.nn.functional.pad(self.x.view(self.SIZE, self.SIZE), (1, 1, 1, 1))
        slopes = u.diff(dim=0).square().sum() + u.diff(dim=1).square().sum()
        return slopes / 2 - load * u.sum() / (self.SIZE + 1) ** 2


class Torsion(Grid):
    """Elastic-plastic torsion of a bar, n = 64: |u| is at most the distance to the edge; load 5.

    J. J. Moré, G. Toraldo, SIAM Journal on Optimization 1 (1991), 93-113.
    """

    BEST = -0.4057046613059416

    def __init__(self) -> None:
        i = torch.arange(1.0, self.SIZE + 1) / (self.SIZE + 1)
        edge = torch.minimum(i, 1 - i)
        self.UPPER = torch.minimum(edge[:, None], edge).flatten().tolist()
        self.LOWER = [-value for value in self.UPPER]
        super().__init__()

    def forward(self, batch: None = None) -> Tensor:
        return self.energy(5.0)


class Obstacle(Grid):
    """A membrane over an obstacle, n = 64: u >= (sin 9.2 s sin 9.3 t)^3 / 2, load 1 (Moré and Toraldo's problem B)."""

    BEST = 0.557936360078456

    def __init__(self) -> None:
        s = torch.arange(1.0, self.SIZE + 1) / (self.SIZE + 1)
        height = torch.sin(9.2 * s)[:, None] * torch.sin(9.3 * s)
        self.LOWER = (height**3 / 2).flatten().tolist()
        self.UPPER = [2000.0] * self.SIZE**2
        super().__init__()

    def forward(self, batch: None = None) -> Tensor:
        return self.energy(1.0)


class NonNegative(Problem):
    """Linear least squares with unknowns that are not negative, n = 20, m = 40; seeded, ours."""

    SOURCE = "generated"
    LOWER = 0.0
    BEST = 34.34764592123301
    MINIMISER = (
        0.235931111629042,
        0.0,
        0.0,
        0.0,
        0.053462788190539526,
        0.0,
        0.0,
        0.036944335011861756,
        0.021419171898470184,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.1242739737110671,
        0.0,
        0.2104630495526135,
    )

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__([1.0] * 20, scale)
        i, j = torch.arange(1.0, 41.0), torch.arange(1.0, 21.0)
        self.constant("a", torch.sin(0.37 * i[:, None] * j + j**2 / 7))
        self.constant("y", torch.cos(0.9 * i) + i / 20)

    def residuals(self) -> Tensor:
        return self.a @ self.x - self.y
