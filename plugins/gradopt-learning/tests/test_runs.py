"""Runs from the command line, as a user of the installed package makes them."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FAST = ("observers=[]", "objective=mlp", "optimiser=adam", "optimiser.lr=0.01")


def result_of(directory):
    (file,) = Path(directory).glob("runs/*/*/result.json")
    return json.loads(file.read_text(encoding="utf-8"))


RUNS = {
    # overrides, status, least test accuracy
    "minibatches": (("objective=mlp", "optimiser=adam", "optimiser.lr=0.01", "stop.max_epochs=20"), "max_epochs", 0.95),
    "full batch": (
        (*FAST, "objective.batch_size=null", "stop.max_steps=150", "schedule=cosine", "schedule.T_max=150"),
        "max_steps",
        0.95,
    ),
    "float32 with autocast, accumulated": (
        (*FAST, "dtype=float32", "objective.autocast=true", "objective.accumulate=4", "stop.max_epochs=15"),
        "max_epochs",
        0.95,
    ),
    "schedule on batches": (
        (*FAST, "stop.max_epochs=10", "schedule=cosine", "schedule.T_max=190", "objective.activation=tanh"),
        "max_epochs",
        0.95,
    ),
    "early stopping": (
        (*FAST, "criteria=[{name: early_stopping, metric: validation_accuracy, mode: max, patience: 5}]"),
        "stopped",
        0.95,
    ),
    "logistic regression": (
        (
            "objective=logistic_regression",
            "objective.l2=0.1",
            "optimiser=lbfgs",
            "observers=[console]",
        ),
        "converged",
        0.85,
    ),
    "groups of the optimiser": (
        (*FAST, "optimiser.weight_decay=0.01", "optimiser.groups={*.bias: {weight_decay: 0}}", "stop.max_epochs=2"),
        "max_epochs",
        0.8,
    ),
    "groups of the objective": (
        (*FAST, "objective.groups={*.bias: {weight_decay: 0, lr: 0.02}}", "stop.max_epochs=2"),
        "max_epochs",
        0.8,
    ),
    "preset of an objective": (
        ("objective=mlp_wide", "optimiser=adam", "stop.max_epochs=8", "observers=[console]"),
        "max_epochs",
        0.85,
    ),
    "other preset": (
        ("objective=logistic_regression_minibatch", "optimiser=sgd", "optimiser.lr=0.5", "stop.max_epochs=8"),
        "max_epochs",
        0.9,
    ),
    "experiment": (("+experiment=digits_mlp", "observers=[console]"), "stopped", 0.95),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_run_ends_as_it_should(case, gradopt, tmp_path):
    overrides, status, accuracy = RUNS[case]

    done = gradopt(*overrides)

    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(tmp_path)
    assert result["status"] == status, result["message"]
    assert result["success"] is (status == "converged")
    assert result["metrics"]["test_accuracy"] >= accuracy
    assert set(result["metrics"]) == {"train_accuracy", "validation_accuracy", "validation_loss", "test_accuracy"}


def test_a_sweep_over_batch_sizes_is_a_table(gradopt):
    done = gradopt("-m", *FAST, "objective.batch_size=32,128", "stop.max_epochs=1")

    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.rpartition("overrides")[2]
    assert rows.count("max_epochs") == 4  # the override and the status of two jobs


UNREAD = {
    # mistakes that are found before torch is imported
    "activation": (["objective.activation=rulu"], "objective.activation=rulu is not one of relu, tanh, gelu"),
    "l2": (["objective.l2=-1"], "objective.l2 must be >= 0, got -1"),
    "fraction": (["objective.test_fraction=1"], "objective.test_fraction must be < 1, got 1"),
    "hidden": (["objective.hidden=[32,0]"], "objective.hidden[1] must be >= 1, got 0"),
    "batch size of 0": (["objective.batch_size=0"], "objective.batch_size must be >= 1, got 0"),
    "autocast": (["objective.autocast=maybe"], "objective.autocast"),
    "misspelt": (["objective.batchsize=2"], "Did you mean 'batch_size'"),
}

READ = {
    "batch size": (["objective.batch_size=5000"], "objective.batch_size=5000 must be between 1 and 1257"),
    "accumulate": (["objective.accumulate=3"], "objective.accumulate=3 must divide objective.batch_size=64"),
    "autocast of float64": (["objective.autocast=true"], "say dtype=float32"),
    "epochs of the full batch": (["objective.batch_size=null", "stop.max_epochs=2"], "use stop.max_steps"),
    "group": (["objective.groups={*.bais: {lr: 0.1}}"], "the group '*.bais' matches none of the unknowns"),
    "option of a group": (["optimiser.groups={*.bias: {lrr: 0.1}}"], "no option 'lrr'. Did you mean 'lr'?"),
    "metric": (
        ["criteria=[{name: early_stopping, metric: validation_acuracy}]"],
        "Did you mean 'validation_accuracy'",
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_mistake_is_one_line_and_exit_code_2(case, gradopt):
    given, expected = READ[case]

    done = gradopt(*FAST, *given)

    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("gradopt: error: ")
    assert expected in line


@pytest.mark.parametrize("case", UNREAD)
def test_a_mistake_in_the_config_is_found_before_torch_is_imported(case, gradopt):
    given, expected = UNREAD[case]

    done = gradopt(*FAST, *given, python=("-X", "importtime"))

    imports = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert expected in line
    assert "gradopt.settings" in imports
    assert not {"torch", "sklearn"}.intersection(imports)


def test_the_module_gradopt_imports_at_every_start_is_light():
    code = "import sys, gradopt_learning; print(sorted({'torch', 'sklearn', 'numpy'}.intersection(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_help_lists_the_options(gradopt):
    done = gradopt("objective=mlp", "--help")

    assert done.returncode == 0
    assert "A multilayer perceptron on the digits" in done.stdout
    assert "Multinomial logistic regression on the digits" in done.stdout
    for option in ("hidden: ", "activation: ", "batch_size: ", "accumulate: ", "autocast: bool = False"):
        assert f"objective.{option}" in done.stdout


def test_the_plugin_is_listed_with_what_it_offers(gradopt):
    done = gradopt("plugins")

    assert "learning  (gradopt-learning 0.1.0)" in done.stdout
    assert "objective: logistic_regression, mlp" in done.stdout
    assert "pkg://gradopt_learning.configs" in done.stdout
    assert "BROKEN" not in done.stdout


def commands():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line)[3:] for line in text.splitlines() if line.startswith("    python -m gradopt ")]


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: " ".join(arguments)[:60])
def test_the_commands_of_the_readme_run(arguments, gradopt):
    done = gradopt(*arguments, "stop.max_steps=2", "observers=[]")

    assert done.returncode == 0, done.stderr
    assert len(commands()) == 9
