"""A run that a wrong gradient misled says so; no other run does, and budgets and interrupts are obeyed."""

import json
import signal
import time

import pytest
import torch

import gradopt
from gradopt.verdict import Status
from tests import functions as f
from tests import gradients as g
from tests.installed import gradopt as command

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
OPTIMISERS = {
    "sgd": {"lr": 0.01},
    "adam": {"lr": 0.1},
    "lbfgs": {},
    "trust_region": {},
    "torch_lbfgs": {"line_search_fn": "strong_wolfe"},
}
optimisers = pytest.mark.parametrize("optimiser", OPTIMISERS)


def run(function, optimiser, dtype=torch.float64, x0=g.START, **options):
    return gradopt.minimise(
        function,
        torch.tensor(x0, dtype=dtype),
        optimiser=optimiser,
        optimiser_options={**OPTIMISERS[optimiser], **options},
        stop=gradopt.Stop(max_steps=2000),
    )


@dtypes
@optimisers
def test_a_wrong_sign_is_named(optimiser, dtype):
    result = run(g.with_gradient(lambda right, x: -right), optimiser, dtype)

    assert result.status in {Status.STALLED, Status.DIVERGED, Status.NON_FINITE}
    assert "the gradient is wrong: along it the loss changes by -35.8" in result.message
    assert "(opposite sign); check the backward of Bent, a custom autograd.Function" in result.message
    assert result.verdict.evidence["gradient_check"] == "wrong"
    assert result.verdict.evidence["slope_of_differences"] == pytest.approx(-35.9, rel=1e-2)
    assert result.verdict.evidence["slope_of_gradient"] == pytest.approx(35.9, rel=1e-2)


@dtypes
@optimisers
def test_a_missing_term_is_named_and_its_zero_is_no_minimum(optimiser, dtype):
    result = run(g.with_gradient(g.without_cross_term), optimiser, dtype)

    assert result.status is Status.STALLED
    assert "the gradient is wrong: in x[0] the loss changes by " in result.message
    assert ", in x[1] the loss changes by " in result.message


@dtypes
@optimisers
def test_a_wrong_scale_that_leads_astray_is_named(optimiser, dtype):
    # A gradient too small by half still leads to the minimum; one a thousand times too large throws plain descent off.
    result = run(g.with_gradient(lambda right, x: 1000 * right), optimiser, dtype)

    if result.success:
        assert result.fun == pytest.approx(15.9308, abs=1e-3)
    else:
        assert result.verdict.evidence["gradient_check"] == "wrong"
    assert (optimiser == "sgd") <= (not result.success)


@dtypes
@optimisers
def test_a_gradient_of_half_the_size_is_a_success_at_the_minimum_or_named(optimiser, dtype):
    result = run(g.with_gradient(lambda right, x: right / 2), optimiser, dtype)

    assert result.success or result.verdict.evidence["gradient_check"] == "wrong"
    assert result.fun == pytest.approx(run(g.loss, "trust_region", dtype).fun, rel=1e-3)


@dtypes
@pytest.mark.parametrize("optimiser", ["sgd", "lbfgs", "trust_region"])
@pytest.mark.parametrize("name", g.RIGHT)
def test_a_right_gradient_is_never_blamed(name, optimiser, dtype):
    function, x0 = g.RIGHT[name]

    result = gradopt.minimise(
        function,
        torch.tensor(x0, dtype=dtype),
        optimiser=optimiser,
        optimiser_options=OPTIMISERS[optimiser],
        stop=gradopt.Stop(max_steps=60),
    )

    assert "the gradient is wrong" not in result.message
    assert result.verdict.evidence.get("gradient_check") != "wrong"


def test_a_wrong_gradient_at_a_bound_is_no_success():
    def reversed_at_bound(x):
        return (2 * x.detach() ** 2 - x**2).sum()  # x^2 with the opposite gradient

    result = gradopt.minimise(reversed_at_bound, [1.5, 2.0], bounds=(-2.0, 2.0), optimiser="sgd")

    assert result.status is Status.STALLED
    assert "(opposite sign)" in result.message
    assert result.fun == 1.5**2 + 2.0**2


def test_a_failure_with_a_right_gradient_says_that_it_agrees_in_the_evidence_alone():
    result = run(f.parabola, "sgd", x0=[2.0], lr=1e-17)

    assert result.status is Status.STALLED
    assert result.verdict.evidence["gradient_check"] == "agrees"
    assert "gradient is wrong" not in result.message


@pytest.mark.parametrize("stop", [gradopt.Stop(max_steps=3), gradopt.Stop(max_evaluations=3)], ids=str)
def test_a_budget_that_is_used_up_allows_no_further_evaluation(stop):
    calls = []

    def wrong(x):
        calls.append(x.item())
        return 2 * x.detach() ** 2 - x**2

    result = gradopt.minimise(wrong, 1.0, optimiser="sgd", stop=stop)

    assert result.status.exhausted
    assert len(calls) <= result.nfev + 2  # the Hessian of the first convergence test, one gradient for the report
    assert "gradient_check" not in result.verdict.evidence


def test_an_interrupt_allows_no_further_evaluation():
    calls = []

    def wrong(x):
        calls.append(x.item())
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return 2 * x.detach() ** 2 - x**2

    result = gradopt.minimise(wrong, 1.0, optimiser="sgd")

    assert result.status is Status.INTERRUPTED
    assert len(calls) < result.nfev + 10  # Hessians of convergence tests; a diagnosis would take more


def test_the_evaluations_of_the_diagnosis_are_not_counted():
    calls = []

    def wrong(x):
        calls.append(x.item())
        return 2 * x.detach() ** 2 - x**2

    result = gradopt.minimise(wrong, 1.0, stop=gradopt.Stop(max_evaluations=500))

    assert result.verdict.evidence["gradient_check"] == "wrong"
    assert result.nfev + 20 < len(calls)


def test_the_result_file_holds_the_diagnosis(tmp_path):
    (tmp_path / "mine.py").write_text("def loss(x):\n    return 2 * x.detach() ** 2 - x**2\n", encoding="utf-8")

    done = command(
        "objective=function", "objective.target=mine.py:loss", "objective.x0=1", "optimiser=lbfgs", cwd=tmp_path
    )

    assert done.returncode == 3, done.stderr
    assert "x stalled: " in done.stdout
    assert "along it the loss changes by -2 where the gradient says +2 (opposite sign)" in done.stdout
    (file,) = tmp_path.glob("runs/*/*/result.json")
    evidence = json.loads(file.read_text(encoding="utf-8"))["evidence"]
    assert evidence["gradient_check"] == "wrong"
    assert abs(evidence["slope_of_gradient"] + evidence["slope_of_differences"]) < 1e-6


def test_a_diagnosis_keeps_to_what_is_left_of_a_budget_of_time():
    def slow(x):
        time.sleep(0.02)
        return 2 * x.detach() ** 2 - x**2

    start = time.perf_counter()
    result = gradopt.minimise(slow, 1.0, stop=gradopt.Stop(max_seconds=1.5))

    assert not result.success
    assert time.perf_counter() - start < 1.5 + 1.5
