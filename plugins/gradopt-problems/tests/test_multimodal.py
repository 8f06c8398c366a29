"""Multimodal functions: stated minima are minima, and a global method finds none lower."""

import importlib

import numpy as np
import pytest
import scipy.optimize
import torch
from gradopt_problems import multimodal
from gradopt_problems.names import problems
from peer import Peer, differences

import gradopt

ALL = {name: target for name, target in problems().items() if name.startswith("multimodal/")}
every = pytest.mark.parametrize("name", ALL)
# Where both global methods may miss the minimum, from here descent ends in it.
NEAR = {"multimodal/easom": [3.0, 3.3], "multimodal/griewank": [1.0, -1.5]}
# The loss has a tip at the minimiser.
TIPS = ("multimodal/ackley", "multimodal/salomon")


def build(name, **options):
    module, _, cls = ALL[name].partition(":")
    return getattr(importlib.import_module(module), cls)(**options)


def test_there_are_at_least_15():
    assert len(ALL) >= 15


@every
def test_gradients_agree_with_central_differences(name):
    peer = Peer(build(name))

    numeric = differences(peer.loss, peer.start)[0]

    assert peer.gradient(peer.start) == pytest.approx(numeric, rel=1e-5, abs=1e-5 * np.abs(numeric).max())


@every
def test_the_start_is_in_the_box_and_not_the_minimiser(name):
    problem = build(name)
    peer = Peer(problem)

    assert (peer.start >= peer.lower).all()
    assert (peer.start <= peer.upper).all()
    assert problem().item() > problem.minimum() + 1e-6


@every
def test_the_stated_minimiser_is_stationary_with_the_stated_minimum(name):
    problem = build(name)
    peer, x = Peer(problem), np.array(problem.minimiser())

    assert peer.loss(x) == pytest.approx(problem.minimum(), rel=1e-12, abs=1e-12)
    assert peer.violation(x) == 0
    if name not in TIPS:
        assert peer.stationarity(x) <= 1e-7


@every
def test_global_methods_find_the_minimum_and_none_lower(name):
    problem = build(name)
    peer = Peer(problem)

    box = list(zip(peer.lower, peer.upper, strict=True))
    local = {"method": "L-BFGS-B", "jac": peer.gradient}
    found = [
        scipy.optimize.dual_annealing(peer.loss, box, maxiter=200, seed=3, minimizer_kwargs=local),
        scipy.optimize.differential_evolution(peer.loss, box, maxiter=200, seed=3, polish=False),
    ]
    found += [peer.minimise(NEAR.get(name, min(found, key=lambda result: result.fun).x))]

    # Beside a tip the loss falls only with the distance, so that fewer digits are reached.
    assert min(result.fun for result in found) == pytest.approx(
        problem.minimum(), rel=1e-10, abs=1e-6 if name in TIPS else 1e-10
    )


@pytest.mark.parametrize("n", [1, 5, 10])
def test_the_size_varies(n):
    sized = [cls for cls in multimodal.Sized.__subclasses__()]

    assert len(sized) >= 8
    for cls in sized:
        problem = cls(n=n)
        with torch.no_grad():
            problem.x.copy_(torch.tensor(problem.minimiser()))
        assert problem().item() == pytest.approx(problem.minimum(), rel=1e-12, abs=1e-12)


def test_no_unknowns_are_refused():
    with pytest.raises(gradopt.Mistake, match="n of 1 or more, got 0"):
        multimodal.Rastrigin(n=0)
