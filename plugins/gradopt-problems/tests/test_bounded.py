"""Problems in boxes: minima are stationary there, and found by other solvers."""

import importlib

import numpy as np
import pytest
import scipy.optimize
from gradopt_problems.names import problems
from peer import Peer, differences

import gradopt

ALL = {name: target for name, target in problems().items() if name.startswith("bounded/")}
# From the standard start descent ends in another minimum.
NEAR = {"bounded/freudenstein_roth": [4.4, 4.0]}
# f of Gay's paper, which is twice the loss.
GAY = {
    "bounded/powell_badly_scaled": 0.15125900e-9,
    "bounded/brown_badly_scaled": 784.0,
    "bounded/beale": 0.0,
    "bounded/helical_valley": 0.99042212,
    "bounded/gaussian": 0.11279300e-7,
    "bounded/powell_singular": 0.18781963e-3,
    "bounded/wood": 1.5567008,
    "bounded/brown_dennis": 0.88860479e5,
    "bounded/biggs_exp6": 0.53209865e-3,
    "bounded/watson": 0.37401397e-1,
    "bounded/penalty_i": 7.5625699,
}
every = pytest.mark.parametrize("name", ALL)


def build(name):
    module, _, cls = ALL[name].partition(":")
    return getattr(importlib.import_module(module), cls)()


def least_squares(peer, start, method):
    """The lowest loss that SciPy's least_squares finds, which wants a start strictly inside."""
    margin = 1e-8 * np.minimum(np.maximum(1.0, np.abs(start)), peer.upper - peer.lower)
    start = np.clip(start, peer.lower + margin, peer.upper - margin)
    return scipy.optimize.least_squares(
        peer.residuals, start, jac=peer.residual_jacobian, bounds=(peer.lower, peer.upper), method=method,
        x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=2000,
    ).cost  # fmt: skip


def test_there_are_at_least_20_with_active_bounds():
    active = 0
    for name in ALL:
        problem = build(name)
        peer, x = Peer(problem), problem.minimiser()
        active += x is not None and bool(((x == peer.lower) | (x == peer.upper)).any())

    assert len(ALL) >= 30
    assert active >= 20


@every
def test_gradients_agree_with_central_differences(name):
    peer = Peer(build(name))
    width = np.minimum(peer.upper - peer.lower, np.maximum(1.0, np.abs(peer.start)))
    inside = np.clip(peer.start, peer.lower + 0.01 * width, peer.upper - 0.01 * width)

    numeric = differences(peer.loss, inside)[0]

    assert peer.gradient(inside) == pytest.approx(numeric, rel=1e-5, abs=1e-5 * np.abs(numeric).max())


@every
def test_the_start_is_in_the_box(name):
    peer = Peer(build(name))

    assert (peer.start >= peer.lower).all()
    assert (peer.start <= peer.upper).all()


@pytest.mark.parametrize("name", [name for name in ALL if build(name).minimiser()])
def test_the_stated_minimiser_is_stationary_with_the_stated_minimum(name):
    problem = build(name)
    peer, x = Peer(problem), np.array(problem.minimiser())

    assert peer.loss(x) == pytest.approx(problem.minimum(), rel=1e-12, abs=1e-18)
    assert peer.violation(x) == 0
    assert peer.stationarity(x, near=0.0) <= 1e-10


@every
def test_the_minimum_is_found_by_an_independent_solver(name):
    problem = build(name)
    peer = Peer(problem)
    start = np.array(NEAR.get(name, peer.start))

    found = [peer.minimise(start).fun]
    if problem.residuals() is not None:
        found += [least_squares(peer, start, method) for method in ("trf", "dogbox")]

    assert min(found) == pytest.approx(problem.minimum(), rel=1e-10, abs=1e-18)


@pytest.mark.parametrize("name", GAY)
def test_minima_agree_with_those_of_gay(name):
    assert 2 * build(name).minimum() == pytest.approx(GAY[name], rel=5e-6)


def test_a_problem_in_residual_form_is_minimised_in_its_box():
    problem = build("bounded/helical_valley")

    result = gradopt.least_squares(problem)

    assert result.success, result
    assert result.fun == pytest.approx(problem.minimum(), rel=1e-9)
