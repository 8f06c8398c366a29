"""A run that a wrong gradient misled says so; no other run does, and budgets and interrupts are obeyed."""

import json
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.function import once_differentiable

import gradopt
from gradopt import postmortem
from gradopt.differences import Patience
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
LARGER_STEPS = {"lbfgs": {}, "sgd": {"lr": 0.1}}
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


class Scaled(torch.autograd.Function):
    """The sum of squares, with a gradient k times the right one."""

    @staticmethod
    def forward(ctx, x, k):
        ctx.save_for_backward(x)
        ctx.k = k
        return (x * x).sum()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * ctx.k * 2 * x, None


def partly_scaled(k):
    return lambda x: Scaled.apply(x - 1, k) + (x**4).sum()


@dtypes
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "sgd"])
@pytest.mark.parametrize("k", [0.97, 1.0, 1.01, 1.02])
def test_a_part_of_the_gradient_wrong_by_a_percent_is_no_success(optimiser, k, dtype):
    result = run(partly_scaled(k), optimiser, dtype, x0=[1.0, 2.0])

    assert result.success == (k == 1.0)
    assert ("check the backward of Scaled" in result.message) == (k != 1.0)


@pytest.mark.parametrize(("optimiser", "k"), [("auto", 1.01), ("auto", 2.0), ("trust_region", 0.5)])
def test_a_wrong_gradient_that_makes_a_run_creep_until_the_clock_is_named(optimiser, k):
    stop = gradopt.Stop(max_seconds=1.0)
    result = gradopt.minimise(partly_scaled(k), [1.0, 2.0], optimiser=optimiser, stop=stop)

    assert not result.success
    assert "check the backward of Scaled" in result.message


def test_a_success_is_checked_though_its_budget_of_time_is_nearly_used_up(monkeypatch):
    clock = time.perf_counter
    monkeypatch.setattr(postmortem, "time", SimpleNamespace(perf_counter=lambda: clock() + 1e6))
    stop = gradopt.Stop(max_seconds=60.0)

    assert gradopt.minimise(partly_scaled(1.0), [1.0, 2.0], stop=stop).success
    result = gradopt.minimise(partly_scaled(2.0), [1.0, 2.0], optimiser="trust_region", stop=stop)

    assert result.status is Status.STALLED
    assert "check the backward of Scaled" in result.message


def test_a_success_that_nobody_had_the_time_to_check_says_so(monkeypatch):
    monkeypatch.setattr(postmortem, "patience", lambda *_: Patience(-1.0))

    result = gradopt.minimise(partly_scaled(1.0), [1.0, 2.0])

    assert result.success
    assert result.message.endswith("; the gradient was not checked, for want of time")
    assert result.verdict.evidence["gradient_check"].startswith("unjudged")


def test_an_unknown_cut_off_from_the_gradient_is_no_saddle_point():
    result = gradopt.minimise(lambda x: (x[0] - 1) ** 2 + (x[1].detach() - 2) ** 2, [3.0, 5.0])

    assert result.status is Status.STALLED
    assert "in x[1] the loss changes by 6 where the gradient says 0" in result.message


@pytest.mark.parametrize("detached", [True, False])
def test_a_wrong_gradient_of_a_constraint_is_named(detached):
    def line(x):
        return x[0] + 2 * (x[1].detach() if detached else x[1]) - 1

    result = gradopt.minimise(
        lambda x: (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2,
        [1.0, 2.0],
        constraints=[gradopt.Constraint(line, lower=0.0, upper=0.0)],
    )

    assert result.success != detached
    if detached:
        wrong = "the gradient of constraint line is wrong: in x[1] its value changes by 2 where the gradient says 0"
        assert wrong in result.message
        assert result.verdict.evidence["constraint"] == "line"


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_wrong_gradient_of_a_constraint_with_room_is_said_of_a_success(optimiser):
    result = gradopt.minimise(
        lambda x: ((x - 1) ** 2).sum(),
        [3.0, 0.0],
        optimiser="augmented_lagrangian",
        optimiser_options={"inner": optimiser},
        constraints=[
            gradopt.Constraint(lambda x: x[0].detach() ** 2 + x[1], upper=50.0, name="wide"),
            gradopt.Constraint(lambda x: x[1], upper=0.5, name="tight"),
        ],
    )

    assert result.status is gradopt.Status.CONVERGED, result.message
    assert result.x.tolist() == pytest.approx([1.0, 0.5])
    assert "Not active here, but the gradient of constraint wide is wrong: in x[0]" in result.message


def test_a_wrong_gradient_of_a_constraint_is_no_success():
    result = gradopt.minimise(
        lambda x: (x**2).sum(),
        [3.0, 1.0],
        constraints=[
            gradopt.Constraint(lambda x: Scaled.apply(x, 1.0), upper=9.0),
            gradopt.Constraint(lambda x: x[0] + 2 * x[1].detach(), lower=1.0, name="cut"),
        ],
    )

    assert result.status is Status.STALLED
    assert "the gradient of constraint cut is wrong" in result.message


def test_terms_that_cancel_at_the_minimum_are_no_slope():
    for x0 in ([1.0, 2.0], [1e-3, -2e-3]):
        for function in (lambda x: (torch.cosh(x) - 1).sum(), lambda x: torch.log(torch.cosh(x)).sum()):
            for dtype in (torch.float32, torch.float64):
                assert run(function, "lbfgs", dtype, x0=x0).success


@pytest.mark.parametrize("optimiser", ["lbfgs", "sgd"])
@pytest.mark.parametrize("x0", [1e-4, 5e-5, -2e-4])
def test_a_slope_that_is_rounding_is_not_blamed_on_the_gradient(x0, optimiser):
    """Within one rounding of 0, exp(x) - 1 - x is computed as -x: that its slope is 0 shows only farther away."""
    result = run(lambda x: (torch.exp(x) - 1 - x).sum(), optimiser, torch.float32, [x0], **LARGER_STEPS[optimiser])

    assert result.success, result.message
    assert result.verdict.evidence.get("gradient_check", "agrees") != "wrong"


@dtypes
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_right_gradient_that_underflows_in_a_tail_is_not_blamed(optimiser, dtype):
    # The derivative of 1/y is -1/y^2, which is 0 where y is 1e162, and so is no slope of the loss.
    result = run(lambda x: (1 / (1 + x**2)).sum(), optimiser, dtype, x0=[1.0])

    assert result.status is Status.STALLED
    assert result.jac.item() == 0
    assert "plateau" in result.message
    assert "wrong" not in result.message
    assert "leave the range" in result.verdict.evidence["gradient_check"]


@dtypes
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_wrong_gradient_of_a_tiny_loss_is_named_all_the_same(optimiser, dtype):
    scale = 1e-12 if dtype is torch.float32 else 1e-100
    result = run(lambda x: scale * g.with_gradient(lambda right, x: -right)(x), optimiser, dtype)

    assert result.verdict.evidence["gradient_check"] == "wrong"


class Quartic(torch.autograd.Function):
    """The sum of x^4, that cannot be differentiated twice."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x**4).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return 4 * upstream * x**3


@dtypes
@pytest.mark.parametrize(
    ("x0", "status"), [([0.0, 2.0], Status.SADDLE_POINT), ([0.0, 0.0], Status.MAXIMUM)], ids=["saddle", "maximum"]
)
def test_a_smooth_fall_to_both_sides_is_no_kink_where_there_are_no_second_derivatives(x0, status, dtype):
    result = run(lambda x: Quartic.apply(x) - (x**2).sum(), "lbfgs", dtype, x0=x0)

    assert result.status is status
    assert "to either side" in result.message
    assert "kink" not in result.message
    assert abs(result.verdict.evidence["direction"][0, 0].item()) == 1.0


@dtypes
def test_a_minimum_without_second_derivatives_is_one(dtype):
    result = run(lambda x: Quartic.apply(x) + (x**2).sum(), "lbfgs", dtype, x0=[1.0, 2.0])

    assert result.status is Status.CONVERGED
    assert "unchecked" in result.message
