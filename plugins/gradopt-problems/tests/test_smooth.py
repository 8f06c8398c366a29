"""Smooth losses: minima are found by other solvers, and stated minimisers have them."""

import importlib

import numpy as np
import pytest
import torch
from gradopt_problems import smooth
from gradopt_problems.names import problems
from peer import Peer, differences

import gradopt

ALL = {name: target for name, target in problems().items() if name.startswith("smooth/")}
every = pytest.mark.parametrize("name", ALL)
# From the standard start descent ends in another minimum.
NEAR = {
    "smooth/softplus_network": [
        *(-0.77, 2.07, 1.05, 2.02, 0.02, -0.66, -1.58, -1.15, -1.3, 2.19, -0.74, 1.75, 0.34, -1.21, -0.74, -1.38),
        *(-0.45, -1.19, -1.38, 0.95, 0.96, -2.06, -1.52, 1.58, -1.33),
    ]
}
# Their Hessian is singular at the minimum, so that the last digits are not reached.
SINGULAR = ("smooth/nondquar", "smooth/power", "smooth/quartc", "smooth/sinquad")


def build(name):
    module, _, cls = ALL[name].partition(":")
    return getattr(importlib.import_module(module), cls)()


def test_there_are_at_least_25_none_of_them_large():
    assert len(ALL) >= 40
    assert all(build(name).x.numel() <= 100 for name in ALL)


@every
def test_gradients_agree_with_central_differences(name):
    peer = Peer(build(name))
    x = peer.start + 0.01 * np.cos(np.arange(len(peer.start)))

    numeric = differences(peer.loss, x)[0]

    assert peer.gradient(x) == pytest.approx(numeric, rel=1e-5, abs=1e-5 * np.abs(numeric).max())


@pytest.mark.parametrize("name", [name for name in ALL if build(name).minimiser()])
def test_the_stated_minimiser_has_the_stated_minimum(name):
    problem = build(name)
    peer, x = Peer(problem), np.array(problem.minimiser())

    assert peer.loss(x) == pytest.approx(problem.minimum(), rel=1e-12, abs=1e-12)
    assert np.abs(peer.gradient(x)).max() <= 1e-9


@every
def test_the_minimum_is_found_by_an_independent_solver(name):
    problem = build(name)
    peer = Peer(problem)

    found = peer.minimise(NEAR.get(name))
    if not np.isfinite(found.fun):  # a step across the edge of the domain
        found = peer.trust_region(NEAR.get(name))

    assert found.fun == pytest.approx(problem.minimum(), rel=1e-10, abs=1e-9 if name in SINGULAR else 1e-11)
    assert np.abs(peer.gradient(found.x)).max() <= 1e-5 * max(1.0, np.abs(peer.gradient(peer.start)).max())


@pytest.mark.parametrize("n", [12, 24])
def test_the_size_varies(n):
    for cls in smooth.Smooth.__subclasses__():
        problem = cls(n=n)
        assert problem.x.numel() == n
        assert problem().isfinite()
        if problem.minimiser():
            with torch.no_grad():
                problem.x.copy_(torch.tensor(problem.minimiser()))
            assert problem().item() == pytest.approx(problem.minimum(), rel=1e-12, abs=1e-12)


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(gradopt.Mistake, match="n of 4 or more, a multiple of 4, got 6"):
        smooth.Woods(n=6)


def test_data_are_the_same_in_single_precision():
    double = build("smooth/logistic_regression")
    torch.set_default_dtype(torch.float32)

    single = build("smooth/logistic_regression")

    assert single().dtype == torch.float32
    torch.testing.assert_close(single.a.double(), double.a, rtol=1e-6, atol=1e-6)
    assert single().item() == pytest.approx(double().item(), rel=1e-6)
