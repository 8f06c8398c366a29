"""With on_saddle=escape a run goes on from saddle points and maxima, and ends as truthfully as any."""

import logging
import math

import pytest
import torch

import gradopt
from gradopt import Mistake, Status, Stop
from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective
from gradopt.optimisers.escape import Departure
from gradopt.settings import Settings
from tests import functions as f
from tests.installed import gradopt as command

OPTIMISERS = ["sgd", "adam", "lbfgs", "trust_region", "auto", "torch_lbfgs"]
DTYPES = [torch.float64, torch.float32]


def monkey(x):
    """No curvature at 0, and the loss falls to three sides."""
    return x[0] ** 3 - 3 * x[0] * x[1] ** 2 + (x**4).sum()


def high_saddle(x):
    """A saddle in 100 unknowns: along one of them it is a maximum."""
    weights = torch.linspace(1, 2, len(x), dtype=x.dtype)
    return (weights[1:] * x[1:] ** 2).sum() + x[0] ** 4 - x[0] ** 2


def run(function, x0, optimiser="lbfgs", dtype=torch.float64, *, steps=2000, **options):
    given = {"lr": 0.05} if optimiser in ("sgd", "adam") else None
    return gradopt.minimise(
        function,
        torch.tensor(x0, dtype=dtype),
        optimiser=optimiser,
        optimiser_options=given,
        on_saddle="escape",
        **{"stop": Stop(max_steps=steps), **options},
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(
    ("function", "x0", "lowest"),
    [
        (f.saddle, [1.0, 0.0], -0.25),
        (f.saddle, [0.0, 0.0], -0.25),
        (f.hill, 0.0, -0.25),
        (monkey, [0.0, 0.0], -0.10546875),
    ],
    ids=["into-the-saddle", "saddle", "maximum", "monkey-saddle"],
)
def test_from_a_saddle_point_or_maximum_every_optimiser_comes_to_a_minimum(function, x0, lowest, optimiser, dtype):
    result = run(function, x0, optimiser, dtype)

    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(lowest, rel=1e-5)
    if optimiser != "trust_region":  # that one may never come near the saddle: it follows negative curvature itself
        assert result.verdict.evidence["num_escapes"] == 1
        assert "having escaped once" in result.message


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_the_units_of_loss_and_unknowns_do_not_matter(scale, shift):
    result = run(lambda x: scale * (f.saddle(x * torch.tensor([1e6, 1e-3], dtype=x.dtype)) + shift), [1e-6, 0.0])

    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(scale * (shift - 0.25))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimiser", ["sgd", "lbfgs"])
def test_a_saddle_in_a_hundred_unknowns_is_left(optimiser, dtype):
    result = run(high_saddle, [0.0] + [1.0] * 99, optimiser, dtype)

    assert result.status is Status.CONVERGED
    assert abs(result.x[0].item()) == pytest.approx(math.sqrt(0.5), rel=1e-3)
    assert result.verdict.evidence["num_escapes"] == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_saddle_without_a_floor_ends_unbounded(optimiser, dtype):
    result = run(lambda x: x[0] ** 2 - x[1] ** 2, [1.0, 0.0], optimiser, dtype)

    assert result.status is Status.UNBOUNDED


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("optimiser", ["sgd", "lbfgs", "trust_region"])
def test_only_one_side_of_a_bound_is_open(optimiser, side):
    bounds = sorted([0.0, side])
    result = run(lambda x: f.hill(x).sum(), [0.0], optimiser, bounds=(bounds[0], bounds[1]))

    assert result.status is Status.CONVERGED
    assert result.x.item() == pytest.approx(side * math.sqrt(0.5))


def test_many_saddles_are_left_one_after_another():
    """All unknowns begin at a maximum, and each escape takes one of them away from it."""
    result = run(f.hill, [0.0, 0.0, 0.0], "sgd", steps=5000)

    assert result.status is Status.CONVERGED
    assert result.verdict.evidence["num_escapes"] == 3
    assert result.x.abs().tolist() == pytest.approx([math.sqrt(0.5)] * 3)


def test_a_minimum_is_no_saddle_and_costs_nothing_more():
    plain = gradopt.minimise(f.rosenbrock, [-1.2, 1.0])
    result = run(f.rosenbrock, [-1.2, 1.0])

    assert result.status is Status.CONVERGED
    assert torch.equal(result.x, plain.x)
    assert (result.nit, result.nfev, result.nhev) == (plain.nit, plain.nfev, plain.nhev)


def test_a_saddle_beside_which_the_dtype_sees_nothing_lower_is_still_called_one():
    """Its depth of 0.25 is less than the spacing of float32 at 1e8."""
    result = run(lambda x: f.saddle(x) + 1e8, [0.0, 0.0], dtype=torch.float32)

    assert result.status is Status.SADDLE_POINT
    assert "on_saddle=escape" not in result.message


def test_an_optimiser_that_climbs_back_is_given_up():
    class Homesick(torch.optim.Optimizer):
        """Returns to 0 whatever the gradient."""

        def __init__(self, parameters):
            super().__init__(parameters, {})

        @torch.no_grad()
        def step(self):
            self.param_groups[0]["params"][0].zero_()

    result = gradopt.minimise(f.hill, 0.0, optimiser=Homesick, on_saddle="escape")

    assert result.status is Status.MAXIMUM
    assert result.verdict.evidence["num_escapes"] == 3
    assert result.fun < 0  # the best point is kept


@pytest.mark.parametrize("limit", range(1, 22))
def test_a_budget_is_kept_to_the_evaluation(limit):
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return f.saddle(x)

    result = run(counted, [0.0, 0.0], "lbfgs", stop=Stop(max_evaluations=limit))

    assert result.nfev <= limit
    assert result.status in (Status.MAX_EVALUATIONS, Status.CONVERGED)
    assert result.fun <= 0


def test_the_log_says_what_was_left(caplog):
    with caplog.at_level(logging.INFO, logger="gradopt"):
        run(f.saddle, [0.0, 0.0])

    assert "left a saddle point at step 0, loss 0, along curvature -2: loss -0.1875" in caplog.text


@pytest.mark.parametrize("cut", [0, 3, 90, 91, 92, 110])
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "lbfgs"])
def test_a_run_that_was_saved_and_loaded_goes_on_to_the_last_bit(optimiser, cut, tmp_path):
    """sgd is at the saddle at step 91: before it, in the search beside it, and after."""

    def build():
        options = {"lr": 0.05} if optimiser != "lbfgs" else {}
        target = FunctionObjective(f.saddle, torch.tensor([1.0, 0.0]))
        return assemble(target, optimiser, options, on_saddle="escape", stop=Stop(max_steps=140))

    def walk(assembly, until=None):
        points = []
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
            points.append(assembly.oracle.read())
            if block.last_step == until:
                assembly.engine.update()
                break
        return points

    whole = build()
    reference = walk(whole)
    if optimiser == "lbfgs":
        cut = min(cut, len(reference) - 2)
    first = build()
    head = walk(first, cut)
    torch.save([first.engine.state_dict(), [c.state_dict() for c in first.criteria]], tmp_path / "state.pt")
    second = build()
    engine, criteria = torch.load(tmp_path / "state.pt", weights_only=False)
    second.engine.load_state_dict(engine)
    for criterion, state in zip(second.criteria, criteria, strict=True):
        criterion.load_state_dict(state)
    tail = walk(second)

    assert torch.equal(torch.stack(head + tail), torch.stack(reference))
    assert second.oracle.num_losses == whole.oracle.num_losses
    assert second.oracle.num_hessian_products == whole.oracle.num_hessian_products


def test_memory_and_schedule_begin_anew():
    result = gradopt.minimise(
        f.hill,
        0.0,
        optimiser="sgd",
        optimiser_options={"lr": 0.05, "momentum": 0.9},
        schedule={"name": "exponential", "gamma": 0.5},
        on_saddle="escape",
        stop=Stop(max_steps=3),
    )

    assert result.history["learning_rate"].tolist() == [0.05, 0.05, 0.025, 0.0125]


@pytest.mark.parametrize("name", ["sgd", "adam", "lbfgs", "trust_region", "auto", "torch_lbfgs"])
def test_from_the_lower_point_a_run_is_one_that_was_started_there(name):
    """As to its points: the test of convergence knows where the whole run began."""
    options = {"sgd": {"lr": 0.05, "momentum": 0.9}, "adam": {"lr": 0.05}}.get(name, {})

    def walk(x0, on_saddle):
        objective, points = FunctionObjective(f.saddle, torch.tensor(x0, dtype=torch.float64)), []
        gradopt.minimise(
            objective,
            optimiser=name,
            optimiser_options=options,
            on_saddle=on_saddle,
            callback=lambda block: points.append(objective.x.detach().clone()),
            stop=Stop(max_steps=900, gradient_tolerance=1e-6),
        )
        return points

    whole = walk([1.0, 0.0], "escape")
    saddle = next((step for step, point in enumerate(whole) if abs(point[1]) > 0), None)
    assert saddle is not None
    tail = whole[saddle:]
    fresh = walk(tail[0].tolist(), "stop")[: len(tail)]

    assert len(fresh) >= min(len(tail), 4) - 1
    assert torch.equal(torch.stack(tail[: len(fresh)]), torch.stack(fresh))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(Mistake, match=r"on_saddle='esc' is not one of stop, escape\. Did you mean 'escape'"):
        gradopt.minimise(f.hill, 0.0, on_saddle="esc")

    class OnBatches(gradopt.Objective):
        class batches:  # noqa: N801
            steps_per_epoch = 1

            def at(self, step):
                return [None]

        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch=None):
            return f.hill(self.x)

    with pytest.raises(Mistake, match="differ from batch to batch"):
        gradopt.minimise(OnBatches(), optimiser="sgd", on_saddle="escape")

    with pytest.raises(Mistake, match="begin the search anew"):
        gradopt.minimise(f.hill, 0.0, bounds=(-1, 1), optimiser="multi_start", on_saddle="escape")

    class Constrained(FunctionObjective):
        def constraints(self):
            return [gradopt.Constraint(lambda: self.x.sum(), lower=0.0)]

    with pytest.raises(Mistake, match="would leave the constraints"):
        gradopt.minimise(Constrained(f.hill, [0.0]), on_saddle="escape")


def test_steps_and_least_squares_take_it():
    residuals = lambda x: torch.stack([x[0], x[1] ** 2 - 1])  # noqa: E731
    result = gradopt.least_squares(residuals, [1.0, 0.0], on_saddle="escape")
    last = list(gradopt.steps(f.hill, 0.0, on_saddle="escape"))[-1]

    assert result.status is Status.CONVERGED
    assert result.x.abs().tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert last.verdict is not None
    assert last.verdict.success


def test_the_command_line_takes_it(tmp_path):
    hill = ["objective.coefficients=[1,0,-1,0,0]", "objective.x0=0", "objective.bounds=null", "optimiser=lbfgs"]
    done = command(*hill, "on_saddle=escape", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "having escaped once" in done.stdout


def test_the_verdict_says_how_to_go_on_and_a_wrong_word_is_refused():
    assert "To mend: on_saddle=escape" in gradopt.minimise(f.hill, 0.0).message
    with pytest.raises(Mistake, match="Did you mean 'escape'"):
        Settings(on_saddle="scape")


def test_a_departure_tries_both_sides_and_then_nearer_ones():
    departure = Departure(loss=0.0, first=1.0, eps=1e-16)
    trials = []
    while departure.advance():
        trials.append(departure.step)
        assert not departure.accepts(math.nan)

    assert trials[:6] == [1.0, -1.0, 0.25, -0.25, 0.0625, -0.0625]
    assert len(trials) == 22


def test_a_departure_goes_on_while_the_loss_falls_faster_than_the_step_grows():
    departure = Departure(loss=0.0, first=0.01, eps=1e-16)
    trials = []
    for _ in range(20):
        departure.advance()
        trials.append(departure.step)
        if departure.accepts(trials[-1] ** 4 - trials[-1] ** 2):
            break

    assert trials == [0.01, 0.04, 0.16, 0.64, 2.56, 0.64]
