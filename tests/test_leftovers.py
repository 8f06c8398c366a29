"""A directory that is used again, a disk that is full, and a directory that cannot be written."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from gradopt import pictures
from gradopt.description import STARTS_FILES
from gradopt.leftovers import FILES, clear
from tests.installed import gradopt, python

WELLS = "def wells(x):\n    return ((x**2 - 1) ** 2 + 0.1 * x).sum()\n"

MANY = (
    *("objective=function", "objective.target=wells.py:wells", "objective.bounds=[[-2,-2],[2,2]]"),
    *("objective.x0=[0.9,0.9]", "optimiser=lbfgs", "hydra.run.dir=runs/one"),
)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "wells.py").write_text(WELLS, encoding="utf-8")
    return tmp_path


def test_all_that_a_run_leaves_is_known():
    assert {*pictures.FILES, *STARTS_FILES.values()} < set(FILES)


def test_a_run_in_the_directory_of_another_leaves_nothing_of_it(place):
    assert gradopt(*MANY, "starts=16", cwd=place).returncode == 0
    run = place / "runs" / "one"
    before = {file.name for file in run.iterdir()}
    (run / "mine.txt").touch()

    done = gradopt(*MANY, "observers=[]", cwd=place)

    assert done.returncode == 0, done.stderr
    assert {"starts.pt", "starts.npz", "starts.png", "convergence.png", "history.npy"} < before
    assert {file.name for file in run.iterdir() if not file.name.startswith("events")} == {
        *(".hydra", "gradopt.log", "result.json", "mine.txt")
    }


def test_a_run_that_is_refused_shows_nothing_of_another(place):
    assert gradopt(*MANY, "starts=16", cwd=place).returncode == 0

    assert gradopt(*MANY, "optimiser.history_size=0", cwd=place).returncode == 2

    content = json.loads((place / "runs" / "one" / "result.json").read_text(encoding="utf-8"))
    assert content["status"] == "error" and not (place / "runs" / "one" / "history.npy").exists()


def test_where_no_run_was_nothing_is_removed(tmp_path):
    (tmp_path / "graph.png").touch()

    clear(tmp_path)

    assert (tmp_path / "graph.png").exists()


LIMITED = """
import resource, sys
import torch
from gradopt.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to files")
@pytest.mark.parametrize(("optimiser", "code"), [("lbfgs", 0), ("sgd", 3)])
def test_a_result_that_finds_no_room_costs_a_warning_and_the_verdict_counts(optimiser, code, place):
    done = python(
        *("-c", LIMITED, "600", "objective=rosenbrock", f"optimiser={optimiser}", "observers=[console]"),
        *("hydra.run.dir=run", "hydra.output_subdir=null", "hydra/job_logging=none"),
        cwd=place,
    )

    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == "gradopt: warning: the result cannot be written to run: File too large"
    assert list((place / "run").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to files")
def test_starts_that_find_no_room_cost_no_result(place):
    done = python(*("-c", LIMITED, "20000", *MANY, "starts=400", "observers=[]"), cwd=place)

    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == "gradopt: warning: the result cannot be written to runs/one: File too large"
    content = json.loads((place / "runs" / "one" / "result.json").read_text(encoding="utf-8"))
    assert content["starts"]["number"] == 400
    assert not [
        file.name for file in (place / "runs" / "one").iterdir() if "part" in file.name or "starts" in file.name
    ]


@contextmanager
def small_disk(place, size):
    """A file system of its own; skips where it may not be mounted."""
    place.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", os.fspath(place))
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system can be mounted by root alone")
    try:
        yield place
    finally:
        subprocess.run(("umount", "-l", os.fspath(place)), check=True)


TOLD = (
    "gradopt: WARNING: the disk takes no more ({}): curves, pictures and history may be missing or cut short; "
    "the run goes on"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to files")
@pytest.mark.parametrize("voice", [[], ["--quiet"], ["--json"]])
def test_curves_and_history_that_find_no_room_cost_one_warning_that_is_seen_whoever_reads(voice, place):
    words = ("objective=rosenbrock", "optimiser=lbfgs", "observers=[console,history,tensorboard]", "hydra.run.dir=run")

    done = python("-c", LIMITED, "3000", *words, "hydra.output_subdir=null", *voice, cwd=place)

    assert done.returncode == 0 and "converged" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line == TOLD.format("File too large")


@pytest.mark.slow
def test_on_a_full_disk_the_verdict_counts_and_no_part_of_a_file_is_left(place):
    with small_disk(place / "disk", "256k") as disk:
        (disk / "filler").write_bytes(bytes(200_000))
        done = gradopt(
            *("objective=rosenbrock", "optimiser=adam", "stop.max_steps=20000", "hydra.run.dir=disk/run"), cwd=place
        )
        left = [file.name for file in (disk / "run").iterdir()]
        table = gradopt("compare", "disk", "--no-pictures", cwd=place)

    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == TOLD.format("No space left on device")
    assert not [name for name in left if name.endswith(".part")]
    assert table.returncode == 0 and "rosenbrock  adam" in table.stdout


@pytest.mark.slow
def test_a_directory_that_becomes_read_only_costs_a_warning(place):
    program = "import os, sys\nfrom gradopt.cli import main\nmain(sys.argv[1:])\n"
    (place / "lock.py").write_text(
        "import subprocess\n\n\ndef lock(x):\n"
        "    subprocess.run(['mount', '-o', 'remount,ro', 'disk'], check=True)\n    return (x**2).sum()\n"
    )
    with small_disk(place / "disk", "4m") as disk:
        done = python(
            *("-c", program, "objective=function", "objective.target=lock.py:lock", "objective.x0=[1]"),
            *("optimiser=lbfgs", "hydra.run.dir=disk/run"),
            cwd=place,
        )
        left = [file.name for file in (disk / "run").iterdir() if file.name.endswith((".json", ".part"))]

    assert done.returncode == 0, done.stderr
    told, result = done.stderr.splitlines()
    assert told == TOLD.format("Read-only file system")
    assert result == "gradopt: warning: the result cannot be written to disk/run: Read-only file system"
    assert left == []
