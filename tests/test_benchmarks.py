"""The targets of speed hold, with a few tries on a noisy machine."""

import importlib.util

import pytest

from tests.installed import REPOSITORY

OF_KERNELS = 1.2
"""A step over torch's own kernels for it, one after another, where these alone take more than the memory they move."""


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def best_of(tries, measure, target, key=float):
    found = []
    for _ in range(tries):
        found.append(measure())
        if key(found[-1]) <= target:
            break
    return min(map(key, found)), found


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", ["polynomial", "rosenbrock(100)", "digits MLP, 128 images"])
def test_the_loop_with_everything_costs_less_than_a_bare_one(case):
    overhead = benchmark("overhead")
    steps = 2000 if case.startswith("digits") else 10_000

    ratio, ratios = best_of(6, lambda: overhead.measure(case, steps=steps, rounds=3)["auto"][0], overhead.TARGET)

    assert ratio <= overhead.TARGET, ratios


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_of_many_unknowns_costs_the_memory_it_moves(name):
    scale, n = benchmark("scale"), 10_000_000
    most_faults = 4 * n / 4096 / 10  # a tenth of a vector's pages: memory that is kept faults once, not at each step

    def shares_of_what_is_allowed():
        found = scale.measure(n, name, rounds=5)
        allowed = max(scale.TARGET * found["bound us"], OF_KERNELS * found["kernels us"])
        return {"time": found["without best us"] / allowed, "faults": found["faults"] / most_faults, **found}

    share, shares = best_of(4, shares_of_what_is_allowed, 1.0, key=lambda found: max(found["time"], found["faults"]))

    assert share <= 1, shares


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("case", ["--help", "a misspelt name", "a one-step run"])
def test_nobody_waits_long_for_the_start(case):
    startup = benchmark("startup")
    target = startup.CASES[case][2]

    ratio, ratios = best_of(3, lambda: startup.measure(case, rounds=3)[0], target)

    assert ratio <= target, ratios


@pytest.mark.alone
@pytest.mark.slow
def test_lbfgs_costs_a_third_of_torchs():
    overhead = benchmark("solver_overhead")

    ratio, ratios = best_of(3, lambda: overhead.overhead(10, overhead.EVALUATIONS, rounds=3)[0], overhead.TARGET)

    assert ratio <= overhead.TARGET, ratios


@pytest.mark.alone
@pytest.mark.slow
def test_lbfgs_is_linear_in_the_unknowns():
    overhead = benchmark("solver_overhead")

    ratio, ratios = best_of(3, lambda: overhead.growth(10**6) / overhead.growth(10**5), 3.0)

    assert ratio <= 3.0, ratios
