"""The problems of Hock and Schittkowski: minima are feasible and stationary, and found by another solver."""

import importlib
import math

import numpy as np
import pytest
from gradopt_problems.names import problems
from peer import Peer, differences

import gradopt

ALL = {name: target for name, target in problems().items() if name.startswith("hs/")}
# Starts from which the lowest minimum is found; SLSQP ends at another one, or at none, from the book's start.
NEAR = {
    "hs/hs002": [1.0, 1.5],
    "hs/hs016": [0.4, 0.3],
    "hs/hs020": [0.4, 0.9],
    "hs/hs033": [0.05, 1.3, 1.5],
    "hs/hs047": [0.7, 0.7, 1.2, 1.7, 1.5],
    "hs/hs061": [5.0, -2.0, 3.0],
    "hs/hs101": [3.0, 0.6, 2.0, 5.0, 1.0, 1.4, 0.03],
    "hs/hs102": [4.0, 0.8, 2.5, 4.0, 0.9, 1.0, 0.03],
    "hs/hs103": [4.5, 0.9, 3.0, 3.5, 0.7, 0.9, 0.025],
    "hs/hs108": [0.9, 0.4, 0.0, 1.0, 0.9, 0.4, 0.0, 1.0, 0.1],
}
every = pytest.mark.parametrize("name", ALL)


def build(name):
    module, _, cls = ALL[name].partition(":")
    return getattr(importlib.import_module(module), cls)()


def test_there_are_at_least_40_of_every_kind():
    problems = [build(name) for name in ALL]

    kinds = [
        (bool(problem.bounds()), problem.equalities() is not None, bool(problem.constraints())) for problem in problems
    ]

    assert len(problems) >= 70
    assert sum(bounds and not constraints for bounds, _, constraints in kinds) >= 7
    assert sum(equalities for _, equalities, _ in kinds) >= 30
    assert sum(constraints and not equalities for _, equalities, constraints in kinds) >= 30


@every
def test_gradients_agree_with_central_differences(name):
    problem = build(name)
    peer = Peer(problem)
    inside = np.clip(peer.start * 1.01 + 0.01, peer.lower + 1e-3, peer.upper - 1e-3)

    numeric = differences(peer.loss, inside)[0]
    assert peer.gradient(inside) == pytest.approx(numeric, rel=1e-5, abs=1e-5 * np.abs(numeric).max() + 1e-9)
    for constraint in peer.constraints:
        numeric = differences(lambda x, c=constraint: peer.values(x, c), inside)
        exact = peer.jacobian(inside, constraint)
        assert exact == pytest.approx(numeric, rel=1e-5, abs=1e-5 * np.abs(numeric).max() + 1e-9)


@every
def test_the_start_is_within_the_bounds(name):
    peer = Peer(build(name))

    assert (peer.start >= peer.lower).all()
    assert (peer.start <= peer.upper).all()


@pytest.mark.parametrize("name", [name for name in ALL if build(name).minimiser()])
def test_the_stated_minimiser_is_feasible_and_stationary_with_the_stated_minimum(name):
    problem = build(name)
    peer, x = Peer(problem), np.array(problem.minimiser())

    assert peer.loss(x) == pytest.approx(problem.minimum(), rel=1e-11, abs=1e-13)
    assert peer.violation(x) <= 1e-10 * max(1.0, np.abs(x).max())
    assert peer.stationarity(x) <= 1e-7


@every
def test_the_minimum_is_found_by_an_independent_solver(name):
    problem = build(name)
    peer = Peer(problem)

    found = peer.minimise(NEAR.get(name))

    assert found.fun == pytest.approx(problem.minimum(), rel=1e-7, abs=1e-7)
    assert peer.violation(found.x) <= 1e-6 * max(1.0, np.abs(found.x).max())


def test_a_start_outside_the_bounds_is_moved_onto_them():
    assert build("hs/hs002").x.tolist() == [-2.0, 1.5]
    assert build("hs/hs045").x.tolist() == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_a_bounded_problem_is_minimised():
    result = gradopt.minimise(build("hs/hs005"))

    assert result.success, result
    assert result.fun == pytest.approx(-math.sqrt(3) / 2 - math.pi / 3, rel=1e-10)
