"""Sweeps: many runs from one command, each of them a row, whatever becomes of it."""

import json
import re
from pathlib import Path

import pytest

from tests.installed import gradopt

pytestmark = pytest.mark.slow

PROBLEM = """
import os
import signal

import torch


def fire(x):
    if x[0] < 0:
        raise RuntimeError("the reactor is on fire")
    return x.square().sum()


def poison(x):
    return torch.log(x).sum() ** 2 if x[0] < 2 else x.sum() * float("nan")


def press_at_once(x):
    if x[0] < 0:
        os.kill(os.getpid(), signal.SIGINT)
    return x.square().sum()


def press_later(x):
    if -0.5 < x[0] < 0:
        os.kill(os.getpid(), signal.SIGINT)
    return x.square().sum()


def leave(x):
    raise SystemExit(0)
"""


@pytest.fixture
def place(tmp_path):
    """A working directory with the user's own problem in it."""
    (tmp_path / "problem.py").write_text(PROBLEM, encoding="utf-8")
    return tmp_path


def table(text: str) -> list[dict[str, str]]:
    """The rows of the table at the end of a sweep."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if re.match(r"job +overrides +status ", line))
    names = lines[start].split()
    columns = [lines[start].index(name) for name in names]
    rows = []
    for line in lines[start + 1 :]:
        if not re.match(r"\d", line):
            break
        ends = [*columns[1:], len(line)]
        rows.append({name: line[first:last].strip() for name, first, last in zip(names, columns, ends, strict=True)})
    return rows


def results(place: Path) -> list[dict]:
    files = sorted(
        place.glob("runs/multirun/*/*/*/result.json"), key=lambda path: int(path.parent.name.partition("-")[0])
    )
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_every_combination_is_a_run_in_a_directory_of_its_own_and_a_row(place):
    done = gradopt(
        *("-m", "objective=polynomial,rosenbrock", "optimiser=sgd,adam", "stop.max_steps=50", "seed=3"), cwd=place
    )

    assert (done.returncode, done.stderr) == (0, "")
    rows = table(done.stdout)
    assert [(row["job"], row["status"]) for row in rows] == [
        ("0", "converged"),
        ("1", "max_steps"),
        ("2", "diverged"),  # a failing verdict is a row like any other
        ("3", "max_steps"),
    ]
    assert rows[0]["loss"] == "-32"
    assert rows[3]["overrides"] == "objective=rosenbrock,optimiser=adam,stop.max_steps=50,seed=3"
    directories = {place / row["directory"] for row in rows}
    assert len(directories) == 4
    for directory in directories:
        assert (directory / "result.json").is_file()
        assert (directory / ".hydra" / "config.yaml").is_file()
        assert list(directory.glob("events.out.tfevents.*"))
        assert (directory / "history.npy").is_file()


def test_a_job_that_raises_is_a_row_the_others_still_run_and_the_exit_code_is_1(place):
    done = gradopt(
        *("-m", "objective=function", "objective.target=problem.py:fire", "objective.x0=[1],[-1],[2]"), cwd=place
    )

    assert done.returncode == 1
    assert done.stderr == ""
    assert [row["status"] for row in table(done.stdout)] == ["converged", "error", "converged"]
    assert "  job 1: RuntimeError: the reactor is on fire" in done.stdout.splitlines()
    logs = sorted(place.glob("runs/multirun/*/*/*/gradopt.log"))
    assert "problem.py" in next(log for log in logs if log.parent.name == "1-sgd").read_text()


def test_jobs_run_after_a_mistake_in_one_of_them(place):
    done = gradopt("-m", "optimiser.lr=0.01,-1,0.02", cwd=place)

    assert done.returncode == 1
    assert [row["status"] for row in table(done.stdout)] == ["converged", "error", "converged"]
    assert "  job 1: optimiser.lr must be >= 0, got -1.0" in done.stdout.splitlines()


def test_a_sweep_that_cannot_be_composed_runs_no_job_and_is_one_line(place):
    done = gradopt("-m", "objective=polynomial,polynomal", cwd=place)

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "there is no objective named 'polynomal'. Did you mean 'polynomial'?" in line
    assert not list(place.glob("runs/**/result.json"))


def test_rows_are_in_the_order_of_jobs_whatever_their_directories_are_called(place):
    done = gradopt(
        *("-m", "threads=auto,1,2", "objective=polynomial", "stop.max_steps=1", "hydra.sweep.subdir=${threads}"),
        cwd=place,
    )

    assert done.returncode == 0, done.stderr
    assert [(row["job"], Path(row["directory"]).name) for row in table(done.stdout)] == [
        ("0", "auto"),
        ("1", "1"),
        ("2", "2"),
    ]


@pytest.mark.parametrize("name", ["press_at_once", "press_later"])
def test_ctrl_c_ends_the_sweep_and_shows_the_jobs_so_far(place, name):
    done = gradopt(
        *("-m", "objective=function", f"objective.target=problem.py:{name}", "objective.x0=[1],[-1],[2]"), cwd=place
    )

    assert done.returncode == 130
    assert [row["status"] for row in table(done.stdout)] == ["converged", "interrupted"]
    assert "Traceback" not in done.stderr


def test_an_objective_that_ends_the_interpreter_is_an_error_of_its_job_alone(place):
    done = gradopt(
        *("-m", "objective=function", "objective.target=problem.py:leave,problem.py:fire", "objective.x0=[1]"),
        cwd=place,
    )

    assert done.returncode == 1
    assert [row["status"] for row in table(done.stdout)] == ["error", "converged"]
    assert "  job 0: SystemExit: 0" in done.stdout.splitlines()


def test_a_sweep_started_by_the_mode_is_a_sweep(place):
    done = gradopt("hydra.mode=MULTIRUN", "objective=rosenbrock", "stop.max_steps=20", cwd=place)

    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in table(done.stdout)] == ["diverged"]


def test_joblib_runs_jobs_in_workers_with_failures_as_rows(place):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra gradopt[joblib]")

    done = gradopt(
        *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "objective=function"),
        *("objective.target=problem.py:fire,problem.py:poison", "objective.x0=[1.5],[-1],[3]", "stop.max_steps=30"),
        cwd=place,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    statuses = [row["status"] for row in table(done.stdout)]
    assert statuses == ["max_steps", "error", "max_steps", "max_steps", "non_finite", "non_finite"]
    assert [result["status"] for result in results(place)] == statuses


@pytest.fixture
def optuna():
    """Skips where the sweeper is not installed; its old versions warn when imported, which is not ours to mend."""
    pytest.importorskip("optuna", reason="needs the extra gradopt[optuna]")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra gradopt[optuna]")
    return ("-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_jobs=1")


def chosen(place: Path) -> dict[str, str]:
    (file,) = place.glob("runs/multirun/*/*/optimization_results.yaml")
    return dict(re.findall(r"(\S+): (\S+)", file.read_text(encoding="utf-8")))


def test_optuna_finds_the_best_learning_rate_among_failing_ones(place, optuna):
    done = gradopt(
        *(*optuna, "hydra.sweeper.n_trials=8", "objective=rosenbrock", "stop.max_steps=50", "observers=[]"),
        "optimiser.lr=tag(log,interval(1e-5,1e-1))",
        cwd=place,
    )

    assert done.returncode == 0, done.stderr
    found = results(place)
    assert len(table(done.stdout)) == len(found) == 8
    statuses = {result["status"] for result in found}
    assert "diverged" in statuses
    assert "max_steps" in statuses
    best = min(result["fun"] for result in found if result["status"] == "max_steps")
    assert float(chosen(place)["best_value"]) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(("direction", "worst"), [("minimize", ".inf"), ("maximize", "-.inf")])
def test_runs_that_fail_or_raise_do_not_crash_an_optuna_sweep(place, optuna, direction, worst):
    done = gradopt(
        *(*optuna, "hydra.sweeper.n_trials=4", f"hydra.sweeper.direction={direction}", "observers=[]"),
        *("objective=function", "objective.target=choice(problem.py:fire,problem.py:poison)", "objective.x0=[-1]"),
        "optimiser.lr=interval(0.01,0.1)",
        cwd=place,
    )

    assert done.returncode == 1
    assert {row["status"] for row in table(done.stdout)} == {"error", "non_finite"}
    assert chosen(place)["best_value"] == worst


def test_an_optuna_study_in_a_database_goes_on_where_it_ended(place, optuna):
    arguments = (
        *(*optuna, "hydra.sweeper.n_trials=2", "hydra.sweeper.storage=sqlite:///study.db"),
        *("hydra.sweeper.study_name=study", "optimiser.lr=interval(0.001,0.01)", "stop.max_steps=5", "observers=[]"),
    )

    first = gradopt(*arguments, cwd=place)
    second = gradopt(*arguments, cwd=place)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    import optuna as library  # only here: it is an optional package

    study = library.load_study(study_name="study", storage=f"sqlite:///{place / 'study.db'}")
    assert len(study.trials) == 4
    assert all(trial.value < 64 for trial in study.trials)


def test_optuna_and_joblib_work_together(place, optuna):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra gradopt[joblib]")

    done = gradopt(
        *(*optuna[:-1], "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4", "hydra/launcher=joblib"),
        *("hydra.launcher.n_jobs=2", "objective=polynomial", "optimiser.lr=interval(0.001,0.01)", "stop.max_steps=5"),
        cwd=place,
    )

    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in table(done.stdout)] == ["max_steps"] * 4
