"""What a person reads in the terminal."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest
import torch

from gradopt import waits
from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.contracts import Constraint
from gradopt.execution import execute
from gradopt.jobs import Terminal
from gradopt.many.assembly import assemble_starts
from gradopt.many.execution import execute as execute_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.observers import console
from gradopt.observers.console import Console
from gradopt.observers.report import checks
from gradopt.result import Result
from gradopt.settings import Stop
from gradopt.verdict import Status, Verdict
from tests import functions as f
from tests.installed import environment, gradopt
from tests.observers.terminals import read_all


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


def test_a_warning_takes_the_place_of_the_live_line(terminals):
    terminal = terminals(80)
    handler = Terminal(terminal.stream)
    terminal.stream.write("\rstep 160 of 20000")

    handler.emit(logging.LogRecord("gradopt", logging.WARNING, "", 0, "the disk takes no more", None, None))

    assert terminal.text() == "\rstep 160 of 20000\r\x1b[Kthe disk takes no more\n"


def test_a_warning_leaves_a_blank_line_before_the_verdict():
    stream = io.StringIO()
    warning = logging.LogRecord("gradopt", logging.WARNING, "", 0, "the disk takes no more", None, None)

    class Warns(Console):
        def record(self, block, metrics):
            super().record(block, metrics)
            if block.first_step == 0:
                Terminal(stream).emit(warning)

    objective = FunctionObjective(f.parabola, [0.0])
    execute(assemble(objective, "sgd", {"lr": 0.1}), [Warns(stream)], form_of(objective))

    shown = stream.getvalue().splitlines()
    assert shown[shown.index("the disk takes no more") :][1] == ""


@pytest.mark.parametrize(
    ("observers", "sweep", "is_missing"),
    [
        (["console", {"name": "pictures"}], None, True),
        (["console", "pictures"], "sweep", False),
        (["console", "tensorboard"], None, False),
    ],
)
def test_the_report_says_how_to_get_the_pictures_that_lack(observers, sweep, is_missing, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "find_spec", lambda name: None)
    stream, objective = io.StringIO(), FunctionObjective(f.parabola, [0.0])
    watched = {"directory": tmp_path, "config": {"observers": observers}, "sweep": sweep}

    execute(assemble(objective, "sgd", {"lr": 0.1}), [Console(stream)], form_of(objective), **watched)

    assert ("pip install 'gradopt[pictures]'" in stream.getvalue()) == is_missing


def test_what_a_run_waits_for_is_shown_on_a_terminal_and_nowhere_else(terminals):
    terminal, file = terminals(80), io.StringIO()
    consoles = Console(terminal.stream), Console(file)

    with waits.shown(consoles[0].wait), waits.shown(consoles[1].wait), waits.wait(waits.PROGRAM):
        pass
    with waits.wait(waits.PROGRAM):  # nobody looks any more
        pass

    assert terminal.text() == "\rbuilding the program ...\r                        \r" and file.getvalue() == ""


def test_who_cannot_show_what_a_run_waits_for_is_reported_once_and_harms_nobody(caplog):
    told = []

    def broken(what):
        raise TypeError("no such seat")

    with waits.shown(broken), waits.shown(told.append), waits.wait(waits.PROGRAM):
        pass

    assert told == [waits.PROGRAM, ""]
    assert [record.getMessage().partition(" failed ")[2] for record in caplog.records] == [
        "and is not told what is waited for: TypeError: no such seat"
    ]


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


def on_a_terminal(terminal, objective, optimiser="adam", **stop):
    """What a terminal is sent by a run, and its result."""
    assembly = assemble(objective, optimiser, {}, stop=Stop(**stop), engine="eager")
    result = execute(assembly, [Console(terminal.stream)], form_of(objective))
    return terminal.text(), result


def slow_valley(x):
    time.sleep(0.002)
    return f.rosenbrock(x)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_shows_how_far_the_run_has_come(columns, terminals):
    text, result = on_a_terminal(
        terminals(columns), FunctionObjective(slow_valley, [-1.2, 1.0]), max_steps=400, max_seconds=60.0
    )

    lines = [line.strip() for line in text.split("\n\n")[0].split("\r") if line.startswith("step ")]
    assert 3 <= len(lines) <= 1 + 10 * result.seconds
    steps = [int(re.match(r"step (\d+) of 400  loss [-\d.e]+", line)[1]) for line in lines]
    assert steps == sorted(set(steps)) and steps[0] > 0 and steps[-1] <= 400
    assert all(re.search(r"  0:\d\d left$", line) for line in lines)
    assert max(map(len, lines)) < columns
    assert any("evals/s" in line for line in lines) == (columns >= 80)
    assert any("best " in line for line in lines) == (columns == 120)


def test_the_live_line_is_gone_at_the_end(terminals):
    text, _ = on_a_terminal(terminals(100), FunctionObjective(slow_valley, [-1.2, 1.0]), max_steps=150)

    *_, drawn, covered, verdict = text[: text.index("max_steps\x1b")].split("\r")
    assert drawn.startswith("step ") and covered.strip() == "" and len(covered) >= len(drawn.rstrip())
    assert verdict == "\n\x1b[33m- "


@pytest.mark.parametrize(
    ("x0", "stop", "shown"),
    [
        ([0.0], {}, "\x1b[32m+ converged\x1b[0m: "),
        ([0.0], {"max_steps": 2}, "\x1b[33m- max_steps\x1b[0m: "),
        ([1e30], {}, "\x1b[31mx "),
    ],
    ids=["success", "budget", "failure"],
)
def test_a_terminal_shows_the_verdict_in_colour(x0, stop, shown, terminals):
    text, _ = on_a_terminal(terminals(100), FunctionObjective(f.parabola, x0), "sgd", **stop)

    assert shown in text


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_left_out_where_they_are_not_wanted(variable, value, terminals, monkeypatch):
    monkeypatch.setenv(variable, value)

    text, _ = on_a_terminal(terminals(100), FunctionObjective(slow_valley, [-1.2, 1.0]), max_steps=100)

    assert "\x1b" not in text
    assert ("\rstep" in text) == (variable == "NO_COLOR")
    assert "- max_steps: " in text


def test_sentences_are_broken_at_the_width_of_the_terminal(terminals):
    text, _ = on_a_terminal(terminals(60), FunctionObjective(f.rosenbrock, [-1.2, 1.0]), "lbfgs")

    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in text.splitlines()]
    assert max(map(len, lines)) <= 60
    assert "evaluations" not in text[text.index("\n\n", text.index("point  ")) :]  # the column to spare


def test_what_comes_to_no_terminal_is_not_broken():
    assert max(map(len, shown([0.0]).splitlines())) > 120


def test_the_last_steps_are_shown_as_the_history_has_them():
    stream = io.StringIO()
    objective = FunctionObjective(f.rosenbrock, [-1.2, 1.0])
    assembly = assemble(objective, "lbfgs", {}, stop=Stop())
    result = execute(assembly, [Console(stream)], form_of(objective))

    table = stream.getvalue()[stream.getvalue().index("step  ") :].splitlines()
    heads, first, gap, *last = [line.split() for line in table]
    assert table[0].split("  ")[-1] == "step / size" and heads[:5] == [
        "step",
        "evaluations",
        "loss",
        "change",
        "gradient",
    ]
    assert first[:2] == ["0", "1"] and float(first[2]) == pytest.approx(24.2) and gap == ["..."]
    assert [int(row[0]) for row in last] == list(range(result.nit - 5, result.nit + 1))
    loss, size = result.history["loss"], max(abs(value) for value in result.x.tolist())
    for step, evaluations, shown_loss, change, gradient, moved in last:
        row = int(step)
        assert int(evaluations) == result.history["evaluations"][row]
        assert float(shown_loss) == pytest.approx(loss[row].item(), rel=1e-8)
        scale = max(abs(loss[row]), abs(loss[row - 1]))
        assert float(change) == pytest.approx(((loss[row] - loss[row - 1]) / scale).item(), rel=0.1)
        assert float(gradient) == pytest.approx(result.history["gradient_norm"][row].item(), rel=1e-2)
        assert float(moved) == pytest.approx(result.history["step_norm"][row].item() / size, rel=0.1)


def test_under_constraints_the_gradient_shown_is_that_of_the_lagrangian():
    stream = io.StringIO()
    line = Constraint(lambda x: x.sum(), lower=1.0)
    objective = FunctionObjective(lambda x: x.square().sum(), [3.0, 2.0], constraints=line)
    execute(assemble(objective, "augmented_lagrangian"), [Console(stream)], form_of(objective))

    heads, *rows = stream.getvalue()[stream.getvalue().index("step  ") :].splitlines()
    column = slice(heads.index("Lagr. gradient"), heads.index("Lagr. gradient") + len("Lagr. gradient"))
    assert float(rows[-1][column]) < 1e-6  # that of the loss is 1


def test_a_run_of_one_step_has_a_table_of_two_rows_and_one_of_none_has_no_table():
    one, none = shown([0.0, 1.0], max_steps=1), shown([0.0, 1.0], max_steps=0)

    table = [line.split() for line in one[one.index("step  ") :].splitlines()]
    assert [row[0] for row in table] == ["step", "0", "1"]
    assert "1 step, 2 evaluations, " in one
    assert "step / size" not in none and "0 steps, 1 evaluation, " in none


def test_what_was_checked_is_said():
    assert "checked  gradient " in shown([0.0])
    assert "; curvature positive (2)" in shown([0.0])
    assert "checked" not in shown([0.0], max_steps=2)
    target = shown([0.0], target=8.5)
    assert "<= target 8.5" in target


@pytest.mark.parametrize(
    ("lower", "evidence", "said"),
    [
        (3.0 - 1e-15, {"tolerance": 1e-10}, None),
        (3.0 - 1e-8, {"tolerance": 1e-10}, "2.99999999"),
        (3.0 - 1e-13, {}, "2.9999999999999"),
        (3.0 - 1e-6, {"violation": 0.0}, "2.999999, where the constraints are kept to their tolerance"),
    ],
)
def test_a_lower_loss_is_told_where_it_can_be_told_from_the_result(lower, evidence, said):
    verdict = Verdict(Status.CONVERGED, "", {**evidence, "lower_loss_seen": lower})
    result = Result(torch.zeros(1), 3.0, torch.zeros(1), verdict, 1, 1, 1, 0, 1.0)

    (told,) = [one for one in checks(result) if "lower" in one] or [None]
    assert told == (said and f"a lower loss was seen on the way, {said}")


def test_the_time_is_split():
    def slow(x):
        time.sleep(0.005)
        return f.parabola(x)

    stream = io.StringIO()
    objective = FunctionObjective(slow, [0.0])
    execute(assemble(objective, "sgd", {"lr": 0.1}, stop=Stop(max_steps=40)), [Console(stream)], form_of(objective))

    line = next(line for line in stream.getvalue().splitlines() if line.startswith("time "))
    shares = dict(part.rsplit(" ", 1) for part in line.removeprefix("time").strip().split(", "))
    assert next(iter(shares)) == "forward"
    assert 98 <= sum(float(share.rstrip("%")) for share in shares.values()) <= 102


def test_many_starts_are_counted_by_their_endings():
    stream = io.StringIO()
    objective = FunctionObjective(f.rosenbrock, [-1.2, 1.0])
    points = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [0.9, 0.8]], dtype=torch.float64)
    name = next(iter(dict(objective.named_parameters())))
    parts = assemble_starts(objective, {name: points}, "lbfgs", stop=Stop(max_steps=6))
    results = execute_starts(parts, [Console(stream)], form_of(objective))

    text = stream.getvalue()
    table = [line.split() for line in text[text.index("status ") :].splitlines()]
    assert {row[0]: int(row[1]) for row in table[1:]} == {s.value: n for s, n in results.counts.items()}
    assert len(table) > 2
    assert f"{int(results.nfev.sum())} evaluations" in text and "of all starts" in text
    assert "the best is start 1: " in text


def test_the_live_line_of_many_starts_says_how_many_go_on(terminals):
    terminal = terminals(120)
    objective = FunctionObjective(f.rosenbrock, [-1.2, 1.0])
    name = next(iter(dict(objective.named_parameters())))
    points = torch.rand(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = assemble_starts(objective, {name: points}, "adam", {"lr": 1e-4}, stop=Stop(max_seconds=1.0), engine="eager")
    execute_starts(parts, [Console(terminal.stream)], form_of(objective))

    drawn = [line for line in terminal.text().split("\r") if line.startswith("step ")]
    assert drawn and all(re.search(r"\d of 8 starts  best \S+  median \S+  gradient ", line) for line in drawn)


def test_the_program_draws_on_a_terminal(tmp_path):
    words = ["objective=rosenbrock", "optimiser=adam", "optimiser.lr=1e-5", "engine=auto", "stop.max_steps=200000"]
    ours, theirs = pty.openpty()

    process = subprocess.Popen(
        [sys.executable, "-m", "gradopt", *words],
        cwd=tmp_path,
        env=environment(TERM="xterm", NO_COLOR=""),
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    text = read_all(ours).decode()
    process.wait()

    assert re.search(r"\rstep \d+ of 200000  loss ", text)
    assert re.search(r"\rbuilding the program \.\.\. *\r +\r", text)
    assert "\x1b[33m- max_steps\x1b[0m: " in text
