"""What is read of runs, whatever has become of their files."""

import subprocess
import sys

import numpy
import pytest

from gradopt.board_tab.basins import basins
from gradopt.board_tab.leaderboard import board, kind
from gradopt.board_tab.runs import RunDirectories, roots
from gradopt.comparison.records import find
from gradopt.verdict import Status
from tests.board_tab.files import write_run


def read(place):
    return RunDirectories({"": place}).read()


def test_the_tab_is_made_without_torch():
    program = (
        "import sys; import gradopt.board_tab.entry; assert 'gradopt.board_tab.tab' not in sys.modules;"
        "import gradopt.board_tab.tab; assert 'torch' not in sys.modules; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


def test_runs_are_found_with_their_results_configs_and_traces(tmp_path):
    write_run(tmp_path / "sweep" / "b", losses=(4.0, 7.0, float("nan"), 1.0), each=3)
    write_run(tmp_path / "sweep" / "a", status="unbounded", fun=float("-inf"))

    runs = read(tmp_path)
    a, b = runs.values()

    assert list(runs) == ["sweep/a", "sweep/b"]
    assert (a.status, a.loss) == ("unbounded", float("-inf"))
    assert b.config["optimiser.lr"] == 0.1 and b.config["objective.n"] == 2
    assert b.trace.loss.tolist() == [4.0, 1.0] and b.trace.evaluations.tolist() == [3.0, 12.0]


def test_a_run_without_a_result_is_unfinished_and_shows_how_far_it_came(tmp_path):
    write_run(tmp_path / "run", losses=(5.0, 2.0, 3.0), status="unfinished")

    (row,) = board(read(tmp_path))["runs"]

    assert (row["status"], row["kind"]) == ("no result", "open") and "was killed" in row["message"]
    assert (row["loss"], row["steps"], row["evaluations"]) == (2.0, 2.0, 3.0)


BREAKS = {
    "torn result": ("result.json", b'{"gradopt": "0.1.0", "status": "conv', "torn result"),
    "empty result": ("result.json", b"", "torn result"),
    "result not text": ("result.json", b"\xff\xfe\x00\x01", "torn result"),
    "result of a list": ("result.json", b"[1, 2]", "torn result"),
    "nested without end": ("result.json", b"[" * 100_000, "torn result"),
    "torn history": ("history.npy", b"\x93NUMPY\x01\x00\xf6\x03{'descr': [('step', '<f8'), ('lo", "converged"),
    "history of objects": ("history.npy", b"\x80\x04\x95", "converged"),
    "empty history": ("history.npy", b"", "converged"),
    "broken config": (".hydra/config.yaml", b"a: [1,\nb: {", "converged"),
    "config of a list": (".hydra/config.yaml", b"- 1\n", "converged"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_file_costs_what_it_held_and_nothing_else(case, tmp_path):
    file, content, status = BREAKS[case]
    write_run(tmp_path / "good", seed=1)
    (write_run(tmp_path / "broken") / file).write_bytes(content)

    runs = read(tmp_path)

    assert [run.status for run in runs.values()] == [status, "converged"]
    assert [row["kind"] for row in board(runs)["runs"]][-1] == "success"


def test_a_history_and_starts_that_are_cut_are_left_out_and_said(tmp_path):
    place = write_run(tmp_path / "run")
    numpy.savez(place / "starts.npz", x0=numpy.zeros((9, 2)), basin=numpy.zeros(9))
    for name in ("history.npy", "starts.npz"):
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[:-8])

    (run,) = read(tmp_path).values()

    assert run.trace is None and run.status == "converged"
    assert board({"run": run})["runs"][0]["reason"] == "history.npy and starts.npz cannot be read"
    assert basins(run)["torn"] and basins(run)["map"] is None


def test_a_directory_in_the_place_of_a_result_is_a_row_that_says_so(tmp_path):
    place = write_run(tmp_path / "run")
    (place / "result.json").unlink()
    (place / "result.json").mkdir()

    (row,) = board(read(tmp_path))["runs"]

    assert (row["status"], row["message"]) == ("torn result", "result.json cannot be read")


@pytest.mark.parametrize("files", [("result.json",), ("history.npy",), ("result.json", "history.npy")])
def test_what_is_broken_without_a_config_is_a_row_that_says_so(files, tmp_path):
    (tmp_path / "run").mkdir()
    for file in files:
        (tmp_path / "run" / file).write_bytes(b'{"status": "conv')

    (row,) = board(read(tmp_path))["runs"]

    status = "torn result" if "result.json" in files else "no result"
    assert (row["status"], row["objective"], bool(row["message"])) == (status, "?", True)
    assert [record.status for record in find([tmp_path])] == [status]


def test_a_broken_config_alone_is_a_row(tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text("a: [1,\nb: {")

    (row,) = board(read(tmp_path))["runs"]

    assert row["status"] == "no result"


def test_what_no_reader_foresees_is_a_row_with_the_reason(tmp_path, monkeypatch):
    write_run(tmp_path / "run")
    monkeypatch.setattr("gradopt.comparison.records.yaml.load", lambda *_: 1 / 0)

    (row,) = board(read(tmp_path))["runs"]

    assert (row["status"], row["kind"]) == ("torn result", "error")
    assert row["message"].startswith("ZeroDivisionError: ")


@pytest.mark.parametrize("content", ['{"accuracy": 0.9}', "[]"])
def test_results_of_other_programs_are_no_runs(content, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text(content)
    numpy.save(tmp_path / "other" / "history.npy", numpy.zeros(3))

    assert read(tmp_path) == {} and not RunDirectories({"": tmp_path}).exist()


def test_a_run_is_read_again_when_it_has_changed(tmp_path):
    place = write_run(tmp_path / "run", status="unfinished")
    directories = RunDirectories({"": tmp_path})
    first = directories.read()["run"]

    assert directories.read()["run"] is first
    (place / "result.json").write_text('{"gradopt": "0.1.0", "status": "stalled"}')
    assert directories.read()["run"].status == "stalled"


def test_what_is_not_there_holds_no_runs(tmp_path):
    assert read(tmp_path / "missing") == {}
    (tmp_path / "file").write_text("")
    assert read(tmp_path / "file") == {}


def test_the_flags_of_tensorboard_name_directories(tmp_path):
    assert roots(f"{tmp_path}") == {"": tmp_path}
    assert roots("", f"first:{tmp_path},{tmp_path}/b") == {"first": tmp_path, f"{tmp_path}/b": tmp_path / "b"}
    assert roots("gs://bucket/runs") == roots("", "") == {}
    write_run(tmp_path / "a" / "run")
    assert list(RunDirectories(roots("", f"mine:{tmp_path}/a")).read()) == ["mine/run"]


def test_one_start_is_labelled_with_nothing_of_how_many_are_drawn(tmp_path):
    for name, text in {
        "a": "starts: 64",
        "b": "starts:\n  number: 8\n  sampler: sobol",
        "c": "starts:\n  number: null",
    }.items():
        config = write_run(tmp_path / name) / ".hydra" / "config.yaml"
        config.write_text(config.read_text().replace("starts:\n  number: null", text))

    rows = board(read(tmp_path))["runs"]

    assert [row["objective"] for row in rows] == [
        "rosenbrock starts.number=64",
        "rosenbrock starts.number=8",
        "rosenbrock",
    ]


def test_a_directory_that_is_itself_a_run_is_one(tmp_path):
    write_run(tmp_path / "run")

    assert list(read(tmp_path / "run")) == ["."]


def test_what_links_lead_to_is_read_once_though_they_go_round(tmp_path):
    write_run(tmp_path / "elsewhere" / "run")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "up").symlink_to(root, target_is_directory=True)

    assert list(read(root)) == ["a/run"]


def test_medians_are_over_runs_that_differ_in_their_seeds_alone(tmp_path):
    for seed, loss in enumerate((3.0, 1.0, 2.0)):
        write_run(tmp_path / f"adam{seed}", seed=seed, fun=loss)
    write_run(tmp_path / "other", lr=0.2, fun=7.0, status="diverged")

    found = board(read(tmp_path))
    first, second = found["groups"]

    assert (first["optimiser"], first["runs"], first["succeeded"], first["loss"]) == ("adam lr=0.1", 3, 3, 2.0)
    assert (second["optimiser"], second["runs"], second["succeeded"], second["loss"]) == ("adam lr=0.2", 1, 0, 7.0)
    assert [(row["loss"], row["group"]) for row in found["runs"]] == [(3.0, 0), (1.0, 0), (2.0, 0), (7.0, 1)]


def test_the_best_comes_first_and_failures_last_as_in_the_comparison(tmp_path):
    for name, losses, status in (
        ("a-failing", (10.0, 0.0), "diverged"),
        ("b-poor", (10.0, 4.0), "max_steps"),
        ("c-slow", (10.0, 5.0, 1e-9), "converged"),
        ("d-quick", (10.0, 1e-8), "converged"),
    ):
        write_run(tmp_path / name, optimiser=name, losses=losses, status=status)

    found = board(read(tmp_path))

    for rows in (found["runs"], found["groups"]):
        ranked = sorted(rows, key=lambda row: row["rank"])
        assert [row["optimiser"].split()[0] for row in ranked] == ["d-quick", "c-slow", "b-poor", "a-failing"]
        assert [row["cost"] for row in ranked] == [2.0, 3.0, float("inf"), 2.0]


def test_every_status_has_a_kind():
    assert {status: kind(status.value) for status in Status if status.success} == dict.fromkeys(
        (Status.CONVERGED, Status.TARGET_REACHED, Status.NOISE_FLOOR), "success"
    )
    assert kind("unbounded") == kind("stalled") == "failure"
    assert kind("max_steps") == kind("interrupted") == "exhausted"
    assert (kind("error"), kind("torn result"), kind("no result")) == ("error", "error", "open")
    assert kind("of a later version") == "exhausted"
