"""gradopt from Python: forms of the start, bounds, callbacks, interrupts, mistakes."""

import errno
import logging
import os
import signal

import numpy
import pytest
import torch
from scipy import optimize
from torch import nn

import gradopt
from gradopt.mistakes import Mistake
from gradopt.observers.history import HistoryFile
from gradopt.verdict import Status
from tests import functions as f


@pytest.mark.parametrize(
    ("x0", "dtype"),
    [
        ([0.0, 1.0], torch.float64),
        (numpy.array([0.0, 1.0], dtype=numpy.float32), torch.float64),
        (torch.tensor([0.0, 1.0]), torch.float32),
        (torch.tensor([0, 1]), torch.float64),
        (0.5, torch.float64),
        (torch.tensor([0.0, 1.0], dtype=torch.float64), torch.float64),
    ],
)
def test_the_start_keeps_its_dtype_or_becomes_float64(x0, dtype):
    result = gradopt.minimise(f.parabola, x0)

    assert result.x.dtype is dtype
    assert result.success
    assert not result.x.requires_grad


def test_the_start_is_never_modified():
    x0 = torch.tensor([0.0, 1.0])
    kept = x0.clone()

    gradopt.minimise(f.parabola, x0)

    assert torch.equal(x0, kept)
    assert not x0.requires_grad


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_dicts_and_tuples_come_back_as_given(optimiser):
    options = {} if optimiser == "lbfgs" else {"lr": 0.05}

    by_name = gradopt.minimise(
        lambda p: ((p["weight"] - 1) ** 2).sum() + (p["bias"] - 2) ** 2,
        {"weight": [0.0, 0.0], "bias": 0.0},
        optimiser=optimiser,
        optimiser_options=options,
    )
    by_place = gradopt.minimise(
        lambda p: ((p[0] - 1) ** 2).sum() + (p[1] - 2) ** 2,
        (torch.zeros(2), torch.zeros(())),
        optimiser=optimiser,
        optimiser_options=options,
    )

    assert list(by_name.x) == ["weight", "bias"]
    assert by_name.x["bias"].item() == pytest.approx(2.0, abs=1e-6)
    assert by_name.jac["weight"].shape == (2,)
    assert isinstance(by_place.x, tuple)
    assert by_place.x[0].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


def test_bounds_of_named_unknowns_hold():
    result = gradopt.minimise(
        lambda p: (p["a"] - 5) ** 2 + (p["b"] - 5) ** 2,
        {"a": 0.0, "b": 0.0},
        bounds={"a": (None, 1.0)},
        optimiser="adam",
        optimiser_options={"lr": 0.1},
    )

    assert result.success
    assert result.x["a"].item() == 1.0
    assert result.x["b"].item() == pytest.approx(5.0, abs=1e-6)


class Line(gradopt.Objective):
    """Two named unknowns, one frozen constant, groups of their own."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.0))
        self.shift = nn.Parameter(torch.tensor(0.0))
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, batch=None):
        return self.scale * ((self.slope - 1) ** 2 + (self.shift - 3) ** 2)

    def parameter_groups(self):
        return [{"params": [self.slope, self.scale], "lr": 0.1}, {"params": [self.shift], "lr": 0.01}]


def test_frozen_parameters_stay_frozen_and_groups_keep_their_rates():
    objective = Line()

    result = gradopt.minimise(objective, optimiser="sgd", stop=gradopt.Stop(max_steps=1))

    assert objective.scale.item() == 2.0
    assert set(result.x) == {"slope", "shift"}
    # One step of gradient descent by hand: the gradients are -4 and -12.
    assert result.x["slope"].item() == pytest.approx(0.4)
    assert result.x["shift"].item() == pytest.approx(0.12)


def test_groups_by_pattern_reach_the_optimiser():
    result = gradopt.minimise(
        lambda p: (p["a"] - 1) ** 2 + (p["b"] - 1) ** 2,
        {"a": 0.0, "b": 0.0},
        optimiser="sgd",
        optimiser_options={"lr": 0.1, "groups": {"b": {"lr": 0.01}}},
        stop=gradopt.Stop(max_steps=1),
    )

    assert result.x["a"].item() == pytest.approx(0.2)
    assert result.x["b"].item() == pytest.approx(0.02)


def test_an_objective_is_updated_in_place_to_the_result():
    objective = Line()

    result = gradopt.minimise(objective, optimiser="adam", optimiser_options={"lr": 0.1})

    assert result.success
    assert objective.slope.item() == result.x["slope"].item() == pytest.approx(1.0)


def test_maximise_reports_the_function_itself():
    result = gradopt.minimise(lambda x: 4 - (x - 1) ** 2, 0.0, maximise=True)

    assert result.success
    assert result.fun == pytest.approx(4.0)
    assert result.x.item() == pytest.approx(1.0)


def test_any_callable_that_builds_an_optimiser_is_accepted():
    result = gradopt.minimise(
        f.parabola, [0.0], optimiser=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5)
    )

    assert result.success


def test_a_callback_may_stop_the_run():
    seen = []

    def callback(block):
        seen.append(block.last_step)
        return block.last_step >= 5

    result = gradopt.minimise(f.parabola, [0.0], optimiser="sgd", callback=callback)

    assert result.status is Status.STOPPED
    assert result.nit == 5
    assert seen == [0, 1, 2, 3, 4, 5]


def test_history_holds_every_step():
    result = gradopt.minimise(
        f.parabola, [0.0], optimiser="sgd", optimiser_options={"lr": 0.25}, stop=gradopt.Stop(max_steps=3)
    )

    assert result.history["step"].tolist() == [0, 1, 2, 3]
    assert result.history["loss"].tolist() == [9.0, 2.25, 0.5625, 0.140625]
    assert result.history["gradient_norm"].tolist() == [6.0, 3.0, 1.5, 0.75]
    assert result.history["step_norm"].tolist()[1:] == [1.5, 0.75, 0.375]
    assert result.history["evaluations"].tolist() == [1, 2, 3, 4]


def test_steps_can_be_left_at_any_time():
    for progress in gradopt.steps(f.parabola, [0.0], optimiser="sgd"):
        if progress.step == 3:
            break

    assert progress.step == 3
    assert progress.result is None
    assert progress.verdict is None


def test_steps_and_minimise_agree():
    stop = gradopt.Stop(max_steps=50)
    result = gradopt.minimise(f.rosenbrock, [-1.2, 1.0], optimiser="adam", stop=stop)

    *_, last = gradopt.steps(f.rosenbrock, [-1.2, 1.0], optimiser="adam", stop=stop)

    assert last.result.verdict == result.verdict
    assert torch.equal(last.result.x, result.x)


def test_a_first_ctrl_c_ends_with_a_result():
    def interrupted(x):
        interrupted.calls += 1
        if interrupted.calls == 50:
            os.kill(os.getpid(), signal.SIGINT)
        return f.parabola(x)

    interrupted.calls = 0
    before = signal.getsignal(signal.SIGINT)

    result = gradopt.minimise(interrupted, [0.0], optimiser="sgd", optimiser_options={"lr": 1e-5})

    assert result.status is Status.INTERRUPTED
    assert "Ctrl-C" in result.message
    assert result.nit < 9_000
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_raises():
    def stubborn(x):
        stubborn.calls += 1
        if stubborn.calls == 20:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return f.parabola(x)

    stubborn.calls = 0

    with pytest.raises(KeyboardInterrupt):
        gradopt.minimise(stubborn, [0.0], optimiser="sgd")


class Raises:
    """An observer that fails at its second block."""

    def __init__(self):
        self.calls = 0

    def open(self, run):
        pass

    def record(self, block, metrics):
        self.calls += 1
        if self.calls == 2:
            raise OSError("disk full")

    def close(self, result, error):
        raise AssertionError("a dropped observer is not called again")


def test_an_observer_that_raises_is_reported_once_and_dropped(caplog):
    observer = Raises()

    result = gradopt.minimise(f.parabola, [0.0], optimiser="sgd", optimiser_options={"lr": 0.1}, observers=[observer])

    assert result.success
    assert observer.calls == 2
    assert [record.getMessage() for record in caplog.records if "Raises" in record.getMessage()] == [
        "observer Raises failed and is left out from here on: OSError: disk full"
    ]


class Full:
    """An observer whose disk is full."""

    def record(self, block, metrics):
        raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, run):
        pass

    close = open


class AlsoFull(Full):
    """Another one."""


def test_a_full_disk_costs_one_warning_however_many_write_to_it(caplog):
    options = {"optimiser_options": {"lr": 0.1}, "observers": [Full(), AlsoFull()]}

    with caplog.at_level(logging.INFO, "gradopt"):
        result = gradopt.minimise(f.parabola, [0.0], optimiser="sgd", **options)

    assert result.success
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("the disk takes no more (No space left on device): curves, pictures and history")
    assert {"observer Full failed", "observer AlsoFull failed"} <= {
        record.getMessage().partition(" and is left")[0] for record in caplog.records
    }


def test_no_file_is_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    gradopt.minimise(f.parabola, [0.0])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"objective": f.parabola}, "needs a start"),
        ({"objective": 3, "x0": 1.0}, "must be a function"),
        ({"objective": nn.Linear(1, 1)}, "derive it from gradopt.Objective"),
        ({"objective": f.parabola, "x0": "one"}, "no number"),
        ({"objective": f.parabola, "x0": [float("nan")]}, "not finite"),
        ({"objective": f.parabola, "x0": [1.0], "optimiser": "adm"}, "Did you mean 'adam'"),
        ({"objective": f.parabola, "x0": [1.0], "optimiser": "adam", "optimiser_options": {"lrr": 1}}, "lrr"),
        ({"objective": f.parabola, "x0": [1.0], "optimiser": "adam", "optimiser_options": {"lr": -1.0}}, ">= 0"),
        ({"objective": f.parabola, "x0": [1.0], "optimiser": "muon"}, "2D"),
        ({"objective": f.parabola, "x0": [1.0], "optimiser": "sparseadam"}, "sparse"),
        ({"objective": f.parabola, "x0": [1.0], "optimiser": "torch_lbfgs", "bounds": (0, 2)}, "cannot keep bounds"),
        ({"objective": f.parabola, "x0": [9.0], "bounds": (0, 2)}, "outside the bounds"),
        ({"objective": f.parabola, "x0": [1.0], "bounds": (2, 0)}, "leave no room"),
        ({"objective": f.parabola, "x0": [1.0], "bounds": (0, [1.0, 2.0, 3.0])}, "does not fit"),
        ({"objective": lambda x: x * 2, "x0": [1.0, 2.0]}, "must be one number"),
        ({"objective": lambda x: torch.tensor(1.0), "x0": [1.0]}, "no grad_fn"),
        ({"objective": lambda x: 1.0, "x0": [1.0]}, "must be a tensor"),
        ({"objective": f.parabola, "x0": [1.0], "engine": "fast"}, "not one of"),
        ({"objective": f.parabola, "x0": [1.0], "stop": gradopt.Stop(max_epochs=2)}, "max_epochs"),
        ({"objective": lambda x: torch.complex(x, x).sum(), "x0": [1.0]}, "is complex.*take .real"),
        (
            {"objective": f.parabola, "x0": [1.0, 2.0, 3.0], "bounds": [(0, 9)] * 3},
            r"bounds=\(\[0, 0, 0\], \[9, 9, 9\]\)",
        ),
        ({"objective": f.parabola, "x0": [1.0, 2.0], "bounds": [(0, 9), (0, 8)]}, r"bounds=\(\[0, 0\], \[9, 8\]\)"),
        ({"objective": f.parabola, "x0": [1.0] * 30, "bounds": [(0, 9)] * 30}, r"bounds=tuple\(zip\(\*bounds\)\)"),
        (
            {"objective": f.parabola, "x0": [1.0, 2.0, 3.0], "bounds": torch.tensor([[0.0, 9.0]] * 3)},
            r"not a pair for each unknown as in SciPy",
        ),
        ({"objective": f.parabola, "x0": [1.0], "bounds": optimize.Bounds([0], [9])}, r"bounds=\(b.lb, b.ub\)"),
        ({"objective": f.parabola, "x0": [1.0], "bounds": (0, 1, 2)}, r"must be \(lower, upper\), each a number"),
        ({"objective": f.parabola, "x0": {"a": torch.ones(2)}}, r"a dict of tensors, as x0 is one.*x\['a'\]"),
        ({"objective": f.parabola, "x0": (torch.ones(2), torch.ones(1))}, r"a tuple of tensors, as x0 is one.*x\[0\]"),
        ({"objective": lambda x: x[0], "x0": {"a": torch.ones(2)}}, r"KeyError: 0.*x\['a'\]"),
        pytest.param(
            {"objective": lambda x: x["a"] ** 2, "x0": [1.0, 2.0]},
            r"takes it for a dict: take its entries by number",
            marks=pytest.mark.filterwarnings("ignore:Using a non-tuple sequence"),
        ),
        (
            {"objective": f.parabola, "x0": [1.0], "constraints": f.parabola},
            r"wrap it into gradopt.Constraint\(function",
        ),
        (
            {"objective": f.parabola, "x0": [1.0], "constraints": [f.parabola]},
            "the constraint parabola comes without limits",
        ),
        ({"objective": f.parabola, "x0": [1.0], "constraints": 5}, "must be gradopt.Constraint.*got 5"),
        ({"objective": f.parabola, "x0": [1.0], "constraints": gradopt.Constraint(3.0, 1.0)}, "was given 3.0"),
    ],
    ids=str,
)
def test_mistakes_finish_their_sentence(arguments, part):
    with pytest.raises(Mistake, match=part) as caught:
        gradopt.minimise(**arguments)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"loss": torch.abs}, "loss must be one of linear, .*, by name"),
        ({"loss": ["huber"]}, "by name, got"),
        ({"loss": "hubre"}, "Did you mean 'huber'"),
        ({"f_scale": "1"}, "f_scale must be a number above 0, got '1'"),
    ],
)
def test_a_loss_of_residuals_is_chosen_by_name(options, part):
    with pytest.raises(Mistake, match=part):
        gradopt.least_squares(lambda x: x - 1, [0.0], **options)


@pytest.mark.parametrize(
    ("residuals", "part"),
    [
        (lambda x: [x[0] - 1, x[1] - 2], r"must be one tensor, they are a list.*torch.stack"),
        (lambda x: x.detach().numpy(), r"must be one tensor, they are a ndarray"),
        (lambda x: None, r"must be one tensor, they are a NoneType"),
        (lambda x: x[:0], r"returns no residuals"),
        (lambda x: torch.complex(x, x), r"is complex"),
    ],
)
def test_residuals_that_are_none(residuals, part):
    with pytest.raises(Mistake, match=part):
        gradopt.least_squares(residuals, [0.0, 0.0])


def test_an_error_of_the_function_itself_is_passed_on():
    def loss(x):
        return {"volume": x["a"].sum()}["volum"]

    with pytest.raises(KeyError, match="volum"):
        gradopt.minimise(loss, {"a": torch.ones(2)})


@pytest.mark.parametrize(
    "fields",
    [
        {"max_steps": -1},
        {"max_evaluations": 0},
        {"max_seconds": 0.0},
        {"target": float("nan")},
        {"gradient_tolerance": -1.0},
    ],
    ids=str,
)
def test_stop_refuses_values_out_of_range(fields):
    with pytest.raises(Mistake, match=f"stop.{next(iter(fields))} must be"):
        gradopt.Stop(**fields)


def test_what_the_objective_raises_is_passed_on():
    def broken(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        gradopt.minimise(broken, [1.0])


def test_maximise_takes_its_target_and_history_of_the_function_itself():
    stop = gradopt.Stop(target=3.5)

    result = gradopt.minimise(
        lambda x: 4 - (x - 1) ** 2, 0.0, maximise=True, optimiser="sgd", optimiser_options={"lr": 0.1}, stop=stop
    )

    assert result.status is Status.TARGET_REACHED
    assert result.fun >= 3.5
    assert result.history["loss"][0] == 3.0
    assert result.history["loss"][-1] == result.fun
    assert "the loss is minus the function" in result.message


def test_observers_write_into_a_directory_that_is_made_for_them(tmp_path):
    place = tmp_path / "outer" / "inner"

    gradopt.minimise(f.parabola, [0.0], observers=[HistoryFile()], directory=place)

    assert len(numpy.load(place / "history.npy")) >= 2


class TwoGroups(gradopt.Objective):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(5.0))
        self.b = torch.nn.Parameter(torch.tensor(5.0))

    def forward(self, batch=None):
        return self.a**2 + self.b**2

    def parameter_groups(self):
        return [{"params": [self.a]}]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"objective": TwoGroups()}, "unknown 'b' is in no parameter group"),
        ({"x0": torch.tensor(1 + 1j)}, "is complex; unknowns must be real"),
        ({"x0": []}, "is empty"),
        ({"x0": torch.ones(2, dtype=torch.float16)}, "is torch.float16; unknowns must be float32 or float64"),
        ({"optimiser": 3}, "optimiser must be a name or a callable"),
        ({"stop": {"max_steps": 3}}, "stop must be a gradopt.Stop"),
        ({"criteria": ["early_stopping"]}, "criteria must be objects with a judge"),
        ({"criteria": 3}, "criteria must be a list of objects with a judge"),
        ({"callback": 3}, "callback must be a function of a block of records, got 3"),
        ({"observers": 3}, "observers must be a list of objects with a record.*got 3"),
        ({"observers": "console"}, "observers must be a list of objects with a record.*got 'console'"),
        ({"optimiser_options": 3}, "optimiser_options must be a dict.*got 3"),
        ({"on_saddle": 3}, "on_saddle=3 is not one of stop, escape"),
        ({"observers": ["console"]}, "observers must be objects with a record"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_arguments_that_do_not_fit_are_refused(arguments, why):
    arguments = {"objective": f.parabola, **arguments}
    if not isinstance(arguments["objective"], gradopt.Objective):
        arguments.setdefault("x0", [0.0])

    with pytest.raises(gradopt.Mistake, match=why):
        gradopt.minimise(**arguments)


def test_a_tuple_of_numbers_and_tensors_is_a_tuple_of_unknowns():
    result = gradopt.minimise(lambda x: (x[0] - 1) ** 2 + (x[1] ** 2).sum(), (0.0, torch.ones(2, dtype=torch.float64)))

    assert result.x[0].item() == pytest.approx(1.0)
    assert result.x[1].shape == (2,)


def test_ctrl_c_during_a_step_ends_the_steps_with_a_result():
    def interrupts(x):
        if interrupts.left == 0:
            signal.raise_signal(signal.SIGINT)
        interrupts.left -= 1
        return (x - 3) ** 2

    interrupts.left = 4
    before = signal.getsignal(signal.SIGINT)
    *_, last = gradopt.steps(interrupts, 0.0, optimiser="sgd", optimiser_options={"lr": 0.1})

    assert last.result.status is Status.INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradopt.Stop(max_steps="a"), "stop.max_steps must be a number, got 'a'"),
        (lambda: gradopt.minimise(torch.sum, {}), "the start x0 = {} is empty"),
        (lambda: gradopt.minimise(torch.sum, ()), "the start x0 = () is empty"),
        (
            lambda: gradopt.minimise(torch.sum, [1.0], constraints=gradopt.Constraint(lambda x: x[:0], upper=1.0)),
            "constraint c0 returns no values, a tensor of shape (0,)",
        ),
    ],
)
def test_nothing_in_the_place_of_something_is_refused_in_a_line(call, words):
    with pytest.raises(Mistake) as raised:
        call()

    assert words in str(raised.value)
