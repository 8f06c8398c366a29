"""`gradopt check` and `gradopt.check`: each line true, and the exit code what scripts need."""

import time

import numpy
import pytest
import torch

import gradopt
from gradopt.cli import main
from gradopt.objectives.function import FunctionObjective
from tests import functions as f
from tests import gradients as g
from tests.installed import gradopt as command

FILE = '''
import torch


class Cube(torch.autograd.Function):
    """x^3, with the derivative of x^2."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x**3).sum()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * grad * x


def wrong(x):
    return Cube.apply(x) + (x**4).sum()


def far(x):
    return 1e8 + ((x - 3) ** 2).sum()


def undefined(x):
    return torch.log(x).sum()
'''


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run `gradopt check` in a directory that holds mine.py; returns the exit code, and what was printed."""
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with torch.random.fork_rng(devices=[]), pytest.raises(SystemExit) as ending:
            main(["check", *arguments])
        return ending.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("overrides", "code", "shown"),
    [
        (
            "objective=polynomial",
            0,
            [
                "+ gradient            agrees with differences of the loss to ",
                "+ bounds              1 of 1 unknown bounded, the start is inside, 1 on a bound",
                "+ ready: 6 checks passed",
            ],
        ),
        (
            "objective=polynomial objective.bounds=null",
            0,
            [
                "! minimum             there is none: a polynomial of odd degree (3)",
                "! ready, with 1 warning: minimum",
            ],
        ),
        (
            "objective=rosenbrock optimiser=trust_region",
            0,
            [
                "optimiser             trust_region",
                "+ second derivatives  agree with differences of the gradient to ",
                "+ minimum             the lowest loss there is, 0, is known",
            ],
        ),
        (
            "objective=function objective.target=mine.py:wrong objective.x0=[1,2]",
            3,
            [
                "x gradient            the gradient is wrong: in x[0] the loss changes by 7 where the gradient says 6, "
                "in x[1] the loss changes by 44 where the gradient says 36; check the backward of Cube, a custom "
                "autograd.Function",
                "x not ready: gradient",
            ],
        ),
        (
            "objective=function objective.target=mine.py:far objective.x0=1 dtype=float32",
            0,
            ["! resolution          float32 rounds the loss by 12, which hides moves", ": use dtype=float64"],
        ),
        (
            "objective=function objective.target=mine.py:undefined objective.x0=-1",
            3,
            ["x start    the loss is nan at the start (1 unknown up to 1): move x0", "x not ready: start"],
        ),
    ],
)
def test_the_command_shows_what_it_found(overrides, code, shown, check):
    found, output, errors = check(*overrides.split())

    assert found == code, output + errors
    for text in shown:
        assert text in output
    assert errors == ""


def test_the_command_leaves_no_files(tmp_path):
    done = command("check", "objective=polynomial", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n\n+ ready: 6 checks passed\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("objective=polynomal", "no objective named 'polynomal'. Did you mean 'polynomial'?"),
        ("optimiser.lr=-1", "optimiser.lr must be >= 0, got -1.0"),
        ("stop.max_steps=abc", "stop.max_steps: Value 'abc'"),
        ("objetive=polynomial", "no option 'objetive'. Did you mean 'objective'?"),
        ("-m objective=polynomial", "gradopt check takes key=value only, got -m"),
        ("objective.x0=5", "the start lies outside the bounds: x = 5 is not in [-2, 2]; move x0 or the bounds"),
        ("objective.bounds=[1,0]", "the bounds of x leave no room: lower 1.0 is above upper 0.0"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, check):
    code, output, errors = check(*arguments.split())

    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert output == ""


def test_a_mistake_is_told_before_torch_is_imported(tmp_path):
    done = command("check", "optimiser.lr=-1", cwd=tmp_path, variables={"PYTHONPROFILEIMPORTTIME": "1"})

    assert " hydra" in done.stderr
    assert " torch" not in done.stderr


def test_help_lists_the_command(check):
    code, output, _ = check("--help")

    assert code == 0
    assert "gradopt check [key=value ...]" in output


def test_a_function_that_is_fine_passes_every_check():
    report = gradopt.check(f.rosenbrock, [-1.2, 1.0])

    assert report.passed
    assert {finding.status for finding in report.findings} == {"passed"}
    assert str(report).endswith("+ ready: 5 checks passed")
    assert str(report).startswith(
        "objective             tests.functions.rosenbrock, n = 2\noptimiser             lbfgs\n"
    )
    assert report["gradient"].numbers["claimed"] == pytest.approx(report["gradient"].numbers["measured"], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("factor", [-1.0, 0.5, 2.0])
def test_a_wrong_gradient_is_found_before_the_run(factor, dtype):
    report = gradopt.check(g.with_gradient(lambda right, x: factor * right), torch.tensor(g.START, dtype=dtype))

    assert not report.passed
    assert report["gradient"].status == "failed"
    assert ("(opposite sign)" if factor < 0 else f"(scale {factor:g})") in report["gradient"].sentence


def test_an_entry_too_small_to_be_seen_among_the_others_is_checked_by_itself():
    report = gradopt.check(lambda x: 1e6 * x[0] ** 2 + x[1] * x[1].detach(), [1.0, 1.0])

    assert "in x[1] the loss changes by 2 where the gradient says 1" in report["gradient"].sentence


def test_a_start_that_is_not_finite_fails():
    assert gradopt.check(lambda x: torch.log(x), -1.0)["start"].status == "failed"
    report = gradopt.check(lambda x: x.sqrt(), 0.0)
    assert "its gradient is not finite" in report["start"].sentence
    with pytest.raises(KeyError):
        report["gradient"]


def test_losses_that_differ_at_the_same_point_are_warned_of():
    numbers = numpy.random.default_rng(0)

    report = gradopt.check(lambda x: x**2 + 1e-3 * numbers.normal(), 1.0)

    assert report.passed
    assert report["determinism"].status == "warning"
    assert report["determinism"].numbers["spread"] > 0
    assert report["gradient"].sentence.startswith("cannot be judged")


def test_random_numbers_are_warned_of_and_put_back():
    torch.manual_seed(0)
    before = torch.get_rng_state()

    report = gradopt.check(lambda x: (torch.nn.functional.dropout(x, 0.1) ** 2).sum(), torch.ones(20))

    assert "draws random numbers" in report["determinism"].sentence
    assert report["gradient"].status == report["second derivatives"].status == "passed"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dtype_too_coarse_is_named_with_the_cure():
    coarse = gradopt.check(f.far_floor, torch.tensor([1.0]))
    assert coarse["resolution"].status == "warning"
    assert coarse["resolution"].sentence.endswith("use dtype=float64")
    assert gradopt.check(f.far_floor, [1.0])["resolution"].status == "passed"
    hopeless = gradopt.check(lambda x: 1e16 + ((x - 3) ** 2).sum(), [1.0])
    assert hopeless["resolution"].sentence.endswith("subtract the constant part of the loss")


def test_unknowns_of_uneven_effect_are_warned_of():
    report = gradopt.check(lambda x: x[0] ** 2 + 1e12 * x[1] ** 2, [1.0, 2.0])

    assert report["scale"].numbers["ratio"] == pytest.approx(4e12)


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x**4).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 4 * grad * x**3


class BentTwice(torch.autograd.Function):
    """x^4, with a right gradient whose own derivative is cut off by half."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x**4).sum()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (2 * x**3 + 2 * x.detach() ** 3)


@pytest.mark.parametrize(
    ("function", "unknowns", "sentence"),
    [
        (lambda x: (x[0] - 1) ** 2 + 0 * x[1], 2, "the loss does not seem to depend on x[1]: no gradient"),
        (lambda x: (x[2] - 1) ** 2, 6, "the loss does not seem to depend on x[0], x[1], x[3] and 2 more: no gradient"),
        (lambda x: 0 * x.sum() + 2.0, 2, "the gradient is 0 wherever it was looked round the start: a constant"),
    ],
    ids=["without effect", "not used", "constant"],
)
def test_unknowns_without_effect_are_named(function, unknowns, sentence):
    report = gradopt.check(function, [3.0] * unknowns)

    assert report["influence"].status == "warning"
    assert report["influence"].sentence.startswith(sentence)


def test_an_unknown_at_its_optimum_has_an_effect():
    report = gradopt.check(lambda x: ((x - 3) ** 2).sum(), [3.0, 1.0])

    with pytest.raises(KeyError):
        report["influence"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("function", "start", "named"),
    [
        (lambda x: x.abs().sum() + (x**2).sum(), [0.0, 1.0], "by up to 2 in x[0]"),
        (lambda x: torch.relu(1 - x).sum() + (x**2).sum(), [1.0, 2.0], "by up to 1 in x[0]"),
        (lambda x: x.norm() + x.sum(), [0.0, 0.0], "in x[0], x[1]"),
    ],
)
def test_a_kink_at_the_start_is_named(function, start, named, dtype):
    finding = gradopt.check(function, torch.tensor(start, dtype=dtype))["kinks"]

    assert finding.status == "warning"
    assert f"{named}: a kink" in finding.sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("function", "start", "bounds"),
    [
        (lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, [1.0, 1.0], None),
        (lambda x: (x.abs() ** 3).sum(), [0.0, 1.0], None),
        (lambda x: torch.exp(50 * x).sum(), [1.0, -1.0], None),
        (lambda x: 1e4 * (x[0] + x[1]) ** 2 + 1e-4 * (x[0] - x[1] - 3) ** 2, [1.5, -1.5], None),
        (lambda x: x.abs().sum(), [0.0, 1.0], (0.0, 9.0)),
    ],
)
def test_no_kink_is_seen_where_there_is_none_inside_the_bounds(function, start, bounds, dtype):
    report = gradopt.check(function, torch.tensor(start, dtype=dtype), bounds=bounds)

    assert "kinks" not in {finding.name for finding in report}


def test_an_infinite_derivative_on_a_bound_is_told():
    report = gradopt.check(lambda x: x[0].sqrt() + (x[1] - 1) ** 2, [0.0, 2.5], bounds=(0.0, 9.0))

    assert report.passed
    assert report["bounds"].sentence.endswith("1 on a bound; the derivative of 1 is infinite there, and holds it")


def test_second_derivatives_that_a_detach_hides_blame_no_custom_function():
    report = gradopt.check(lambda x: (x[0] * x[0].detach() - 1) ** 2, [3.0], optimiser="trust_region")

    assert "look for .detach()" in report["second derivatives"].sentence
    assert "custom" not in report["second derivatives"].sentence


def test_second_derivatives_that_are_missing_fail_where_the_optimiser_needs_them():
    assert gradopt.check(OnceOnly.apply, [1.0, 2.0], optimiser="trust_region")["second derivatives"].status == "failed"
    assert gradopt.check(OnceOnly.apply, [1.0, 2.0], optimiser="adam")["second derivatives"].status == "warning"


def test_second_derivatives_that_are_wrong_are_named():
    report = gradopt.check(BentTwice.apply, [1.0, 2.0], optimiser="trust_region")

    assert report["gradient"].status == "passed"
    assert report["second derivatives"].status == "failed"
    assert "the Hessian is wrong by 0.5 of itself" in report["second derivatives"].sentence


class Fit(gradopt.Objective):
    def __init__(self, own_loss):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
        self.own_loss = own_loss

    def residuals(self):
        return torch.stack([10 * (self.x[1] - self.x[0] ** 2), 1 - self.x[0]])

    def forward(self, batch=None):
        return self.residuals().square().sum() if self.own_loss else super().forward(batch)

    def minimum(self):
        return 100.0


class ConstrainedFit(Fit):
    def constraints(self):
        return (
            gradopt.Constraint(lambda: self.x.sum(), upper=1.0, name="sum"),
            gradopt.Constraint(lambda: self.x.prod(), lower=0.0, name="product"),
        )


def test_residuals_must_be_those_of_the_loss():
    assert gradopt.check(Fit(own_loss=False), optimiser="levenberg_marquardt")["residuals"].status == "passed"
    wrong = gradopt.check(Fit(own_loss=True), optimiser="levenberg_marquardt")["residuals"]
    assert wrong.status == "failed"
    assert "leave forward() out" in wrong.sentence


def test_a_known_minimum_is_held_against_the_start():
    finding = gradopt.check(Fit(own_loss=False), optimiser="levenberg_marquardt")["minimum"]

    assert finding.status == "warning"
    assert finding.sentence == "minimum() says 100, but the loss at the start is already 12.1"


def test_a_start_that_misses_constraints_may_lie_below_the_minimum():
    class Half(gradopt.Objective):
        def __init__(self, start):
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))

        def forward(self, batch=None):
            return self.x**2

        def constraints(self):
            return (gradopt.Constraint(lambda: self.x, lower=1.0),)

        def minimum(self):
            return 1.0 if self.x < 3 else 100.0

    assert gradopt.check(Half(0.5))["minimum"].status == "passed"
    assert gradopt.check(Half(3.0))["minimum"].status == "warning"


def test_constraints_are_held_against_the_start():
    report = gradopt.check(ConstrainedFit(own_loss=False))

    assert report["constraint sum"].status == "passed"
    assert report["constraint product"].sentence.startswith("does not hold at the start, by 1.2")


class BentConstraint(ConstrainedFit):
    def __init__(self, bent, weights=1.0):
        super().__init__(own_loss=False)
        self.shift = torch.nn.Parameter(torch.tensor([0.5, 2.0], dtype=torch.float64))
        self.bent, self.weights = bent, weights

    def residuals(self):
        return torch.cat([super().residuals(), self.shift])

    def constraints(self):
        kept = gradopt.Constraint(lambda: self.x.sum() + self.shift.sum(), upper=10.0, name="kept")
        return kept, gradopt.Constraint(lambda: self.weights * self.bent(self.x, self.shift), lower=0.0, name="bent")


@pytest.mark.parametrize(
    ("bent", "where"),
    [
        (lambda x, shift: (x**2).sum() * shift.detach().sum(), "in shift"),
        (lambda x, shift: x[0] ** 2 + x[1].detach() * shift.sum() + 9, "in x[1]"),
        (lambda x, shift: x.exp().sum() * shift[0] * shift[1].detach(), "in shift[1]"),
    ],
    ids=["a whole block", "an entry of a sum", "an entry of a product"],
)
@pytest.mark.parametrize("values", [1, 3])
def test_a_wrong_gradient_of_a_constraint_is_named_with_its_block(bent, where, values):
    report = gradopt.check(BentConstraint(bent, torch.arange(1.0, values + 1, dtype=torch.float64)))

    assert not report.passed
    finding = report["constraint bent"]
    assert finding.status == "failed"
    assert finding.sentence.startswith("the gradient of constraint bent is wrong: ")
    assert where in finding.sentence
    assert "between the unknowns and its value" in finding.sentence
    assert report["gradient"].status == report["constraint kept"].status == "passed"


def test_a_right_gradient_of_a_constraint_is_confirmed():
    report = gradopt.check(BentConstraint(lambda x, shift: (x.exp() * shift).sum() + 9))

    assert report.passed
    assert report["constraint bent"].sentence.startswith("holds at the start; its gradient agrees with differences")


def test_bounds_without_room_are_warned_of():
    report = gradopt.check(f.parabola, [1.0, 2.0], bounds=([1.0, 0.0], [1.0, None]))

    assert "1 with lower = upper cannot move" in report["bounds"].sentence


def test_the_objective_is_left_where_it_was():
    objective = Fit(own_loss=False)
    before = objective.x.detach().clone()

    gradopt.check(objective)

    assert torch.equal(objective.x, before)


class Halves:
    steps_per_epoch = 2

    def at(self, step):
        return [step % 2]


class OnBatches(gradopt.Objective):
    def __init__(self, full):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        self.batches, self.full = Halves(), full

    def forward(self, batch=None):
        return (self.x[batch] - 3) ** 2

    def full_loss(self):
        return ((self.x - 3) ** 2).mean() if self.full else None


def test_batches_are_judged_by_their_full_loss():
    assert gradopt.check(OnBatches(full=True))["gradient"].status == "passed"
    report = gradopt.check(OnBatches(full=False))
    assert report.passed
    assert "no full_loss()" in report["gradient"].sentence


def test_it_is_quick():
    start = time.perf_counter()
    gradopt.check(f.rosenbrock, [-1.2, 1.0] * 25)
    assert time.perf_counter() - start < 10


def test_a_loss_that_is_a_view_of_an_unknown_is_read_where_it_was_asked():
    assert gradopt.check(lambda x: x[0], [1e-3, 1e-5])["gradient"].status == "passed"


def test_what_an_optimiser_refuses_at_its_first_step_is_told():
    report = gradopt.check(lambda x: ((x - 1) ** 2).sum(), [0.0, 2.0], optimiser="multi_start")

    assert not report.passed
    assert report["optimiser"].sentence.startswith("multi_start searches a box, and 2 of 2 unknowns have no finite")


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region", "adam", "torch_lbfgs"])
def test_a_check_leaves_the_unknowns_where_they_are(optimiser):
    seen = []

    def loss(x):
        seen.append(x.detach().clone())
        return ((x - 1) ** 2).sum()

    objective = FunctionObjective(loss, torch.tensor([0.0, 2.0]))
    report = gradopt.check(objective, optimiser=optimiser)

    assert report.passed
    (parameter,) = objective.parameters()
    assert parameter.tolist() == [0.0, 2.0]
    assert len(seen) > 1
