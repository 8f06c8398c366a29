"""The law of many starts: start i of many ends as a run of its own from there does."""

import functools
import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import gradopt
from tests import functions as f


def log_well(x: Tensor) -> Tensor:
    """Minimum 1 at 1; no finite value at 0 and below."""
    return (x - torch.log(x)).sum()


def slope(x: Tensor) -> Tensor:
    return 3 * x[0] + (x[1] - 1) ** 2


def quartic(x: Tensor) -> Tensor:
    """Curvature vanishes at the minimum."""
    return (x**4).sum()


def gaussian(x: Tensor) -> Tensor:
    """A well, and a plateau far round it."""
    return 1 - torch.exp(-(x**2).sum())


def tilted(x: Tensor) -> Tensor:
    """The gradient at the lower corner of a box pushes against one bound or both."""
    return ((x - torch.tensor([3.0, 0.5], dtype=x.dtype)) ** 2).sum() + 0.1 * x[0] * x[1]


def kinked(x: Tensor) -> Tensor:
    """The gradient vanishes at 0, where the loss falls on the left."""
    return torch.where(x >= 0, x**2, x).sum()


def cusp(x: Tensor) -> Tensor:
    """Its derivative is infinite at the lower bound."""
    return torch.sqrt(x[0]) + (x[1] - 1) ** 2


class Scaled(torch.autograd.Function):
    """The sum of squares, with a gradient 1 % too large."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return (x * x).sum()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return grad * 2.02 * ctx.saved_tensors[0]


def partly_wrong(x: Tensor) -> Tensor:
    """A success rests on a part of the gradient that is wrong."""
    return Scaled.apply(x - 1) + (x**4).sum()


def wrong_on_one_side(x: Tensor) -> Tensor:
    """Two minima; beside the one at 2 the slope of a part is cut off, which puts the minimum somewhere else."""
    return ((x**2 - 4) ** 2 + torch.where(x > 0, x.detach(), 0.0)).sum()


def saddle_and_wrong(x: Tensor) -> Tensor:
    """A saddle point at 0, a true one; on the right, where the second unknown is cut off, one is feigned."""
    return x[0] ** 2 * (x[0] - 2) ** 2 - torch.where(x[0] > 1, 1.0, 0.0) * x[1].detach() + torch.cos(x[1])


def pole(x: Tensor) -> Tensor:
    """Falls without end towards 1, where unknowns hardly grow."""
    return torch.log((x - 1).abs()).sum()


def steep_well(x: Tensor) -> Tensor:
    """Its losses cannot be told apart near the minimum: the gradient decides."""
    return 1e6 + (torch.cosh(x) - 1).sum()


def vanishing(x: Tensor) -> Tensor:
    """The gradient underflows far out."""
    return (1 - torch.exp(-(x**2))).prod() + 1e-3 * (torch.tanh(x) ** 2).sum()


def wide(x: Tensor) -> Tensor:
    """With more unknowns than a whole Hessian is made for; indefinite at 0."""
    return ((x[1:] - x[:-1]) ** 2).sum() + (x**4 - 0.1 * x**2).sum()


@dataclass(frozen=True)
class Case:
    """Starts of one function, and endings that some of them come to with one optimiser or another."""

    name: str
    function: object
    starts: tuple[tuple[float, ...], ...]
    bounds: tuple[float, float] | None = None
    statuses: frozenset[str] = frozenset()


CASES = [
    Case(
        "rosenbrock", f.rosenbrock, ((-1.2, 1.0), (1.0, 1.0), (0.0, 0.0), (2.0, -2.0)), None, frozenset({"converged"})
    ),
    Case("parabola", f.parabola, ((3.0,), (0.0,), (1e3,), (-1e-8,)), None, frozenset({"converged"})),
    Case("saddle", f.saddle, ((0.0, 0.0), (1.0, 0.5), (1.0, 0.0), (0.3, -0.2)), None, frozenset({"saddle_point"})),
    Case(
        "hill",
        f.hill,
        ((0.0, 0.0), (0.5, -0.5), (0.0, 1.0), (2.0, 0.1)),
        None,
        frozenset({"maximum", "saddle_point", "converged"}),
    ),
    Case("nan", log_well, ((2.0,), (-1.0,), (0.5,), (4.0,)), None, frozenset({"non_finite"})),
    Case("unbounded", f.cubic_sum, ((2.0,), (-3.0,), (0.0,)), None, frozenset({"unbounded"})),
    Case("slope", slope, ((0.0, 0.0), (1.0, 1.0)), None, frozenset({"max_steps"})),
    Case("bounds", tilted, ((1.0, 1.0), (0.0, 0.0), (-1.0, 1.5), (2.0, 2.0)), (-1.0, 2.0), frozenset({"converged"})),
    Case("cubic in a box", f.cubic_sum, ((2.0,), (-2.0,), (0.5,)), (-2.0, 2.0), frozenset({"converged"})),
    Case("cusp on a bound", cusp, ((1.0, 0.5), (0.0, 0.0), (2.0, 3.0)), (0.0, 4.0), frozenset({"converged"})),
    Case("edge", kinked, ((0.0,), (1.0,), (2.0,)), None, frozenset({"stalled"})),
    Case("quartic", quartic, ((1.0, -0.5), (0.0, 0.0), (0.1, 2.0)), None, frozenset({"converged"})),
    Case("plateau", gaussian, ((0.5, 0.5), (40.0, 0.0), (1.0, -1.0)), None, frozenset({"stalled"})),
    Case("wrong gradient", partly_wrong, ((1.0, 2.0), (0.0, -1.0)), None, frozenset({"stalled"})),
    Case(
        "wrong on one side",
        wrong_on_one_side,
        ((3.0,), (-3.0,), (1.5,), (-1.0,)),
        None,
        frozenset({"stalled", "converged"}),
    ),
    Case(
        "saddles, true and feigned",
        saddle_and_wrong,
        ((2.0, 0.0), (0.1, 0.0), (1.9, 0.0), (-0.2, 0.0)),
        None,
        frozenset({"stalled", "saddle_point"}),
    ),
    Case("pole", pole, ((0.5,), (3.0,)), None, frozenset({"max_steps"})),
    Case("no digits in the loss", steep_well, ((0.5, -0.3), (0.0, 0.0), (2.0, 1.0)), None, frozenset({"converged"})),
    Case("underflow", vanishing, ((0.5, 0.7), (30.0, 30.0), (3.0, -30.0)), None, frozenset({"stalled"})),
    Case("wide", wide, ((0.0,) * 250, (1.0, -1.0) * 125), None, frozenset({"saddle_point"})),
    Case("far floor", f.far_floor, ((2.0, 4.0), (3.0, 3.0)), None, frozenset({"converged"})),
    Case("valley", f.quadratic_1e6, ((2.0, 4.0), (1.0, 1.0)), None, frozenset({"converged"})),
    Case("inflection", f.inflection, ((0.0, 0.0), (1.0, 1.0)), None, frozenset({"saddle_point"})),
]
OPTIMISERS = {
    "momentum": ("sgd", {"lr": 1e-3, "momentum": 0.9}),
    "too fast": ("sgd", {"lr": 3.0}),
    "adam": ("adam", {"lr": 0.05}),
    "clipped": ("adam", {"lr": 0.05, "clip_norm": 0.5}),
    "rprop": ("rprop", {}),
}
TABLE = [(case, name, torch.float64) for case in CASES for name in OPTIMISERS]
TABLE += [(case, "adam", torch.float32) for case in CASES]


@functools.cache
def pair(case, name, dtype):
    """The runs of all starts at once, and of each alone."""
    starts = torch.tensor(case.starts, dtype=dtype)
    optimiser, options = OPTIMISERS[name]
    stop = gradopt.Stop(max_steps=450)
    # Not `auto`, whose fused kernels round by the number of unknowns: a valley makes much of that.
    common = {"optimiser_options": options, "bounds": case.bounds, "stop": stop, "engine": "eager"}
    common["optimiser"] = optimiser
    many = gradopt.minimise(case.function, starts=starts, **common)
    return many, [gradopt.minimise(case.function, start, **common) for start in starts]


def words(message):
    """A sentence without its numbers, and without what is looked for at the best of many starts alone."""
    return re.sub(r"[-+]?(\d[\d.]*(e[-+]?\d+)?|inf|nan)", "#", message.partition(". Found: ")[0])


def assert_same(one, alone, digits=0.5):
    """With this part of the digits of the dtype in common."""
    assert one.status is alone.status, (one.message, alone.message)
    assert words(one.message) == words(alone.message)
    assert abs(one.nit - alone.nit) <= max(2, 0.01 * alone.nit)
    eps = torch.finfo(one.x.dtype).eps
    same = torch.isclose(one.x, alone.x, rtol=eps**digits, atol=eps**digits, equal_nan=True)
    assert bool(same.all()), (one.x, alone.x)
    assert one.fun == pytest.approx(alone.fun, rel=eps**digits, abs=eps, nan_ok=True)


@pytest.mark.parametrize(("case", "name", "dtype"), TABLE, ids=lambda one: getattr(one, "name", str(one)))
def test_each_start_of_many_ends_as_it_does_alone(case, name, dtype):
    many, alone = pair(case, name, dtype)

    for one, single in zip(many, alone, strict=True):
        assert_same(one, single)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_meets_the_endings_it_is_there_for(case):
    seen = {status.value for name in OPTIMISERS for status in pair(case, name, torch.float64)[0].status}

    assert case.statuses <= seen


def test_a_start_that_turns_nan_harms_no_other():
    starts = torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64)
    options = {"optimiser": "adam", "optimiser_options": {"lr": 0.05, "clip_norm": 0.1}}

    with_nan = gradopt.minimise(log_well, starts=starts, **options)
    without = gradopt.minimise(log_well, starts=starts[[0, 2]], **options)

    assert [status.value for status in with_nan.status] == ["converged", "non_finite", "converged"]
    assert torch.equal(with_nan.x[[0, 2]], without.x)
    assert math.isnan(with_nan[1].fun) and torch.equal(with_nan.x[1], starts[1])
