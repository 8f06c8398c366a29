"""The package as a user meets it."""

import importlib
import json

import pytest
from gradopt_problems.names import problems

import gradopt


@pytest.mark.parametrize("name", problems())
def test_every_name_builds_its_problem(name):
    module, _, cls = problems()[name].partition(":")

    problem = getattr(importlib.import_module(module), cls)()

    assert isinstance(problem, gradopt.Objective)
    assert problem().isfinite()
    assert problem.SOURCE in problem.describe()


def test_a_problem_runs_from_the_command_line(gradopt, tmp_path):
    done = gradopt("objective=mgh/helical_valley", "objective.scale=10", "optimiser=levenberg_marquardt")

    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("runs/*/*/result.json")).read_text())
    assert result["status"] == "converged"
    assert result["x"]["x"] == pytest.approx([1.0, 0.0, 0.0], abs=1e-9)


def test_many_problems_in_one_multirun_become_one_table(gradopt):
    done = gradopt("-m", "objective=mgh/beale,nist/misra1a", "optimiser=auto")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("converged") >= 2
    assert "objective=nist/misra1a" in done.stdout


def test_a_misspelt_problem_is_guessed(gradopt):
    done = gradopt("objective=mgh/helical_vally")

    assert done.returncode == 2
    assert "Did you mean 'mgh/helical_valley' or 'bounded/helical_valley'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_lists_families_not_names_one_by_one(gradopt):
    done = gradopt("--help")

    assert done.returncode == 0
    assert "mgh/..." in done.stdout
    assert len(done.stdout.splitlines()) < 130
