"""Multipliers by least squares, and the tangent space of constraints."""

import pytest
import scipy.optimize
import torch

from gradopt.constraints.functions import ConstraintFunctions, excess, natural_units
from gradopt.constraints.multipliers import least_squares, projected
from gradopt.constraints.tangent import Tangent
from gradopt.contracts import Constraint


def estimate(gradient, jacobian, lower, upper, values, box=None, point=None):
    n = len(gradient)
    point = torch.ones(n, dtype=torch.float64) if point is None else point
    return least_squares(
        gradient, jacobian, values, (lower, upper), point, box, torch.ones(n, dtype=torch.float64), tolerance=1e-8
    )


@pytest.mark.parametrize("seed", range(10))
def test_multipliers_of_right_sign_agree_with_scipys(seed):
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    gradient = torch.randn(8, dtype=torch.float64, generator=generator)
    zero, free = torch.zeros(5, dtype=torch.float64), torch.full((5,), torch.inf, dtype=torch.float64)

    found = estimate(gradient, jacobian, -free, zero, zero)

    expected, residual = scipy.optimize.nnls(jacobian.T.numpy(), -gradient.numpy())
    torch.testing.assert_close(found.values, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    assert found.gradient.norm().item() == pytest.approx(residual)


def test_signs_follow_the_side_that_holds_and_equalities_have_any():
    identity = torch.eye(3, dtype=torch.float64)
    gradient = torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64)
    lower, upper = torch.tensor([[0.0, -torch.inf, 1.0], [torch.inf, 0.0, 1.0]], dtype=torch.float64)

    found = estimate(gradient, identity, lower, upper, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))

    torch.testing.assert_close(found.values, torch.tensor([-2.0, 3.0, -5.0], dtype=torch.float64))
    wrong = estimate(-gradient, identity, lower, upper, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(wrong.values, torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64))


def test_a_constraint_away_from_its_limits_has_none():
    one = torch.ones(1, dtype=torch.float64)

    found = estimate(-one, one[None], -torch.inf * one, one, 0.5 * one)

    assert found.values.tolist() == [0.0]
    assert not len(found.active)


def test_what_a_bound_holds_is_left_to_it():
    """min x + y with x >= 0 and x + y >= 1 at (0, 1): the constraint's multiplier explains y, and x at once."""
    ones = torch.ones(1, 2, dtype=torch.float64)
    gradient = torch.tensor([4.0, 1.0], dtype=torch.float64)
    point = torch.tensor([0.0, 1.0], dtype=torch.float64)
    box = torch.zeros(2, dtype=torch.float64), torch.full((2,), torch.inf, dtype=torch.float64)
    limit = torch.ones(1, dtype=torch.float64)

    found = estimate(gradient, ones, limit, torch.inf * limit, limit, box, point)

    torch.testing.assert_close(found.values, -limit)
    assert projected(found, point, box).abs().max() <= 1e-14


def test_dependent_constraints_share_their_multiplier():
    jacobian = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)

    found = estimate(torch.tensor([-1.0, -1.0], dtype=torch.float64), jacobian, zero, zero, zero)

    assert found.gradient.abs().max() <= 1e-14


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_of_constraints_that_do_as_well_those_nearest_to_their_limits_push(order):
    normals = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 1.1]], dtype=torch.float64)[order]
    values = torch.tensor([1e-10, 0.0, 9e-9], dtype=torch.float64)[order]
    upper = torch.full((3,), torch.inf, dtype=torch.float64)

    found = estimate(torch.tensor([0.9, 1.1], dtype=torch.float64), normals, 0 * upper.nan_to_num(), upper, values)

    expected = torch.tensor([-0.9, -1.1, 0.0], dtype=torch.float64)[order]
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=0)
    assert found.complementarity() == pytest.approx(0.9e-10)


def test_what_is_not_finite_stays_so():
    one = torch.ones(1, dtype=torch.float64)

    assert estimate(torch.nan * one, one[None], one, one, one).values.isnan().all()


@pytest.mark.parametrize(("n", "k", "rank"), [(4, 2, 2), (6, 3, 2), (5, 5, 5), (300, 3, 3), (3, 0, 0)])
def test_the_tangent_space_is_orthogonal_to_the_normals(n, k, rank):
    generator = torch.Generator().manual_seed(n)
    normals = torch.randn(k, n, dtype=torch.float64, generator=generator)
    if rank < k:
        normals[-1] = normals[0] - 2 * normals[1]
    tangent = Tangent(normals * torch.logspace(-8, 8, k, dtype=torch.float64)[:, None])

    assert tangent.dimension == n - rank
    directions = tangent.into(torch.eye(tangent.dimension, dtype=torch.float64))
    torch.testing.assert_close(directions.T @ directions, torch.eye(tangent.dimension, dtype=torch.float64))
    if k and tangent.dimension:
        assert (normals @ directions).abs().max() <= 1e-12
    vector = torch.randn(n, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(tangent.coordinates(vector), directions.T @ vector)


def test_constraints_are_one_vector_and_come_apart_again():
    x = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def volume():
        return x.prod()

    made = ConstraintFunctions([Constraint(volume, lower=1.0), Constraint(lambda: x, -1.0, [3.0, None])])

    assert made.names == ("volume", "c1")
    assert made.values().tolist() == [2.0, 1.0, 2.0]
    assert made.lower.tolist() == [1.0, -1.0, -1.0]
    assert made.upper.tolist() == [torch.inf, 3.0, torch.inf]
    parts = made.by_name(torch.tensor([5.0, 6.0, 7.0]))
    assert parts["volume"].item() == 5.0
    assert parts["c1"].tolist() == [6.0, 7.0]
    assert made.describe() == "3 inequality constraints"


def test_excess_has_the_sign_of_the_side():
    lower, upper = torch.tensor([0.0, 0.0, -torch.inf]), torch.tensor([1.0, 1.0, 0.0])

    assert excess(torch.tensor([2.0, -3.0, -5.0]), lower, upper).tolist() == [1.0, -3.0, 0.0]


def test_units_where_nothing_changes_are_the_distance():
    jacobian = torch.tensor([[2.0, -4.0], [0.0, 0.0], [0.0, 0.0]])
    lower, upper = torch.tensor([0.0, -torch.inf, 1.0]), torch.tensor([0.0, 7.0, 1.0])

    assert natural_units(jacobian, torch.tensor([0.0, 4.0, 1.0]), lower, upper).tolist() == [4.0, 3.0, 1.0]
