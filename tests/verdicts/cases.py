"""The table of cases: a function, a start, and everything that is true of it.

What is true is known from analysis, or worked out here in float64 by Newton's method and by a grid: without gradopt.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests import functions as f

F32, F64 = torch.float32, torch.float64
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One function from one start. Every truth that is not stated is a lie when a verdict claims it.

    Attributes:
        function: Of a vector in any dtype; with `squares`, it returns residuals, and the loss is half their squares.
        minima: The losses at all local minima inside the bounds; empty: there is none, and no success is true.
        minimisers: Their places, where they are isolated; NaN for an unknown that is free there.
        saddles, maxima: The losses at stationary points that are no minima.
        unbounded: The loss falls without limit.
        plateau: There are places where the loss is the same all around, to rounding, though it is lower elsewhere.
        edge: There are places no descent leaves though the gradient is not small: a kink, a jump, a wall of NaN, a
            gradient that is wrong. A solver that is stuck there, or where a step falls into the hole, says the truth.
        holes: Somewhere the loss or the gradient is not finite.
        broken: The start itself is such a place.
        slack: By how much the loss may be off: noise.
        length: How far it is to somewhere interesting, in units of the unknowns.
        rate: A learning rate for everyone, in place of sensible ones.
        parts: The sizes of the parameters the unknowns are spread over.
        reach: How far from a minimiser a success may be, relative to the way: for minima so flat that nothing tells.
    """

    name: str
    function: Function
    start: Sequence[float]
    bounds: tuple[Sequence[float], Sequence[float]] | None = None
    squares: bool = False
    minima: Sequence[float] = ()
    minimisers: Sequence[Sequence[float]] = ()
    saddles: Sequence[float] = ()
    maxima: Sequence[float] = ()
    unbounded: bool = False
    plateau: bool = False
    edge: bool = False
    holes: bool = False
    broken: bool = False
    slack: float = 0.0
    length: float = 1.0
    rate: float | None = None
    parts: Sequence[int] = ()
    dtypes: Sequence[torch.dtype] = (F32, F64)
    reach: float | None = None

    @property
    def walled(self) -> bool:
        """Whether a descent may end before a wall of losses that are not finite."""
        return self.edge and self.holes

    def loss(self, x: Tensor) -> Tensor:
        """The loss, of shape ()."""
        value = self.function(x)
        return 0.5 * value.square().sum() if self.squares else value

    def exact(self, x: Tensor) -> float:
        """The loss in float64, wherever the point comes from."""
        return self.loss(x.detach().to(F64)).item()


def slope(function: Function, x: Tensor) -> Tensor:
    """The gradient at a point."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def minimiser(function: Function, guess: Sequence[float]) -> Tensor:
    """The local minimiser next to a guess, by Newton's method in float64; it must be one."""
    x = torch.tensor(guess, dtype=F64)
    for _ in range(50):
        x = x - torch.linalg.solve(torch.autograd.functional.hessian(function, x), slope(function, x))
    assert slope(function, x).abs().max() < 1e-8
    assert torch.linalg.eigvalsh(torch.autograd.functional.hessian(function, x)).min() > 0
    return x


def stationary(function: Function, low: float, high: float) -> tuple[list[float], list[float], list[float]]:
    """Losses at the minima, places of the minima, and losses at the maxima of a sum over unknowns, each on its own, by
    a grid of 100 001 points and bisection of its derivative.
    """
    grid = torch.linspace(low, high, 100_001, dtype=F64)
    signs = slope(function, grid).sign()
    turns = (signs[:-1] * signs[1:] < 0).nonzero()[:, 0]
    left, right, rising = grid[turns], grid[turns + 1], signs[turns + 1] > 0
    for _ in range(60):
        middle = (left + right) / 2
        same = slope(function, middle).sign() == slope(function, left).sign()
        left, right = torch.where(same, middle, left), torch.where(same, right, middle)
    losses = torch.stack([function(x) for x in left[:, None]])
    return losses[rising].tolist(), left[rising].tolist(), losses[~rising].tolist()


class Backwards(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by a factor: -1 is the wrong sign."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, upstream):
        return ctx.factor * upstream, None


def at(x: Tensor, values: Sequence[float]) -> Tensor:
    """Constants in the dtype of the unknowns."""
    return torch.tensor(values, dtype=x.dtype)


def noise(x: Tensor) -> Tensor:
    """A number in [0, 1) that the point decides and no gradient sees."""
    return torch.frac((x.detach().double() * 12.9898).sin() * 43758.5453).abs().sum().to(x.dtype)


def rotation(n: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=F64))[0]


def bowl(condition: float, n: int, turn: Tensor | None = None) -> Function:
    """A quadratic with eigenvalues from 1 down to 1/condition, minimum 0 where every (turned) unknown is 1."""

    def function(x):
        y = x - 1 if turn is None else turn.to(x.dtype) @ (x - 1)
        return 0.5 * (torch.logspace(0, -math.log10(condition), n, dtype=x.dtype) * y**2).sum()

    return function


def ridge(steep: float, flat: float) -> Function:
    """A quadratic so steep along x + y that float32 rounds away what it does along x - y."""
    return lambda x: steep * (x[0] + x[1]) ** 2 + flat * (x[0] - x[1] - 3) ** 2


def skew_ridge(x):
    return 1e4 * (3 * x[0] + x[1] - 1) ** 2 + 1e-6 * (x[0] - 2 * x[1] - 3) ** 2


def shifted(x):
    return ((x - 3) ** 2).sum()


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def beale(x):
    return sum((c - x[0] * (1 - x[1] ** k)) ** 2 for k, c in enumerate((1.5, 2.25, 2.625), 1))


def freudenstein_roth(x):
    first = -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1]
    return first**2 + (-29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]) ** 2


def powell_singular(x):
    return (
        (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2 + (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4
    )  # fmt: skip


def wood(x):
    return (
        100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
        + 10 * (x[1] + x[3] - 2) ** 2 + 0.1 * (x[1] - x[3]) ** 2
    )  # fmt: skip


def camel(x):
    return (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2 + x[0] * x[1] + (4 * x[1] ** 2 - 4) * x[1] ** 2


def logistic(x, flipped=False):
    """The logarithm of a likelihood of classes; unless one label is flipped, a line parts them."""
    t = at(x, [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
    labels = at(x, [-1.0, -1.0, 1.0 if flipped else -1.0, 1.0, -1.0 if flipped else 1.0, 1.0])
    return torch.nn.functional.softplus(-labels * (x[0] * t + x[1])).sum()


def poisson(x):
    """The logarithm of a Poisson likelihood, with a log link."""
    t, counts = at(x, [0.0, 0.5, 1.0, 1.5, 2.0]), at(x, [1.0, 2.0, 2.0, 5.0, 9.0])
    rate = x[0] + x[1] * t
    return (rate.exp() - counts * rate).sum()


def normal(x):
    """The logarithm of a normal likelihood by mean and logarithm of the deviation."""
    data = at(x, [1.0, 2.0, 2.5, 4.0])
    return len(data) * x[1] + (0.5 * ((data - x[0]) / x[1].exp()) ** 2).sum()


def one_datum(x):
    """A normal likelihood of one datum: the deviation shrinks for ever."""
    return x[1] + 0.5 * ((1 - x[0]) / x[1].exp()) ** 2


def decay(x, noisy=True):
    t = torch.linspace(0, 4, 20, dtype=x.dtype)
    return x[0] * torch.exp(-x[1] * t) - (2 * torch.exp(-0.7 * t) + (0.1 * torch.sin(17 * t) if noisy else 0.0))


def valley(x):
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def margins(x):
    """Of three data that a line parts."""
    return torch.stack([x[0] + x[1], 2 * x[0] - x[1], x[0] + 0.5 * x[1]])


def relu_net(x, bias=False):
    """A net of one hidden unit; a negative weight kills it on positive data."""
    t, y = at(x, [0.5, 1.0, 1.5, 2.0]), at(x, [1.0, 2.0, 3.0, 4.0])
    return ((x[1] * torch.relu(x[0] * t) + (x[2] if bias else 0.0) - y) ** 2).mean()


def zero_net(w):
    """Of four units of tanh, fitted to a sine."""
    t = torch.linspace(-2, 2, 25, dtype=w.dtype)
    return ((torch.tanh(t[:, None] * w[:4] + w[4:8]) @ w[8:12] + w[12] - torch.sin(1.7 * t)) ** 2).mean()


def exponentials(p):
    """Three of them, fitted to the sum of two."""
    t = torch.linspace(0, 3, 20, dtype=p.dtype)
    return sum(p[2 * i] * torch.exp(-p[2 * i + 1] * t) for i in range(3)) - 2 * torch.exp(-t) - torch.exp(-4 * t)


def factors(u):
    """Of a matrix of rank 2 without negative entries, by squares."""
    matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0], [2.0, 4.0, 0.0], [1.0, 3.0, 1.0]], dtype=u.dtype)
    return ((u[:8].reshape(4, 2) ** 2 @ u[8:].reshape(2, 3) ** 2 - matrix) ** 2).sum()


def divergence(z):
    """Kullback and Leibler's, of a softmax."""
    p = at(z, [0.7, 0.2, 0.1])
    return (p * (p.log() - z.log_softmax(0))).sum()


def high_saddle(x):
    return (x[1:] ** 2).sum() - 0.01 * x[0] ** 2 + x[0] ** 4


def ripples(x):
    return (0.1 * x**2 + torch.sin(5 * x)).sum()


def waves(x):
    return (0.3 * x + torch.sin(x)).sum()


def egg_box(x):
    return torch.sin(x[0]) * torch.cos(x[1]) + 0.1 * (x @ x)


def fine_ripples(x):
    return ((x - 3) ** 2 + 1e-2 * torch.sin(300 * x)).sum()


def half_squares(residuals: Function) -> Function:
    return lambda x: 0.5 * residuals(x).square().sum()


def found(function: Function, guess: Sequence[float]) -> dict[str, list]:
    """`minima` and `minimisers` of a case with one minimum, next to a guess."""
    x = minimiser(function, guess)
    return {"minima": [function(x).item()], "minimisers": [x.tolist()]}


ROOT_HALF = math.sqrt(0.5)
HIMMELBLAU = [minimiser(himmelblau, x).tolist() for x in ([3, 2], [-2.8, 3.1], [-3.8, -3.3], [3.6, -1.8])]
EGGS = [minimiser(egg_box, x) for x in ([-1.3, 0.0], [1.27, 2.57], [1.27, -2.57])]
CAMEL = [minimiser(camel, x) for x in ([0.09, -0.71], [1.7, -0.8], [1.6, 0.57])]
FREUDENSTEIN_ROTH = [[5.0, 4.0], minimiser(freudenstein_roth, [11.4, -0.9]).tolist()]
RIPPLES, RIPPLE_PLACES, RIPPLE_TOPS = stationary(ripples, -60, 60)
WAVES, WAVE_PLACES, WAVE_TOPS = stationary(waves, -2000, 100)
FINE_RIPPLES, FINE_PLACES, FINE_TOPS = stationary(fine_ripples, -2, 8)
ROSENBROCK_10 = [[1.0] * 10, minimiser(f.rosenbrock, [-0.9932861, 0.9966511, 0.9983303, 0.9991674, 0.9995849, 0.9997916, 0.9998931, 0.9999403, 0.9999406, 0.9998812]).tolist()]  # fmt: skip

PEERS = [
    *(Case(name=f"cubic from {x:g}", function=f.cubic, start=[x], unbounded=True) for x in (0.0, 1.0, 5.0, -3.0)),
    Case(name="maximum at the start", function=f.hill, start=[0.0], minima=[-0.25], minimisers=[[ROOT_HALF], [-ROOT_HALF]], maxima=[0.0]),
    Case(name="saddle x^2 - y^2 + y^4 from (1, 0)", function=f.saddle, start=[1.0, 0.0], minima=[-0.25], minimisers=[[0.0, ROOT_HALF], [0.0, -ROOT_HALF]], saddles=[0.0]),
    Case(name="1e-9 (x-3)^2", function=lambda x: 1e-9 * shifted(x), start=[0.0], minima=[0.0], minimisers=[[3.0]]),
    Case(name="x - log x from 10", function=lambda x: (x - torch.log(x)).sum(), start=[10.0], minima=[1.0], minimisers=[[1.0]], holes=True),
    Case(name="1e8 + (x-3)^2", function=f.far_floor, start=[1.0], minima=[1e8], minimisers=[[3.0]]),
    Case(name="(x-3)^4 by tiny steps", function=lambda x: ((x - 3) ** 4).sum(), start=[0.0], minima=[0.0], minimisers=[[3.0]], rate=1e-9),
    Case(name="wrong sign of the gradient", function=lambda x: shifted(Backwards.apply(x, -1.0)), start=[0.0], minima=[0.0], minimisers=[[3.0]], edge=True),
]  # fmt: skip

GRADIENTS = [
    Case(name="gradient too large by 10", function=lambda x: shifted(Backwards.apply(x, 10.0)), start=[0.0, 1.0], minima=[0.0], minimisers=[[3.0, 3.0]], edge=True),
    Case(name="gradient with a missing term", function=lambda x: shifted(x) + (x[0].detach() * x[1]).sum(), start=[0.0, 1.0], minima=[6.0], minimisers=[[2.0, 2.0]], edge=True),
    Case(name="gradient of one unknown cut off", function=lambda x: shifted(x[:1]) + shifted(x[1:].detach() + 0 * x[1:]), start=[0.0, 1.0], minima=[0.0], minimisers=[[3.0, 3.0]], edge=True),
    Case(name="one sign of two wrong", function=lambda x: shifted(x[:1]) + shifted(Backwards.apply(x[1:], -1.0)), start=[0.0, 1.0], minima=[0.0], minimisers=[[3.0, 3.0]], edge=True),
]  # fmt: skip

QUADRATICS = [
    Case(name="condition 1e4", function=bowl(1e4, 4), start=[0.0] * 4, minima=[0.0], minimisers=[[1.0] * 4]),
    Case(name="condition 1e10", function=bowl(1e10, 5), start=[0.0] * 5, minima=[0.0], minimisers=[[1.0] * 5], dtypes=[F64]),
    Case(name="condition 1e3 turned", function=bowl(1e3, 6, rotation(6)), start=[0.0] * 6, minima=[0.0], minimisers=[[1.0] * 6]),
    Case(name="condition 1e8 turned", function=bowl(1e8, 5, rotation(5)), start=[0.0] * 5, minima=[0.0], minimisers=[[1.0] * 5], dtypes=[F64]),
    Case(name="condition 1e3, n = 60", function=bowl(1e3, 60, rotation(60)), start=[0.0] * 60, minima=[0.0], minimisers=[[1.0] * 60]),
    Case(name="condition 1e6, n = 80", function=bowl(1e6, 80, rotation(80)), start=[0.0] * 80, minima=[0.0], minimisers=[[1.0] * 80], dtypes=[F64]),
    Case(name="ridge", function=ridge(1e4, 1e-4), start=[1.0, 1.0], minima=[0.0], minimisers=[[1.5, -1.5]]),
    # From the floor itself a success may be eps^0.25 of the way off: (3 * 0.019)^2 of what the loss falls.
    Case(name="ridge from its floor", function=ridge(1e4, 1e-6), start=[1.0, -1.0], minima=[0.0], minimisers=[[1.5, -1.5]], slack=3.3e-9),
    Case(name="ridge askew", function=skew_ridge, start=[1.0, -1.0], minima=[0.0], minimisers=[[5 / 7, -8 / 7]]),
    Case(name="ridge + 1", function=lambda x: 1 + ridge(1e4, 1e-4)(x), start=[1.0, -1.0], minima=[1.0], minimisers=[[1.5, -1.5]]),
    Case(name="ridge without slope", function=ridge(1e6, 0.0), start=[-2.0, 5.0], minima=[0.0]),
    Case(name="loss x 1e9", function=lambda x: 1e9 * shifted(x), start=[0.0], minima=[0.0], minimisers=[[3.0]]),
    Case(name="loss x 1e20", function=lambda x: 1e20 * shifted(x), start=[0.0], minima=[0.0], minimisers=[[3.0]]),
    Case(name="loss x 1e-20", function=lambda x: 1e-20 * shifted(x), start=[0.0], minima=[0.0], minimisers=[[3.0]]),
    Case(name="loss - 1e8", function=lambda x: shifted(x) - 1e8, start=[0.0, 1.0], minima=[-1e8], minimisers=[[3.0, 3.0]]),
    Case(name="condition 1e3 + 1e8", function=lambda x: 1e8 + 1e3 * bowl(1e3, 3)(x), start=[0.0] * 3, minima=[1e8], minimisers=[[1.0] * 3]),
    Case(name="unknowns x 1e6", function=lambda x: shifted(1e-6 * x), start=[0.0, 1e6], minima=[0.0], minimisers=[[3e6, 3e6]], length=1e6),
    Case(name="unknowns x 1e-6", function=lambda x: shifted(1e6 * x), start=[0.0, 1e-6], minima=[0.0], minimisers=[[3e-6, 3e-6]], length=1e-6),
    Case(name="units mixed", function=lambda x: f.rosenbrock(at(x, [1e4, 1e-4]) * x), start=[-1.2e-4, 1e4], minima=[0.0], minimisers=[[1e-4, 1e4]]),
    Case(name="start 1e8", function=shifted, start=[1e8, 3.0], minima=[0.0], minimisers=[[3.0, 3.0]], length=1e8),
    Case(name="start 1e-8", function=lambda x: (x**2).sum(), start=[1e-8, -1e-8], minima=[0.0], minimisers=[[0.0, 0.0]], length=1e-8),
    Case(name="start at the minimum", function=shifted, start=[3.0, 3.0], minima=[0.0], minimisers=[[3.0, 3.0]]),
    Case(name="start near the minimum", function=f.rosenbrock, start=[0.999, 0.998], minima=[0.0], minimisers=[[1.0, 1.0]], slack=1e-9),
    Case(name="several parameters", function=lambda x: f.rosenbrock(x[:3]) + shifted(x[3:]), start=[-1.2, 1.0, 1.0, 0.0], parts=[2, 1, 1], minima=[0.0], minimisers=[[1.0, 1.0, 1.0, 3.0]]),
    Case(name="an unknown without influence", function=lambda x: shifted(x[:2]) + 0 * x[2], start=[0.0, 1.0, 5.0], minima=[0.0], minimisers=[[3.0, 3.0, math.nan]]),
    Case(name="an unknown that is not used", function=lambda x: shifted(x[:2]), start=[0.0, 1.0, 5.0], parts=[2, 1], minima=[0.0], minimisers=[[3.0, 3.0, math.nan]]),
    Case(name="an unknown without influence, from the minimum", function=lambda x: x[0] ** 2, start=[0.0, 0.0], minima=[0.0], minimisers=[[0.0, math.nan]]),
    Case(name="an unknown without influence in a box", function=lambda x: -x[0], start=[0.0, 0.5], bounds=([-1.0] * 2, [1.0] * 2), minima=[-1.0], minimisers=[[1.0, math.nan]]),
    Case(name="an unknown without influence at a factor's zero", function=lambda x: x[0] ** 2 * (x[1] ** 2 + 1), start=[0.0, 1.0], minima=[0.0], minimisers=[[0.0, math.nan]]),
    Case(name="Rayleigh's quotient", function=lambda x: (x @ (at(x, [1.0, 2.0, 3.0]) * x)) / (x @ x), start=[1.0, 1.0, 1.0], minima=[1.0], saddles=[2.0], maxima=[3.0], holes=True),
    Case(name="Rayleigh's quotient of six", function=lambda x: (x @ (at(x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) * x)) / (x @ x), start=[1.0] * 6, minima=[1.0], saddles=[2.0, 3.0, 4.0, 5.0], maxima=[6.0], holes=True),
    Case(name="constant", function=lambda x: 0 * x.sum() + 2.0, start=[1.0, 2.0], minima=[2.0], plateau=True),
]  # fmt: skip

VALLEYS = [
    Case(name="long flat valley", function=f.flat_valley, start=[1000.0], minima=[1e-3], minimisers=[[0.0]], length=100.0),
    Case(name="Rosenbrock 2", function=f.rosenbrock, start=[-1.2, 1.0], minima=[0.0], minimisers=[[1.0, 1.0]]),
    Case(name="Rosenbrock 10", function=f.rosenbrock, start=[-1.2, 1.0] * 5, minima=[0.0, f.rosenbrock(torch.tensor(ROSENBROCK_10[1], dtype=F64)).item()], minimisers=ROSENBROCK_10),
    Case(name="Rosenbrock x 1e9", function=lambda x: 1e9 * f.rosenbrock(x), start=[-1.2, 1.0], minima=[0.0], minimisers=[[1.0, 1.0]]),
    Case(name="Rosenbrock + 1e6", function=lambda x: 1e6 + f.rosenbrock(x), start=[-1.2, 1.0], minima=[1e6], minimisers=[[1.0, 1.0]]),
    Case(name="Himmelblau", function=himmelblau, start=[0.0, 0.0], minima=[0.0], minimisers=HIMMELBLAU),
    Case(name="Beale", function=beale, start=[1.0, 1.0], minima=[0.0], minimisers=[[3.0, 0.5]], saddles=[14.203125]),
    Case(name="Freudenstein and Roth", function=freudenstein_roth, start=[0.5, -2.0], minima=[0.0, freudenstein_roth(torch.tensor(FREUDENSTEIN_ROTH[1], dtype=F64)).item()], minimisers=FREUDENSTEIN_ROTH),
    Case(name="Wood", function=wood, start=[-3.0, -1.0, -3.0, -1.0], minima=[0.0], minimisers=[[1.0] * 4]),
    Case(name="six-hump camel", function=camel, start=[1.0, 1.0], minima=[camel(x).item() for x in CAMEL], minimisers=[(s * x).tolist() for x in CAMEL for s in (1, -1)]),
    Case(name="two pits", function=lambda x: ((x**2 - 1) ** 2 + 0.3 * x).sum(), start=[2.0], minima=stationary(lambda x: ((x**2 - 1) ** 2 + 0.3 * x).sum(), -3, 3)[0], maxima=stationary(lambda x: ((x**2 - 1) ** 2 + 0.3 * x).sum(), -3, 3)[2]),
]  # fmt: skip

FLAT = [
    Case(name="x^4", function=lambda x: (x**4).sum(), start=[1.0, -2.0], minima=[0.0], minimisers=[[0.0, 0.0]]),
    Case(name="x^4 from 1000", function=lambda x: (x**4).sum(), start=[1000.0], minima=[0.0], minimisers=[[0.0]], length=100.0),
    Case(name="x^6", function=lambda x: (x**6).sum(), start=[1.0, -2.0], minima=[0.0], minimisers=[[0.0, 0.0]]),
    Case(name="x^8", function=lambda x: (x**8).sum(), start=[1.0], minima=[0.0], minimisers=[[0.0]]),
    Case(name="x^8 + 1", function=lambda x: 1 + (x**8).sum(), start=[1.0], minima=[1.0]),
    Case(name="(x-1)^4", function=lambda x: ((x - 1) ** 4).sum(), start=[0.0, 3.0, -1.0], minima=[0.0], minimisers=[[1.0] * 3]),
    Case(name="x^2 + y^4", function=lambda x: x[0] ** 2 + x[1] ** 4, start=[1.0, 1.0], minima=[0.0], minimisers=[[0.0, 0.0]]),
    Case(name="Powell's singular function", function=powell_singular, start=[3.0, -1.0, 0.0, 1.0], minima=[0.0]),
    Case(name="a line of minima", function=lambda x: (x[0] + x[1] - 1) ** 2, start=[3.0, 0.5], minima=[0.0]),
    Case(name="a hyperbola of minima", function=lambda x: (x[0] * x[1] - 1) ** 2, start=[3.0, 0.5], minima=[0.0], saddles=[1.0]),
    Case(name="a cross of minima", function=lambda x: x[0] ** 2 * x[1] ** 2, start=[1.0, 0.5], minima=[0.0]),
    Case(name="a flat half of minima", function=lambda x: (torch.relu(x) ** 2).sum(), start=[1.0, 2.0], minima=[0.0]),
    Case(name="squared hinges", function=lambda x: torch.relu(1 - margins(x)).square().sum(), start=[0.0, 0.0], minima=[0.0]),
    Case(name="hinges", function=lambda x: torch.relu(1 - margins(x)).sum(), start=[0.0, 0.0], minima=[0.0], edge=True),
    Case(name="cubed hinges from far", function=lambda x: torch.relu(1 - x).pow(3).sum(), start=[-20.0, 0.0], minima=[0.0], length=10.0),
    Case(name="a tube of half-width 0.1", function=lambda x: torch.relu((x - at(x, [1.0, -2.0])).abs() - 0.1).square().sum(), start=[5.0, 5.0], minima=[0.0], length=3.0),
    Case(name="a circle of minima", function=lambda x: (x @ x - 1) ** 2, start=[0.1, 0.2], minima=[0.0], maxima=[1.0]),
    Case(name="wide tails", function=lambda x: torch.log1p(x**2).sum(), start=[100.0], minima=[0.0], minimisers=[[0.0]], length=100.0),
    Case(name="log cosh", function=lambda x: torch.log(torch.cosh(x)).sum(), start=[5.0, -2.0], minima=[0.0], minimisers=[[0.0, 0.0]]),
]  # fmt: skip

PLATEAUS = [
    Case(name="sigmoid from 0", function=lambda x: torch.sigmoid(x).sum(), start=[0.0], plateau=True),
    Case(name="sigmoid from 40", function=lambda x: torch.sigmoid(x).sum(), start=[40.0], plateau=True),
    Case(name="saturated tanh", function=lambda x: ((torch.tanh(x) - 0.5) ** 2).sum(), start=[30.0], minima=[0.0], minimisers=[[math.atanh(0.5)]], plateau=True),
    Case(name="bell from 1", function=lambda x: -torch.exp(-(x**2)).sum(), start=[1.0], minima=[-1.0], minimisers=[[0.0]], plateau=True),
    Case(name="bell from 10", function=lambda x: -torch.exp(-(x**2)).sum(), start=[10.0], minima=[-1.0], minimisers=[[0.0]], plateau=True),
    Case(name="bell from 10 in one of two", function=lambda x: (x[0] - 1) ** 2 - torch.exp(-(x[1] ** 2)), start=[0.0, 10.0], minima=[-1.0], minimisers=[[1.0, 0.0]], plateau=True),
    Case(name="1 / (1 + x^2) from 1", function=lambda x: (1 / (1 + x**2)).sum(), start=[1.0], maxima=[1.0], plateau=True),
    Case(name="arctan", function=lambda x: torch.arctan(x).sum(), start=[0.0], plateau=True),
    Case(name="saturated tanh beside one that moves", function=lambda x: torch.tanh(x[0]) + (x[1] - 1) ** 2, start=[40.0, 2.0], plateau=True),
    Case(name="bell from 30 in one of two", function=lambda x: (x[1] - 1) ** 2 - torch.exp(-(x[0] ** 2)), start=[30.0, 2.0], minima=[-1.0], minimisers=[[0.0, 1.0]], plateau=True),
    Case(name="saturated residual beside one that moves", function=lambda x: torch.stack([torch.sigmoid(x[0]) - 0.5, x[1] - 1]), squares=True, start=[40.0, 2.0], minima=[0.0], minimisers=[[0.0, 1.0]], plateau=True),
    Case(name="dead unit beside one that moves", function=lambda x: (torch.relu(x[0]) - 1) ** 2 + (x[1] - 1) ** 2, start=[-1.0, 2.0], minima=[0.0], minimisers=[[1.0, 1.0]], plateau=True),
    Case(name="saturated sigmoid in a box", function=lambda x: torch.sigmoid(x).sum(), start=[30.0, 2.0], bounds=([-50.0] * 2, [50.0] * 2), minima=[2 / (1 + math.exp(50.0))], minimisers=[[-50.0, -50.0]], plateau=True),
    Case(name="ReLU net, dead", function=relu_net, start=[-1.0, 1.0], minima=[0.0], plateau=True),
    Case(name="ReLU net, alive", function=relu_net, start=[1.0, 1.0], minima=[0.0], plateau=True),
    Case(name="ReLU net, dead but for its bias", function=lambda x: relu_net(x, bias=True), start=[-1.0, 1.0, 0.0], minima=[0.0, 1.25], plateau=True),
]  # fmt: skip

UNATTAINED = [
    Case(name="exp x", function=lambda x: torch.exp(x).sum(), start=[0.0], plateau=True),
    Case(name="exp -x from -3", function=lambda x: torch.exp(-x).sum(), start=[-3.0], plateau=True),
    Case(name="softplus", function=lambda x: torch.nn.functional.softplus(x).sum(), start=[1.0], plateau=True),
    Case(name="1/x", function=lambda x: torch.where(x > 0, 1 / x, torch.inf).sum(), start=[1.0], plateau=True, holes=True),
    Case(name="separable classes", function=logistic, start=[0.0, 0.0], plateau=True),
    Case(name="separable classes, mean + 1", function=lambda x: 1 + logistic(x) / 6, start=[0.0, 0.0], plateau=True),
    Case(name="exp x + y^2", function=lambda x: x[0].exp() + x[1] ** 2, start=[0.0, 1.0], plateau=True),
    Case(name="x^2 + (1 - x y)^2 + 1", function=lambda x: x[0] ** 2 + (1 - x[0] * x[1]) ** 2 + 1, start=[1.0, 1.0], saddles=[2.0], plateau=True),
    Case(name="1 / (1 + x^2) of two that are tied", function=lambda x: 1 / (1 + x[0] ** 2) + (x[1] - x[0]) ** 2, start=[1.0, 0.5], plateau=True),
    Case(name="1/x as a residual", function=lambda x: torch.stack([1 / x[0], x[1] - 1]), squares=True, start=[1.0, 0.0], plateau=True, holes=True),
    Case(name="1/x^2 + (y - 1)^2", function=lambda x: 1 / x[0] ** 2 + (x[1] - 1) ** 2, start=[1.0, 0.0], plateau=True, holes=True),
    Case(name="softplus of two that are tied", function=lambda x: torch.nn.functional.softplus(-x[0]) + 0.1 * (x[1] - x[0]) ** 2, start=[0.0, 0.0], plateau=True),
    Case(name="softplus of two that are tied, from (1, 2)", function=lambda x: torch.nn.functional.softplus(-x[0]) + 0.1 * (x[1] - x[0]) ** 2, start=[1.0, 2.0], plateau=True),
    Case(name="tanh of two that are tied", function=lambda x: torch.tanh(x[0]) + (x[1] - x[0]) ** 2 / (1 + x[0] ** 2), start=[0.0, 1.0], plateau=True),
    *(Case(name=f"tanh + 1 from {start:g}", function=lambda x: (torch.tanh(x) + 1).sum(), start=[start], plateau=True) for start in (0.0, -5.0)),
    Case(name="1 - sigmoid, squared", function=lambda x: (1 - torch.sigmoid(x)).square().sum(), start=[-1.0], plateau=True),
    Case(name="exp -x from 60", function=lambda x: torch.exp(-x).sum(), start=[60.0], plateau=True, holes=True, length=10.0),
    Case(name="exp -x^2 from 3", function=lambda x: torch.exp(-(x**2)).sum(), start=[3.0], plateau=True, length=3.0),
    Case(name="x^2 + (1 - x y)^2", function=lambda x: x[0] ** 2 + (1 - x[0] * x[1]) ** 2, start=[1.0, 0.5], saddles=[1.0], plateau=True),
]  # fmt: skip

BARRIERS = [
    Case(name="two log walls", function=lambda x: f.barrier(x).sum(), start=[0.9], minima=[0.0], minimisers=[[0.0]], holes=True),
    Case(name="sqrt x + 1/x", function=lambda x: (torch.sqrt(x) + 1 / x).sum(), start=[100.0], minima=[1.5 * 2 ** (1 / 3)], minimisers=[[2 ** (2 / 3)]], holes=True, length=10.0),
    Case(name="x + 1/x from 0.01", function=lambda x: torch.where(x > 0, x + 1 / x, torch.inf).sum(), start=[0.01], minima=[2.0], minimisers=[[1.0]], holes=True),
    Case(name="x log x", function=lambda x: (x * torch.log(x)).sum(), start=[5.0], minima=[-math.exp(-1)], minimisers=[[math.exp(-1)]], holes=True),
    Case(name="log^2 x from 0.1", function=lambda x: (torch.log(x) ** 2).sum(), start=[0.1], minima=[0.0], minimisers=[[1.0]], holes=True),
    Case(name="half circle", function=lambda x: -torch.sqrt(1 - x**2).sum(), start=[0.9], minima=[-1.0], minimisers=[[0.0]], holes=True),
    Case(name="minimum at the edge", function=lambda x: torch.sqrt(x).sum(), start=[1.0], edge=True, holes=True),
    Case(name="NaN beyond 2.5", function=lambda x: torch.where(x > 2.5, torch.nan, (x - 3) ** 2).sum(), start=[0.0], edge=True, holes=True),
    Case(name="inf beyond 2.5", function=lambda x: torch.where(x > 2.5, torch.inf, (x - 3) ** 2).sum(), start=[0.0], edge=True, holes=True),
    Case(name="a hole on the way", function=lambda x: torch.where((x > 1) & (x < 2), torch.nan, (x - 3) ** 2).sum(), start=[0.0], minima=[0.0], minimisers=[[3.0]], edge=True, holes=True),
    Case(name="NaN at the start", function=lambda x: torch.log(x).sum(), start=[-1.0], holes=True, broken=True),
    Case(name="inf at the start", function=lambda x: (1 / x).sum(), start=[0.0], holes=True, broken=True),
    Case(name="infinite slope at the start", function=lambda x: torch.sqrt(x).sum(), start=[0.0], holes=True, broken=True),
    Case(name="log x falls to the edge", function=lambda x: torch.log(x).sum(), start=[1.0], unbounded=True, edge=True, holes=True),
]  # fmt: skip

KINKS = [
    Case(name="|x|", function=lambda x: x.abs().sum(), start=[1.3, -0.7], minima=[0.0], minimisers=[[0.0, 0.0]], edge=True),
    Case(name="|x|^1.5", function=lambda x: (x.abs() ** 1.5).sum(), start=[1.3], minima=[0.0], minimisers=[[0.0]], edge=True),
    Case(name="sqrt |x|", function=lambda x: (x.abs() ** 0.5).sum(), start=[1.3], minima=[0.0], minimisers=[[0.0]], edge=True, holes=True),
    Case(name="x^2 + |y|", function=lambda x: (x[0] - 1) ** 2 + x[1].abs(), start=[0.0, 1.3], minima=[0.0], minimisers=[[1.0, 0.0]], edge=True),
    Case(name="larger of two lines", function=lambda x: torch.maximum(x, -2 * x).sum(), start=[1.3], minima=[0.0], minimisers=[[0.0]], edge=True),
    Case(name="larger of two bowls", function=lambda x: torch.maximum(shifted(x), shifted(-x)), start=[2.0, 1.3], minima=[18.0], edge=True),
    Case(name="a kinked valley", function=lambda x: 10 * (x[0] - x[1]).abs() + shifted(x), start=[0.0, 1.0], minima=[0.0], minimisers=[[3.0, 3.0]], edge=True),
    Case(name="Huber", function=lambda x: torch.nn.functional.huber_loss(x, at(x, [3.0, -1.0]), reduction="sum"), start=[0.0, 5.0], minima=[0.0], minimisers=[[3.0, -1.0]]),
    Case(name="lasso", function=lambda x: shifted(x) + 2 * x.abs().sum(), start=[0.5, 1.0], minima=[10.0], minimisers=[[2.0, 2.0]], edge=True),
    Case(name="hinge", function=lambda x: torch.relu(1 - x).sum() + 0.1 * (x**2).sum(), start=[0.0], minima=[0.1], minimisers=[[1.0]], edge=True),
    Case(name="a cliff before the pit", function=lambda x: ((x - 3) ** 2 + 10 * (x > 2)).sum(), start=[0.0], minima=[1.0, 10.0], edge=True),
    Case(name="a step down on the way", function=lambda x: ((x - 3) ** 2 + 5 * (x < 1)).sum(), start=[0.0], minima=[0.0], minimisers=[[3.0]], edge=True),
    Case(name="stairs", function=lambda x: torch.floor(x).sum() + 0 * x.sum(), start=[3.5], plateau=True, unbounded=True),
    Case(name="level on one side of a kink", function=lambda x: torch.where(x >= 0, x**2, x).sum(), start=[1.0], unbounded=True, edge=True),
    Case(name="level on one side of a kink, + 1", function=lambda x: 1 + torch.where(x >= 2, (x - 2) ** 2, x - 2).sum(), start=[5.0], unbounded=True, edge=True),
    Case(name="level on one side of a kink in one of three", function=lambda x: torch.where(x[1] >= 0, x[1] ** 2, 0.3 * x[1]) + shifted(x[::2]), start=[1.0, 2.0, 0.0], unbounded=True, edge=True),
    Case(name="level on one side of a cusp", function=lambda x: torch.where(x >= 0, x**2, -(-x).clamp(min=0).sqrt()).sum(), start=[1.0], unbounded=True, edge=True, holes=True),
    Case(name="level beside a kink in a box", function=lambda x: torch.where(x >= 0, x**2, x).sum(), start=[1.0], bounds=([-1.0], [2.0]), minima=[-1.0], minimisers=[[-1.0]], edge=True),
    Case(name="a pit beside a jump down", function=lambda x: (x**2 - 5 * (x < 0)).sum(), start=[1.0], minima=[-5.0], minimisers=[[0.0]], edge=True),
    Case(name="noise of 1e-6", function=lambda x: shifted(x) + 1e-6 * noise(x), start=[0.0, 1.0], minima=[0.0], minimisers=[[3.0, 3.0]], slack=2e-6, edge=True),
    Case(name="noise of 1e-3", function=lambda x: f.rosenbrock(x) + 1e-3 * noise(x), start=[-1.2, 1.0], minima=[0.0], slack=2e-3, edge=True),
]  # fmt: skip

SADDLES = [
    Case(name="saddle at the start", function=f.saddle, start=[0.0, 0.0], minima=[-0.25], saddles=[0.0]),
    Case(name="monkey saddle at the start", function=lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, start=[0.0, 0.0], saddles=[0.0], unbounded=True),
    Case(name="monkey saddle from (1, 0)", function=lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, start=[1.0, 0.0], saddles=[0.0], unbounded=True),
    Case(name="x^3 at 0", function=f.inflection, start=[0.0], saddles=[0.0], unbounded=True),
    Case(name="x^3 from 1", function=f.inflection, start=[1.0], saddles=[0.0], unbounded=True),
    Case(name="x^5 from 1", function=lambda x: (x**5).sum(), start=[1.0], saddles=[0.0], unbounded=True),
    Case(name="x y at 0", function=lambda x: x[0] * x[1], start=[0.0, 0.0], saddles=[0.0], unbounded=True),
    Case(name="x y from (1, 1)", function=lambda x: x[0] * x[1], start=[1.0, 1.0], saddles=[0.0], unbounded=True),
    Case(name="x^2 - y^4 from (1, 0)", function=lambda x: x[0] ** 2 - x[1] ** 4, start=[1.0, 0.0], saddles=[0.0], unbounded=True),
    Case(name="x^2 + y^3 from (1, 0)", function=lambda x: x[0] ** 2 + x[1] ** 3, start=[1.0, 0.0], saddles=[0.0], unbounded=True),
    Case(name="x^2 + y^3 from (1, 1)", function=lambda x: x[0] ** 2 + x[1] ** 3, start=[1.0, 1.0], saddles=[0.0], unbounded=True),
    *(Case(name=f"x^2 + y^3 + {high:g} from (0.5, 1)", function=lambda x, high=high: x[0] ** 2 + x[1] ** 3 + high, start=[0.5, 1.0], saddles=[high], unbounded=True, dtypes=[F32, F64] if high < 1e6 else [F64]) for high in (10.0, 1e3, 1e6)),
    Case(name="x^3 + 1000", function=lambda x: (x**3).sum() + 1000, start=[1.0, 0.5], saddles=[1e3], unbounded=True),
    Case(name="1e-9 (x^3 + 1000)", function=lambda x: 1e-9 * ((x**3).sum() + 1000), start=[1.0, 0.5], saddles=[1e-6], unbounded=True),
    Case(name="x^3 + 1000 in a box", function=lambda x: (x**3).sum() + 1000, start=[1.0, 0.5], bounds=([-5.0] * 2, [5.0] * 2), minima=[750.0], minimisers=[[-5.0, -5.0]], saddles=[1e3, 875.0]),
    Case(name="-|x| at 0", function=lambda x: -x.abs().sum(), start=[0.0], maxima=[0.0], unbounded=True),
    Case(name="x^3 + 1000 from 1", function=lambda x: (x**3).sum() + 1000, start=[1.0], saddles=[1e3], unbounded=True),
    Case(name="-x^4 - y^4 + 10 x^2 y^2 at 0", function=lambda x: -(x**4).sum() + 10 * x[0] ** 2 * x[1] ** 2, start=[0.0, 0.0], saddles=[0.0], unbounded=True),
    Case(name="-x^4 at 0", function=lambda x: -(x**4).sum(), start=[0.0, 0.0], maxima=[0.0], unbounded=True),
    Case(name="saddle among 60", function=high_saddle, start=[0.0] + [1.0] * 59, minima=[-2.5e-5], saddles=[0.0]),
    Case(name="cosine at 0", function=lambda x: torch.cos(x).sum(), start=[0.0, 0.0], minima=[-2.0], saddles=[0.0], maxima=[2.0]),
    Case(name="sine from 0", function=lambda x: torch.sin(x).sum(), start=[0.0], minima=[-1.0], maxima=[1.0]),
    Case(name="1 / (1 + x^2) from 0", function=lambda x: (1 / (1 + x**2)).sum(), start=[0.0], maxima=[1.0], plateau=True),
    Case(name="egg box", function=egg_box, start=[2.0, 1.0], minima=[egg_box(x).item() for x in EGGS], minimisers=[x.tolist() for x in EGGS]),
    Case(name="saddle x 1e-9", function=lambda x: 1e-9 * f.saddle(x), start=[1.0, 0.0], minima=[-0.25e-9], saddles=[0.0]),
    Case(name="saddle + 1", function=lambda x: 1 + f.saddle(x), start=[1.0, 0.0], minima=[0.75], saddles=[1.0]),
    Case(name="shallow saddle", function=lambda x: x[0] ** 2 - 1e-4 * x[1] ** 2 + x[1] ** 4, start=[1.0, 0.0], minima=[-2.5e-9], saddles=[0.0]),
    Case(name="1 - x^4 at 0", function=lambda x: 1 - (x**4).sum(), start=[0.0], maxima=[1.0], unbounded=True),
    Case(name="1 + y^2 - x^4 from (0, 1)", function=lambda x: 1 + x[1] ** 2 - x[0] ** 4, start=[0.0, 1.0], saddles=[1.0], unbounded=True),
    Case(name="1 + (y-1)^2 + x^5 from (0, 3)", function=lambda x: 1 + (x[1] - 1) ** 2 + x[0] ** 5, start=[0.0, 3.0], saddles=[1.0], unbounded=True),
    Case(name="1 + x^2 - 1e-3 y^4 from (1, 0)", function=lambda x: 1 + x[0] ** 2 - 1e-3 * x[1] ** 4, start=[1.0, 0.0], saddles=[1.0], unbounded=True),
    Case(name="1 + x^2 - 1e-7 y^4 from (1, 0)", function=lambda x: 1 + x[0] ** 2 - 1e-7 * x[1] ** 4, start=[1.0, 0.0], saddles=[1.0], unbounded=True, dtypes=[F64]),
    Case(name="1 + x^2 + 1e-9 y^3 from (1, 0)", function=lambda x: 1 + x[0] ** 2 + 1e-9 * x[1] ** 3, start=[1.0, 0.0], saddles=[1.0], unbounded=True, dtypes=[F64]),
    Case(name="1 + 1e8 x^2 - 1e-9 y^4 from (1, 0)", function=lambda x: 1 + 1e8 * x[0] ** 2 - 1e-9 * x[1] ** 4, start=[1.0, 0.0], saddles=[1.0], unbounded=True, dtypes=[F64]),
    Case(name="1e6 + x^2 - 1e-2 (y z)^2 from (1, 0, 0)", function=lambda x: 1e6 + x[0] ** 2 - 1e-2 * (x[1] * x[2]) ** 2, start=[1.0, 0.0, 0.0], saddles=[1e6], unbounded=True, dtypes=[F64]),
    Case(name="Peano's function from its axis", function=lambda x: (x[1] - x[0] ** 2) * (x[1] - 3 * x[0] ** 2), start=[0.0, 1.0], saddles=[0.0], unbounded=True),
    Case(name="2 + (y - x^2)(y - 2 x^2) from its axis", function=lambda x: 2 + (x[1] - x[0] ** 2) * (x[1] - 2 * x[0] ** 2), start=[0.0, 1.0], saddles=[2.0], unbounded=True),
    Case(name="a net of zeros", function=zero_net, start=[0.0] * 13, minima=[0.0], saddles=[zero_net(torch.zeros(13, dtype=F64)).item()]),
    Case(name="product of four at 0", function=lambda x: x.prod(), start=[0.0] * 4, saddles=[0.0], unbounded=True),
    Case(name="(product of four - 1)^2 at 0", function=lambda x: (x.prod() - 1) ** 2, start=[0.0] * 4, minima=[0.0], saddles=[1.0]),
    Case(name="deep linear net at 0", function=lambda x: (x.prod() - 1) ** 2, start=[0.0] * 5, minima=[0.0], saddles=[1.0]),
    Case(name="saddle of degenerate minima", function=lambda x: (x[0] * x[1] - 1) ** 2, start=[1.0, -1.0], minima=[0.0], saddles=[1.0]),
]  # fmt: skip

FALLING = [
    Case(name="linear", function=lambda x: x.sum(), start=[1.0, 2.0], unbounded=True),
    Case(name="-x^2", function=lambda x: -(x**2).sum(), start=[1.0], unbounded=True),
    Case(name="-exp x", function=lambda x: -torch.exp(x).sum(), start=[0.0], unbounded=True),
    Case(name="-x log x", function=lambda x: -(x * torch.log(x)).sum(), start=[2.0], unbounded=True, holes=True),
    Case(name="-log x", function=lambda x: -torch.log(x).sum(), start=[1.0], unbounded=True, holes=True),
    Case(name="-sqrt x", function=lambda x: -torch.sqrt(x).sum(), start=[1.0], unbounded=True, holes=True),
    Case(name="-|x|", function=lambda x: -x.abs().sum(), start=[0.1], unbounded=True),
    Case(name="x^2 - y^2 off the axis", function=lambda x: x[0] ** 2 - x[1] ** 2, start=[1.0, 1e-3], saddles=[0.0], unbounded=True),
    Case(name="x^2 + y", function=lambda x: x[0] ** 2 + x[1], start=[1.0, 0.0], unbounded=True),
    Case(name="x - exp y", function=lambda x: x[0] - x[1].exp(), start=[0.0, 0.0], unbounded=True),
    Case(name="a slope among steep unknowns", function=lambda x: 1e8 + 1e8 * (x[1] - 1) ** 2 + 1e-3 * x[0], start=[1.0, 3.0], unbounded=True),
    Case(name="a slope along a steep valley", function=lambda x: 1e6 * (x[0] - x[1]) ** 2 - 1e-3 * (x[0] + x[1]), start=[1.0, 2.0], unbounded=True),
    Case(name="a slope along a steep valley, + 1e3", function=lambda x: 1e3 + 1e6 * (x[0] - x[1]) ** 2 - 1e-4 * (x[0] + x[1]), start=[1.0, 2.0], unbounded=True),
    Case(name="a likelihood of one datum", function=one_datum, start=[0.0, 0.0], unbounded=True, edge=True),
    Case(name="sloping waves", function=waves, start=[0.0], minima=WAVES, minimisers=[[x] for x in WAVE_PLACES], maxima=WAVE_TOPS, unbounded=True),
]  # fmt: skip

PERIODIC = [
    Case(name="ripples from 4", function=ripples, start=[4.0], minima=RIPPLES, minimisers=[[x] for x in RIPPLE_PLACES], maxima=RIPPLE_TOPS),
    Case(name="ripples from -50", function=ripples, start=[-50.0], minima=RIPPLES, minimisers=[[x] for x in RIPPLE_PLACES], maxima=RIPPLE_TOPS),
    Case(name="fine ripples", function=fine_ripples, start=[0.0], minima=FINE_RIPPLES, minimisers=[[x] for x in FINE_PLACES], maxima=FINE_TOPS),
]  # fmt: skip

LIKELIHOODS = [
    Case(name="classes that overlap", function=lambda x: logistic(x, flipped=True), start=[0.0, 0.0], **found(lambda x: logistic(x, flipped=True), [0.5, 0.0])),
    Case(name="Poisson counts", function=poisson, start=[0.0, 0.0], **found(poisson, [0.2, 1.0])),
    Case(name="normal data", function=normal, start=[0.0, 0.0], **found(normal, [2.4, 0.1])),
    Case(name="decay without residual", function=lambda x: decay(x, noisy=False), squares=True, start=[1.0, 1.0], minima=[0.0], minimisers=[[2.0, 0.7]]),
    Case(name="decay with residual", function=decay, squares=True, start=[1.0, 1.0], **found(half_squares(decay), [2.0, 0.7])),
    Case(name="Rosenbrock as residuals", function=valley, squares=True, start=[-1.2, 1.0], minima=[0.0], minimisers=[[1.0, 1.0]]),
    Case(name="residuals without a root", function=lambda x: torch.stack([x[0] + 1, 0.1 * x[0] ** 2 + x[0] - 1]), squares=True, start=[5.0], **found(half_squares(lambda x: torch.stack([x[0] + 1, 0.1 * x[0] ** 2 + x[0] - 1])), [0.0])),
    Case(name="fewer residuals than unknowns", function=lambda x: torch.stack([x[0] + x[1] - 1]), squares=True, start=[3.0, 0.5], minima=[0.0]),
    Case(name="an exponential too many", function=exponentials, squares=True, start=[1.0, 0.5, 1.0, 2.0, 0.3, 3.0], minima=[0.0], saddles=[0.0], edge=True),
    Case(name="factors by squares", function=factors, start=torch.randn(14, generator=torch.Generator().manual_seed(0)).tolist(), minima=[0.0], edge=True),
    Case(name="a divergence", function=divergence, start=[3.0, -1.0, 0.0], minima=[0.0]),
    Case(name="residuals at a maximum", function=lambda x: torch.stack([x[0] ** 2 - 1]), squares=True, start=[0.0], minima=[0.0], maxima=[0.5]),
    Case(name="a residual that vanishes for ever", function=lambda x: torch.exp(x), squares=True, start=[0.0], plateau=True),
]  # fmt: skip

BOXES = [
    Case(name="cubic in its box", function=lambda x: f.cubic(x).sum(), start=[2.0], bounds=([-2.0], [2.0]), minima=[-32.0], minimisers=[[-2.0]]),
    Case(name="corner", function=shifted, start=[0.5, 0.5], bounds=([0.0, 0.0], [1.0, 1.0]), minima=[8.0], minimisers=[[1.0, 1.0]]),
    Case(name="edge", function=lambda x: shifted(x) + x[0] * x[1], start=[0.5, 0.5], bounds=([-5.0, -5.0], [1.0, 5.0]), minima=[6.75], minimisers=[[1.0, 2.5]]),
    Case(name="inside", function=f.rosenbrock, start=[-1.2, 1.0], bounds=([-2.0, -2.0], [2.0, 2.0]), minima=[0.0], minimisers=[[1.0, 1.0]]),
    Case(name="Rosenbrock at a wall", function=f.rosenbrock, start=[-1.2, 1.0], bounds=([-2.0, -2.0], [0.5, 2.0]), minima=[0.25], minimisers=[[0.5, 0.25]]),
    Case(name="linear in a box", function=lambda x: x.sum(), start=[0.3, 0.5, 0.9], bounds=([0.0] * 3, [1.0] * 3), minima=[0.0], minimisers=[[0.0] * 3]),
    Case(name="-exp x in a box", function=lambda x: -torch.exp(x).sum(), start=[0.0], bounds=([-1.0], [30.0]), minima=[-math.exp(30.0)], minimisers=[[30.0]], length=10.0),
    Case(name="x y in a box", function=lambda x: x[0] * x[1], start=[0.5, 0.25], bounds=([-1.0, -1.0], [1.0, 1.0]), minima=[-1.0], minimisers=[[1.0, -1.0], [-1.0, 1.0]], saddles=[0.0]),
    Case(name="x y at 0 in a box", function=lambda x: x[0] * x[1], start=[0.0, 0.0], bounds=([-1.0, -1.0], [1.0, 1.0]), minima=[-1.0], minimisers=[[1.0, -1.0], [-1.0, 1.0]], saddles=[0.0]),
    Case(name="maximum at a wall that does not hold", function=f.hill, start=[0.0], bounds=([0.0], [1.0]), minima=[-0.25], minimisers=[[ROOT_HALF]], maxima=[0.0]),
    Case(name="saddle on a face", function=lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 + x[2], start=[1.0, 0.0, 0.5], bounds=([-2.0, -2.0, 0.0], [2.0, 2.0, 1.0]), minima=[-0.25], saddles=[0.0]),
    Case(name="exp -x, open on one side", function=lambda x: torch.exp(-x).sum(), start=[0.5], bounds=([0.0], [math.inf]), plateau=True),
    Case(name="-x, open on one side", function=lambda x: -x.sum(), start=[0.5], bounds=([0.0], [math.inf]), unbounded=True),
    Case(name="x, open on the other side", function=lambda x: x.sum(), start=[0.5], bounds=([0.0], [math.inf]), minima=[0.0], minimisers=[[0.0]]),
    Case(name="an unknown that cannot move", function=shifted, start=[0.5, 2.0], bounds=([-5.0, 2.0], [5.0, 2.0]), minima=[1.0], minimisers=[[3.0, 2.0]]),
    Case(name="log in its domain", function=lambda x: (x - torch.log(x)).sum(), start=[10.0], bounds=([1e-3], [100.0]), minima=[1.0], minimisers=[[1.0]]),
    Case(name="start in the corner of the minimum", function=shifted, start=[1.0, 1.0], bounds=([0.0, 0.0], [1.0, 1.0]), minima=[8.0], minimisers=[[1.0, 1.0]]),
    Case(name="start in the wrong corner", function=shifted, start=[0.0, 0.0], bounds=([0.0, 0.0], [1.0, 1.0]), minima=[8.0], minimisers=[[1.0, 1.0]]),
    Case(name="minimum exactly on the wall", function=shifted, start=[0.0, 1.0], bounds=([-1.0, -1.0], [3.0, 9.0]), minima=[0.0], minimisers=[[3.0, 3.0]]),
    Case(name="x^4 with its minimum on the wall", function=lambda x: (x**4).sum(), start=[1.0], bounds=([0.0], [2.0]), minima=[0.0], minimisers=[[0.0]]),
]  # fmt: skip

CASES = [
    *PEERS, *GRADIENTS, *QUADRATICS, *VALLEYS, *FLAT, *PLATEAUS, *UNATTAINED, *BARRIERS, *KINKS, *SADDLES, *FALLING,
    *PERIODIC, *LIKELIHOODS, *BOXES,
]  # fmt: skip
