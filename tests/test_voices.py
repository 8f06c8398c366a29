"""What programs read, and those who want no more than the verdict: --json and --quiet."""

import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gradopt.assemble import assemble
from gradopt.board import COLOURS
from gradopt.conclusion import form_of
from gradopt.contracts import Constraint
from gradopt.execution import execute
from gradopt.objectives.function import FunctionObjective
from gradopt.observers import json_lines
from gradopt.observers.json_lines import JsonLines
from gradopt.settings import Stop
from tests import functions as f
from tests.installed import environment, gradopt

SLOW = """
import pathlib
import time


def loss(x):
    if x[0] == 2:  # the start of the second job
        end = time.monotonic() + 60
        while not pathlib.Path("go").exists() and time.monotonic() < end:
            time.sleep(0.05)
        pathlib.Path("ended").touch()
    return x.square().sum()
"""


def lines(text):
    """The objects, each from a line of valid JSON: without the NaN and Infinity that Python would take."""
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def told(x0, optimiser="sgd", options=None, **stop):
    stream = io.StringIO()
    objective = FunctionObjective(f.rosenbrock, x0)
    assembly = assemble(objective, optimiser, options or {}, stop=Stop(**stop))
    return lines(stream.getvalue()) if execute(assembly, [JsonLines(stream)], form_of(objective)) else []


def test_the_lines_of_a_run_are_its_result_in_the_end(tmp_path):
    done = gradopt("objective=rosenbrock", "optimiser=lbfgs", "--json", "hydra.run.dir=run", cwd=tmp_path)

    assert done.returncode == 0 and done.stderr == ""
    start, *progress, result = lines(done.stdout)
    assert start["event"] == "start" and start["config"]["optimiser"]["name"] == "lbfgs"
    assert start["facts"]["start"].startswith("2 unknowns, loss 24.2") and start["loss"] == pytest.approx(24.2)
    assert start["budgets"] == {"steps": 10000, "evaluations": 20000, "seconds": None}
    assert {line["event"] for line in progress} <= {"progress"}
    written = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result.pop("event") == "result" and result.pop("directory") == str(tmp_path / "run")
    assert result["status"] == "converged" and "first-order optimal" in result["message"]
    envelope = {name: written.pop(name) for name in ("gradopt", "started", "overrides", "minimum", "exit_code")}
    assert result == written and envelope["minimum"] == 0 and envelope["exit_code"] == 0


def test_a_failing_verdict_is_a_result_too(tmp_path):
    done = gradopt("--json", "objective=polynomial", "objective.bounds=null", cwd=tmp_path)

    assert done.returncode == 3
    *_, result = lines(done.stdout)
    assert (result["event"], result["status"], result["success"]) == ("result", "unbounded", False)


@pytest.mark.parametrize("words", [["objective=polynomal"], ["optimiser.lr=fast"]])
def test_a_mistake_is_an_object_on_one_stream_and_a_line_on_the_other(words, tmp_path):
    done = gradopt("--json", *words, cwd=tmp_path)

    assert done.returncode == 2
    (error,) = lines(done.stdout)
    assert error["event"] == "error" and error["exit_code"] == 2
    assert done.stderr == f"gradopt: error: {error['message']}\n"


def test_what_an_objective_prints_is_kept_out(tmp_path):
    (tmp_path / "noisy.py").write_text(
        "def loss(x):\n    print('hello from the objective')\n    return (x**2).sum()\n", encoding="utf-8"
    )

    done = gradopt(
        "--json", "objective=function", "objective.target=noisy.py:loss", "objective.x0=[1.0]", "starts=4", cwd=tmp_path
    )

    assert lines(done.stdout)[-1]["starts"]["number"] == 4
    assert "hello from the objective" in done.stderr


def test_a_multirun_is_a_line_for_each_job_and_one_for_all(tmp_path):
    words = ["-m", "objective=polynomial", "stop.max_steps=2,3", "optimiser.lr=0.01,-1"]

    done = gradopt("--json", *words, cwd=tmp_path)

    *jobs, last = lines(done.stdout)
    assert [(job["event"], job["job"]) for job in jobs] == [("job", number) for number in range(4)]
    assert [job["status"] for job in jobs] == ["max_steps", "error", "max_steps", "error"]
    assert last == {"event": "multirun", "jobs": 4, "counts": {"max_steps": 2, "error": 2}, "exit_code": 1}
    assert done.returncode == 1


@pytest.mark.parametrize("switch", [[], ["--json"]])
def test_each_job_of_a_multirun_is_told_of_as_it_ends(switch, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    words = ("-m", "objective=function", "objective.target=slow.py:loss", "objective.x0=[1],[2]", "observers=[]")
    with subprocess.Popen(
        [sys.executable, "-m", "gradopt", *words, *switch],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        first = next(line for line in process.stdout if "job" in line and "HYDRA" not in line)
        goes_on = process.poll() is None and not (tmp_path / "ended").exists()
        (tmp_path / "go").touch()  # the second job waits for it
        rest = process.stdout.read()

    assert process.returncode == 0 and goes_on
    if switch:
        assert [json.loads(line)["job"] for line in [first, *rest.splitlines()[:-1]]] == [0, 1]
    else:
        assert first.startswith("job 0: converged, loss ") and first.endswith(" steps\n")
        assert "\njob 1: converged" in f"\n{rest}"


def test_a_job_that_raises_is_told_of_with_its_message(tmp_path):
    done = gradopt("-m", "optimiser.lr=-1", "observers=[]", cwd=tmp_path)

    assert "job 0: error: optimiser.lr must be >= 0, got -1.0" in done.stdout.splitlines()


def test_commands_to_copy_are_quoted_for_the_shell(tmp_path):
    place = tmp_path / "it's mine"
    place.mkdir()

    done = gradopt("objective=polynomial", "observers=[console]", cwd=place)

    (line,) = [line for line in done.stdout.splitlines() if line.startswith("dashboards ")]
    words = shlex.split(line)
    assert words[1:3] == ["gradopt", "board"] and Path(words[3]).is_dir() and len(words) == 4
    coloured = re.search(COLOURS, Path(words[3]).name)  # and the name is one that TensorBoard colours by optimiser
    assert coloured is not None and coloured[1] == "sgd"


def test_a_quiet_multirun_is_its_table_alone(tmp_path):
    done = gradopt("-m", "--quiet", "objective=polynomial", "stop.max_steps=2,3", cwd=tmp_path)

    assert done.returncode == 0 and done.stderr == ""
    heads, *rows = done.stdout.splitlines()
    assert heads.split()[:3] == ["job", "overrides", "status"]
    assert [row.split()[2] for row in rows] == ["max_steps", "max_steps"]


def test_a_quiet_run_is_its_verdict_alone(tmp_path):
    done = gradopt("objective=polynomial", "--quiet", "starts=4", cwd=tmp_path)

    (line,) = done.stdout.splitlines()
    assert done.stderr == "" and line.startswith("+ converged: 4 converged; the best is start ")


def test_a_quiet_mistake_is_told_all_the_same(tmp_path):
    done = gradopt("objective=polynomal", "--quiet", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'polynomial'" in done.stderr


def test_both_at_once_are_refused(tmp_path):
    done = gradopt("--json", "--quiet", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "gradopt: error: --json and --quiet exclude each other: say one of them\n"


@pytest.mark.parametrize("switch", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_harms_nothing(switch, tmp_path):
    command = [sys.executable, "-m", "gradopt", "objective=polynomial", "hydra.run.dir=run", *switch]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "y = 5x^3" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["status"] == "converged"


def test_numbers_that_json_has_not_are_strings():
    *_, result = told([1e30, 0.0])

    assert result["status"] == "non_finite"
    assert "Infinity" in json.dumps(result)


def test_progress_comes_at_most_twice_a_second(monkeypatch):
    assert json_lines.PERIOD >= 0.5
    rare = told([-1.2, 1.0], "adam", max_seconds=1.2)
    monkeypatch.setattr(json_lines, "PERIOD", 0.0)
    often = told([-1.2, 1.0], "adam", max_steps=50)

    assert len([line for line in rare if line["event"] == "progress"]) <= 3
    progress = [line for line in often if line["event"] == "progress"]
    assert progress[0]["step"] == 0 and progress[0]["step_norm"] == "NaN" and progress[-1]["step"] == 50
    assert {"loss", "gradient_norm", "learning_rate", "evaluations", "seconds"} <= set(progress[0])


def test_progress_tells_the_lowest_loss_so_far_and_the_seconds_left(monkeypatch):
    monkeypatch.setattr(json_lines, "PERIOD", 0.0)

    _, *rows, result = told([-1.2, 1.0], "adam", max_steps=50, max_seconds=60.0)
    _, *free, _ = told([-1.2, 1.0], "adam", max_steps=5)

    lowest = list(itertools.accumulate((row["loss"] for row in rows), min))
    assert [row["best"] for row in rows] == lowest and lowest[-1] == result["fun"]
    assert all(type(row["evaluations"]) is int for row in rows)
    assert all(59 < row["seconds_left"] + row["seconds"] <= 60 for row in rows)
    assert {row["seconds_left"] for row in free} == {None}


def test_the_best_loss_told_under_constraints_is_of_a_step_that_keeps_them(monkeypatch):
    monkeypatch.setattr(json_lines, "PERIOD", 0.0)
    line = Constraint(lambda x: x.sum(), lower=2.0)
    objective = FunctionObjective(lambda x: x.square().sum(), [0.0, 0.0], constraints=line)
    stream = io.StringIO()

    execute(assemble(objective, "augmented_lagrangian"), [JsonLines(stream)], form_of(objective))

    _, *rows, _ = lines(stream.getvalue())
    assert rows[0]["best"] is None and rows[-1]["best"] == pytest.approx(2.0, abs=0.01)  # in float32


def test_help_lists_the_switches(tmp_path):
    assert "--quiet (print the verdict alone), --json (one JSON object a line" in gradopt("--help", cwd=tmp_path).stdout
