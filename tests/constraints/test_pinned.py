"""Unknowns that an infinite derivative presses against their bound, as sqrt(x) does at 0."""

import math

import pytest
import torch

import gradopt
from gradopt import Constraint, Stop
from gradopt.constraints.box import pinned

OPTIMISERS = {"lbfgs": {}, "trust_region": {}, "sgd": {"lr": 0.01}, "adam": {"lr": 0.1}, "rmsprop": {"lr": 0.01}}
DTYPES = (torch.float64, torch.float32)

# The losses, their starts, their bounds, and the minima at these.
CASES = {
    "all at the lower bound": (lambda x: x.sqrt().sum(), [1.0, 4.0], (0.0, None), [0.0, 0.0]),
    "from the bound": (lambda x: x.sqrt().sum(), [0.0, 4.0], (0.0, None), [0.0, 0.0]),
    "at the upper bound": (lambda x: (2 - x).sqrt().sum(), [1.0, 0.0], (None, 2.0), [2.0, 2.0]),
    "a free unknown beside it": (lambda x: x[0].sqrt() + (x[1] - 3) ** 2, [1.0, 1.0], (0.0, None), [0.0, 3.0]),
    "a fixed unknown": (lambda x: x[0].sqrt() + (x[1] - 3) ** 2, [0.0, 1.0], (0.0, [0.0, 9.0]), [0.0, 3.0]),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("case", CASES)
def test_every_bounded_optimiser_converges_there(case, optimiser, dtype):
    loss, start, bounds, minimum = CASES[case]

    result = gradopt.minimise(
        loss,
        torch.tensor(start, dtype=dtype),
        bounds=bounds,
        optimiser=optimiser,
        optimiser_options=OPTIMISERS[optimiser],
        stop=Stop(max_steps=3000),
    )

    if optimiser == "rmsprop":  # whose steps never get shorter
        assert result.status.value in ("converged", "max_steps"), result.message
    else:
        assert result.status.value == "converged", result.message
        torch.testing.assert_close(result.x, torch.tensor(minimum, dtype=dtype), rtol=1e-3, atol=1e-3)
    assert result.x.isfinite().all()
    assert result.history["gradient_norm"].isfinite().all()


def test_the_result_holds_the_derivative_as_it_is():
    result = gradopt.minimise(lambda x: x[0].sqrt() + (x[1] - 3) ** 2, [1.0, 1.0], bounds=(0.0, None))

    assert result.jac.tolist() == [math.inf, 0.0]


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "adam"])
def test_a_saddle_point_beside_it_is_none_the_less_one(optimiser):
    result = gradopt.minimise(
        lambda x: x[0].sqrt() + (x[1] ** 2 - 1) ** 2,
        [1.0, 0.0],
        bounds=([0.0, -5.0], None),
        optimiser=optimiser,
        stop=Stop(max_steps=2000),
    )

    assert result.status.value == "saddle_point"


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "sgd", "adam"])
def test_an_infinite_derivative_that_points_inside_is_no_minimum(optimiser):
    result = gradopt.minimise(
        lambda x: (x - x.sqrt()).sum(), [0.0, 4.0], bounds=(0.0, None), optimiser=optimiser, stop=Stop(max_steps=50)
    )

    assert result.status.value == "non_finite"


def test_second_derivatives_that_it_hides_are_unchecked():
    result = gradopt.minimise(
        lambda x: x[0].sqrt() * x[1] ** 2 + x[0] + (x[1] - 3) ** 2, [1.0, 1.0], bounds=(0.0, None)
    )

    assert result.status.value == "converged"
    assert result.verdict.evidence["curvature"] == "unchecked"


def test_trust_region_says_that_they_are_hidden():
    result = gradopt.minimise(
        lambda x: x[0].sqrt() * x[1] ** 2 + x[0] + (x[1] - 3) ** 2,
        [1.0, 1.0],
        bounds=(0.0, None),
        optimiser="trust_region",
    )

    assert result.status.value == "stalled"
    assert "lbfgs needs none" in result.message


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_residuals_with_an_infinite_column(dtype):
    result = gradopt.least_squares(
        lambda x: torch.stack([x[0].sqrt() + 1, x[1] - 2, x[0] * x[1] - 1, x[1] - 3]),
        torch.ones(2, dtype=dtype),
        bounds=(0.0, None),
    )

    assert result.status.value == "converged"
    torch.testing.assert_close(result.x, torch.tensor([0.0, 2.5], dtype=dtype))
    assert result.standard_errors is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_constraints_beside_it(dtype):
    result = gradopt.minimise(
        lambda x: x.sqrt().sum(),
        torch.tensor([0.1, 1.0], dtype=dtype),
        bounds=(0.0, None),
        constraints=Constraint(lambda x: x.sum(), 2.0, 2.0),
    )

    assert result.status.value == "converged"
    torch.testing.assert_close(result.x, torch.tensor([0.0, 2.0], dtype=dtype), rtol=1e-4, atol=0.0)


def test_the_unknowns_it_holds():
    infinity = math.inf
    gradient = torch.tensor([infinity, infinity, -infinity, -infinity, 1.0])
    point = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.0])

    assert pinned(gradient, point, torch.zeros(5), torch.ones(5)).tolist() == [True, False, True, False, False]
    assert pinned(torch.ones(5), point, torch.zeros(5), torch.ones(5)) is None
