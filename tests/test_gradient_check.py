"""A wrong gradient is named with the unknowns in which it is wrong; a right one is never called wrong."""

import math
import time

import numpy
import pytest
import torch

import gradopt
from gradopt.differences import Patience
from gradopt.gradient_check import check_gradient
from gradopt.objectives.function import FunctionObjective
from gradopt.oracle import AutogradOracle
from tests import gradients as g

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def oracle_of(function, x0, dtype=torch.float64, bounds=None):
    return AutogradOracle(FunctionObjective(function, torch.tensor(x0, dtype=dtype), bounds))


@dtypes
@pytest.mark.parametrize("name", g.RIGHT)
def test_a_right_gradient_is_never_called_wrong(name, dtype):
    check = check_gradient(oracle_of(*g.RIGHT[name], dtype=dtype))

    assert not check.is_wrong, check.sentence()
    assert check.agrees or check.unjudged


@pytest.mark.parametrize(
    "name", ["the quartic", "a barrier's edge", "an offset of 1e8", "curvature 1e12", "scale 1e-9", "unknowns of 1e-9"]
)
def test_hard_but_right_gradients_are_confirmed_in_float64(name):
    assert check_gradient(oracle_of(*g.RIGHT[name])).agrees


@dtypes
def test_right_gradients_at_random_points_are_confirmed(dtype):
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        size = 10.0 ** torch.randint(-3, 4, (), generator=generator)
        x0 = (size * torch.randn(3, generator=generator)).tolist()
        check = check_gradient(oracle_of(g.loss, x0, dtype))
        assert check.agrees, (x0, check)


@dtypes
@pytest.mark.parametrize("factor", [-1.0, 0.5, 2.0, 1e-3, 1e3, -3.0])
def test_one_factor_throughout_is_named(factor, dtype):
    check = check_gradient(oracle_of(g.with_gradient(lambda right, x: factor * right), g.START, dtype))

    assert check.is_wrong
    assert check.worst.factor == pytest.approx(factor, rel=1e-2)
    assert "check the backward of Bent, a custom autograd.Function" in check.sentence()
    if factor == -1:
        assert "along it the loss changes by -35.9 where the gradient says +35.9 (opposite sign)" in _rounded(check)
    if factor == 0.5:
        assert "(scale 0.5)" in check.sentence()


CANCELLING = {
    "cosh - 1": lambda x: (torch.cosh(x) - 1).sum(),
    "1 - cos": lambda x: (1 - torch.cos(x)).sum(),
    "1 - exp(-x^2)": lambda x: 1 - torch.exp(-(x @ x)),
    "sqrt(1 + x^2) - 1": lambda x: (torch.sqrt(1 + x**2) - 1).sum(),
    "x - log(1 + x)": lambda x: ((1 + x) - torch.log(1 + x) - 1).sum(),
}


@dtypes
@pytest.mark.parametrize("function", CANCELLING.values(), ids=CANCELLING)
def test_a_right_gradient_beside_a_minimum_where_terms_cancel_is_never_called_wrong(function, dtype):
    for power in range(-12, 1):
        for x0 in ([10.0**power], [3 * 10.0**power, -(10.0**power)], [10.0**power, 0.3]):
            check = check_gradient(oracle_of(function, x0, dtype))
            assert not check.is_wrong, (x0, check.sentence())


@dtypes
@pytest.mark.parametrize("function", CANCELLING.values(), ids=CANCELLING)
@pytest.mark.parametrize("factor", [-1.0, 1.5, 0.0])
def test_a_wrong_gradient_where_terms_cancel_is_named_as_soon_as_the_loss_can_be_resolved(function, factor, dtype):
    def bent(x):
        return function(factor * x + (1 - factor) * x.detach())

    assert check_gradient(oracle_of(bent, [0.3, -0.2], dtype)).is_wrong


@dtypes
def test_a_gradient_along_which_the_loss_never_changes_is_wrong(dtype):
    check = check_gradient(oracle_of(lambda x: (x[0] - 3) ** 2 + x[1] - x[1].detach(), [1.0, 2.0], dtype))

    assert [name for name, _ in check.culprits] == ["x[1]"]


def test_a_run_that_ends_where_rounding_bends_the_loss_does_not_accuse_its_gradient():
    oracle = oracle_of(lambda x: (torch.exp(x) - 1 - x).sum(), [1e-9, 1e-10], torch.float32)
    oracle.origin = torch.tensor([1.0, -2.0])  # over steps of the unknowns' own size the loss is -x, to rounding

    assert not check_gradient(oracle).is_wrong


def _rounded(check):
    return check.sentence().replace("35.88", "35.9").replace("35.89", "35.9")


@dtypes
def test_a_missing_term_is_named_with_its_unknowns(dtype):
    check = check_gradient(oracle_of(g.with_gradient(g.without_cross_term), g.START, dtype))

    assert [name for name, _ in check.culprits] == ["x[0]", "x[1]"]
    for (_, slope), missing in zip(check.culprits, (-1.5, 1.0), strict=True):
        assert slope.measured - slope.claimed == pytest.approx(missing, rel=2e-2)


@dtypes
def test_one_wrong_entry_of_a_thousand_is_found(dtype):
    class Bent(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**2).sum()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            sign = torch.ones_like(x)
            sign[3, 7] = -1
            return grad * sign * 2 * x

    start = {"weight": torch.full((10, 100), 0.5, dtype=dtype), "shift": torch.tensor(2.0, dtype=dtype)}
    start["weight"][3, 7] = 3.0
    objective = FunctionObjective(lambda p: Bent.apply(p["weight"]) + p["shift"] ** 2, start)

    check = check_gradient(AutogradOracle(objective))

    assert [name for name, _ in check.culprits] == ["weight[3, 7]"]
    assert check.culprits[0][1].factor == pytest.approx(-1, rel=1e-2)


def test_a_whole_block_that_is_wrong_is_named_as_one():
    start = {"a": torch.linspace(1, 2, 40, dtype=torch.float64), "b": torch.linspace(1, 2, 40, dtype=torch.float64)}
    objective = FunctionObjective(lambda p: (p["a"] ** 3).sum() + (p["b"] ** 2 * p["b"].detach()).sum(), start)

    check = check_gradient(AutogradOracle(objective))

    assert [name for name, _ in check.culprits] == ["b"]
    assert "look for .detach()" in check.sentence()


@dtypes
@pytest.mark.parametrize("x0", [0.0, 2.0, 1.0])
@pytest.mark.parametrize("right", [True, False])
def test_the_loss_is_never_evaluated_outside_its_bounds(x0, right, dtype):
    seen = []

    def watched(x):
        seen.append(x.detach().clone())
        return (x * (1.0 if right else x.detach())).sum() + torch.log1p(x).sum()

    start = [x0, 1.0]
    check = check_gradient(oracle_of(watched, start, dtype, bounds=([0.0, 1.0], [2.0, 1.0])))

    points = torch.stack(seen)
    assert bool((points >= torch.tensor([0.0, 1.0])).all())
    assert bool((points <= torch.tensor([2.0, 1.0])).all())
    assert check.agrees if right else check.is_wrong


def test_everything_is_left_as_it_was():
    class Noisy(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, batch=None):
            self.calls += 1
            return (self.x**2).sum() * torch.rand(()).double() + self.x.detach().sum()

    objective = Noisy()
    oracle = AutogradOracle(objective)
    oracle.max_evaluations = 3
    evaluation = oracle.evaluate()
    random, gradient = torch.get_rng_state(), objective.x.grad.clone()

    check = check_gradient(oracle)

    assert check.is_wrong  # common random numbers make the noise a constant
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(objective.x, evaluation.point)
    assert torch.equal(objective.x.grad, gradient)
    assert (oracle.num_losses, oracle.num_gradients, oracle.max_evaluations) == (1, 1, 3)
    assert objective.calls == 1


def test_a_loss_that_is_not_the_same_twice_cannot_be_judged():
    numbers = numpy.random.default_rng(0)

    check = check_gradient(oracle_of(lambda x: (x**2).sum() + numbers.normal() * x.detach().sum(), [1.0]))

    assert check.unjudged.startswith("two losses at the same point differ by ")


def test_what_the_objective_raises_beside_the_point_is_no_verdict():
    def picky(x):
        if x.item() != 1.0:
            raise ZeroDivisionError("here only")
        return x**2

    check = check_gradient(oracle_of(picky, 1.0))

    assert check.unjudged == "beside the point the objective raised ZeroDivisionError: here only"


def test_an_objective_on_batches_without_a_full_loss_cannot_be_judged():
    oracle = oracle_of(g.loss, g.START)
    oracle.has_full_loss = False

    assert "no full_loss()" in check_gradient(oracle).unjudged


def test_it_gives_up_when_time_is_over_or_somebody_interrupts():
    calls = []

    def slow(x):
        calls.append(time.sleep(0.02))
        return -x.detach() * x

    assert "too long" in check_gradient(oracle_of(slow, 1.0), Patience(0.05)).unjudged
    assert len(calls) < 6
    calls.clear()
    assert "too long" in check_gradient(oracle_of(slow, 1.0), Patience(interrupted=lambda: len(calls) > 3)).unjudged
    assert len(calls) == 4


def test_a_gradient_that_is_not_finite_cannot_be_judged():
    assert "not finite" in check_gradient(oracle_of(lambda x: x.sqrt(), 0.0)).unjudged
    assert "not finite" in check_gradient(oracle_of(lambda x: x * math.nan, 0.0)).unjudged
