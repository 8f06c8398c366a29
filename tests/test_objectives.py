"""Shipped objectives: values, gradients, minima, and what they can prove."""

import math

import pytest
import torch

import gradopt
from gradopt.jobs import known_minimum
from gradopt.mistakes import Mistake
from gradopt.objectives.function import Function, FunctionObjective
from gradopt.objectives.polynomial import Polynomial
from gradopt.objectives.quadratic import Quadratic
from gradopt.objectives.rosenbrock import Rosenbrock


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_the_first_objective_is_64_with_slope_72_at_2():
    objective = Polynomial()

    loss = objective()
    loss.backward()

    assert (loss.item(), objective.x.grad.item()) == (64.0, 72.0)
    assert objective.describe() == "y = 5x^3 + 2x^2 + 4x + 8"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Polynomial(x0=0.3),
        lambda: Polynomial([2.0, -1.0]),
        lambda: Polynomial([4.0]),
        lambda: Quadratic(5, 1e3),
        lambda: Rosenbrock(4),
        lambda: FunctionObjective(lambda x: x.exp().sum(), [0.1, 0.2]),
    ],
    ids=["cubic", "line", "constant", "quadratic", "rosenbrock", "function"],
)
def test_gradients_agree_with_finite_differences(make):
    objective = make()
    names = [name for name, _ in objective.named_parameters()]
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in objective.parameters())

    def loss(*parts):
        return torch.func.functional_call(objective, dict(zip(names, parts, strict=True)))

    assert torch.autograd.gradcheck(loss, values)
    assert torch.autograd.gradgradcheck(loss, values)


@pytest.mark.parametrize(
    ("coefficients", "x0", "bounds", "proof"),
    [
        ([5, 2, 4, 8], 2.0, None, True),
        ([5, 2, 4, 8], 2.0, [None, 2.0], True),
        ([5, 2, 4, 8], 2.0, [-2.0, None], False),
        ([5, 2, 4, 8], 2.0, [-2.0, 2.0], False),
        ([1, 0, -3, 0], 0.5, None, False),  # x^3 - 3x: a minimum at 1 lies ahead
        ([1, 0, -3, 0], -2.0, None, True),  # behind the maximum at -1 it falls for ever
        ([1, 0, 0], 1.0, None, False),
        ([-1, 0, 0], 1.0, None, True),
        ([-2, 1], 0.0, None, True),
        ([7], 0.0, None, False),
        ([0, 0, 3], 0.0, None, False),
        ([-1, 0, 0, 0, 1], 0.5, None, False),  # within Cauchy's bound nothing is claimed
        ([-1, 0, 0, 0, 1], 3.0, None, True),
    ],
)
def test_a_polynomial_proves_only_what_is_true(coefficients, x0, bounds, proof):
    assert (Polynomial(coefficients, x0, bounds).unbounded_below() is not None) == proof


@pytest.mark.parametrize(
    "make",
    [lambda: Quadratic(6, 100.0), Rosenbrock, lambda: Rosenbrock(10)],
    ids=["quadratic", "valley", "valley of 10"],
)
def test_known_minima_are_reached(make):
    objective = make()

    result = gradopt.minimise(objective)

    assert result.status.value == "converged", result
    assert result.fun == pytest.approx(objective.minimum(), abs=1e-12)
    torch.testing.assert_close(result.x, torch.ones_like(result.x), atol=1e-6, rtol=0)


def test_a_function_from_a_file_takes_options_and_bounds(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def loss(x, centre=0.0):\n    return ((x - centre) ** 2).sum()\n")

    objective = Function(f"{path}:loss", [1.0, 2.0], bounds=[0.0, [5.0, None]], options={"centre": 3.0})
    result = gradopt.minimise(objective, optimiser="adam", optimiser_options={"lr": 0.05})

    assert result.success
    torch.testing.assert_close(result.x, torch.tensor([3.0, 3.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("nowhere.py:loss", "there is no file"),
        ("no_such_module:loss", "could not be imported"),
        ("math:coz", "Did you mean 'cos'"),
        ("math", "file.py:name"),
        ("math:pi", "not a function"),
    ],
)
def test_a_wrong_target_says_what_to_mend(target, part):
    with pytest.raises(Mistake, match=part):
        Function(target, [1.0])


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Rosenbrock(1), "n of 2 or more"),
        (lambda: Rosenbrock(3, x0=[1.0]), "x0 has 1 numbers, n is 3"),
        (lambda: Quadratic(2, 0.5), "condition 1 or more"),
        (lambda: Polynomial([]), "one finite number or more"),
        (lambda: Polynomial([1.0, math.nan]), "finite"),
        (lambda: Polynomial(bounds=[1.0]), "lower, upper"),
    ],
)
def test_objectives_refuse_what_makes_no_sense(make, part):
    with pytest.raises(Mistake, match=part):
        make()


def test_a_minimum_that_cannot_be_told_costs_no_run(caplog):
    class Broken(Quadratic):
        def minimum(self):
            raise RuntimeError("on fire")

    assert known_minimum(Quadratic()) == 0.0
    assert known_minimum(Broken()) is None
    assert "minimum() of the objective failed: RuntimeError: on fire" in caplog.text
