"""gradopt's own optimisers: they reach known minima, keep budgets and bounds, and say truthfully how they ended."""

import math
import sys
from pathlib import Path

import pytest
import scipy.optimize
import torch

import gradopt
from gradopt import Status
from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.objectives.robust import LOSSES, RobustLoss
from gradopt.optimisers.line_search import LineSearch
from gradopt.optimisers.memory import Memory
from gradopt.optimisers.second_order import SecondOrder, capped
from gradopt.optimisers.trust_model import Box, GaussNewton, Newton, Spectrum, _solve

sys.path.insert(0, str(Path(__file__).parent.parent))
import functions as f

SMOOTH = [
    ("lbfgs", {}),
    ("trust_region", {"hessian": "matrix"}),
    ("trust_region", {"hessian": "products"}),
    ("auto", {}),
]
SQUARES = [("levenberg_marquardt", {"jacobian": "matrix"}), ("levenberg_marquardt", {"jacobian": "products"})]
BOUNDED = [SMOOTH[0], SMOOTH[1], SMOOTH[3]]
DTYPES = [torch.float64, torch.float32]

smooth = pytest.mark.parametrize(("name", "options"), SMOOTH, ids=str)
squares = pytest.mark.parametrize(("name", "options"), SQUARES, ids=str)
bounded = pytest.mark.parametrize(("name", "options"), BOUNDED, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def valley(x):
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def apart(x):
    """Two curves that do not meet: the residuals stay large, and Gauss-Newton steps crawl along a valley."""
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 30 + x[0] ** 2 + x[1]])


def steep(x):
    """A loss whose gradient has no square."""
    return 2.0**300 * valley(x)


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


@smooth
@dtypes
@pytest.mark.parametrize(
    ("function", "x0", "minimiser"),
    [
        (f.parabola, [10.0, -5.0], [3.0, 3.0]),
        (f.rosenbrock, [-1.2, 1.0], [1.0, 1.0]),
        (f.quadratic_1e6, [0.0, 0.0], [1.0, 1.0]),
        (f.barrier, [0.9], [0.0]),
        (f.flat_valley, [100.0], [0.0]),
        (lambda x: (x - torch.log(x)).sum(), [0.01], [1.0]),
        (lambda x: (torch.sqrt(x) + 1 / x).sum(), [100.0], [2 ** (2 / 3)]),
        (lambda x: 1e8 + ((x - 3) ** 2).sum(), [1.0], [3.0]),
    ],
    ids=["parabola", "rosenbrock", "quadratic", "barrier", "flat", "log", "sqrt", "far floor"],
)
def test_known_minima_are_reached(name, options, dtype, function, x0, minimiser):
    result = gradopt.minimise(function, tensor(x0, dtype), optimiser=name, optimiser_options=options)

    assert result.status in {Status.CONVERGED, Status.NOISE_FLOOR}, result
    torch.testing.assert_close(
        result.x, tensor(minimiser, dtype), rtol=2e-2 if dtype == torch.float32 else 1e-6, atol=2e-3
    )


@smooth
@dtypes
@pytest.mark.parametrize("x0", [-3.0, 0.0, 1.0, 2.0])
def test_the_unbounded_cubic_is_never_a_success(name, options, dtype, x0):
    result = gradopt.minimise(f.cubic, tensor(x0, dtype), optimiser=name, optimiser_options=options)

    assert result.status is Status.UNBOUNDED, result
    assert result.fun < f.cubic(tensor(x0, dtype))


@smooth
@dtypes
@pytest.mark.parametrize(
    ("function", "x0", "status"),
    [
        (f.saddle, [0.0, 0.0], Status.SADDLE_POINT),
        (f.hill, [0.0], Status.MAXIMUM),
        (f.inflection, [0.0], Status.SADDLE_POINT),
    ],
    ids=["saddle", "maximum", "inflection"],
)
def test_a_start_on_a_stationary_point_that_is_no_minimum_is_named(name, options, dtype, function, x0, status):
    result = gradopt.minimise(function, tensor(x0, dtype), optimiser=name, optimiser_options=options)

    assert result.status is status, result


@smooth
@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_units_of_loss_and_unknowns_change_no_verdict(name, options, factor, unit):
    result = gradopt.minimise(
        lambda x: factor * f.rosenbrock(x / unit), unit * tensor([-1.2, 1.0]), optimiser=name, optimiser_options=options
    )

    assert result.status is Status.CONVERGED, result
    torch.testing.assert_close(result.x / unit, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), SMOOTH + SQUARES, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20])
def test_a_budget_of_evaluations_is_kept_exactly(name, options, limit):
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return valley(x)

    result = gradopt.least_squares(
        counted, [-1.2, 1.0], optimiser=name, optimiser_options=options, stop=gradopt.Stop(max_evaluations=limit)
    )

    assert result.nfev <= limit
    assert result.status is Status.MAX_EVALUATIONS or result.success
    assert result.fun <= 0.5 * 24.2 * (1 + 1e-12)
    assert calls >= result.nfev


@pytest.mark.parametrize(("name", "options"), SMOOTH + SQUARES, ids=str)
@pytest.mark.parametrize("function", [valley, apart, steep])
def test_a_run_that_was_saved_and_loaded_goes_on_to_the_last_bit(name, options, function, tmp_path):
    def build():
        return assemble(
            ResidualObjective(function, tensor([-1.2, 1.0])), name, options, stop=gradopt.Stop(max_steps=12)
        )

    def walk(assembly, last=10**9):
        points = []
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
            points.append(assembly.oracle.read())
            if block.last_step == last:
                assembly.engine.update()
                return points
        return points

    whole = walk(build())
    first = build()
    head = walk(first, last=4)
    torch.save([first.engine.state_dict(), [c.state_dict() for c in first.criteria]], tmp_path / "state.pt")
    second = build()

    engine, criteria = torch.load(tmp_path / "state.pt", weights_only=True)
    second.engine.load_state_dict(engine)
    for criterion, state in zip(second.criteria, criteria, strict=True):
        criterion.load_state_dict(state)
    tail = walk(second)

    assert len(head) == 5
    assert torch.equal(torch.stack(head + tail), torch.stack(whole))


@bounded
@dtypes
def test_bounds_hold_at_every_evaluation_and_the_minimum_on_them_is_found(name, options, dtype):
    lower, upper = tensor([-2.0, -2.0], dtype), tensor([0.5, 2.0], dtype)
    seen = []

    def watched(x):
        seen.append(x.detach().clone())
        return f.rosenbrock(x)

    result = gradopt.minimise(
        watched, tensor([-1.2, 1.0], dtype), optimiser=name, optimiser_options=options, bounds=(lower, upper)
    )

    points = torch.stack(seen)
    assert bool(((points >= lower) & (points <= upper)).all())
    assert result.status is Status.CONVERGED, result
    torch.testing.assert_close(result.x, tensor([0.5, 0.25], dtype), rtol=0, atol=1e-3)


@bounded
def test_a_minimum_in_a_corner_of_many_unknowns_is_found(name, options):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    hessian, slope = matrix @ matrix.T + torch.eye(30), 10 * torch.randn(30, generator=generator, dtype=torch.float64)

    def quadratic(x):
        return 0.5 * x @ hessian @ x - slope @ x

    reference = scipy.optimize.minimize(
        lambda x: quadratic(torch.tensor(x)).item(), torch.zeros(30), method="L-BFGS-B",
        jac=lambda x: (hessian @ torch.tensor(x) - slope).numpy(), bounds=[(-0.3, 0.3)] * 30,
        options={"ftol": 0, "gtol": 1e-10, "maxiter": 10_000, "maxfun": 10_000},
    )  # fmt: skip

    result = gradopt.minimise(quadratic, torch.zeros(30, dtype=torch.float64), optimiser=name, bounds=(-0.3, 0.3))

    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(reference.fun, rel=1e-10)
    assert int((result.x.abs() == 0.3).sum()) > 5


@squares
@dtypes
def test_levenberg_marquardt_squares_away_the_valley(name, options, dtype):
    result = gradopt.least_squares(valley, tensor([-1.2, 1.0], dtype), optimiser=name, optimiser_options=options)

    assert result.status is Status.CONVERGED, result
    assert result.nfev < 60
    torch.testing.assert_close(result.x, torch.ones(2, dtype=dtype), rtol=0, atol=1e-3)


DATA_T = torch.linspace(0, 10, 50, dtype=torch.float64)
DATA_Y = 3 * torch.exp(-0.5 * DATA_T) + 0.01 * torch.sin(17 * DATA_T)


def decay(outliers=False):
    y = DATA_Y.clone()
    if outliers:
        y[::7] += 0.6
    return lambda x: x[0] * torch.exp(-x[1] * DATA_T) - y


@pytest.mark.parametrize("loss", LOSSES)
@squares
def test_robust_losses_agree_with_scipy(name, options, loss):
    residuals, x0 = decay(outliers=True), [2.0, 0.4]
    reference = scipy.optimize.least_squares(
        lambda x: residuals(torch.tensor(x)).numpy(), x0, loss=loss, f_scale=0.1, xtol=1e-15, ftol=1e-15, gtol=1e-15
    )

    result = gradopt.least_squares(residuals, x0, loss=loss, f_scale=0.1, optimiser=name, optimiser_options=options)

    assert result.success, result
    assert result.fun == pytest.approx(reference.cost, rel=1e-8)
    torch.testing.assert_close(result.x, torch.tensor(reference.x), rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_weighed_residuals_have_the_gradient_of_the_robust_loss(loss):
    x = tensor([2.5, 0.7]).requires_grad_()
    residuals, robust = decay(outliers=True), RobustLoss(loss, 0.1)
    (gradient,) = torch.autograd.grad(robust.total(residuals(x)), x)
    jacobian = torch.func.jacrev(residuals)(x.detach())

    factors, rows = robust.weights(residuals(x).detach())

    weighed = (rows[:, None] * jacobian).T @ (factors * residuals(x).detach())
    torch.testing.assert_close(weighed, gradient, rtol=1e-12, atol=1e-14)


def test_the_covariance_of_a_line_is_the_formula_of_the_books():
    t, y = DATA_T, 2 + 0.3 * DATA_T + 0.1 * torch.cos(13 * DATA_T)
    design = torch.stack([torch.ones_like(t), t], 1)

    result = gradopt.least_squares(lambda p: design @ p - y, [0.0, 0.0])

    variance = ((design @ result.x - y) ** 2).sum() / (len(t) - 2)
    torch.testing.assert_close(result.covariance, variance * torch.linalg.inv(design.T @ design), rtol=1e-9, atol=0)
    torch.testing.assert_close(result.standard_errors, result.covariance.diagonal().sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [(0.1, 0.1, 0.1), (1.1, 1.1, 0.1), (3.0, 1.0, 0.6)])
def test_unknowns_that_the_data_do_not_determine_have_no_finite_error_wherever_the_fit_began(start, dtype):
    t = DATA_T.to(dtype)
    y = 2 + 0.3 * t + 0.1 * torch.cos(13 * t)
    design = torch.stack([torch.ones_like(t), t], 1).double()

    result = gradopt.least_squares(lambda p: p[0] + (p[1] + p[2]) * t - y, torch.tensor(start, dtype=dtype))

    line = torch.linalg.lstsq(design, y.double()).solution
    variance = ((design @ line - y) ** 2).sum() / (len(t) - 3) * torch.linalg.inv(design.T @ design)[0, 0]
    assert result.standard_errors[0] ** 2 == pytest.approx(variance.item(), rel=1e-4)
    assert result.standard_errors[1:].tolist() == [math.inf, math.inf]
    assert result.covariance[1, 2] == -math.inf


def test_an_unknown_without_effect_leaves_the_errors_of_the_others_as_they_are():
    y = 2 + 0.3 * DATA_T + 0.1 * torch.cos(13 * DATA_T)

    result = gradopt.least_squares(lambda p: p[0] + p[1] * DATA_T - y + 0 * p[2], [0.0, 0.0, 1.0])

    assert bool(result.standard_errors[:2].isfinite().all())
    assert result.standard_errors[2] == math.inf
    assert not result.covariance[2, :2].any()


def test_an_unknown_that_bounds_fix_is_a_constant_of_the_fit():
    t, y = DATA_T, 2 + 0.3 * DATA_T + 0.1 * torch.cos(13 * DATA_T)
    design = torch.stack([torch.ones_like(t), t], 1)

    fixed = gradopt.least_squares(lambda p: design @ p - y, [0.0, 0.3], bounds=([-9.0, 0.3], [9.0, 0.3]))
    alone = gradopt.least_squares(lambda p: p + 0.3 * t - y, [0.0])

    assert fixed.success, fixed
    torch.testing.assert_close(fixed.standard_errors, torch.stack([alone.standard_errors[0], torch.tensor(0.0)]))


def test_a_bound_that_holds_an_unknown_is_not_seen_by_its_standard_error():
    t, y = DATA_T, 2 + 0.3 * DATA_T + 0.1 * torch.cos(13 * DATA_T)
    design = torch.stack([torch.ones_like(t), t], 1)

    held = gradopt.least_squares(lambda p: design @ p - y, [0.0, 0.0], bounds=(None, [9.0, 0.2]))

    assert held.success, held
    assert held.x[1] == 0.2
    variance = ((design @ held.x - y) ** 2).sum() / (len(t) - 2)
    torch.testing.assert_close(held.covariance, variance * torch.linalg.inv(design.T @ design), rtol=1e-9, atol=0)


def test_bounds_of_a_fit_agree_with_scipy():
    residuals, bounds = decay(), ([0.0, 0.6], [2.5, 2.0])
    reference = scipy.optimize.least_squares(
        lambda x: residuals(torch.tensor(x)).numpy(), [1.0, 1.0], bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15
    )

    result = gradopt.least_squares(residuals, [1.0, 1.0], bounds=bounds)

    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(reference.cost, rel=1e-9)
    assert result.fun <= reference.cost


def test_the_compact_inverse_hessian_is_the_two_loop_recursion():
    generator = torch.Generator().manual_seed(0)
    curvatures = torch.logspace(0, -6, 40, dtype=torch.float64)
    pairs = [(s, curvatures * s) for s in torch.randn(9, 40, generator=generator, dtype=torch.float64)]
    gradient = torch.randn(40, generator=generator, dtype=torch.float64)
    memory = Memory(5)
    for step, change in pairs:
        memory.add(step, change)

    q, weights = gradient.clone(), []
    for s, y in reversed(pairs[-5:]):  # Nocedal and Wright (2006), algorithm 7.4
        weights.append((s @ q) / (s @ y))
        q -= weights[-1] * y
    s, y = pairs[0]
    diagonal = torch.full_like(s, (y @ y) / (s @ y))
    for place, (s, y) in enumerate(pairs):  # the diagonal of B - B s s'B / s'B s + y y' / s'y, for B sized to the pair
        lower, upper = (s @ y) / (s @ (diagonal * s)), (y @ (y / diagonal)) / (s @ y)
        diagonal = diagonal * (lower if place < 4 else (lower * upper).sqrt())  # from the pair on that fills the memory
        diagonal = diagonal - (diagonal * s) ** 2 / (s @ (diagonal * s)) + y**2 / (s @ y)
    r = q / diagonal
    for (s, y), weight in zip(pairs[-5:], reversed(weights), strict=True):
        r += (weight - (y @ r) / (s @ y)) * s

    torch.testing.assert_close(memory.inverse(gradient, None), r, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["convex", "indefinite", "hard case", "singular"])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 1e3])
def test_the_subproblem_is_solved_to_its_optimality_conditions(kind, radius):
    generator = torch.Generator().manual_seed(1)
    vectors, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    values = {
        "convex": tensor([0.1, 1.0, 2.0, 3.0, 5.0, 9.0]),
        "indefinite": tensor([-2.0, -1.0, 0.5, 3.0, 5.0, 9.0]),
        "hard case": tensor([-2.0, -1.0, 0.5, 3.0, 5.0, 9.0]),
        "singular": tensor([0.0, 0.0, 0.5, 3.0, 5.0, 9.0]),
    }[kind]
    along = torch.randn(6, generator=generator, dtype=torch.float64)
    if kind == "hard case":
        along[0] = 0.0
    matrix, gradient = vectors @ torch.diag(values) @ vectors.T, vectors @ along

    step = _solve(Spectrum(values, vectors, along, 1e-14), radius)

    # (B + lambda I) p = -g, lambda >= max(0, -lambda_1), lambda (radius - |p|) = 0: Moré and Sorensen (1983), lemma 2.1
    length = step.norm().item()
    damping = (-(step @ (matrix @ step + gradient)) / (step @ step)).item()
    assert length <= radius * (1 + 1e-5)
    assert damping >= max(0.0, -values[0].item()) - 1e-5
    torch.testing.assert_close(
        matrix @ step + damping * step, -gradient, rtol=0, atol=1e-4 * (1 + gradient.norm().item())
    )
    assert damping <= 1e-6 or length >= radius * (1 - 1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_model_in_a_box_is_minimised_to_its_optimality_conditions_from_degenerate_bounds(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    matrix[:, 0] = matrix[:, 1] + 1e-3 * matrix[:, 0]  # ill-conditioned, so that faces change their minds
    gradient = torch.randn(8, generator=generator, dtype=torch.float64)
    lower, upper = torch.full((8,), -0.4, dtype=torch.float64), torch.full((8,), 0.4, dtype=torch.float64)
    lower[::2] = 0.0  # the point stands on every other bound
    newton = Newton(matrix.T @ matrix, gradient, torch.ones(8, dtype=torch.float64))

    step, _, change = Box(newton, newton.scale, (lower, upper)).minimiser(100.0)

    exact = scipy.optimize.minimize(
        lambda p: newton.change(torch.tensor(p)), torch.zeros(8), jac=lambda p: newton.slope(torch.tensor(p)).numpy(),
        bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)), method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-10, "maxiter": 10_000, "maxfun": 10_000},
    )  # fmt: skip
    assert bool(((step >= lower) & (step <= upper)).all())
    assert change == pytest.approx(exact.fun, rel=1e-2)


@pytest.mark.parametrize("seed", range(20))
def test_a_fit_of_polynomials_in_a_box_is_minimised_on_the_faces_where_its_minimum_lies(seed):
    """Powers of t are nearly dependent: putting all that crosses a bound on it at once, or going a part of that way,
    leads hardly anywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    matrix = t[:, None] ** torch.arange(9) * (1 + 0.3 * torch.randn(9, generator=generator, dtype=torch.float64))
    values = torch.randn(20, generator=generator, dtype=torch.float64)
    lower, upper = (2 * side * torch.rand(9, generator=generator, dtype=torch.float64) for side in (-1, 1))
    newton = Newton(matrix.T @ matrix, matrix.T @ values, torch.linalg.vector_norm(matrix, dim=0))

    step, _, change = Box(newton, newton.scale, (lower, upper)).minimiser(1e6)

    exact = scipy.optimize.lsq_linear(matrix.numpy(), -values.numpy(), (lower.numpy(), upper.numpy()), method="bvls")
    assert bool(((step >= lower) & (step <= upper)).all())
    assert change == pytest.approx(exact.cost - 0.5 * float(values @ values), rel=1e-2)


def test_gauss_newton_steps_are_whole_as_far_as_singular_values_can_be_told_from_zero():
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(9, 3, generator=generator, dtype=torch.float64))
    jacobian = left @ torch.diag(tensor([1.0, 1e-5, 1e-10]))  # 1e-20 is far below the rounding of J'J
    model = Box(GaussNewton(jacobian @ tensor([1.0, 1.0, 1.0]), jacobian, torch.ones(3, dtype=torch.float64)),
                torch.ones(3, dtype=torch.float64), None)  # fmt: skip

    step, _, _ = model.minimiser(10.0)

    torch.testing.assert_close(step, tensor([-1.0, -1.0, -1.0]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"optimiser": "levenberg_marquardt"}, "needs residuals"),
        ({"optimiser": "lbfgs", "schedule": "cosine"}, "takes no schedule"),
        ({"optimiser": "lbfgs", "optimiser_options": {"clip_norm": 1.0}}, "takes no clip_norm"),
        ({"optimiser": "lbfgs", "optimiser_options": {"lr": 1.0}}, "no option optimiser.lr"),
        ({"optimiser": "trust_region", "optimiser_options": {"hessian": "matrx"}}, "Did you mean 'matrix'"),
    ],
    ids=str,
)
def test_mistakes_are_named(arguments, part):
    if arguments.get("schedule") == "cosine":
        arguments = {**arguments, "schedule": {"name": "cosine", "T_max": 5}}

    with pytest.raises(gradopt.Mistake, match=part):
        gradopt.minimise(f.parabola, [1.0], **arguments)


def test_a_first_derivative_alone_is_enough_for_lbfgs_but_not_for_newton():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**2).sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, upstream):
            return 2 * ctx.saved_tensors[0] * upstream

    result = gradopt.minimise(lambda x: Once.apply(x - 3), [1.0, 2.0])

    assert result.status is Status.CONVERGED
    assert result.verdict.evidence["curvature"] == "unchecked"
    with pytest.raises(gradopt.Mistake, match="second derivatives"):
        gradopt.minimise(lambda x: Once.apply(torch.sin(x) - 3), [1.0, 2.0], optimiser="trust_region")


def test_a_plateau_far_from_the_data_is_no_success():
    # The bell has moved away from the data: gradient and curvature vanish together.
    t = torch.linspace(-1, 1, 20, dtype=torch.float64)
    target = FunctionObjective(lambda x: ((torch.exp(-((t - x) ** 2) * 50) - torch.exp(-(t**2) * 50)) ** 2).sum(), 40.0)

    result = gradopt.minimise(target)

    assert result.status is Status.STALLED
    assert "plateau" in result.message


def test_residuals_that_are_not_those_of_the_loss_are_refused():
    class Mean(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor([-1.2, 1.0]))

        def residuals(self):
            return valley(self.x)

        def forward(self):
            return self.residuals().square().mean() / 3

    with pytest.raises(gradopt.Mistake, match="not half the sum of squares"):
        gradopt.least_squares(Mean())


def coarse(unit):
    """A parabola on a floor whose losses round to multiples of `unit`, while its gradient stays exact."""

    class Coarse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, loss):
            return (loss / unit).round() * unit

        @staticmethod
        def backward(ctx, upstream):
            return None, upstream

    curvatures = torch.logspace(0, 4, 8, dtype=torch.float64)
    return lambda x: Coarse.apply(x, 1.0 + 0.5 * (curvatures * (x - 1) ** 2).sum())


def test_a_loss_coarser_than_its_dtype_is_seen_through_by_the_gradient():
    calls = []
    function = coarse(1e-11)

    def counted(x):
        calls.append(x)
        return function(x)

    result = gradopt.minimise(
        counted, torch.zeros(8, dtype=torch.float64), stop=gradopt.Stop(max_evaluations=400, gradient_tolerance=0.0)
    )

    assert result.jac.abs().max() < 1e-6, result  # differences of losses alone would leave sqrt(1e-11 * 1e4)


def test_the_noise_of_a_search_is_measured_and_no_larger_than_a_ten_thousand_millionth():
    search = LineSearch(loss=1.0, slope=-1e-13, step=1.0, noise=1e-15)

    search.accepts(1.0 + 3e-12, -1e-13)
    assert search.noise == pytest.approx(3e-12, rel=0.1)

    search.advance()
    search.accepts(1.0 + 1e-3, -1e-13)
    assert search.noise == pytest.approx(3e-12, rel=0.1)


def test_steps_that_noise_hides_do_not_add_up():
    search = LineSearch(loss=1.0 + 2e-12, slope=-1e-13, step=1.0, noise=1.5e-12, lowest=1.0)

    assert not search.accepts(1.0 + 3e-12, 0.0)
    assert LineSearch(loss=1.0, slope=-1e-13, step=1.0, noise=1.5e-12, lowest=1.0).accepts(1.0 + 1e-12, -5e-14)


@pytest.mark.parametrize("many", [False, True])
def test_two_points_that_rounding_alone_tells_apart_do_not_take_turns(many):
    x0 = tensor([1e-3, -1e-3], torch.float32)
    where = {"starts": x0[None]} if many else {"x0": x0}

    result = gradopt.minimise(
        lambda x: (torch.exp(x) - 1 - x).sum(), **where, optimiser="lbfgs", stop=gradopt.Stop(max_evaluations=500)
    )

    assert (result[0] if many else result).status is Status.CONVERGED


def test_a_flat_bracket_is_not_halved_to_the_last_bit():
    search = LineSearch(loss=1.0, slope=-1e-20, step=1.0, noise=1e-13)
    slopes = iter([1e-20, *([-1e-20, 1e-20] * 50)])
    trials = 0
    while not search.accepts(1.0, next(slopes)) and search.advance():
        trials += 1

    assert trials < 40


def test_the_restricted_inverse_hessian_is_that_of_the_restricted_pairs():
    generator = torch.Generator().manual_seed(0)
    curvatures = torch.logspace(0, -2, 10, dtype=torch.float64)
    free = torch.arange(10) % 3 != 0
    whole, part = Memory(4), Memory(4)
    for step in torch.randn(7, 10, generator=generator, dtype=torch.float64):
        whole.add(step, curvatures * step)
        part.add(step[free], curvatures[free] * step[free])
    gradient = torch.randn(10, generator=generator, dtype=torch.float64) * free

    part._diagonal = whole._diagonal[free]
    image = whole.inverse(gradient, free)

    torch.testing.assert_close(image[free], part.inverse(gradient[free], None))
    assert not image[~free].any()


@smooth
def test_a_domain_that_ends_at_the_start_is_named(name, options):
    # Downhill from the start there is nothing but NaN.
    def walled(x):
        return torch.where(x >= 1.0, x, torch.full_like(x, torch.nan)).sum()

    result = gradopt.minimise(walled, tensor([1.0]), optimiser=name, optimiser_options=options)

    assert not result.success
    assert result.status is Status.NON_FINITE, result
    assert result.fun == 1.0


@smooth
def test_a_minimum_on_a_curve_is_no_saddle_point(name, options):
    # The floor of a chain of curved valleys is a curve: its curvature is of either sign until the loss is zero.
    def chain(x):
        return 100 * ((x[1:] - x[:-1] + 1 - x[:-1] ** 2) ** 2).sum()

    result = gradopt.minimise(chain, torch.zeros(30, dtype=torch.float64), optimiser=name, optimiser_options=options)

    assert result.success, result
    assert result.fun < 1e-16


def test_auto_leaves_a_stage_that_crawls():
    def residuals(x):  # two curves that do not meet: Gauss-Newton steps crawl along a valley
        return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 30 + x[0] ** 2 + x[1]])

    result = gradopt.least_squares(residuals, [-1.2, 1.0], optimiser="auto")

    assert result.success, result
    assert result.nfev < 300


def test_units_of_the_unknowns_cost_lbfgs_few_evaluations():
    units = torch.logspace(-1, 1, 10, dtype=torch.float64).roll(3)

    def chain(x):
        return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()

    start = tensor([-1.2, 1.0] * 5)
    plain = gradopt.minimise(chain, start)
    scaled = gradopt.minimise(lambda x: chain(x / units), start * units)

    assert plain.success
    assert scaled.success
    assert scaled.nfev <= 1.5 * plain.nfev


@dtypes
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e3, 1e6])
def test_lbfgs_converges_in_other_units_of_the_unknowns_at_less_than_twice_the_cost(unit, dtype):
    def rosenbrock(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    plain = gradopt.minimise(rosenbrock, tensor([-1.2, 1.0], dtype), optimiser="lbfgs")
    other = gradopt.minimise(lambda x: rosenbrock(x / unit), tensor([-1.2, 1.0], dtype) * unit, optimiser="lbfgs")

    assert other.status is plain.status is Status.CONVERGED, other
    assert other.nfev < 2 * plain.nfev, (other.nfev, plain.nfev)


def test_an_unknown_of_weak_influence_is_not_thrown_to_where_it_has_none():
    times = torch.arange(1, 11, dtype=torch.float64) / 10

    def residuals(x):  # Box's, in three unknowns
        return (-times * x[0]).exp() - (-times * x[1]).exp() - x[2] * ((-times).exp() - (-10 * times).exp())

    result = gradopt.least_squares(residuals, [0.0, 100.0, 200.0])
    assert result.success, result.message
    assert result.fun < 1e-16


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_scale_lets_a_step_as_long_as_the_point_move_no_unknown_beyond_its_size(unit):
    scale = torch.tensor([10.0, 1e-8, 3.0], dtype=torch.float64) / unit
    point, origin = (torch.tensor(x, dtype=torch.float64) * unit for x in ([1.0, 1.0, 2.0], [1.0, -3.0, 0.0]))
    size = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64) * unit
    raised = capped(scale, point, origin)
    longest = (scale * size).norm()
    assert bool((longest / raised <= size * (1 + 1e-12))[:2].all())
    assert raised[2] == scale[2]  # it started at zero: nothing is known of its size
    assert bool((raised >= scale).all())


def test_large_residuals_make_levenberg_marquardt_learn_their_curvature(monkeypatch):
    result = gradopt.least_squares(apart, [-1.2, 1.0])

    monkeypatch.setattr(SecondOrder, "learn", lambda self, point, *_: torch.zeros(2, 2, dtype=point.dtype))
    without = gradopt.least_squares(apart, [-1.2, 1.0])
    newton = gradopt.minimise(lambda x: 0.5 * apart(x).square().sum(), [-1.2, 1.0], optimiser="trust_region")
    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(newton.fun, rel=1e-10)
    assert 2 * result.nfev < without.nfev, (result.nfev, without.nfev)


def test_the_learnt_curvature_of_residuals_meets_the_secant_equation_and_vanishes_with_them():
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    hessians = torch.randn(7, 4, 4, generator=generator, dtype=torch.float64)
    hessians = hessians + hessians.transpose(1, 2)
    second, last, matrix, point = SecondOrder(), None, torch.empty(0), torch.empty(0)
    for step in range(12):
        point = 0.1 * torch.randn(4, generator=generator, dtype=torch.float64)
        residuals = 30 + slopes @ point + 0.5 * torch.einsum("i,kij,j->k", point, hessians, point)
        jacobian = slopes + hessians @ point
        matrix = second.learn(point, jacobian.T @ residuals, residuals, jacobian)
        if last is not None and step > 0:
            moved, turn = point - last[0], jacobian.T @ residuals - last[2]
            if moved @ turn > 0:
                torch.testing.assert_close(matrix @ moved, (jacobian - last[1]).T @ residuals)
                torch.testing.assert_close(matrix, matrix.T)
        last = (point, jacobian, jacobian.T @ residuals)

    for _ in range(2):  # where the residuals have become linear
        point = point + 0.1
        matrix = second.learn(point, slopes.T @ (slopes @ point), slopes @ point, slopes)
    assert matrix.abs().max() < 1e-10


@pytest.mark.parametrize("many", [False, True])
def test_the_first_trial_of_lbfgs_is_seldom_far_too_long_once_pairs_are_forgotten(many):
    start = tensor([-1.2, 1.0] * 50)

    results = gradopt.minimise(f.rosenbrock, **{"starts" if many else "x0": start[(None,) * many]}, optimiser="lbfgs")

    result = results[0] if many else results
    assert result.status is Status.CONVERGED
    assert result.nfev < 1.8 * result.nit < 900, (result.nfev, result.nit)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("seed", [23, 25])
def test_a_learnt_curvature_that_leads_nowhere_leaves_the_word_to_the_jacobian(seed, many):
    times = torch.linspace(15.0, 850.0, 40, dtype=torch.float64)
    powers = torch.stack([times**k for k in range(4)])

    def cubics(b):
        return (b[:4] @ powers) / (1 + b[4:] @ powers[1:])

    start, true = tensor([10, -1, 0.05, -1e-5, -0.05, 1e-3, -1e-6]), tensor([1, -0.1, 4e-3, -1e-6, -6e-3, 2e-4, -1e-7])
    noise = 0.1 * torch.cos(9 * times)
    generator = torch.Generator().manual_seed(seed)
    exponents, shift = 2 * torch.rand(2, 7, generator=generator, dtype=torch.float64) - 1
    unit = 10**exponents  # variables in which the columns of the Jacobian differ by more than eps^-0.5

    results = gradopt.least_squares(
        lambda u: cubics(shift + unit * u) - cubics(true) - noise,
        **{"starts" if many else "x0": ((start - shift) / unit)[(None,) * many]},
    )

    result = results[0] if many else results
    assert result.status is Status.CONVERGED, result.message


def test_residuals_that_fade_away_leave_levenberg_marquardt_whole():
    result = gradopt.least_squares(lambda p: torch.exp(-p), [1.0])

    assert result.status is Status.STALLED  # on the plateau where they and all their derivatives underflow
    assert bool(result.x.isfinite().all())


def test_a_trust_region_that_has_shrunk_to_nothing_is_stuck():
    result = gradopt.minimise(lambda x: x.abs().sum(), tensor([1.0, 2.0]), optimiser="trust_region")

    assert result.status is Status.STALLED, result
    assert result.fun <= 1e-12


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("hessian", ["matrix", "products"])
def test_the_gradient_decides_where_the_terms_of_the_loss_cancel_to_one_number(hessian, many):
    x0 = tensor([1e-2, 1e-3])
    where = {"starts": x0[None]} if many else {"x0": x0}
    options = {"optimiser": "trust_region", "optimiser_options": {"hessian": hessian}}

    results = gradopt.minimise(lambda x: 1 - torch.exp(-(x * x).sum()), **where, **options)

    result = results[0] if many else results
    assert result.status is Status.CONVERGED
    assert result.nfev < 10
    assert result.x.abs().max() < 1e-12


class WrongSign(torch.autograd.Function):
    """(x - 1)^2, with a gradient that leads uphill."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return ((x - 1) ** 2).sum()

    @staticmethod
    def backward(ctx, gradient):
        return -2 * (ctx.saved_tensors[0] - 1) * gradient


def test_a_trust_region_stops_where_rounding_alone_refuses_its_trials():
    result = gradopt.minimise(lambda x: WrongSign.apply(x), [0.0, 4.0], optimiser="trust_region")

    assert result.status.value == "stalled" and result.nit == 0
    assert result.nfev < 100  # it was halved on until the budget of 20 000 was spent


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("optimiser", ["levenberg_marquardt", "trust_region"])
def test_by_products_bounded_fits_end_where_scipys_do(optimiser, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    data = 3 * torch.randn(12, generator=generator, dtype=torch.float64)
    name = "jacobian" if optimiser == "levenberg_marquardt" else "hessian"

    result = gradopt.least_squares(
        lambda x: matrix @ x - data,
        torch.zeros(6, dtype=torch.float64),
        bounds=(-0.5, 0.5),
        optimiser=optimiser,
        optimiser_options={name: "products"},
    )

    exact = scipy.optimize.lsq_linear(matrix.numpy(), data.numpy(), (-0.5, 0.5), tol=1e-14)
    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(exact.cost, rel=1e-10)
    assert bool(((result.x >= -0.5) & (result.x <= 0.5)).all())


def test_trust_region_keeps_bounds_of_more_unknowns_than_a_matrix_is_made_for():
    start = torch.zeros(251, dtype=torch.float64)

    result = gradopt.minimise(f.rosenbrock, start, optimiser="trust_region", bounds=(-2.0, 0.9))

    quasi = gradopt.minimise(f.rosenbrock, start, bounds=(-2.0, 0.9))
    assert result.status is quasi.status is Status.CONVERGED, (result, quasi)
    assert result.fun == pytest.approx(quasi.fun, rel=1e-8)
