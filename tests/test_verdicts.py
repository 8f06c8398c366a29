"""Endings are true: no failure is called a success, no success a failure."""

import math
import signal
import threading
import time

import pytest
import torch

import gradopt
from gradopt.observers import report
from gradopt.plugins import torch_optimisers
from gradopt.stationarity.curvature import examine
from gradopt.verdict import Status
from tests import functions as f
from tests.verdicts.cases import powell_singular

FIRST_ORDER = sorted(set(torch_optimisers()) - {"torch_lbfgs", "muon", "sparseadam"})
DTYPES = (torch.float32, torch.float64)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
optimisers = pytest.mark.parametrize("optimiser", FIRST_ORDER)


def run(function, x0, optimiser, dtype, *, steps=300, **options):
    return gradopt.minimise(
        function,
        torch.tensor(x0, dtype=dtype),
        optimiser=optimiser,
        optimiser_options=options,
        stop=gradopt.Stop(max_steps=steps),
    )


@dtypes
@optimisers
@pytest.mark.parametrize("x0", [-3.0, 0.0, 1.0, 2.0])
def test_the_unbounded_cubic_is_never_called_converged(optimiser, dtype, x0):
    result = run(f.cubic, x0, optimiser, dtype)

    assert result.status in {Status.UNBOUNDED, Status.MAX_STEPS, Status.NON_FINITE, Status.DIVERGED}
    assert not result.success
    assert math.isfinite(result.fun)
    assert result.fun <= f.cubic(torch.tensor(x0, dtype=dtype)).item()


@dtypes
@pytest.mark.parametrize("x0", [-3.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("options", [{}, {"line_search_fn": "strong_wolfe"}], ids=["fixed", "wolfe"])
def test_lbfgs_ends_on_the_unbounded_cubic_without_crashing(dtype, x0, options):
    result = run(f.cubic, x0, "torch_lbfgs", dtype, **options)

    assert result.status in {Status.UNBOUNDED, Status.NON_FINITE}
    assert math.isfinite(result.fun)
    assert result.fun <= f.cubic(torch.tensor(x0, dtype=dtype)).item()


@dtypes
def test_gradient_descent_on_the_cubic_is_called_unbounded(dtype):
    result = run(f.cubic, 2.0, "sgd", dtype, lr=0.01)

    assert result.status is Status.UNBOUNDED


@dtypes
@optimisers
@pytest.mark.parametrize(
    ("function", "x0", "status"),
    [
        (f.hill, 0.0, Status.MAXIMUM),
        (f.saddle, [0.0, 0.0], Status.SADDLE_POINT),
        (f.inflection, 0.0, Status.SADDLE_POINT),
    ],
    ids=["maximum", "saddle", "inflection"],
)
def test_a_start_where_the_gradient_vanishes_is_no_minimum(optimiser, dtype, function, x0, status):
    result = run(function, x0, optimiser, dtype)

    assert result.status is status
    assert not result.success


@dtypes
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_descent_into_a_saddle_point_says_so(optimiser, dtype):
    result = run(f.saddle, [1.0, 0.0], optimiser, dtype, steps=3000, lr=0.01)

    assert result.status is Status.SADDLE_POINT
    direction = result.verdict.evidence["direction"]
    assert abs(direction[1].item()) == pytest.approx(1.0, abs=1e-3)


def test_a_saddle_in_many_unknowns_is_found_by_lanczos():
    # 100 unknowns, one of them with negative curvature: more than the dense check takes.
    def high_saddle(x):
        return (x[1:] ** 2).sum() - 0.01 * x[0] ** 2 + x[0] ** 4

    result = run(high_saddle, [0.0] + [1.0] * 99, "sgd", torch.float64, steps=3000, lr=0.1)

    assert result.status is Status.SADDLE_POINT


@dtypes
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "radam", "adamax"])
def test_a_learning_rate_of_1e_12_is_no_success(optimiser, dtype):
    result = run(f.parabola, [0.5], optimiser, dtype, lr=1e-12)

    assert not result.success
    assert result.status in {Status.MAX_STEPS, Status.STALLED}


@pytest.mark.parametrize("optimiser", FIRST_ORDER)
def test_a_loss_too_large_for_float32_is_not_converged_at_its_start(optimiser):
    result = run(f.far_floor, [1.0], optimiser, torch.float32)

    assert not (result.success and abs(result.x.item() - 1.0) < 0.5)
    if result.success:
        assert result.x.item() == pytest.approx(3.0, abs=1e-2)


@dtypes
@optimisers
@pytest.mark.parametrize(
    ("function", "x0"),
    [
        (f.quadratic_1e6, [0.0] * 4),
        (f.rosenbrock, [-1.2, 1.0]),
        (f.barrier, 0.9),
        (f.flat_valley, [1000.0]),
    ],
    ids=["quadratic 1e6", "rosenbrock", "barrier", "flat valley"],
)
def test_no_false_alarm_on_bounded_functions(optimiser, dtype, function, x0):
    lr = {"lr": 1e-3} if function in (f.rosenbrock, f.barrier) and optimiser in ("sgd", "asgd") else {}

    result = run(function, x0, optimiser, dtype, **lr)

    assert result.status not in {Status.UNBOUNDED, Status.DIVERGED}


@dtypes
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_scale_of_the_loss_changes_no_verdict(dtype, scale):
    result = run(lambda x: scale * (x - 3) ** 2, 0.0, "adam", dtype, steps=3000, lr=0.01, eps=1e-30)

    assert result.status is Status.CONVERGED
    assert result.x.item() == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_slow_start_is_no_convergence_at_any_scale(scale):
    result = run(lambda x: scale * (x - 3) ** 2, 0.0, "sgd", torch.float64, lr=1e-8 / scale)

    assert result.status is Status.MAX_STEPS


def test_minus_log_never_converges():
    result = run(lambda x: -torch.log(x), 1.0, "adam", torch.float64, steps=1000, lr=1.0)

    assert not result.success


@dtypes
def test_a_warm_start_ends_at_once(dtype):
    result = run(f.parabola, [3.0, 3.0], "sgd", dtype)

    assert (result.status, result.nit, result.nfev) == (Status.CONVERGED, 0, 1)


@dtypes
def test_too_large_a_learning_rate_is_called_diverged(dtype):
    result = run(lambda x: 50 * x**2, 1.0, "sgd", dtype, lr=0.05)

    assert result.status is Status.DIVERGED
    assert result.fun == 50.0
    assert "learning rate" in result.message


@dtypes
def test_steps_that_round_to_nothing_are_called_stalled(dtype):
    result = run(f.parabola, [2.0], "sgd", dtype, lr=1e-17)

    assert result.status is Status.STALLED
    assert ("float64" in result.message) == (dtype is torch.float32)


def test_a_gradient_of_mere_rounding_is_called_noise_floor():
    # (1e8 + x) - 1e8 rounds to multiples of 8 in float32, so the gradient's sign is chance where it is small.
    def noisy(x):
        return (((x * 1e8 - 3e8) / 1e8) ** 2).sum()

    result = gradopt.minimise(
        noisy,
        torch.tensor([2.0], dtype=torch.float32),
        optimiser="sgd",
        optimiser_options={"lr": 0.1},
        stop=gradopt.Stop(gradient_tolerance=0.0, max_steps=2000),
    )

    assert result.status in {Status.CONVERGED, Status.NOISE_FLOOR}
    assert result.x.item() == pytest.approx(3.0, abs=1e-5)


class TurnsBad:
    """A parabola that gives `bad` from its `n`-th evaluation on, and remembers where it was asked."""

    def __init__(self, bad, n):
        self.bad, self.n, self.points = bad, n, []

    def __call__(self, x):
        self.points.append(x.detach().clone())
        return f.parabola(x) * (self.bad if len(self.points) >= self.n else 1.0)


@dtypes
@optimisers
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_turns_bad_moves_nothing_and_the_best_point_is_returned(optimiser, dtype, bad):
    function = TurnsBad(bad, n=30)

    result = gradopt.minimise(
        function,
        torch.tensor([1.0, 2.5], dtype=dtype),
        optimiser=optimiser,
        stop=gradopt.Stop(max_steps=100, gradient_tolerance=0.0),
    )

    assert result.status is Status.NON_FINITE
    evaluated = torch.stack(function.points)
    losses = ((evaluated - 3) ** 2).sum(1)[: function.n - 1]
    assert result.fun == pytest.approx(losses.min().item(), rel=1e-6)
    assert (result.x == evaluated[: function.n - 1]).all(1).any()


@dtypes
def test_a_gradient_that_is_not_finite_moves_nothing(dtype):
    result = run(lambda x: torch.sqrt(x), 0.0, "sgd", dtype)

    assert result.status is Status.NON_FINITE
    assert result.x.item() == 0.0


@dtypes
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_bounds_are_kept_and_a_held_unknown_is_converged(optimiser, dtype):
    seen = []

    def watched(x):
        seen.append(x.item())
        return f.cubic(x)

    result = gradopt.minimise(
        watched,
        torch.tensor(2.0, dtype=dtype),
        bounds=(-2.0, 2.0),
        optimiser=optimiser,
        optimiser_options={"lr": 0.01},
    )

    assert (result.status, result.x.item(), result.fun) == (Status.CONVERGED, -2.0, -32.0)
    assert min(seen) >= -2.0
    assert max(seen) <= 2.0


def test_a_bound_that_does_not_hold_leaves_a_maximum_a_maximum():
    result = gradopt.minimise(lambda x: -(x**2), 0.0, bounds=(0.0, 1.0), optimiser="sgd")

    assert result.status is Status.MAXIMUM


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        (gradopt.Stop(max_steps=7), Status.MAX_STEPS),
        (gradopt.Stop(max_evaluations=7), Status.MAX_EVALUATIONS),
        (gradopt.Stop(max_seconds=0.05), Status.MAX_SECONDS),
        (gradopt.Stop(target=1.0), Status.TARGET_REACHED),
        (gradopt.Stop(max_steps=0), Status.MAX_STEPS),
    ],
    ids=str,
)
def test_budgets_and_targets_end_a_run(stop, status):
    result = gradopt.minimise(
        f.parabola, [0.0], optimiser="sgd", optimiser_options={"lr": 1e-3 if stop.target is None else 0.1}, stop=stop
    )

    assert result.status is status
    assert result.verdict.reason
    if stop.max_steps is not None:
        assert result.nit == stop.max_steps
    if stop.max_evaluations is not None:
        assert result.nfev == stop.max_evaluations
    if stop.target is not None:
        assert result.fun <= stop.target < result.history["loss"][-2]


@pytest.mark.parametrize("limit", [1, 2, 5, 17, 40])
def test_a_budget_of_evaluations_is_kept_inside_a_line_search(limit):
    function = TurnsBad(1.0, n=10**9)

    result = gradopt.minimise(
        lambda x: f.rosenbrock(x) + 0 * function(x),
        [-1.2, 1.0],
        optimiser="torch_lbfgs",
        optimiser_options={"line_search_fn": "strong_wolfe"},
        stop=gradopt.Stop(max_evaluations=limit),
    )

    assert result.status is Status.MAX_EVALUATIONS
    assert result.nfev == limit
    assert result.fun <= f.rosenbrock(torch.tensor([-1.2, 1.0])).item() * (1 + 1e-6)


def test_the_best_point_is_returned_when_a_budget_ends_a_run_elsewhere():
    result = run(f.parabola, [0.0], "sgd", torch.float64, steps=7, lr=1.02)

    assert result.status is Status.MAX_STEPS
    assert result.fun == result.history["loss"].min().item()
    assert result.fun == pytest.approx(f.parabola(result.x).item())
    assert result.message.endswith(f". The best point, of loss {result.fun:.10g}, is returned")


def test_each_of_many_starts_says_which_point_is_returned():
    starts = torch.tensor([[-1.2, 1.0], [1.0, 1.0]], dtype=torch.float64)

    results = gradopt.minimise(
        f.rosenbrock, starts=starts, optimiser="adam", optimiser_options={"lr": 0.5}, stop=gradopt.Stop(max_steps=20)
    )

    assert f"{results.verdicts[0].evidence['loss']:.10g} and" in results[0].message
    assert results[0].message.endswith(f". The best point, of loss {results.fun[0].item():.10g}, is returned")
    assert "is returned" not in results[1].message


def test_a_line_search_at_the_rounding_of_the_loss_has_converged():
    # Near the minimum the loss differs from 1 by less than eps: a line search cannot come closer than sqrt(eps).
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 12, 60, dtype=torch.float64)
    noise = 0.02 * torch.randn(60, generator=generator, dtype=torch.float64)
    y = 2 * torch.sin(2 * math.pi * 0.35 * t + 0.6) - 1 + noise

    def misfit(p):
        return ((p[0] * torch.sin(2 * math.pi * p[1] * t + p[2]) + p[3] - y) ** 2).mean()

    result = run(misfit, [2.0, 0.35, 0.6, -1.0], "torch_lbfgs", torch.float64, line_search_fn="strong_wolfe")

    assert result.status is Status.CONVERGED, result
    assert result.jac.abs().max() < 1e-7


class Slow:
    """A function without a minimum that takes its time: one line search goes on and on."""

    def __init__(self, seconds):
        self.seconds, self.calls = seconds, 0

    def __call__(self, x):
        self.calls += 1
        time.sleep(self.seconds)
        return -x.square().sum()


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "torch_lbfgs", "sgd"])
def test_the_clock_is_seen_inside_a_line_search(optimiser):
    began = time.perf_counter()

    result = gradopt.minimise(Slow(0.05), [1.0], optimiser=optimiser, stop=gradopt.Stop(max_seconds=0.3))

    whole = time.perf_counter() - began
    assert result.status is Status.MAX_SECONDS, result
    assert whole < 3.0
    assert result.fun <= -1.0
    assert 0.25 < result.seconds < whole
    assert sum(result.seconds_by.values()) == pytest.approx(result.seconds, rel=0.3)


@pytest.mark.parametrize("optimiser", ["lbfgs", "sgd"])
def test_ctrl_c_is_seen_inside_a_line_search(optimiser):
    function = Slow(0.05)
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()

    result = gradopt.minimise(function, [1.0], optimiser=optimiser, stop=gradopt.Stop(max_seconds=30.0))

    assert result.status is Status.INTERRUPTED, result
    assert function.calls < 40


def _cancelling(y):
    """y - 1, with a rounding that keeps gradients from vanishing: of 1e4 rather than of 1."""
    return (1e4 + y) - 1e4 - 1.0


RUN_OFF = {
    "sigmoid": lambda x: 7.0 + torch.sigmoid(-x[0]) + _cancelling(x[1]) ** 2,
    "exponential": lambda x: 7.0 + torch.exp(-x[0]) * (1 + x[1] ** 2) + _cancelling(x[1]) ** 2,
    "gaussian": lambda x: 6.0 - torch.exp(-((x[0] - 1) ** 2)) + _cancelling(x[1]) ** 2,
    "potential": lambda x: 7.0 + 1e6 * x[0] ** -12 + _cancelling(x[1]) ** 2,
}


@pytest.mark.parametrize("tolerance", [None, 0.0])
@pytest.mark.parametrize("start", [3.0, 10.0])
@pytest.mark.parametrize("name", sorted(RUN_OFF))
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "auto"])
def test_an_unknown_that_runs_off_to_where_nothing_depends_on_it_is_no_success(optimiser, name, start, tolerance):
    stop = gradopt.Stop(max_evaluations=400, gradient_tolerance=tolerance)
    x0 = torch.tensor([start, 2.0], dtype=torch.float64)

    result = gradopt.minimise(RUN_OFF[name], x0, optimiser=optimiser, stop=stop)

    at_the_minimum = name == "gaussian" and abs(result.x[0] - 1) < 1e-6
    assert result.success == at_the_minimum, result


def test_a_saddle_point_at_infinity_is_no_noise_floor():
    # Sums of two exponentials, from where one of them has lost all influence: Jennrich and Sampson's problem.
    i = torch.arange(1.0, 11.0, dtype=torch.float64)

    def residuals(x):
        return 2 + 2 * i - torch.exp(i * x[0]) - torch.exp(i * x[1])

    result = gradopt.least_squares(residuals, [3.0, 4.0], optimiser="levenberg_marquardt")

    assert result.success == (result.fun < 63), result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "auto"])
def test_where_the_gradient_underflows_is_no_noise_floor(optimiser, dtype):
    result = gradopt.minimise(lambda x: x.exp().sum(), torch.tensor([1.0], dtype=dtype), optimiser=optimiser)

    assert result.status is Status.STALLED
    assert "plateau" in result.message or "has run off" in result.message


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "auto"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: 3.0 + _cancelling(x[1]) ** 2 + 0 * x[0],  # unused
        lambda x: 3.0 + _cancelling(x[1]) ** 2 + (1 - x[0]).clamp(min=0) ** 2,  # satisfied from the start
        lambda x: 3.0 + _cancelling(x[1]) ** 2 + 1e-18 * (x[0] - 9) ** 2,  # below the rounding of the loss
        lambda x: 3.0 + _cancelling(x[1]) ** 2 + (x[0] - 2) ** 4,
        lambda x: 3.0 + (torch.exp(x[0]) - 2) ** 2 + _cancelling(x[1] + x[0]) ** 2,
    ],
    ids=["unused", "hinge", "faint", "flat", "curved"],
)
@pytest.mark.parametrize("tolerance", [None, 0.0])
def test_an_unknown_without_influence_where_it_began_does_no_harm(optimiser, function, tolerance):
    stop = gradopt.Stop(max_evaluations=1000, gradient_tolerance=tolerance)
    result = gradopt.minimise(function, torch.tensor([4.0, 2.0], dtype=torch.float64), optimiser=optimiser, stop=stop)

    assert result.success or result.status is Status.MAX_EVALUATIONS, result


def test_what_a_bound_holds_has_not_run_off():
    result = gradopt.minimise(
        lambda x: 7.0 + torch.exp(-x[0]) + _cancelling(x[1]) ** 2,
        torch.tensor([3.0, 2.0], dtype=torch.float64),
        bounds=(None, 50.0),
        optimiser="lbfgs",
    )

    assert result.success, result
    assert result.x[0] == 50.0 or result.x[0] < 45.0


@pytest.mark.parametrize("n", [51, 100])
def test_faint_negative_curvature_among_strong_is_found(n):
    weights = torch.logspace(0, 3, n, dtype=torch.float64)
    weights[n // 2] = -0.1

    def saddle(x):
        return (weights * x**2).sum() + x[n // 2] ** 4

    x0 = [1.0] * n
    x0[n // 2] = 0.0

    assert gradopt.minimise(saddle, x0).status is Status.SADDLE_POINT


def test_negative_curvature_of_a_ten_millionth_is_found_among_a_thousand():
    weights = torch.logspace(0, 4, 1000, dtype=torch.float64)
    weights[500] = -1e-3

    found = examine(lambda v: weights * v, weights != 0, torch.ones_like(weights), 1e-8 * torch.ones_like(weights))

    assert found.sign == "negative"
    assert found.along(0) == pytest.approx(-1e-3, rel=1e-9, abs=2 * found.error)
    assert found.error < 1.0


@pytest.mark.parametrize("x0", [0.0, 1.0])
def test_a_saddle_point_as_faint_as_a_millionth_is_found_among_three_thousand_unknowns(x0):
    weights = torch.logspace(-6, 0, 3000, dtype=torch.float64)
    weights[1500] = -1e-6
    start = torch.full_like(weights, x0)
    start[1500] = 0.0

    result = gradopt.minimise(lambda x: (0.5 * weights * x**2).sum() + 2.5e-4 * (x**4).sum(), start)

    assert result.status is Status.SADDLE_POINT
    assert result.verdict.evidence["curvature_min"] == pytest.approx(-1e-6, rel=1e-3)


def test_a_success_whose_smallest_curvature_is_not_settled_says_how_far_it_is_known():
    def chain(x):  # its smallest eigenvalue is 1e-6 of the largest, with as many beside it as Lanczos has steps
        return ((x[1:] - x[:-1]) ** 2).sum() + x[0] ** 2 + x[-1] ** 2

    result = gradopt.minimise(chain, torch.zeros(2000, dtype=torch.float64))

    assert result.status is Status.CONVERGED
    assert f"known to {result.verdict.evidence['curvature_error']:.1g}" in result.message


def test_what_a_success_leaves_of_a_vanishing_loss_is_no_edge_and_no_slope():
    assert run(lambda x: (x[0] * x[1] - 1) ** 2, [3.0, 0.5], "adadelta", torch.float64).success
    assert run(powell_singular, [3.0, -1.0, 0.0, 1.0], "trust_region", torch.float64).success


def test_a_thousand_unknowns_of_which_many_do_not_matter_cost_few_looks_at_curvature():
    matrix = torch.randn(100, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 30

    result = gradopt.minimise(
        lambda x: ((matrix @ (x - 1)) ** 2).sum() + (x[:10] ** 4).sum(),
        torch.zeros(1000, dtype=torch.float64),
        optimiser="trust_region",
    )

    assert result.success
    assert result.nhev < 4000


@pytest.mark.parametrize(
    ("function", "x0"),
    [
        (lambda x: (x[:3].prod() - 1) ** 2 + (x[3] - 1) ** 2, [0.0] * 4),
        (lambda x: -x.prod() + (x**4).sum(), [0.0] * 3),
    ],
    ids=["three of four", "three"],
)
@dtypes
def test_a_product_of_unknowns_falls_along_no_axis_and_is_no_minimum_all_the_same(function, x0, dtype):
    assert run(function, x0, "lbfgs", dtype).status is Status.SADDLE_POINT

    onward = gradopt.minimise(function, torch.tensor(x0, dtype=dtype), on_saddle="escape")

    assert onward.success, onward
    assert onward.fun < function(torch.tensor(x0, dtype=dtype)) - 1e-3


@dtypes
@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_a_maximum_of_hundreds_of_unknowns_is_one(scale, dtype):
    weights = torch.linspace(1.0, scale, 300, dtype=dtype)

    assert run(lambda x: -(weights * x**2).sum(), [0.0] * 300, "lbfgs", dtype).status is Status.MAXIMUM
    assert run(lambda x: x[0] ** 4 - (x**2).sum() + 2 * x[0] ** 2, [0.0] * 300, "lbfgs", dtype).status is (
        Status.SADDLE_POINT
    )


@pytest.mark.parametrize("power", [3, 4])
def test_a_fall_without_curvature_is_told_by_its_depth(power):
    result = run(lambda x: x[0] ** 2 - x[1] ** power, [0.0, 0.0], "lbfgs", torch.float64)

    assert result.status is Status.SADDLE_POINT
    assert f"falls all the same, by {result.verdict.evidence['fall']:.3g} over a move of " in result.message
    assert result.verdict.evidence["fall"] == pytest.approx(result.verdict.evidence["fall_length"] ** power)


@pytest.mark.parametrize(
    ("function", "x0"),
    [
        (lambda x: (x[1] - x[0] ** 2) * (x[1] - 3 * x[0] ** 2), [0.0, 0.0]),
        (lambda x: (x[0] - 1) ** 2 - torch.cos(x[1]) - x[1] ** 2 / 2, [0.0, 0.0]),
    ],
    ids=["Peano", "cosine of sixth order"],
)
def test_what_falls_along_a_curve_alone_is_no_minimum(function, x0):
    assert run(function, x0, "lbfgs", torch.float64).status is Status.SADDLE_POINT


@dtypes
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_gradient_of_zero_on_a_kink_is_told_without_contradiction(optimiser, dtype):
    result = run(lambda x: (x - 1).norm() + 0.1 * ((x - 1) ** 2).sum(), [3.0, 4.0], optimiser, dtype)

    assert (result.status, result.fun) == (Status.STALLED, 0.0)
    assert result.message.startswith("the gradient is 0 here (loss 0, step ")
    assert "It may be the minimum" in result.message


def test_a_floor_that_is_curved_and_level_is_a_minimum():
    assert run(lambda x: (x[1] - x[0] ** 2) ** 2, [-1.2, 1.0], "lbfgs", torch.float64).status is Status.CONVERGED


@dtypes
@pytest.mark.parametrize(
    ("function", "x0", "kept"),
    [
        (lambda x: (x[0] - 3) ** 2, [0.0, 2.0], gradopt.Constraint(lambda x: x[0], upper=1.0)),
        (lambda x: (x[0] - 3) ** 2, [0.0, 2.0], gradopt.Constraint(lambda x: x.sum(), upper=10.0)),
        (  # the centre of a rectangle of 1 by 3
            lambda x: -x[2],
            [0.0, 0.0, 0.0],
            gradopt.Constraint(
                lambda x: torch.stack([x[0] + x[2] - 1, x[2] - x[0], x[1] + x[2] - 3, x[2] - x[1]]), upper=0.0
            ),
        ),
    ],
    ids=["beside a constraint", "with room", "a linear program"],
)
def test_an_unknown_without_effect_is_no_plateau_beside_others(function, x0, kept, dtype):
    result = gradopt.minimise(function, torch.tensor(x0, dtype=dtype), constraints=kept)

    assert result.status is Status.CONVERGED, result.message


@pytest.mark.parametrize("x0", [[-1.0, 1.0], [0.0, 1.0]])
@pytest.mark.parametrize("name", ["lbfgs", "trust_region", "auto"])
@pytest.mark.parametrize("steep", [1e4, 1e6])
def test_a_floor_that_bends_and_falls_is_no_minimum(name, steep, x0):
    for function in (
        lambda x: steep * (x[1] - x[0] ** 2) ** 2 + 1e-3 * (x[0] - 2) ** 2,
        lambda x: steep * (x[1] - x[0] ** 2) ** 2 - 1e-3 * x[0],
    ):
        result = run(function, x0, name, torch.float32, steps=3000)

        assert not result.success or 0 <= result.fun < 1e-6, result.message


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["lbfgs", "trust_region", "auto"])
def test_a_curvature_of_rounding_makes_no_saddle_point_of_an_eigenvector(name, seed):
    values = torch.arange(1.0, 21.0, dtype=torch.float64)
    x0 = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    result = run(lambda x: (x @ (values * x)) / (x @ x), x0.tolist(), name, torch.float64)

    assert result.status is Status.CONVERGED, result.message
    assert result.fun == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", ["lbfgs", "trust_region", "auto"])
def test_a_weight_that_cannot_be_known_makes_no_saddle_point_of_a_fit(name):
    data = torch.cat([torch.linspace(-0.9, -0.3, 20), torch.linspace(0.3, 1.0, 20)]).double()
    log = torch.nn.functional.logsigmoid

    def mixture(x):
        weights = torch.stack([log(x[0]), log(-x[0])])
        return -torch.logsumexp(weights - 0.5 * (data[:, None] - x[1:]) ** 2, 1).mean()

    result = run(mixture, [0.0, -1.0, 1.0], name, torch.float64)

    assert result.status is Status.CONVERGED, result.message


@dtypes
@pytest.mark.parametrize("x0", [[0.0, 0.0], [0.0, 3.0]])
@pytest.mark.parametrize(
    ("function", "kept", "status"),
    [
        (lambda x: -(x[0] ** 4) + x[1] ** 2, lambda x: x[1], Status.SADDLE_POINT),
        (lambda x: x[0] ** 3 + x[1] ** 2, lambda x: x[1], Status.SADDLE_POINT),
        (lambda x: -4 * x[0] ** 4 + x[1] ** 2, lambda x: x[1] - x[0] ** 4, Status.SADDLE_POINT),
        (lambda x: x[0] ** 4 + x[1] ** 2, lambda x: x[1], Status.CONVERGED),
        (lambda x: x[0] ** 4 + x[1] ** 2, lambda x: x[1] - x[0] ** 4, Status.CONVERGED),
    ],
    ids=["-x^4", "x^3", "bent up, -x^4", "x^4", "bent up, x^4"],
)
def test_what_falls_along_constraints_is_no_minimum(function, kept, status, x0, dtype):
    result = gradopt.minimise(
        function,
        torch.tensor(x0, dtype=dtype),
        constraints=[gradopt.Constraint(kept, lower=1.0, upper=1.0)],
        optimiser="augmented_lagrangian",
    )

    assert result.status is status, result


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "lbfgs", "trust_region"])
@pytest.mark.parametrize("flat", [1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("x0", [[1.0, 1.0], [1.0, -1.0], [-2.0, 5.0]])
def test_a_success_on_a_ridge_is_at_its_minimum_however_flat_it_is(optimiser, flat, x0):
    options = {"lr": 1e-5} if optimiser == "sgd" else {}

    result = run(
        lambda x: 1e4 * (x[0] + x[1]) ** 2 + flat * (x[0] - x[1] - 3) ** 2, x0, optimiser, torch.float32, **options
    )

    minimiser = torch.tensor([1.5, -1.5])
    way = torch.maximum(minimiser.abs(), (torch.tensor(x0) - minimiser).abs())
    is_there = bool(((result.x - minimiser).abs() <= 0.03 * way).all())
    assert is_there or (not result.success and result.status is not Status.SADDLE_POINT), result


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_ridge_that_is_level_is_a_minimum_and_says_that_it_is_flat(optimiser):
    result = run(lambda x: 1e6 * (3 * x[0] + x[1] - 1) ** 2, [1.0, -1.0], optimiser, torch.float32)

    assert result.status is Status.CONVERGED
    assert "1 direction flat to rounding" in result.message


def test_a_run_that_rests_on_a_ridge_far_from_its_minimum_stalls_and_proposes_float64():
    result = run(
        lambda x: 1e4 * (x[0] + x[1]) ** 2 + 1e-4 * (x[0] - x[1] - 3) ** 2, [1.0, -1.0], "sgd", torch.float32, lr=1e-5
    )

    assert result.status is Status.STALLED
    assert "float64" in result.message


def twin_amplitudes(x):
    t = torch.linspace(0, 2, 12, dtype=x.dtype)
    return (x[0] + x[1]) * torch.exp(-x[2] * t) - (2 * torch.exp(-t) + 0.05 * torch.sin(9 * t))


def amplitude_and_shift(x):
    t = torch.linspace(0, 2, 12, dtype=x.dtype)
    return x[0] * torch.exp(x[1] - x[2] * t) - (2 * torch.exp(-t) + 0.05 * torch.sin(9 * t))


def products(x):
    return torch.stack([x[0] * x[1] - 1, x[1] * x[2] - 2, x[0] * x[1] + x[1] * x[2] - 2.5])


@dtypes
@pytest.mark.parametrize("optimiser", ["levenberg_marquardt", "lbfgs", "trust_region", "auto"])
@pytest.mark.parametrize("residuals", [twin_amplitudes, amplitude_and_shift, products])
def test_a_fit_whose_minimum_is_a_floor_is_no_saddle_point(residuals, optimiser, dtype):
    for x0 in ([1.2, 0.7, 1.1], [0.6, 1.5, 0.8], [1.0, 1.0, 1.0]):
        result = gradopt.least_squares(residuals, torch.tensor(x0, dtype=dtype), optimiser=optimiser)
        least = gradopt.least_squares(residuals, torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)).fun

        assert result.success, result
        assert result.fun == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "faint"), [(torch.float32, 1e-4), (torch.float64, 1e-11)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_saddle_point_whose_fall_the_loss_cannot_show_is_one_all_the_same(optimiser, dtype, faint):
    result = run(lambda x: 1 + (x[0] - 1) ** 2 - faint * x[1] ** 2 + x[1] ** 4, [3.0, 0.0], optimiser, dtype)

    escaped = result.x[1].abs().item() == pytest.approx((faint / 2) ** 0.5, rel=1e-2)
    assert result.status is (Status.CONVERGED if escaped else Status.SADDLE_POINT), result


def test_the_smallest_curvature_told_is_the_smallest_in_the_units_of_the_unknowns():
    def loss(x):  # in scaled unknowns the first has the smaller one
        return 2 * (x[0] - 0.1) ** 2 + 0.5 * (x[1] - 10) ** 2

    result = gradopt.minimise(loss, [0.0, 0.0])

    assert "the curvature is positive (smallest 1)" in result.message
    assert "curvature positive (1 to 4)" in report.facts(result)["checked"]


UNSEEN = {
    "monkey saddle": (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, [0.0, 0.0], (1, 2, 4)),
    "x^4 - y^4": (lambda x: x[0] ** 4 - x[1] ** 4, [0.0, 0.0], (1, 5, 26)),
    "Peano": (lambda x: (x[1] - x[0] ** 2) * (x[1] - 3 * x[0] ** 2), [0.0, 0.0], (1, 6)),
    "x y z": (lambda x: x.prod(), [0.0, 0.0, 0.0], (1, 8)),
    "cubic above a constant": (lambda x: x[0] ** 3 + 1000, [1.0], (3, 7)),
    "plateau": (lambda x: -torch.exp(-(x[0] ** 2)), [30.0], (1, 9)),
}


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize(("loss", "start", "budgets"), UNSEEN.values(), ids=UNSEEN)
def test_a_point_that_no_budget_was_left_to_look_round_is_no_success(loss, start, budgets, many):
    start = torch.tensor(start, dtype=torch.float64)
    where = {"starts": start[None]} if many else {"x0": start}

    for budget in budgets:
        results = gradopt.minimise(loss, **where, stop=gradopt.Stop(max_evaluations=budget))
        result = results[0] if many else results
        assert result.status is Status.MAX_EVALUATIONS, (budget, result.message)
        assert result.nfev <= budget


def test_under_constraints_neither():
    together = gradopt.Constraint(lambda x: x[1] - x[0], lower=0.0, upper=0.0)

    cut, whole = (
        gradopt.minimise(lambda x: x[0] ** 3, [0.0, 0.0], constraints=together, stop=gradopt.Stop(max_evaluations=n))
        for n in (2, 200)
    )

    assert (cut.status, whole.status) == (Status.MAX_EVALUATIONS, Status.SADDLE_POINT)


def test_a_plain_minimum_needs_no_look_and_is_one_with_the_last_evaluation():
    whole = gradopt.minimise(lambda x: ((x - 3) ** 2).sum(), [0.0, 1.0])
    cut = gradopt.minimise(lambda x: ((x - 3) ** 2).sum(), [0.0, 1.0], stop=gradopt.Stop(max_evaluations=whole.nit + 1))

    assert cut.status is Status.CONVERGED and cut.nfev <= whole.nit + 1
