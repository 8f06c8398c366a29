"""The law of many starts for trust regions: start i of many ends as a run of its own from there does."""

import functools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
import scipy.optimize
import torch
from torch import Tensor

import gradopt
from gradopt import Mistake
from gradopt.loop import iterate
from gradopt.many.assembly import assemble_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.objectives.robust import RobustLoss
from gradopt.optimisers.stacked.trust_model import StackedBox, StackedKrylov, solve
from gradopt.optimisers.trust_model import Box, Krylov, Newton, Spectrum, _solve
from gradopt.verdicts import Verdicts
from tests import functions as f
from tests.many.test_law import gaussian, log_well, tilted

T = torch.linspace(0.0, 4.0, 15, dtype=torch.float64)
Y = 2.5 * torch.exp(-0.7 * T) + 0.5 + 0.05 * torch.cos(9 * T)


def valley(x: Tensor) -> Tensor:
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def helix(x: Tensor) -> Tensor:
    """The helical valley (Moré, Garbow and Hillstrom, problem 7)."""
    angle = torch.atan2(x[1], x[0]) / (2 * math.pi)
    return torch.stack([10 * (x[2] - 10 * angle), 10 * (torch.hypot(x[0], x[1]) - 1), x[2]])


def decay(x: Tensor) -> Tensor:
    return x[0] * torch.exp(-x[1] * T.to(x)) + x[2] - Y.to(x)


def outliers(x: Tensor) -> Tensor:
    return decay(x) + 4.0 * torch.nn.functional.one_hot(torch.tensor(5), len(T)).to(x)


def apart(x: Tensor) -> Tensor:
    """The residuals stay large, and the model has to change."""
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 30 + x[0] ** 2 + x[1]])


def deficient(x: Tensor) -> Tensor:
    """Only the sum of the unknowns matters."""
    total = x.sum()
    return torch.stack([total - 3, 2 * total - 6, (total - 3) ** 2])


def wide(x: Tensor) -> Tensor:
    """More unknowns than residuals."""
    return torch.stack([x[0] * x[1] - 2, x[2] + x[3] ** 2 - 1])


def rooted(x: Tensor) -> Tensor:
    """Not defined below 0."""
    return torch.stack([torch.sqrt(x[0]) - 2, x[0] * x[1] - 4])


def steep(x: Tensor) -> Tensor:
    """A loss whose gradient has no square."""
    return 1e15 * valley(x) if x.dtype == torch.float32 else 2.0**300 * valley(x)


def chain(x: Tensor) -> Tensor:
    """Rosenbrock's, not convex, in more unknowns."""
    return f.rosenbrock(x)


@dataclass(frozen=True)
class Case:
    """Starts of a function, or of residuals, and endings that some of them come to."""

    name: str
    function: object
    starts: tuple[tuple[float, ...], ...]
    bounds: object = None
    fit: bool = False
    loss: str = "linear"
    statuses: frozenset[str] = field(default_factory=frozenset)
    trials: int = 2  # evaluations by which runs may differ: where rounding refuses trials, or moves what is looked into


CONVERGED = frozenset({"converged"})
FITS = [
    Case("valley", valley, ((-1.2, 1.0), (1.0, 1.0), (0.0, 0.0), (2.0, -2.0), (9.0, -3.0)), fit=True),
    Case("helix", helix, ((-1.0, 0.0, 0.0), (-10.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, -3.0, 5.0)), fit=True, trials=14),
    Case("decay", decay, ((1.0, 1.0, 0.0), (2.0, 0.5, 0.0), (0.5, 5.0, -1.0)), fit=True),
    Case("outliers", outliers, ((1.0, 1.0, 0.0), (3.0, 0.5, 1.0)), fit=True, loss="soft_l1"),
    Case("apart", apart, ((-1.2, 1.0), (3.0, 3.0), (0.1, -9.0)), fit=True),
    Case("deficient", deficient, ((0.0, 1.0), (5.0, -9.0), (1.5, 1.5)), fit=True, trials=12),
    Case("wide", wide, ((1.0, 1.0, 1.0, 1.0), (0.1, 3.0, -2.0, 0.5)), fit=True),
    Case("nan", rooted, ((1.0, 1.0), (-1.0, 1.0), (9.0, 0.2)), fit=True, statuses=frozenset({"non_finite"})),
    Case("steep", steep, ((-1.2, 1.0), (1.0, 1.0), (0.5, 0.5)), fit=True),
    Case("box", decay, ((1.0, 1.0, 0.0), (2.0, 0.8, 0.3), (1.2, 2.0, 0.3)), ((0.5, 0.8, 0.0), (2.0, 2.0, 0.3)), True),
    Case("valley in a box", valley, ((-1.2, 1.0), (0.0, 0.0), (0.7, -1.0)), ((-1.5, -1.0), (0.7, 2.0)), True),
]
LOSSES = [
    Case("rosenbrock", f.rosenbrock, ((-1.2, 1.0), (1.0, 1.0), (0.0, 0.0), (2.0, -2.0)), statuses=CONVERGED),
    Case("chain", chain, ((-1.2, 1.0, -1.2, 1.0), (3.0, -1.0, 0.5, 2.0), (-1.0, 1.0, 1.0, 1.0)), statuses=CONVERGED),
    Case("saddle", f.saddle, ((0.0, 0.0), (1.0, 0.5), (1.0, 0.0), (0.3, -0.2)), statuses=frozenset({"saddle_point"})),
    Case("hill", f.hill, ((0.0, 0.0), (0.5, -0.5), (0.0, 1.0), (2.0, 0.1)), statuses=frozenset({"maximum"})),
    Case("log", log_well, ((2.0,), (-1.0,), (0.01,), (40.0,)), statuses=frozenset({"non_finite", "converged"})),
    Case("plateau", gaussian, ((0.5, 0.5), (40.0, 0.0), (1.0, -1.0)), statuses=CONVERGED),
    Case("unbounded", f.cubic_sum, ((2.0,), (-3.0,), (0.0,)), statuses=frozenset({"unbounded"})),
    Case("far floor", f.far_floor, ((1.0, 9.0), (3.0, 3.0))),
    Case("tilted in a box", tilted, ((1.0, 1.0), (0.0, 0.0), (-1.0, 1.5), (2.0, 2.0)), (-1.0, 2.0), statuses=CONVERGED),
    Case("saddle in a box", f.saddle, ((0.5, 0.25), (0.0, 0.1), (-0.4, -0.5)), (-0.5, 0.5), statuses=CONVERGED),
]
SOLVERS = {
    "lm": ("levenberg_marquardt", {}),
    "lm by products": ("levenberg_marquardt", {"jacobian": "products"}),
    "newton": ("trust_region", {}),
    "newton by products": ("trust_region", {"hessian": "products"}),
}


def cases():
    for dtype in (torch.float64, torch.float32):
        for name in SOLVERS:
            for case in FITS + LOSSES:
                wrong = name.startswith("lm") and not case.fit
                if not wrong:
                    yield pytest.param(case, name, dtype, id=f"{case.name}-{name}-{str(dtype)[6:]}")


def run(case, name, **start):
    optimiser, options = SOLVERS[name]
    common = {"optimiser": optimiser, "optimiser_options": options, "bounds": case.bounds}
    common["stop"] = gradopt.Stop(max_steps=200)
    if case.fit:
        return gradopt.least_squares(case.function, loss=case.loss, f_scale=0.5, **start, **common)
    return gradopt.minimise(case.function, **start, **common)


@functools.cache
def pair(case, name, dtype):
    """The runs of all starts at once, and of each alone."""
    starts = torch.tensor(case.starts, dtype=dtype)
    return run(case, name, starts=starts), [run(case, name, x0=start) for start in starts]


@pytest.mark.parametrize(("case", "name", "dtype"), list(cases()))
def test_each_start_of_many_ends_as_it_does_alone(case, name, dtype):
    many, alone = pair(case, name, dtype)

    for one, single in zip(many, alone, strict=True):
        assert one.status is single.status, (one.message, single.message)
        assert abs(one.nit - single.nit) <= max(2, 0.01 * single.nit), (one, single)
        assert abs(one.nfev - single.nfev) <= max(case.trials, 0.01 * single.nfev), (one, single)
        close = torch.finfo(dtype).eps ** 0.5
        torch.testing.assert_close(one.x, single.x, rtol=close, atol=close, equal_nan=True)
        assert one.fun == pytest.approx(single.fun, rel=close, abs=close**2, nan_ok=True)


@pytest.mark.parametrize("case", [case for case in FITS + LOSSES if case.statuses], ids=lambda case: case.name)
def test_the_table_meets_the_endings_it_is_there_for(case):
    seen = {status.value for status in pair(case, "lm" if case.fit else "newton", torch.float64)[0].status}

    assert case.statuses <= seen


SOME = [
    (FITS[1], "lm"),
    (FITS[1], "lm by products"),
    (FITS[4], "lm"),
    (FITS[9], "lm"),
    (LOSSES[1], "newton"),
    (LOSSES[1], "newton by products"),
    (LOSSES[8], "newton"),
]
some = pytest.mark.parametrize(("case", "name"), SOME, ids=lambda one: getattr(one, "name", one))


@some
def test_one_of_many_is_one(case, name):
    _, alone = pair(case, name, torch.float64)

    one = run(case, name, starts=torch.tensor(case.starts[:1], dtype=torch.float64))[0]

    assert (one.status, one.nit, one.nfev) == (alone[0].status, alone[0].nit, alone[0].nfev)
    torch.testing.assert_close(one.x, alone[0].x, rtol=1e-10, atol=1e-12)


@some
def test_the_order_of_starts_changes_nothing(case, name):
    many, _ = pair(case, name, torch.float64)
    order = torch.arange(len(case.starts)).flip(0)

    turned = run(case, name, starts=torch.tensor(case.starts, dtype=torch.float64)[order])

    assert turned.verdicts.codes.tolist() == many.verdicts.codes[order].tolist()
    assert turned.nfev.tolist() == many.nfev[order].tolist()
    torch.testing.assert_close(turned.x, many.x[order], rtol=1e-8, atol=1e-10)


def test_a_start_without_a_number_harms_no_other():
    starts = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [9.0, 0.2]], dtype=torch.float64)

    with_nan = gradopt.least_squares(rooted, starts=starts)
    without = gradopt.least_squares(rooted, starts=starts[[0, 2]])

    assert [status.value for status in with_nan.status] == ["converged", "non_finite", "converged"]
    assert torch.equal(with_nan.x[[0, 2]], without.x)
    assert with_nan.nfev[[0, 2]].tolist() == without.nfev.tolist() and with_nan.nfev[1] == 1


def test_second_derivatives_that_are_not_finite_halt_that_start_alone():
    def rough(x):
        return x[0].abs() ** 1.5 + (x[1] - 1) ** 2

    starts = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)

    many = gradopt.minimise(rough, starts=starts, optimiser="trust_region")
    alone = [gradopt.minimise(rough, start, optimiser="trust_region") for start in starts]

    assert [one.status for one in many] == [one.status for one in alone]
    assert many[0].status is gradopt.Status.STALLED and "no step inside the trust region" in many[0].message
    assert [one.nfev for one in many] == [one.nfev for one in alone]


def test_trials_that_are_never_finite_end_as_they_do_alone():
    def brim(x):
        return torch.where(x <= 0, -x, torch.inf).sum()

    starts = torch.tensor([[0.0], [-1.0]], dtype=torch.float64)
    options = {"optimiser": "trust_region", "optimiser_options": {"hessian": "products"}}

    many = gradopt.minimise(brim, starts=starts, **options)
    alone = [gradopt.minimise(brim, start, **options) for start in starts]

    assert [(one.status, one.message, one.nfev) for one in many] == [(a.status, a.message, a.nfev) for a in alone]


@pytest.mark.parametrize("name", ["lm", "lm by products", "newton", "newton by products"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20])
def test_a_budget_of_evaluations_is_kept_by_each_start(name, limit):
    optimiser, options = SOLVERS[name]
    starts = torch.tensor(FITS[0].starts, dtype=torch.float64)
    given = {"optimiser": optimiser, "optimiser_options": options, "stop": gradopt.Stop(max_evaluations=limit)}

    many = gradopt.least_squares(valley, starts=starts, **given)

    for one, start in zip(many, starts, strict=True):
        alone = gradopt.least_squares(valley, start, **given)
        assert (one.status, one.nfev, one.nit) == (alone.status, alone.nfev, alone.nit)
        assert one.nfev <= limit and torch.allclose(one.x, alone.x, rtol=1e-10)


@pytest.mark.parametrize("case", [FITS[0], FITS[1], FITS[4], LOSSES[1]], ids=lambda case: case.name)
def test_steps_cost_what_they_cost_alone(case):
    """Gradients and Hessian products as well: here without the products that a verdict takes."""
    starts = torch.tensor(case.starts, dtype=torch.float64)[:2]
    stop = gradopt.Stop(max_steps=6, gradient_tolerance=0.0)

    for name in ("lm",) if case.fit else ("newton", "newton by products"):
        optimiser, options = SOLVERS[name]
        target = [ResidualObjective, FunctionObjective][not case.fit]
        given = {"optimiser": optimiser, "optimiser_options": options, "stop": stop}
        many = gradopt.minimise(target(case.function, starts[0]), starts=starts, **given)
        for one, start in zip(many, starts, strict=True):
            alone = gradopt.minimise(target(case.function, start), **given)
            assert (one.nit, one.nfev, one.njev) == (alone.nit, alone.nfev, alone.njev)


def test_the_unknowns_of_one_start_say_whether_its_hessian_is_held(monkeypatch):
    made = []
    monkeypatch.setattr(StackedKrylov, "put", lambda *_: made.append("products"))
    starts = torch.randn(150, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    many = gradopt.minimise(f.rosenbrock, starts=starts, optimiser="trust_region", stop=gradopt.Stop(max_steps=3))

    assert not made and (many.nit > 0).all()


@some
def test_a_saved_run_goes_on_to_the_last_bit(case, name, tmp_path):
    starts = torch.tensor(case.starts, dtype=torch.float64)
    number = len(starts)

    def build():
        kind = ResidualObjective if case.fit else FunctionObjective
        optimiser, options = SOLVERS[name]
        return assemble_starts(kind(case.function, starts[0], case.bounds), {"x": starts}, optimiser, options)

    def walk(assembly, until=None):
        points = {}
        verdicts = Verdicts(assembly.criteria, number)
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1, verdicts=verdicts):
            points[block.last_step] = torch.full_like(starts, math.nan)
            points[block.last_step][block.starts.index] = assembly.oracle.last.point
            if block.last_step + 1 == until:
                break
        return points

    reference = walk(build())
    for cut in range(1, min(4, len(reference) - 1)):
        first, second = build(), build()
        walk(first, until=cut)
        first.engine.update()
        torch.save([first.engine.state_dict(), [one.state_dict() for one in first.criteria]], tmp_path / "state.pt")
        engine, criteria = torch.load(tmp_path / "state.pt", weights_only=False)
        second.engine.load_state_dict(engine)
        for one, state in zip(second.criteria, criteria, strict=True):
            one.load_state_dict(state)
        after = walk(second, until=cut + 3)
        assert after and all(torch.equal(after[step].nan_to_num(), reference[step].nan_to_num()) for step in after)


def quadratics(number=40, n=5):
    """Curvatures of every kind, gradients, and radii: shapes (number, n, n), (number, n), (number,)."""
    generator = torch.Generator().manual_seed(3)
    vectors, _ = torch.linalg.qr(torch.randn(number, n, n, generator=generator, dtype=torch.float64))
    values = torch.randn(number, n, generator=generator, dtype=torch.float64)
    values[: number // 2] = values[: number // 2].abs()
    values[::5, 0] = 0.0
    gradient = torch.randn(number, n, generator=generator, dtype=torch.float64)
    gradient[::7] -= vectors[::7, :, 1] * (vectors[::7, :, 1] * gradient[::7]).sum(1, keepdim=True)  # hard cases
    radius = 10.0 ** torch.linspace(-3, 3, number, dtype=torch.float64)
    return vectors @ torch.diag_embed(values) @ vectors.mT, gradient, radius


def test_subproblems_are_solved_as_one_by_one():
    hessian, gradient, radius = quadratics()
    whole = Spectrum.of(hessian, gradient)

    steps = solve(whole, radius)

    for place, step in enumerate(steps):
        one = _solve(Spectrum(*(part[place] for part in whole)), radius[place].item())
        torch.testing.assert_close(step, one, rtol=1e-9, atol=1e-12)


def test_subproblems_in_boxes_are_solved_as_one_by_one():
    hessian, gradient, radius = quadratics()
    generator = torch.Generator().manual_seed(4)
    sides = torch.rand(2, *gradient.shape, generator=generator, dtype=torch.float64)
    sides[0, ::3] = 0.0  # unknowns that lie on a bound
    scale = 0.5 + torch.rand(gradient.shape, generator=generator, dtype=torch.float64)
    model = StackedBox(Newton, len(radius))
    places = torch.arange(len(radius))
    model.put(places, Newton(hessian, gradient, scale), scale, (-sides[0], sides[1]))

    steps, lengths, changes = model.minimiser(places, radius)

    for place, step in enumerate(steps):
        curvature, room = Newton(hessian[place], gradient[place], scale[place]), (-sides[0, place], sides[1, place])
        alone = Box(curvature, scale[place], room)
        one, length, change = alone.minimiser(radius[place].item())
        assert changes[place].item() == pytest.approx(change, rel=1e-9) and change < 0
        torch.testing.assert_close(step, one, rtol=1e-7, atol=1e-9)
        assert lengths[place].item() == pytest.approx(length, rel=1e-7)


def test_paths_of_conjugate_gradients_are_those_of_one_by_one():
    hessian, gradient, radius = quadratics()
    forcing = torch.full_like(radius, 1e-3)
    asked = torch.zeros(len(radius))

    def product(vectors, mask):
        nonlocal asked
        asked += mask
        return (hessian @ vectors.unsqueeze(-1)).squeeze(-1)

    model, places = StackedKrylov(len(radius)), torch.arange(len(radius))
    model.put(places, product, gradient, radius, forcing, 4)

    for shrunk in (radius, 0.3 * radius, 1e-2 * radius):
        steps, lengths, changes = model.minimiser(places, shrunk)
        for place in places.tolist():
            count = 0

            def single(vector, place=place):
                nonlocal count
                count += 1
                return hessian[place] @ vector

            alone = Krylov(single, gradient[place], radius[place].item(), 1e-3, 4)
            step, length, change = alone.minimiser(shrunk[place].item())
            torch.testing.assert_close(steps[place], step, rtol=1e-9, atol=1e-12)
            assert lengths[place].item() == pytest.approx(length, rel=1e-9)
            assert changes[place].item() == pytest.approx(change, rel=1e-9)
            assert asked[place] == count


class Decay(gradopt.Objective):
    """A fit as a module of two unknowns, with a matrix of residuals and a robust loss."""

    def __init__(self) -> None:
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))
        self.rate = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.robust = RobustLoss("huber", 0.1)

    def residuals(self) -> Tensor:
        return decay(torch.stack([self.height[0], self.rate, self.height[1]])).reshape(5, 3)


def test_a_module_with_residuals_is_mapped_over_its_starts():
    generator = torch.Generator().manual_seed(0)
    starts = {
        "height": 1 + torch.rand(4, 2, generator=generator, dtype=torch.float64),
        "rate": 0.5 + torch.rand(4, generator=generator, dtype=torch.float64),
    }

    many = gradopt.least_squares(Decay(), starts=starts)

    for index, one in enumerate(many):
        target = Decay()
        with torch.no_grad():
            target.height.copy_(starts["height"][index])
            target.rate.copy_(starts["rate"][index])
        alone = gradopt.least_squares(target)
        assert one.success and one.status is alone.status and abs(one.nit - alone.nit) <= 2
        assert one.fun == pytest.approx(alone.fun, rel=1e-10)


def test_fits_agree_with_scipy():
    starts = torch.tensor(FITS[2].starts, dtype=torch.float64)

    many = gradopt.least_squares(decay, starts=starts)

    for one, start in zip(many, starts, strict=True):
        theirs = scipy.optimize.least_squares(lambda x: decay(torch.from_numpy(x)).numpy(), start.numpy(), xtol=1e-14)
        assert one.fun <= theirs.cost * (1 + 1e-9)


class OnceOnly(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return (x**2).sum()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return upstream * 2 * ctx.saved_tensors[0]


REFUSED = {
    "needs residuals": (f.parabola, {"optimiser": "levenberg_marquardt"}),
    "needs second derivatives": (OnceOnly.apply, {"optimiser": "trust_region"}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_refused_before_the_run(words):
    function, options = REFUSED[words]

    with pytest.raises(Mistake, match=words):
        gradopt.minimise(function, starts=torch.ones(3, 2, dtype=torch.float64), **options)


def test_residuals_that_are_not_those_of_the_loss_are_refused():
    class Other(ResidualObjective):
        def losses(self, parameters):
            return 2 * super().losses(parameters)

        def forward(self, batch=None):
            return 2 * super().forward(batch)

    starts = torch.tensor([[-1.2, 1.0], [0.0, 3.0]], dtype=torch.float64)

    with pytest.raises(Mistake, match="not half the sum of squares"):
        gradopt.minimise(Other(valley, starts[0]), starts=starts, optimiser="levenberg_marquardt")


@pytest.mark.parametrize("bounds", [None, ((0.1, 0.3, 0.5), (9.0, 3.0, 0.5))], ids=["free", "one fixed"])
def test_each_fit_has_its_covariance(bounds):
    starts = torch.tensor([[1.0, 1.0, 0.5], [3.0, 0.5, 0.5]], dtype=torch.float64)

    many = gradopt.least_squares(decay, starts=starts, bounds=bounds)

    assert many.covariance.shape == (2, 3, 3) and many.standard_errors.shape == (2, 3)
    for one, start in zip(many, starts, strict=True):
        alone = gradopt.least_squares(decay, start, bounds=bounds)
        torch.testing.assert_close(one.covariance, alone.covariance, rtol=1e-5, atol=1e-12)
        torch.testing.assert_close(one.standard_errors, alone.standard_errors, rtol=1e-5, atol=1e-12)


def test_a_fit_that_failed_has_no_covariance():
    def offset(x):
        return torch.sqrt(x[0]) - T.to(x) - x[1]

    many = gradopt.least_squares(offset, starts=torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64))

    assert many.success.tolist() == [True, False]
    assert many[1].covariance is None and many[1].standard_errors is None and many[0].covariance is not None


@pytest.mark.slow
def test_fits_from_the_command_line(tmp_path):
    (tmp_path / "fit.py").write_text(
        "import torch\n"
        "T = torch.linspace(0, 4, 20, dtype=torch.float64)\n"
        "def residuals(x):\n"
        "    return x[0] * torch.exp(-x[1] * T) - 3 * torch.exp(-0.5 * T)\n"
    )
    command = [sys.executable, "-m", "gradopt", "objective=least_squares", "objective.target=fit.py:residuals"]
    overrides = ["objective.x0=[1.0,1.0]", "optimiser=levenberg_marquardt", "starts=5", "dtype=float64"]
    environment = {**os.environ, "GRADOPT_PLUGIN_AUTOLOAD": "0"}

    done = subprocess.run(
        [*command, *overrides, f"hydra.run.dir={tmp_path}/run"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["starts"]["number"] == 5 and result["fun"] < 1e-20
