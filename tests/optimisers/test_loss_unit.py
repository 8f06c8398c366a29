"""The unit of the loss: in any other the optimisers end as well, and trust regions go the same way to the last bit."""

import math

import pytest
import torch

import gradopt
from gradopt import Status
from gradopt.contracts import Evaluation
from gradopt.optimisers.loss_unit import LossUnit

NEWTON = [("trust_region", {"hessian": "matrix"}), ("trust_region", {"hessian": "products"})]
SQUARES = [("levenberg_marquardt", {"jacobian": "matrix"}), ("levenberg_marquardt", {"jacobian": "products"})]
EXPONENTS = [(torch.float64, k) for k in (-600, -300, -60, 60, 300, 600)]
EXPONENTS += [(torch.float32, k) for k in (-80, -40, 40, 80)]

powers = pytest.mark.parametrize(("dtype", "exponent"), EXPONENTS, ids=str)


def valley(x):
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def walk(optimiser, options, dtype, factor, *, squares):
    """The result of a run with the loss times a factor, and every point it has evaluated."""
    points = []

    def residuals(x):
        points.append(x.detach().clone())
        return math.sqrt(factor) * valley(x)

    def loss(x):
        points.append(x.detach().clone())
        return factor * valley(x).square().sum()

    start = torch.tensor([-1.2, 1.0], dtype=dtype)
    how = {"optimiser": optimiser, "optimiser_options": options}
    result = gradopt.least_squares(residuals, start, **how) if squares else gradopt.minimise(loss, start, **how)
    return result, torch.stack(points)


@powers
@pytest.mark.parametrize(("optimiser", "options"), NEWTON + SQUARES, ids=str)
def test_a_power_of_two_times_the_loss_changes_no_bit_of_the_way(optimiser, options, dtype, exponent):
    squares = optimiser == "levenberg_marquardt"
    plain, way = walk(optimiser, options, dtype, 1.0, squares=squares)
    other, same_way = walk(optimiser, options, dtype, 2.0**exponent, squares=squares)

    assert other.status is plain.status is Status.CONVERGED
    assert torch.equal(same_way, way)
    assert other.fun == math.ldexp(plain.fun, exponent)


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "auto"])
@pytest.mark.parametrize(
    ("dtype", "factor"),
    [(torch.float64, 1e200), (torch.float64, 1e-100), (torch.float32, 1e25), (torch.float32, 1e-25)],
    ids=str,
)
def test_a_loss_in_units_whose_squares_are_no_numbers_is_minimised(optimiser, dtype, factor):
    result, _ = walk(optimiser, {}, dtype, factor, squares=False)

    assert result.status is Status.CONVERGED, result
    assert (result.x - 1).abs().max() <= 1e3 * torch.finfo(dtype).eps ** 0.6


def evaluation(loss, slope, dtype=torch.float32):
    gradient = torch.tensor([slope, -0.25 * slope], dtype=dtype)
    return Evaluation(loss, abs(slope), torch.zeros(2, dtype=dtype), gradient)


@pytest.mark.parametrize("slope", [1e-4, 1.0, 1e4])
def test_ordinary_losses_are_left_in_their_own_unit(slope):
    unit, given = LossUnit(), evaluation(3.0, slope)

    assert unit.of(given) is given
    assert unit.factor == unit.root == 1.0


@pytest.mark.parametrize(("loss", "slope"), [(1e-20, 1e-20), (1e30, 1e30), (1.0, 1e30), (0.0, 1e-37), (1e38, 1e38)])
def test_the_unit_is_an_even_power_of_two_that_makes_the_first_gradient_about_one(loss, slope):
    unit = LossUnit()
    found = unit.of(evaluation(loss, slope))

    mantissa, exponent = math.frexp(unit.factor)
    assert mantissa == 0.5
    assert (exponent - 1) % 2 == 0
    assert unit.root**2 == unit.factor
    assert 2.0**-20 <= found.gradient.abs().max() <= 2.0
    assert found.loss == loss * unit.factor
    assert unit.of(evaluation(1.0, 2.0)).loss == unit.factor  # it stays


def test_a_start_on_a_plateau_leaves_room_for_the_slopes_that_follow():
    unit = LossUnit()
    unit.of(evaluation(1.0, 1e-25))

    assert unit.of(evaluation(1.0, 1e10)).gradient.square().isfinite().all()


def test_a_gradient_that_is_zero_chooses_no_unit():
    unit = LossUnit()

    unit.of(evaluation(1.0, 0.0))
    assert unit.state_dict() == {"exponent": None}

    unit.of(evaluation(1e-30, 1e-30))
    again = LossUnit()
    again.load_state_dict(unit.state_dict())
    assert again.factor == unit.factor > 1e29
