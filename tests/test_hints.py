"""What a verdict says of its cause, and advises, fits what was seen."""

import math

import pytest
import torch

import gradopt
from gradopt import Constraint
from gradopt.verdict import Status

INFINITE = math.inf


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_search_at_the_edge_of_the_domain_is_advised_bounds_and_no_learning_rate(optimiser):
    result = gradopt.minimise(lambda x: x + torch.where(x < 1, math.nan, 0.0), 1.0, optimiser=optimiser)

    assert result.status is Status.NON_FINITE, result
    assert "bounds that keep them in it" in result.message
    assert "learning rate" not in result.message


def test_a_line_search_with_a_learning_rate_is_advised_a_smaller_one():
    options = {"lr": 1.0, "line_search_fn": "strong_wolfe"}
    result = gradopt.minimise(
        lambda x: x + torch.where(x < 1, math.nan, 0.0), 1.5, optimiser="torch_lbfgs", optimiser_options=options
    )

    assert result.status is Status.NON_FINITE, result
    assert "smaller learning rate" in result.message


@pytest.mark.parametrize(
    ("function", "x0", "seen", "unseen"),
    [
        (lambda x: -(1 / x**2), 1.0, "a pole", "the unknowns grow"),
        (lambda x: -torch.exp(x), 1.0, "the unknowns grow", "a pole"),
        (lambda x: -(x**3), 1.0, "the unknowns grow", "a pole"),
    ],
    ids=["pole", "exponential", "cubic"],
)
def test_a_pole_is_told_from_unknowns_that_run_off(function, x0, seen, unseen):
    result = gradopt.minimise(function, x0)

    assert result.status is Status.UNBOUNDED, result
    assert seen in result.message
    assert unseen not in result.message


@pytest.mark.parametrize(
    "function",
    [lambda x: x.abs().sum() + 1, lambda x: torch.maximum(x @ x, (x[0] - 1) ** 2 + x[1] + 3 * x[1] ** 2)],
    ids=["abs", "max"],
)
def test_a_kink_is_named_as_what_may_stop_a_descent(function):
    result = gradopt.minimise(function, [1.0, -2.3])

    assert result.status is Status.STALLED, result
    assert "it has a kink here" in result.message
    assert "constant part" not in result.message


def test_a_loss_rounded_by_its_constant_part_is_told_so():
    result = gradopt.minimise(lambda x: rosenbrock(x) + 1e14, [-1.2, 1.0], optimiser="trust_region")

    assert result.status is Status.STALLED, result
    assert "the loss is rounded by 0.02 here" in result.message
    assert "subtract the constant part of the loss" in result.message
    assert 0 < result.verdict.evidence["newton_gain"] < 100 * result.verdict.evidence["loss_rounding"]


def test_what_is_missed_is_told_in_its_own_units():
    total = Constraint(lambda x: x.sum(), lower=3.0, name="total")
    result = gradopt.minimise(lambda x: (x**2).sum(), [0.5, 0.5], bounds=(0.0, 1.0), constraints=total)

    assert result.status is Status.INFEASIBLE, result
    assert "constraint 'total' is missed by 1, which to first order no move" in result.message
    assert "inf" not in result.message


def test_a_used_up_budget_names_the_constraint_that_is_missed_most():
    constraints = [
        Constraint(lambda x: x.sum(), lower=3.0, name="total"),
        Constraint(lambda x: x[0], lower=0.25, name="first"),
    ]
    stop = gradopt.Stop(max_steps=0)

    missed = gradopt.minimise(lambda x: (x**2).sum(), [0.5, 0.5], constraints=constraints, stop=stop)
    kept = gradopt.minimise(lambda x: (x**2).sum(), [2.5, 2.5], constraints=constraints, stop=stop)

    assert "constraint 'total' is missed by 2, 2 of the unknowns' size" in missed.message
    assert kept.message.endswith("the constraints are kept")


@pytest.mark.parametrize("floor", ["bound", "constraint"])
def test_multipliers_that_grow_without_end_are_named(floor):
    cusp = Constraint(lambda x: (1 - x[0]) ** 3 - x[1], lower=0.0, name="cusp")
    by_bound = floor == "bound"
    result = gradopt.minimise(
        lambda x: -x[0],
        [0.5, 0.2],
        bounds=([-INFINITE, 0.0], None) if by_bound else None,
        constraints=cusp if by_bound else [cusp, Constraint(lambda x: x[1], lower=0.0, name="floor")],
        stop=gradopt.Stop(max_steps=300),
    )

    assert result.status in (Status.STALLED, Status.MAX_STEPS), result
    assert "the multipliers grow without end (of 'cusp'" in result.message


def test_bounded_multipliers_are_no_reason_for_a_word():
    circle = Constraint(lambda x: (x**2).sum(), upper=1.0, name="circle")
    result = gradopt.minimise(
        lambda x: 1e6 * rosenbrock(x - 3), [0.0, 0.5], constraints=circle, stop=gradopt.Stop(max_steps=20)
    )

    assert result.status is Status.MAX_STEPS, result
    assert "without end" not in result.message
