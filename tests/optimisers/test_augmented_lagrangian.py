"""Constrained minima, and everything that looks like one: no false success, budgets kept, nothing lost."""

import json
import math

import pytest
import scipy.optimize
import torch

import gradopt
from gradopt import Constraint, Mistake, Status
from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.optimisers.merit import Merit
from gradopt.oracle import AutogradOracle
from tests import installed

INNER = ["lbfgs", "trust_region"]
inner = pytest.mark.parametrize("inner", INNER)


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def minimise(function, x0, inner="lbfgs", stop=None, **arguments):
    return gradopt.minimise(
        function,
        x0,
        optimiser="augmented_lagrangian",
        optimiser_options={"inner": inner},
        stop=stop or gradopt.Stop(max_evaluations=2000),
        **arguments,
    )


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def stack(*parts):
    return torch.stack(parts)


# Hock and Schittkowski, Test Examples for Nonlinear Programming Codes (1981), by number: function, start, minimum, the
# rest. Constraints are given as >= 0 and as = 0 there.
PROBLEMS = {
    "6": (lambda x: (1 - x[0]) ** 2, [-1.2, 1], 0.0, {"eq": lambda x: 10 * (x[1] - x[0] ** 2)}),
    "7": (
        lambda x: torch.log(1 + x[0] ** 2) - x[1],
        [2, 2],
        -math.sqrt(3),
        {"eq": lambda x: (1 + x[0] ** 2) ** 2 + x[1] ** 2 - 4},
    ),
    "12": (
        lambda x: x[0] ** 2 / 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1],
        [0, 0],
        -30.0,
        {"ge": lambda x: 25 - 4 * x[0] ** 2 - x[1] ** 2},
    ),
    "14": (
        lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2,
        [2, 2],
        9 - 2.875 * math.sqrt(7),
        {"ge": lambda x: 1 - x[0] ** 2 / 4 - x[1] ** 2, "eq": lambda x: x[0] - 2 * x[1] + 1},
    ),
    "15": (
        rosenbrock,
        [-2, 1],
        306.5,
        {"ge": lambda x: stack(x[0] * x[1] - 1, x[0] + x[1] ** 2), "bounds": ([None, None], [0.5, None])},
    ),
    "24": (
        lambda x: ((x[0] - 3) ** 2 - 9) * x[1] ** 3 / (27 * math.sqrt(3)),
        [1, 0.5],
        -1.0,
        {
            "ge": lambda x: stack(x[0] / 3**0.5 - x[1], x[0] + 3**0.5 * x[1], 6 - x[0] - 3**0.5 * x[1]),
            "bounds": (0.0, None),
        },
    ),
    "28": (
        lambda x: (x[0] + x[1]) ** 2 + (x[1] + x[2]) ** 2,
        [-4, 1, 1],
        0.0,
        {"eq": lambda x: x[0] + 2 * x[1] + 3 * x[2] - 1},
    ),
    "39": (
        lambda x: -x[0],
        [2, 2, 2, 2],
        -1.0,
        {"eq": lambda x: stack(x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2)},
    ),
    "43": (
        lambda x: (x**2).sum() + x[2] ** 2 - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3],
        [0, 0, 0, 0],
        -44.0,
        {
            "ge": lambda x: stack(
                8 - (x**2).sum() - x[0] + x[1] - x[2] + x[3],
                10 - (x**2).sum() - x[1] ** 2 - x[3] ** 2 + x[0] + x[3],
                5 - 2 * x[0] ** 2 - x[1] ** 2 - x[2] ** 2 - 2 * x[0] + x[1] + x[3],
            )
        },
    ),
    "71": (
        lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        [1, 5, 5, 1],
        17.0140172891,
        {"ge": lambda x: x.prod() - 25, "eq": lambda x: (x**2).sum() - 40, "bounds": (1.0, 5.0)},
    ),
}


def limits(problem, scale=1.0):
    made = []
    if "eq" in problem:
        made.append(Constraint(lambda x: scale * problem["eq"](x), 0.0, 0.0, name="equal"))
    if "ge" in problem:
        made.append(Constraint(lambda x: scale * problem["ge"](x), 0.0, name="above"))
    return made


@inner
@pytest.mark.parametrize("number", PROBLEMS)
def test_known_minima_are_reached_and_proven(number, inner):
    function, x0, minimum, rest = PROBLEMS[number]

    result = minimise(function, tensor(x0), inner, bounds=rest.get("bounds"), constraints=limits(rest))

    assert result.status is Status.CONVERGED, result
    assert abs(result.fun - minimum) <= 1e-8 * max(1.0, abs(minimum))
    for limit in limits(rest):
        value = limit.function(result.x)
        assert float((value - value.clamp(limit.lower, limit.upper)).abs().max()) <= 1e-6
    assert result.nfev <= 200


@pytest.mark.parametrize("number", PROBLEMS)
def test_float32_reaches_them_to_its_own_precision(number):
    function, x0, minimum, rest = PROBLEMS[number]

    result = minimise(function, tensor(x0, torch.float32), bounds=rest.get("bounds"), constraints=limits(rest))

    assert result.status in {Status.CONVERGED, Status.NOISE_FLOOR}, result
    assert result.fun == pytest.approx(minimum, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("number", ["7", "15"])
@pytest.mark.parametrize("loss", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("constraint", [1e-6, 1.0, 1e6])
def test_units_of_loss_and_constraints_change_no_verdict(number, loss, constraint):
    function, x0, minimum, rest = PROBLEMS[number]

    result = minimise(
        lambda x: loss * function(x), tensor(x0), bounds=rest.get("bounds"), constraints=limits(rest, constraint)
    )

    assert result.status is Status.CONVERGED, result
    assert result.fun / loss == pytest.approx(minimum, rel=1e-7)


def circle(x):
    return (x**2).sum()


@inner
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ("function", "x0", "constraints", "bounds"),
    [
        (lambda x: (x - 1) ** 2, 3.0, [Constraint(lambda x: x**2 + 1, 0.0, 0.0)], None),
        (
            lambda x: x[0],
            [3.0, 1.0],
            [Constraint(circle, upper=1.0), Constraint(lambda x: circle(x - 4), upper=1.0)],
            None,
        ),
        (circle, [0.5, 0.5], [Constraint(lambda x: x.sum(), lower=3.0)], (0.0, 1.0)),
        (circle, [2.0, 1.0], [Constraint(lambda x: x.sum(), 1.0, 1.0), Constraint(lambda x: x.sum(), lower=2.0)], None),
        (lambda x: 0 * x.sum(), [2.0, 1.0], [Constraint(circle, upper=-1.0)], None),
    ],
    ids=["no real root", "two circles", "outside the box", "contradiction", "nothing to minimise"],
)
def test_what_cannot_be_met_is_called_infeasible(inner, scale, function, x0, constraints, bounds):
    scaled = [
        Constraint(
            lambda x, one=one: scale * one.function(x),
            None if one.lower is None else scale * one.lower,
            None if one.upper is None else scale * one.upper,
        )
        for one in constraints
    ]

    result = minimise(function, tensor(x0), inner, bounds=bounds, constraints=scaled)

    assert result.status is Status.INFEASIBLE, result
    assert result.violation > 1e-2


@inner
def test_a_cusp_without_multipliers_is_no_success(inner):
    """Hock and Schittkowski 13: at the minimum (1, 0) no multiplier exists."""
    result = minimise(
        lambda x: (x[0] - 2) ** 2 + x[1] ** 2,
        tensor([0.0, 0.0]),
        inner,
        bounds=(0.0, None),
        constraints=Constraint(lambda x: (1 - x[0]) ** 3 - x[1], lower=0.0),
    )

    assert not result.success or result.fun == pytest.approx(1.0, abs=1e-3), result
    assert result.violation <= 1e-7


@inner
@pytest.mark.parametrize(
    ("function", "x0", "constraints"),
    [
        (lambda x: -x[0], [2.0, 1.0], Constraint(lambda x: x[0] - x[1], 0.0, 0.0)),
        (lambda x: -x.sum(), [2.0, 1.0], Constraint(lambda x: x.prod(), lower=1.0)),
    ],
    ids=["along a line", "inside"],
)
def test_a_loss_that_falls_for_ever_inside_is_unbounded(inner, function, x0, constraints):
    assert minimise(function, tensor(x0), inner, constraints=constraints).status is Status.UNBOUNDED


@inner
def test_a_loss_that_falls_faster_than_the_penalty_outside_has_a_minimum_inside(inner):
    result = minimise(lambda x: -(x**4), tensor(0.5), inner, constraints=Constraint(lambda x: x, -0.5, 1.0))

    assert result.status is Status.CONVERGED, result
    assert result.x.item() == pytest.approx(1.0, abs=1e-7)


@inner
def test_a_saddle_point_of_the_lagrangian_is_named(inner):
    result = minimise(
        lambda x: x[0] ** 2 + 2 * x[1] ** 2 + 3 * x[2] ** 2,
        tensor([0.0, 1.0, 0.0]),
        inner,
        constraints=Constraint(lambda x: x @ x, 1.0, 1.0),
    )

    assert result.status is Status.SADDLE_POINT, result


def test_negative_curvature_that_a_constraint_holds_is_none():
    result = minimise(lambda x: x[0] ** 2 - x[1] ** 2, tensor([1.0, 0.5]), constraints=Constraint(circle, upper=1.0))

    assert result.status is Status.CONVERGED, result
    torch.testing.assert_close(result.x.abs(), tensor([0.0, 1.0]), rtol=0, atol=1e-6)


@inner
def test_an_inflection_along_a_constraint_is_no_minimum(inner):
    equal = Constraint(lambda x: x[1] - x[0], 0.0, 0.0)

    result = minimise(
        lambda x: x[0] ** 3, tensor([1.0, 1.0]), inner, stop=gradopt.Stop(max_evaluations=400), constraints=equal
    )

    assert not result.success, result


@inner
def test_a_plateau_is_no_minimum(inner):
    result = minimise(
        lambda x: -torch.exp(-(x[0] ** 2)) + x[1] ** 2,
        tensor([10.0, 1.0]),
        inner,
        constraints=Constraint(lambda x: x[1], lower=0.5),
    )

    assert result.status is Status.STALLED, result


@inner
def test_redundant_constraints_do_no_harm(inner):
    constraints = [
        Constraint(lambda x: x.sum(), 1.0, 1.0),
        Constraint(lambda x: 2 * x.sum(), 2.0, 2.0),
        Constraint(lambda x: x.sum(), lower=1.0),
    ]

    result = minimise(circle, tensor([2.0, 1.0]), inner, constraints=constraints)

    assert result.status is Status.CONVERGED, result
    torch.testing.assert_close(result.x, tensor([0.5, 0.5]), rtol=0, atol=1e-8)


def test_a_start_at_the_minimum_ends_at_once():
    result = minimise(circle, tensor([0.5, 0.5]), constraints=Constraint(lambda x: x.sum(), 1.0, 1.0))

    assert result.status is Status.CONVERGED
    assert result.nfev <= 3


def test_inactive_constraints_leave_the_free_minimum():
    result = minimise(
        rosenbrock, tensor([-1.2, 1.0]), constraints=Constraint(lambda x: x.sum(), upper=10.0, name="sum")
    )

    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, tensor([1.0, 1.0]), rtol=0, atol=1e-6)
    assert result.multipliers["sum"] == 0


def test_multipliers_say_what_a_limit_costs():
    def best(limit):
        constraints = [
            Constraint(lambda x: x[0] + 2 * x[1], upper=limit, name="budget"),
            Constraint(lambda x: x, -10.0, 10.0, name="each"),
        ]
        return gradopt.minimise(lambda x: ((x - 3) ** 2).sum(), [0.0, 0.0], constraints=constraints)

    result, moved = best(4.0), best(4.001)

    assert result.multipliers["budget"].item() == pytest.approx(2.0, abs=1e-6)
    assert (result.fun - moved.fun) / 0.001 == pytest.approx(2.0, abs=1e-3)
    assert result.multipliers["each"].shape == (2,)
    assert result.violation < 1e-8


@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_multipliers_are_how_fast_the_function_falls_as_a_limit_is_raised(side, maximise):
    sign, inside = (-1 if maximise else 1), 1.0 if side == "lower" else -1.0

    def best(limit):
        kept = Constraint(lambda x: x.sum(), **{side: limit}, name="kept")
        return gradopt.minimise(
            lambda x: sign * ((x + inside) ** 2).sum(), [0.0, 0.0], maximise=maximise, constraints=kept
        )

    result, raised = best(0.0), best(0.001)

    y = result.multipliers["kept"].item()
    assert y == pytest.approx((result.fun - raised.fun) / 0.001, abs=1e-2)
    assert y * sign * -inside == pytest.approx(2.0, abs=1e-3)


def test_maximising_turns_the_signs():
    result = gradopt.minimise(
        lambda x: x[0] * x[1],
        [1.0, 2.0],
        maximise=True,
        constraints=[Constraint(lambda x: x.sum(), upper=10.0, name="perimeter")],
    )

    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(25.0)
    assert result.multipliers["perimeter"].item() == pytest.approx(-5.0, abs=1e-5)


def test_unknowns_may_be_a_dict():
    result = gradopt.minimise(
        lambda p: p["a"] ** 2 + (p["b"] ** 2).sum(),
        {"a": 1.0, "b": [2.0, 3.0]},
        constraints=Constraint(lambda p: p["a"] + p["b"].sum(), 3.0, 3.0),
    )

    assert result.status is Status.CONVERGED
    assert result.x["a"].item() == pytest.approx(1.0, abs=1e-8)


@inner
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10])
def test_a_budget_of_evaluations_is_kept_exactly(inner, limit):
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return rosenbrock(x)

    result = minimise(
        counted,
        tensor([-1.2, 1.0]),
        inner,
        stop=gradopt.Stop(max_evaluations=limit),
        constraints=Constraint(circle, 0.5, 0.5),
    )

    assert result.nfev == limit
    assert result.status is Status.MAX_EVALUATIONS
    if inner == "lbfgs":  # Hessians call the function too
        assert calls - limit <= 2


@pytest.mark.parametrize("limit", [5, 10, 15])
def test_the_best_point_is_a_feasible_one_whatever_the_ending(limit):
    """The free minimum lies outside: the lowest losses seen are not allowed."""
    result = minimise(
        lambda x: ((x - 3) ** 2).sum(),
        tensor([0.1, 0.2]),
        stop=gradopt.Stop(max_evaluations=limit),
        constraints=Constraint(circle, upper=1.0),
    )

    assert circle(result.x) <= 1 + 1e-7
    assert result.fun <= ((tensor([0.1, 0.2]) - 3) ** 2).sum()
    assert result.fun == ((result.x - 3) ** 2).sum()


def test_a_target_is_not_reached_where_constraints_are_missed():
    result = minimise(
        lambda x: ((x - 3) ** 2).sum(),
        tensor([3.0, 3.0]),
        stop=gradopt.Stop(target=1.0, max_evaluations=500),
        constraints=Constraint(circle, upper=1.0),
    )

    assert result.status is Status.CONVERGED
    assert result.fun > 1


def test_a_looser_tolerance_is_the_users_choice():
    constraint = Constraint(circle, 1.0, 1.0)
    stop = gradopt.Stop(target=-0.99, constraint_tolerance=0.1)

    result = minimise(lambda x: x[0], tensor([-0.9, 0.1]), stop=stop, constraints=constraint)

    assert result.status is Status.TARGET_REACHED
    assert 0 < result.violation <= 0.1


def build(inner):
    constraints = [Constraint(circle, upper=1.5), Constraint(lambda x: x[0] ** 3 - x[1], 0.1, 0.1)]
    target = FunctionObjective(rosenbrock, tensor([-1.2, 1.0]), (None, 1.2), constraints)
    options = {"name": "augmented_lagrangian", "inner": inner}
    return assemble(target, options, stop=gradopt.Stop(max_steps=40))


def walk(assembly, stop_before=None):
    points = []
    for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
        points.append(assembly.oracle.read())
        if block.last_step + 1 == stop_before:
            assembly.engine.update()
            break
    return points


@inner
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_run_that_was_saved_and_loaded_goes_on_to_the_last_bit(inner, cut, tmp_path):
    reference = build(inner)
    whole = walk(reference)
    first = build(inner)
    head = walk(first, stop_before=cut)
    torch.save([first.engine.state_dict(), [c.state_dict() for c in first.criteria]], tmp_path / "state.pt")

    engine_state, criteria_states = torch.load(tmp_path / "state.pt", weights_only=False)
    second = build(inner)
    second.engine.load_state_dict(engine_state)
    for criterion, state in zip(second.criteria, criteria_states, strict=True):
        criterion.load_state_dict(state)
    tail = walk(second)

    assert len(whole) > cut
    assert torch.equal(torch.stack(head + tail), torch.stack(whole))
    assert second.oracle.num_losses == reference.oracle.num_losses
    assert torch.equal(second.oracle.best.point, reference.oracle.best.point)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint(lambda x: x.sum(), lower=2.0, upper=1.0, name="sum"), "constraint sum leaves no room"),
        (Constraint(lambda x: x.sum(), lower=math.nan), "lower bound of constraint c0 is NaN"),
        (Constraint(lambda x: x.sum(), lower=math.inf), "leaves no room"),
        (Constraint(lambda x: x.sum()), "has no limit"),
        (Constraint(lambda x: x, lower=[0.0, 0.0, 0.0]), r"has shape \(3,\), which does not fit its \(2,\)"),
        (Constraint(lambda x: x.sum().detach(), lower=0.0), "no grad_fn"),
        (Constraint(lambda x: 1.0, lower=0.0), "must return a tensor of real numbers, it returns float"),
        (Constraint(lambda x: torch.log(x - 10).sum(), lower=0.0), "is not finite at the start"),
        (
            [Constraint(circle, lower=0.0, name="a"), Constraint(circle, upper=1.0, name="a")],
            "two constraints are called",
        ),
        (circle, "wrap it into gradopt.Constraint"),
    ],
)
def test_mistakes_are_told_before_the_run(constraint, words):
    constraints = constraint if isinstance(constraint, list) else [constraint]

    with pytest.raises(Mistake, match=words):
        gradopt.minimise(circle, [1.0, 2.0], constraints=constraints)


@pytest.mark.parametrize("name", ["lbfgs", "trust_region", "auto", "adam", "torch_lbfgs"])
def test_an_optimiser_that_keeps_no_constraints_is_refused(name):
    with pytest.raises(Mistake, match=r"keeps no constraints: say optimiser=augmented_lagrangian, which wraps"):
        gradopt.minimise(circle, [1.0, 2.0], optimiser=name, constraints=Constraint(circle, upper=1.0))


@pytest.mark.parametrize("inner", ["adam", "augmented_lagrangian", "levenberg_marquardt"])
def test_what_cannot_be_wrapped_is_refused(inner):
    with pytest.raises(Mistake, match=r"inner=lbfgs"):
        minimise(circle, [1.0, 2.0], inner, constraints=Constraint(circle, upper=1.0))


def test_the_augmented_lagrangian_is_refused_where_nothing_constrains():
    with pytest.raises(Mistake, match="this objective has none"):
        minimise(circle, [1.0, 2.0])


def test_auto_can_be_wrapped():
    result = minimise(rosenbrock, tensor([-1.2, 1.0]), "auto", constraints=Constraint(circle, upper=1.0))

    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(0.0456748, abs=1e-6)


def test_constraints_may_go_on_from_what_the_loss_has_computed():
    class Shared(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(tensor([2.0, 1.0]))
            self.known = (-1, None)

        def forward(self, batch=None):
            self.known = (self.x._version if torch.is_grad_enabled() else -1, self.x**2)
            return self.known[1].sum()

        def constraints(self):
            return [Constraint(self.first, lower=0.25)]

        def first(self):
            version, squares = self.known
            return (squares if version == self.x._version else self.x**2)[0]

    result = gradopt.minimise(Shared())

    assert result.fun == pytest.approx(0.25, abs=1e-8)
    assert result.multipliers["first"].item() == pytest.approx(-1.0, abs=1e-6)


def test_many_constraints_in_many_unknowns():
    result = gradopt.minimise(
        lambda x: ((x - 2) ** 2).sum(),
        torch.zeros(120, dtype=torch.float64),
        constraints=Constraint(lambda x: x**2 + x.roll(1) ** 2, upper=2.0),
    )

    assert result.status is Status.CONVERGED, result
    torch.testing.assert_close(result.x, torch.ones(120, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_history_holds_the_violation():
    result = gradopt.minimise(circle, [2.0, 1.0], constraints=Constraint(lambda x: x.sum(), 1.0, 1.0))

    assert result.history["violation"].shape == result.history["loss"].shape
    assert result.history["lagrangian_gradient_norm"][-1] < 1e-6 < result.history["gradient_norm"][-1]
    assert result.history["violation"][-1] <= 1e-8 < result.history["violation"][0]


SOURCE = """
def loss(x, shift=0.0):
    return ((x - 3 - shift) ** 2).sum()


def circle(x):
    return (x**2).sum()
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)

    def run(*overrides):
        target = ("objective=function", "objective.target=mine.py:loss", "objective.x0=[1,2]")
        return installed.gradopt(*target, *overrides, cwd=tmp_path)

    return run


def test_constraints_come_from_the_command_line(command, tmp_path):
    done = command(
        "objective.constraints=[{target: mine.py:circle, upper: 1}]",
        "optimiser=augmented_lagrangian",
        "optimiser.inner=trust_region",
        "hydra.run.dir=run",
    )

    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["status"] == "converged"
    assert written["x"]["x"] == pytest.approx([0.5**0.5] * 2)
    assert written["multipliers"]["circle"] == pytest.approx(3 * 2**0.5 - 1)
    assert written["violation"] == written["evidence"]["violation"] <= 1e-8
    assert "1 inequality constraint" in done.stdout
    assert "inner trust_region" in done.stdout
    assert "multipliers  circle 3.24" in done.stdout


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.constraints=[{target: mine.py:circle, uper: 1}]", "no 'uper'. Did you mean 'upper'?"),
        ("stop.constraint_tolerance=0", "constraint_tolerance must be above 0"),
    ],
)
def test_mistakes_on_the_command_line_take_one_line(command, override, words):
    done = command("optimiser=augmented_lagrangian", override)

    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_what_cannot_be_met_is_missed_least_at_the_point_that_is_returned(dtype):
    result = gradopt.minimise(
        lambda x: ((x - 1) ** 2).sum(),
        torch.tensor([3.0, 1.0], dtype=dtype),
        constraints=gradopt.Constraint(lambda x: (x**2).sum(), upper=-1.0),
    )

    assert result.status.value == "infeasible", result.message
    assert float((result.x**2).sum()) < 1e-3


def test_constraints_that_are_met_only_at_infinity_are_no_success():
    result = gradopt.minimise(
        lambda x: (x**2).sum(), [0.0, 1.0], constraints=gradopt.Constraint(lambda x: x[0].exp(), upper=0.0)
    )

    assert result.status.failure
    assert "only at infinity" in result.message
    assert "constraint 'c0' is missed by" in result.message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("start", [[0.0, 0.0], [0.5, 0.5]], ids=str)
@pytest.mark.parametrize("inner", ["lbfgs", "trust_region"])
def test_a_cusp_without_multipliers_is_never_called_solved_elsewhere(inner, start, dtype):
    # Hock and Schittkowski 13: the minimum is at (1, 0), where no multipliers exist.
    result = gradopt.minimise(
        lambda x: (x[0] - 2) ** 2 + x[1] ** 2,
        torch.tensor(start, dtype=dtype),
        bounds=(0.0, None),
        constraints=gradopt.Constraint(lambda x: (1 - x[0]) ** 3 - x[1], lower=0.0),
        optimiser_options={"inner": inner},
        stop=gradopt.Stop(max_evaluations=300),
    )

    near = abs(result.fun - 1) <= torch.finfo(dtype).eps ** 0.5
    assert near or not result.success, result.message


@inner
@pytest.mark.parametrize("seed", range(6))
def test_a_linear_program_whose_optimal_loss_is_zero_is_solved(inner, seed):
    result = minimise(
        lambda x: x[0],
        3 * torch.randn(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64),
        inner,
        constraints=[Constraint(lambda x: x[0] - x[1] + 1, lower=0.0), Constraint(lambda x: x.sum() - 1, lower=0.0)],
    )

    assert result.status is Status.CONVERGED, result.message
    assert result.x.tolist() == pytest.approx([0.0, 1.0], abs=1e-8)
    assert result.nfev < 500


@inner
@pytest.mark.parametrize(
    ("degree", "points", "function"),
    [(2, 9, torch.exp), (3, 9, torch.abs), (2, 9, torch.sign), (5, 30, lambda t: 1 / (1 + 25 * t * t))],
    ids=["exp", "abs", "sign", "runge"],
)
def test_the_polynomial_of_least_deviation_is_that_of_linear_programming(inner, degree, points, function):
    t = torch.linspace(-1, 1, points, dtype=torch.float64)
    powers, ones = torch.stack([t**k for k in range(degree + 1)], 1), torch.ones(points, 1, dtype=torch.float64)
    values, cost = function(t), [0.0] * (degree + 1) + [1.0]
    matrix = torch.cat([torch.cat([-powers, -ones], 1), torch.cat([powers, -ones], 1)])
    reference = scipy.optimize.linprog(
        cost, matrix.numpy(), torch.cat([-values, values]).numpy(), bounds=[(None, None)] * len(cost)
    )

    result = minimise(
        lambda x: x[-1],
        tensor([0.0] * (degree + 1) + [3.0]),
        inner,
        constraints=[
            Constraint(lambda x: x[-1] - values + powers @ x[:-1], lower=0.0, name="above"),
            Constraint(lambda x: x[-1] + values - powers @ x[:-1], lower=0.0, name="below"),
        ],
    )

    assert result.status is Status.CONVERGED, result.message
    assert result.fun == pytest.approx(reference.fun, rel=1e-9)
    assert result.x.tolist() == pytest.approx(reference.x.tolist(), abs=1e-7)


@pytest.mark.parametrize(
    ("function", "start", "constraint", "status"),
    [
        (lambda x: -(x @ x), [0.0, 0.0], Constraint(lambda x: x.sum(), lower=0.0, upper=0.0), Status.MAXIMUM),
        (lambda x: x[0] ** 2 + 2 * x[1] ** 2, [0.0, 1.0], Constraint(lambda x: x @ x, 1.0, 1.0), Status.MAXIMUM),
        (lambda x: -(x @ x), [1.0, 0.0], Constraint(lambda x: x[0], upper=1.0), Status.SADDLE_POINT),
    ],
    ids=["on a line", "on a circle", "beside a half plane"],
)
def test_a_maximum_along_equalities_is_told_from_a_saddle_point(function, start, constraint, status):
    result = minimise(function, tensor(start), constraints=constraint)

    assert result.status is status, result.message
    assert ("a maximum" if status is Status.MAXIMUM else "a saddle point") in result.message


def test_escaping_under_constraints_is_refused_with_what_to_do():
    with pytest.raises(gradopt.Mistake, match=r"start again beside it, along verdict.evidence\['direction'\]"):
        gradopt.minimise(
            lambda x: (x**2).sum(),
            [0.0, 1.0],
            constraints=gradopt.Constraint(lambda x: x.sum(), upper=0.0),
            on_saddle="escape",
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_chebyshev_fit_ends_at_the_solution_of_the_linear_program(degree, dtype):
    # Two data beside each other are within float32's tolerance of their limits, where one of them pushes.
    t = torch.linspace(-1, 1, 21, dtype=dtype)
    y, powers = t.exp(), torch.stack([t**k for k in range(degree + 1)], 1)
    over = Constraint(lambda x: x[-1] - (powers @ x[:-1] - y), lower=0.0)
    under = Constraint(lambda x: x[-1] + (powers @ x[:-1] - y), lower=0.0)

    result = minimise(
        lambda x: x[-1],
        tensor([0.0] * (degree + 1) + [1.0], dtype),
        constraints=[over, under],
        stop=gradopt.Stop(max_evaluations=4000),
    )

    one = torch.ones(21, 1, dtype=torch.float64)
    rows = torch.cat([torch.cat([powers.double(), -one], 1), torch.cat([-powers.double(), -one], 1)])
    cost = [0.0] * (degree + 1) + [1.0]
    exact = scipy.optimize.linprog(cost, rows.numpy(), torch.cat([y, -y]).double().numpy(), bounds=(None, None)).fun
    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(exact, rel=1e-8 if dtype is torch.float64 else 1e-4)


@pytest.mark.parametrize("inner", ["lbfgs", "trust_region", "auto"])
def test_a_constraint_that_is_steep_at_the_start_alone_is_kept(inner):
    # In units of the start, where exp(25) is its slope, the penalty would be nothing at the solution.
    steep = Constraint(lambda x: torch.exp(x[0]) + x[1], lower=3.0)

    result = minimise(lambda x: (x**2).sum(), [25.0, 25.0], inner, constraints=steep)

    exact = scipy.optimize.minimize(
        lambda x: (x**2).sum(),
        [1.0, 1.0],
        constraints={"type": "ineq", "fun": lambda x: math.exp(x[0]) + x[1] - 3.0},
        options={"ftol": 1e-14},
    )
    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(exact.fun, rel=1e-8)


@inner
@pytest.mark.parametrize("far", [1e2, 1e5])
def test_a_ball_is_found_from_far_off(inner, far):
    ball = Constraint(lambda x: (x**2).sum(), upper=1.0)

    result = minimise(lambda x: ((x - 3) ** 2).sum(), [far, -far], inner, constraints=ball)

    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(2 * (3 - math.sqrt(0.5)) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("function", "start", "limit"),
    [
        (lambda x: x.prod(), [0.0, 0.0, 0.0], 1.0),
        (lambda x: (x**4).sum(), [0.0, 0.0], 1.0),
        (lambda x: torch.tanh(x[0]), [-30.0, 0.0], 0.9),
        (lambda x: x[0] ** 3, [0.0, 0.0], 1.0),
        (lambda x: torch.relu(x[0]), [-1.0, 0.0], 1.0),
    ],
)
@inner
def test_what_is_missed_at_a_saddle_a_maximum_or_a_plateau_is_not_infeasible(inner, function, start, limit):
    result = minimise(lambda x: ((x - 0.3) ** 2).sum(), start, inner, constraints=Constraint(function, lower=limit))

    assert result.status is not Status.INFEASIBLE, result
    if result.success:
        assert function(result.x) >= limit - 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@inner
def test_an_inflection_along_a_constraint_is_none_a_hair_above_it(inner, dtype):
    line = Constraint(lambda x: x[1], lower=1.0, upper=1.0)

    result = minimise(lambda x: 1 + x[0] ** 3 + x[1] ** 2, tensor([1.0, 0.0], dtype), inner, constraints=line)

    assert not result.success, result


def decay(p):
    t = torch.linspace(0, 4, 20, dtype=p.dtype)
    return p[0] * torch.exp(-p[1] * t) + p[2] - (2 * torch.exp(-0.7 * t) + 0.1 * torch.sin(17 * t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(lambda p: p[0] + p[1], lower=3.0, upper=3.0),
        Constraint(lambda p: p[0] * p[1], lower=2.0),
        Constraint(lambda p: (p**2).sum(), upper=3.0),
        Constraint(lambda p: p.sum(), upper=30.0),
    ],
)
def test_a_fit_under_constraints_ends_by_levenberg_marquardt_where_it_does_by_lbfgs(constraint, dtype):
    start = tensor([1.0, 1.0, 0.0], dtype)

    fit = gradopt.least_squares(decay, start, constraints=constraint)
    other = gradopt.least_squares(decay, start.double(), constraints=constraint, optimiser="augmented_lagrangian")

    assert fit.status is other.status is Status.CONVERGED, (fit, other)
    assert fit.fun == pytest.approx(other.fun, rel=1e-8 if dtype is torch.float64 else 1e-4)
    torch.testing.assert_close(fit.multipliers["c0"].double(), other.multipliers["c0"], rtol=1e-2, atol=1e-4)
    assert fit.covariance is None


def test_the_residuals_of_a_merit_are_a_square_root_of_it():
    objective = ResidualObjective(
        decay, tensor([1.0, 1.0, 0.0]), constraints=[Constraint(lambda p: p[:2], lower=[0.5, 1.2], upper=[2.0, 1.2])]
    )
    oracle = AutogradOracle(objective)
    evaluation = oracle.evaluate()
    merit = Merit(oracle, tensor([0.3, -0.2]), tensor([10.0, 100.0]))
    here = merit.at(evaluation)

    linear = merit.linearised()

    torch.testing.assert_close(linear.vjp(linear.residuals), here.gradient)
    torch.testing.assert_close(linear.jacobian().T @ linear.residuals, here.gradient)
    vector = tensor([0.3, -1.0, 2.0])
    torch.testing.assert_close(linear.jvp(vector), linear.jacobian() @ vector)


def test_levenberg_marquardt_inside_needs_residuals():
    with pytest.raises(Mistake, match=r"levenberg_marquardt needs residuals, and .* has none; use inner=lbfgs"):
        minimise(lambda x: x.square().sum(), [1.0, 2.0], "levenberg_marquardt", constraints=Constraint(torch.sum, 1.0))


def test_an_objective_brings_its_own_constraints():
    objective = ResidualObjective(decay, [1.0, 1.0, 0.0])

    with pytest.raises(Mistake, match="an Objective brings its own constraints"):
        gradopt.least_squares(objective, constraints=Constraint(torch.sum, 1.0))
