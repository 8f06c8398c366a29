"""Events are complete at every ending, and TensorBoard's own readers read them."""

import html
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gradopt
from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.execution import execute
from gradopt.objectives.function import FunctionObjective
from gradopt.observers.history import MAX_VALUES, HistoryFile
from gradopt.observers.report import facts
from gradopt.observers.tensorboard import TensorBoard
from gradopt.settings import Stop
from tests import functions as f
from tests.installed import environment

TAGS = {
    "opt/loss",
    "opt/best_loss",
    "opt/log10_best",
    "opt/gradient_norm",
    "opt/log10_gradient_norm",
    "opt/step_norm",
    "opt/learning_rate",
    "time/evaluations",
    "time/steps_per_s",
    "time/evaluations_per_s",
    "x/x[0]",
    "final/loss",
    "final/success",
    "final/steps",
    "final/evaluations",
    "final/seconds",
}


def run(function, x0, place, *, lr=0.1, **stop):
    objective = FunctionObjective(function, torch.tensor(x0, dtype=torch.float64))
    assembly = assemble(objective, "sgd", {"lr": lr}, stop=Stop(**stop))
    config = {"optimiser": {"name": "sgd", "lr": lr}, "seed": 3, "device": "cpu"}
    return execute(assembly, [TensorBoard(), HistoryFile()], form_of(objective), directory=place, config=config)


def read(place):
    accumulator = EventAccumulator(os.fspath(place), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(place, tag):
    return {event.step: event.value for event in read(place).Scalars(tag)}


def text(place, tag):
    return read(place).Tensors(tag)[0].tensor_proto.string_val[0].decode()


def test_the_readers_see_every_tag_and_the_exact_values(tmp_path):
    result = run(f.parabola, [0.0], tmp_path, max_steps=50)

    accumulator = read(tmp_path)
    losses = scalars(tmp_path, "opt/loss")
    assert set(accumulator.Tags()["scalars"]) == TAGS
    assert list(losses) == list(range(51))
    assert list(losses.values()) == pytest.approx(result.history["loss"].tolist(), rel=1e-6)
    assert scalars(tmp_path, "final/loss") == {50: pytest.approx(result.fun, rel=1e-6)}
    assert "| optimiser.name | sgd |" in text(tmp_path, "run/config")
    told = text(tmp_path, "run/verdict")
    assert f"| loss | {result.fun:.12g} |" in told and "| work | 50 steps, 51 evaluations, 51 gradients, " in told


def test_the_verdict_is_told_in_the_words_of_the_console(tmp_path):
    result = run(f.parabola, [0.0], tmp_path)

    heads = [text(tmp_path, f"run/{name}").splitlines()[0] for name in ("facts", "config", "verdict")]
    assert heads == ["| fact | value |", "| key | value |", "| verdict | value |"]
    rows = [line.strip("| ").split(" | ") for line in text(tmp_path, "run/verdict").splitlines()[2:]]
    assert rows[:2] == [["status", "converged"], ["reason", html.escape(result.message)]]
    assert {name: value for name, value in rows[2:] if name != "time"} == {
        name: re.sub(r"([\\`*_|])", r"\\\1", html.escape(value))
        for name, value in facts(result).items()
        if name != "time"
    }


class NearestOnALine(FunctionObjective):
    """The point of x + y = 2 that is nearest to 0, sought from there."""

    def __init__(self):
        line = gradopt.Constraint(lambda x: x.sum(), lower=2.0)
        super().__init__(lambda x: x.square().sum(), torch.zeros(2, dtype=torch.float64), constraints=line)

    def minimum(self):
        return 2.0


def test_under_constraints_the_gap_and_the_gradient_go_down_to_the_minimum(tmp_path):
    objective = NearestOnALine()

    execute(assemble(objective, "augmented_lagrangian"), [TensorBoard()], form_of(objective), directory=tmp_path)

    gradients = list(scalars(tmp_path, "opt/gradient_norm").values())
    assert gradients[-1] < 1e-6  # of the Lagrangian: that of the loss is 2 in the end
    gaps, losses = scalars(tmp_path, "opt/log10_gap"), scalars(tmp_path, "opt/loss")
    assert list(gaps) == list(losses) and min(losses.values()) < 2
    assert gaps[0] == pytest.approx(math.log10(2)) and list(gaps.values())[-1] < -7


def test_a_long_run_is_logged_on_a_schedule_with_its_first_and_last_step(tmp_path):
    result = run(f.parabola, [0.0], tmp_path, lr=1e-7, max_steps=9_999)

    losses = scalars(tmp_path, "opt/loss")
    assert len(losses) < 1000
    assert min(losses) == 0
    assert max(losses) == result.nit == 9_999
    assert all(step in losses for step in range(64))


@pytest.mark.parametrize(
    ("function", "x0", "stop", "status"),
    [
        (f.parabola, [0.0], {}, "converged"),
        (f.parabola, [0.0], {"target": 1.0}, "target_reached"),
        (f.cubic, 2.0, {}, "unbounded"),
        (lambda x: torch.log(x), 0.1, {}, "non_finite"),
        (f.hill, 0.0, {}, "maximum"),
    ],
    ids=["converged", "target", "unbounded", "non-finite", "maximum"],
)
def test_the_last_step_and_the_verdict_are_there_at_every_ending(function, x0, stop, status, tmp_path):
    result = run(function, x0, tmp_path, lr=0.05, **stop)

    assert result.status.value == status
    assert max(scalars(tmp_path, "time/evaluations")) == result.nit
    success = 1 if result.success else -1
    assert scalars(tmp_path, "final/success") == {result.nit: success}
    assert f"| status | {status.replace('_', chr(92) + '_')} |" in text(tmp_path, "run/verdict")


def test_the_band_of_many_starts_has_both_its_sides_at_each_step(tmp_path):
    starts = torch.linspace(2, 5, 20, dtype=torch.float64).unsqueeze(1)

    gradopt.minimise(
        lambda x: x.square().sum() - 1,  # of which there is no logarithm in the end
        starts=starts, optimiser="sgd", optimiser_options={"lr": 0.1}, directory=tmp_path, observers=[TensorBoard()],
    )  # fmt: skip
    steps = {name: list(scalars(tmp_path, f"ms/log10_{name}")) for name in ("q10", "median", "q90")}

    assert steps["q10"] == steps["median"] == steps["q90"]
    assert len(steps["q10"]) < len(scalars(tmp_path, "ms/loss_q10"))


def test_a_curve_ends_where_the_loss_is_more_than_tensorboard_can_draw_and_the_verdict_says_it(tmp_path):
    run(lambda x: torch.exp(x.square().sum()), [3.0], tmp_path, lr=1.0)

    accumulator = read(tmp_path)
    values = [event.value for tag in accumulator.Tags()["scalars"] for event in accumulator.Scalars(tag)]
    assert all(map(math.isfinite, values))
    assert scalars(tmp_path, "opt/loss") == {0: pytest.approx(math.exp(9.0), rel=1e-6)}
    assert scalars(tmp_path, "time/evaluations") == {0: 1.0, 1: 2.0}
    assert "| reason | the loss became inf at step 1" in text(tmp_path, "run/verdict")


def test_an_error_in_the_objective_leaves_complete_events(tmp_path):
    def breaks(x):
        breaks.calls += 1
        if breaks.calls == 20:
            raise ZeroDivisionError("mine")
        return f.parabola(x)

    breaks.calls = 0

    with pytest.raises(ZeroDivisionError):
        run(breaks, [0.0], tmp_path, lr=1e-3)

    assert "| reason | ZeroDivisionError: mine |" in text(tmp_path, "run/verdict")
    assert 0 in scalars(tmp_path, "opt/loss")
    assert list(scalars(tmp_path, "final/success").values()) == [-1.0]


class Notes:
    """What an observer is told."""

    def __init__(self):
        self.calls = []

    def open(self, run):
        self.calls.append(("open", run.chosen))

    def record(self, block, metrics):
        pass

    def close(self, result, error):
        self.calls.append(("close", str(error)))

    def fail(self, attempt, error):
        self.calls.append(("fail", attempt.chosen, str(error)))


class Deaf:
    """An observer that takes no interest in runs that are never opened."""

    def open(self, run):
        raise AssertionError("it was never opened")

    def record(self, block, metrics):
        raise AssertionError("it was never opened")

    def close(self, result, error):
        raise AssertionError("it was never opened")


def test_a_run_that_raises_at_once_is_told_to_those_who_ask(tmp_path, caplog):
    def breaks(x):
        raise ZeroDivisionError("mine")

    notes = Notes()
    with pytest.raises(ZeroDivisionError):
        gradopt.minimise(breaks, [0.0], optimiser="sgd", directory=tmp_path, observers=[notes, Deaf(), TensorBoard()])

    assert caplog.text == ""
    assert notes.calls == [("fail", {"objective": "breaks", "optimiser": "sgd"}, "mine")]
    assert "| reason | ZeroDivisionError: mine |" in text(tmp_path, "run/verdict")
    assert scalars(tmp_path, "final/success") == {0: -1.0}


ENDLESS = "import torch\n\n\ndef loss(x):\n    return (1e-12 * (x - 3) ** 2).sum()\n"


def start_endless(place):
    (place / "endless.py").write_text(ENDLESS)
    words = ["objective=function", "objective.target=endless.py:loss", "objective.x0=[1,2]", "stop.max_seconds=300"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gradopt", *words], cwd=place, env=environment(), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for history in place.glob("runs/*/*/history.npy"):
            if history.stat().st_size > 100_000:
                return process, history.parent
        time.sleep(0.1)
    process.kill()
    raise AssertionError("the run did not start")


def test_a_kill_loses_no_more_than_the_last_seconds(tmp_path):
    process, directory = start_endless(tmp_path)
    time.sleep(6.0)  # two flushes and more, also where building a program takes some of it

    process.send_signal(signal.SIGKILL)
    process.wait()

    history = numpy.load(directory / "history.npy")
    losses = scalars(directory, "opt/loss")
    steps, every = history["step"], MAX_VALUES // len(history.dtype.names)  # of later steps fewer and fewer are kept
    assert numpy.array_equal(steps[:every], numpy.arange(len(steps[:every])))
    assert (numpy.diff(steps) > 0).all()
    assert len(history) > 500
    assert history["seconds"][-1] > 1.0
    assert 0 in losses
    assert history["loss"][0] == pytest.approx(losses[0], rel=1e-6)
    assert max(losses) > 64
