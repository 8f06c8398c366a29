"""What a user reads who made a mistake: one line, the right exit code, and quickly where torch is not needed."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.installed import environment, gradopt

PROBLEMS = """
import torch


def loss(x):
    return (x**2).sum()


def through_numpy(x):
    import numpy

    return numpy.sin(x).sum()


def vector(x):
    return x**2


def constant(x):
    return torch.tensor(1.0)


def bug(x):
    raise ZeroDivisionError("mine")


def endless(x):
    return (1e-12 * (x - 3) ** 2).sum()
"""
FUNCTION = "objective=function objective.target=problems.py"

# Found before torch is imported: these answer at once.
EARLY = [
    ("objective=polynomal", "no objective named 'polynomal'. Did you mean 'polynomial'? Available: "),
    ("optimiser=adm", "no optimiser named 'adm'. Did you mean 'adam'"),
    ("schedule=cosin", "no schedule named 'cosin'. Did you mean 'cosine'?"),
    ("objetive=foo", "no option 'objetive'. Did you mean 'objective'?"),
    ("stop.max_step=3", "no option 'stop.max_step'. Did you mean 'max_steps'"),
    ("objective.coeffs=1", "no option 'objective.coeffs'. Did you mean 'coefficients'? Available: bounds,"),
    ("+objective.zzz=1", "no option objective.zzz. Available: coefficients, x0, bounds."),
    ("optimiser.lr=abc", "optimiser.lr: Value 'abc' of type 'str' could not be converted to Float"),
    ("optimiser.lr=-1", "optimiser.lr must be >= 0, got -1.0"),
    ("optimiser=adam optimiser.betas=[0.9,2]", "optimiser.betas[1] must be < 1, got 2.0"),
    ("stop.max_steps=-1", "stop.max_steps must be 0 or more, got -1"),
    ("stop.max_steps=abc", "stop.max_steps: Value 'abc'"),
    ("objective=rosenbrock objective.n=0", "objective.n must be >= 2, got 0"),
    ("objective=function", "needs objective.target; say objective.target=..."),
    (f"{FUNCTION}:loss", "needs objective.x0; say objective.x0=..."),
    ("device=gpu", "device=gpu is not one of auto, cpu, cuda, cuda:N, mps."),
    ("dtype=float16", "dtype=float16 is not one of float32, float64. Did you mean"),
    ("engine=fast", "engine=fast is not one of auto, eager, native, compiled, cuda_graph."),
    ("objective=function objective.target=nofile.py:f objective.x0=1", "there is no file 'nofile.py' in "),
    ("objective=null", "a config group needs a name, and was given null; say objective=NAME"),
    ("plugin", "there is no command 'plugin'. Did you mean 'plugins'?"),
    ("objective.x0=[1,", "cannot read the override 'objective.x0=[1,'"),
    ("objective=rosenbrock,polynomial", "several values need -m, one run for each"),
    ("observers=console", "observers must be a list, got console: say 'observers=[console]'"),
    ("observers=console,history", "observers must be a list, got console,history: say 'observers=[console,history]'"),
    ("observers={name:console}", "observers must be a list, got {name:console}: say 'observers=[{name:console}]'"),
    ("observers=null", "observers must be a list, got null: say 'observers=[]'"),
    ("-m observers=console", "observers must be a list, got console: say 'observers=[console]'"),
    ("criteria=3", "criteria must be a list, got 3: say 'criteria=[3]'"),
    ("observers=[3]", "observer must be a NAME, or {name: NAME, option: ...} with options, got 3"),
    ("observers=[[console]]", "observer must be a NAME, or {name: NAME, option: ...} with options, got ['console']"),
    ("+objective=rosenbrock", "objective is chosen twice: say objective=NAME, once and without +"),
    ("+unknown=1", "there is no option 'unknown'. Available: objective, optimiser,"),
    ("criteria=[early]", "no criterion named 'early'"),
    ("observers=[tensorbord]", "no observer named 'tensorbord'. Did you mean 'tensorboard'?"),
    ("optimiser=adam optimiser.betas=[0.9]", "optimiser.betas must be 2 values, got [0.9]"),
    ("seed=-1", "seed=-1 is not in the range 0 to 2^63 - 1"),
    ("schedule=step schedule.step_size=0", "schedule.step_size must be >= 1, got 0"),
    ("criteria=[early_stopping]", "needs criterion.metric; say 'criteria=[{name: early_stopping, metric: ...}]'"),
    ("objective=function objective.target=foo objective.x0=1", "foo is not of the form file.py:name or module:name"),
    ("-sc install=bash", 'completion is of the console script: eval "$(gradopt -sc install=bash)"'),
    ("~optimiser", "no optimiser is chosen; say optimiser=NAME"),
    ("~optimiser.lr", "optimiser.lr cannot be taken out; for its default, say nothing of it"),
    ("optimiser.rl=0.1", "no option 'optimiser.rl'. Did you mean 'lr'?"),
    ("optimiser.learning_rate=0.1", "Did you mean 'lr'?"),
    ("--config-name foo", "no config 'foo' to begin with: --config-name and --config-path put another in the place of"),
    ("--halp", "no switch '--halp'. Did you mean '--help'"),
    ("-x", "no switch '-x'. Switches: --help,"),
    ("--cfg", "--cfg needs one of job, hydra, all"),
    ("--cfg jbo", "--cfg takes one of job, hydra, all, got 'jbo'. Did you mean 'job'?"),
    ("--disable-plugin", "--disable-plugin needs a value; gradopt plugins lists their names"),
    ("--disable-plugin -m", "--disable-plugin needs a value"),
    ("--resolve", "The --resolve flag can only be used in conjunction with --cfg"),
    ("threads=0", "threads=0 is neither 'auto' nor a number from 1 to "),
    ("threads=20000", "threads=20000 is neither 'auto' nor a number from 1 to "),
]

# These need torch, or the user's own file.
LATE = [
    ("device=cuda:7", "device=cuda:7: there "),
    (f"{FUNCTION}:lss objective.x0=1", "problems.py defines no 'lss'. Did you mean 'loss'"),
    ("objective=function objective.target=broken.py:f objective.x0=1", "broken.py could not be imported: Module"),
    (f"{FUNCTION}:loss objective.x0=abc", "the start x = 'abc' is no number, list of numbers or tensor"),
    (f"{FUNCTION}:loss objective.x0=9 objective.bounds=[0,1]", "x = 9 is not in [0, 1]; move x0 or the bounds"),
    (f"{FUNCTION}:vector objective.x0=[1,2]", "must be one number, it has shape (2,); take its sum or mean"),
    (f"{FUNCTION}:through_numpy objective.x0=[1,2]", "passes its unknowns through NumPy, which has no gradients"),
    (f"{FUNCTION}:constant objective.x0=[1,2]", "no grad_fn"),
    ("optimiser=muon", "Muon only supports 2D parameters"),
    ("optimiser=sparseadam", "SparseAdam takes sparse gradients only"),
    ("optimiser=torch_lbfgs", "LBFGS cannot keep bounds: its step mixes all unknowns; use an elementwise optimiser"),
    ("optimiser.groups={x:{lrr:1}}", "a parameter group of SGD has no option 'lrr'. Did you mean 'lr'? Available: lr,"),
    ("optimiser.groups={x:{lr:-1}}", "SGD refuses these parameters or options: Invalid learning rate: -1"),
    ("optimiser.groups={x:3}", "the group 'x' must be {option: value}, such as {lr: 0.1}, got 3"),
    ("optimiser=adam optimiser.maximize=true", "Adam with maximize=True climbs, and gradopt minimises"),
    ("optimiser=adam optimiser.capturable=true", "capturable=True needs its parameters on an accelerator"),
    ("optimiser=sgd optimiser.differentiable=true", "SGD with differentiable=True cannot step on leaf tensors"),
    (
        "schedule=one_cycle schedule.max_lr=0.1 schedule.total_steps=10",
        "the schedule ends after 10 updates, and the run may make up to 10000 steps",
    ),
    ("hydra.run.dir=/proc/x", "the directory of the run cannot be made"),
    ("optimiser=custom optimiser.target=no_package:X", "module 'no_package' could not be imported"),
]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "problems.py").write_text(PROBLEMS)
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    return tmp_path


def assert_one_line(done, part):
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("gradopt: error: ")
    assert part in lines[0]


@pytest.mark.parametrize(("overrides", "part"), EARLY)
def test_a_mistake_is_told_before_torch_is_imported(overrides, part, place):
    # A torch that cannot be imported stands first on the path; its optimisers can still be read by name.
    import torch

    fake = place / "site" / "torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    (fake / "optim").symlink_to(Path(torch.__file__).parent / "optim")

    done = gradopt(*overrides.split(), cwd=place, path=place / "site")

    assert_one_line(done, part)


@pytest.mark.parametrize(("overrides", "part"), LATE)
def test_a_mistake_is_one_line(overrides, part, place):
    assert_one_line(gradopt(*overrides.split(), cwd=place), part)


@pytest.mark.alone
@pytest.mark.slow
def test_a_mistake_is_told_in_half_the_time_of_importing_torch(place):
    def cpu(*command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=place, env=environment(), capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    ratios = sorted(cpu("-m", "gradopt", "objective=polynomal") / cpu("-c", "import torch") for _ in range(5))

    assert ratios[2] < 0.5, ratios


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ("objective=polynomial", 0),
        ("objective=polynomial stop.max_steps=2", 0),
        ("objective=polynomial objective.bounds=null", 3),
    ],
)
def test_the_exit_code_follows_the_verdict(overrides, code, tmp_path):
    done = gradopt(*overrides.split(), cwd=tmp_path)

    assert done.returncode == code
    [result] = tmp_path.glob("runs/*/*/result.json")
    content = json.loads(result.read_text())
    assert content["status"] in done.stdout
    assert content["exit_code"] == code


def test_an_error_of_the_objective_is_a_traceback_and_a_result(place):
    done = gradopt(*f"{FUNCTION}:bug objective.x0=[1,2]".split(), cwd=place)

    assert done.returncode == 1
    assert done.stderr.count("ZeroDivisionError: mine") == 1
    [result] = place.glob("runs/*/*/result.json")
    assert json.loads(result.read_text())["status"] == "error"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_best_point(number, code, place):
    words = f"{FUNCTION}:endless objective.x0=[1,2] stop.max_seconds=200".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "gradopt", *words],
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not list(place.glob("runs/*/*/history.npy")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)

    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == code, out + err
    [result] = place.glob("runs/*/*/result.json")
    content = json.loads(result.read_text())
    assert (content["status"], content["exit_code"]) == ("interrupted", code)
    assert len(content["x"]["x"]) == 2
    assert "interrupted" in out


@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["objective=polynomial"]], ids=str)
def test_a_reader_that_has_seen_enough_causes_no_traceback(words, tmp_path):
    command = f"'{sys.executable}' -m gradopt {' '.join(words)} | head -n 1"

    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_help_lists_what_can_be_chosen(tmp_path):
    done = gradopt("optimiser=adam", "--help", cwd=tmp_path)

    assert done.returncode == 0
    for name in ("polynomial", "rosenbrock", "adam", "cosine", "early_stopping", "tensorboard", "stop.max_steps"):
        assert name in done.stdout
    assert "optimiser.betas" in done.stdout
    assert "(0.9, 0.999)" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_refused_run_leaves_its_mistake_behind_or_nothing(tmp_path):
    gradopt("optimiser=adm", cwd=tmp_path)
    assert os.listdir(tmp_path) == []

    gradopt("optimiser.lr=-1", cwd=tmp_path)
    [result] = tmp_path.glob("runs/*/*/result.json")
    content = json.loads(result.read_text())
    assert (content["status"], content["exit_code"]) == ("error", 2)
    assert content["message"] == "optimiser.lr must be >= 0, got -1.0"


@pytest.mark.parametrize("words", ["--cfg=job -p stop", "-c job --resolve", "--info searchpath"])
def test_hydras_switches_still_work(words, tmp_path):
    done = gradopt(*words.split(), cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_and_hydras_own_switches_are_reached(tmp_path):
    version = gradopt("--version", cwd=tmp_path)
    config = gradopt("--cfg", "job", cwd=tmp_path)

    assert version.stdout.startswith("gradopt 0.")
    assert "coefficients:" in config.stdout
    assert (version.returncode, config.returncode) == (0, 0)
