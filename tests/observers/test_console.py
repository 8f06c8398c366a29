"""What a person reads in the terminal."""

import io
import os
import pty
import subprocess
import sys

import pytest
import torch

from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.execution import execute
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.observers.console import Console
from gradopt.settings import Stop
from tests import functions as f
from tests.installed import environment, gradopt


def shown(x0, **stop):
    stream = io.StringIO()
    objective = FunctionObjective(f.parabola, x0)
    assembly = assemble(objective, "sgd", {"lr": 0.1}, stop=Stop(**stop))
    execute(assembly, [Console(stream)], form_of(objective))
    return stream.getvalue()


def test_the_start_of_the_lesson_is_exact(tmp_path):
    done = gradopt("objective=polynomial", cwd=tmp_path)

    assert "start      x = 2, y = 64, dy/dx = 72" in done.stdout
    assert "converged" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("x0", "stop", "mark"),
    [([0.0], {}, "+ converged: "), ([0.0], {"max_steps": 2}, "- max_steps: ")],
    ids=["success", "budget"],
)
def test_the_verdict_is_marked(x0, stop, mark):
    text = shown(x0, **stop)

    assert any(line.startswith(mark) for line in text.splitlines())
    assert "\r" not in text
    assert text.isascii()


def test_few_unknowns_are_listed_and_many_are_counted():
    assert "[0, 1]" in shown([0.0, 1.0], max_steps=0)
    assert "50 unknowns" in shown(torch.zeros(50), max_steps=0)


def fitted(x0, optimiser, **stop):
    times = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)
    noise = 0.01 * torch.sin(37 * times)
    stream = io.StringIO()
    objective = ResidualObjective(
        lambda x: x["size"] * torch.exp(-x["rates"] @ torch.stack([times, times**2])) - 3 * torch.exp(-times) - noise,
        x0,
    )
    assembly = assemble(objective, optimiser, {}, stop=Stop(**stop))
    result = execute(assembly, [Console(stream)], form_of(objective))
    return result, [line.split() for line in stream.getvalue().splitlines()]


START = {"size": torch.tensor(1.0, dtype=torch.float64), "rates": torch.zeros(2, dtype=torch.float64)}


def test_a_fit_is_shown_with_its_standard_errors():
    result, lines = fitted(START, "levenberg_marquardt")

    header = lines.index(["parameter", "value", "standard", "error"])
    names, values, errors = zip(*lines[header + 1 :], strict=True)
    assert names == ("size", "rates[0]", "rates[1]")
    shown = torch.tensor([float(value) for value in values], dtype=torch.float64)
    torch.testing.assert_close(shown, torch.cat([result.x["size"][None], result.x["rates"]]))
    assert [float(error) for error in errors] == pytest.approx(result.standard_errors.tolist(), rel=1e-3)


def test_a_fit_that_has_not_arrived_has_no_standard_errors():
    result, lines = fitted(START, "levenberg_marquardt", max_steps=1)

    assert not result.success
    assert result.standard_errors is None
    assert ["parameter", "value", "standard", "error"] not in lines


def test_a_live_line_appears_on_a_terminal_only(tmp_path):
    words = [sys.executable, "-m", "gradopt", "objective=rosenbrock", "optimiser=adam", "stop.max_steps=3000"]
    ours, theirs = pty.openpty()

    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    text = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the terminal closes with the process
            break
        if not chunk:
            break
        text += chunk
    process.wait()
    os.close(ours)

    assert b"steps/s" in text or b"steps" in text
    assert b"\r" in text
    assert b"loss" in text
