"""`gradopt board`, started for real."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from gradopt.board import COLOURS, board, link
from gradopt.comparison.records import Record
from gradopt.observers import events
from gradopt.observers.event_file import EventFile
from tests.installed import environment, gradopt

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")


@pytest.fixture
def runs(tmp_path):
    """Two runs with a point each."""
    for name in ("0-sgd", "1-adam"):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        (directory / "result.json").write_text(
            json.dumps({"status": "converged", "overrides": [f"optimiser={name[2:]}"]}), encoding="utf-8"
        )
        file = EventFile(directory)
        file.write([events.described_scalar("opt/loss", 1.0)])
        file.close()
    return tmp_path


@pytest.fixture
def taken():
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(place, *arguments, **variables):
    return subprocess.Popen(
        [sys.executable, "-m", "gradopt", "board", *arguments],
        cwd=place, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def children(number):
    return [int(word) for word in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


def is_alive(number):
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=[pytest.mark.alone, pytest.mark.slow])]
)
def test_it_serves_the_runs_to_this_machine_until_it_is_ended_with_all_its_processes(runs, number):
    port = free_port()
    process = start(runs, "--port", str(port))
    try:
        assert process.stdout.readline() == "2 runs in runs; Ctrl-C ends it\n"
        address = process.stdout.readline().strip()
        assert address.startswith(f"http://127.0.0.1:{port}/?smoothing=0&")
        assert b"<html" in urllib.request.urlopen(address).read()
        wait_until(lambda: len(json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs"))) == 2)
        started = children(process.pid)
        assert len(started) == (find_spec("tensorboard_data_server") is not None)
        for child in started:
            command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            assert "--samples-per-plugin=scalars=5000,images=200" in command
            assert "--reload=2" in command
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
        wait_until(lambda: not any(map(is_alive, started)))
    finally:
        process.kill()
        process.communicate()


def hparams(address):
    body = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": ["STATUS_SUCCESS"], "colParams": []}
    request = urllib.request.Request(
        f"{address}/data/plugin/hparams/session_groups", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["sessionGroups"]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(
    ("loader", "number"), [("fast", signal.SIGINT), ("slow", signal.SIGINT), ("slow", signal.SIGTERM)]
)
def test_one_run_is_served_by_its_name_with_its_metrics_among_hparams(tmp_path, loader, number):
    words = ["objective=rosenbrock", "optimiser=lbfgs", "observers=[tensorboard]", "hydra.run.dir=runs/mine"]
    assert gradopt(*words, cwd=tmp_path).returncode == 0
    if loader == "fast" and find_spec("tensorboard_data_server") is None:
        pytest.skip("needs the extra gradopt[board]")
    temporary, port = tmp_path / "temporary", free_port()
    temporary.mkdir()
    variables = {} if loader == "fast" else {"TENSORBOARD_DATA_SERVER_BINARY": str(tmp_path / "none")}
    place = tmp_path / "runs" / "mine"  # from inside, it is called `.` on the command line, too
    process = start(place, ".", "--port", str(port), TMPDIR=str(temporary), **variables)
    try:
        assert process.stdout.readline() == "1 run in .; Ctrl-C ends it\n"
        address = f"http://127.0.0.1:{port}"
        process.stdout.readline()
        assert len(children(process.pid)) == (loader == "fast")
        wait_until(lambda: any(group["metricValues"] for group in hparams(address)))
        (group,) = hparams(address)
        metrics = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        assert metrics["final/loss"] < 1e-9 and metrics["final/steps"] > 1
        assert [session["name"].rpartition("/")[2] for session in group["sessions"]] == ["mine"]
        assert json.load(urllib.request.urlopen(f"{address}/data/runs")) == ["mine"]
        assert set(json.load(urllib.request.urlopen(f"{address}/data/plugin/scalars/tags"))) == {"mine"}
        own = json.load(urllib.request.urlopen(f"{address}/data/plugin/gradopt/runs"))["runs"]
        assert [row["run"] for row in own] == ["mine"]
        assert [one.name for one in temporary.glob("gradopt-board-*/*")] == ["mine"]
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert list(temporary.glob("gradopt-board-*")) == []
        assert (place / "result.json").is_file()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.alone
@pytest.mark.slow
def test_where_the_usual_port_is_taken_it_takes_the_next(runs):
    with socket.socket() as holder:
        try:
            holder.bind(("127.0.0.1", 6006))
            holder.listen()
        except OSError:
            pass  # somebody else has it: as good
        process = start(runs)
        try:
            process.stdout.readline()
            port = int(re.match(r"http://127.0.0.1:(\d+)/", process.stdout.readline())[1])
            assert port > 6006
            assert process.stderr.readline() == f"port 6006 is taken: {port} instead\n"
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def test_a_port_that_was_asked_for_and_is_taken_is_a_mistake(runs, taken, capsys):
    assert board([str(runs), "--port", str(taken)]) == 2

    assert capsys.readouterr().err == (
        f"gradopt: error: gradopt board: port {taken} is taken or not allowed; leave --port away for a free one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no directory 'runs'"),
        (["empty"], "there is no run in 'empty'"),
        (["--port", "x"], "argument --port: must be a number from 1 to 65535, got 'x'"),
        (["--prt"], "unrecognized arguments: --prt. Did you mean '--port'?"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")

    assert board(arguments) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gradopt: error: ")
    assert said in line


def query(*optimisers):
    runs = [Record(Path(name), {"optimiser.name": name}, {}, "converged") for name in optimisers]
    return urllib.parse.parse_qs(urllib.parse.urlparse(link("http://127.0.0.1:6006/", runs)).query)


def test_the_address_pins_the_curves_and_colours_by_optimiser_where_there_are_several():
    found = query("sgd", "adam")

    assert found["smoothing"] == ["0"]
    assert json.loads(found["pinnedCards"][0])[0] == {"plugin": "scalars", "tag": "opt/loss"}
    assert found["runColorGroup"] == [f"regex:{COLOURS}"]
    assert "runColorGroup" not in query("sgd", "sgd")
    assert link("http://127.0.0.1:6006/", []).endswith("#timeseries&_smoothingWeight=0")


def test_of_many_runs_the_older_tabs_show_the_summaries_of_seeds(tmp_path):
    runs = [Record(tmp_path / f"{number}-adam", {}, {}, "converged") for number in range(41)]
    assert "regexInput" not in link("http://127.0.0.1:6006/", runs)

    (tmp_path / "_summary").mkdir()

    assert link("http://127.0.0.1:6006/", runs).endswith("#timeseries&_smoothingWeight=0&regexInput=_summary")
    assert "regexInput" not in link("http://127.0.0.1:6006/", runs[:40])


@pytest.mark.parametrize(
    ("results", "is_pinned"),
    [
        ([{"fun": 1e-9}], True),
        ([{"fun": 1e-9}, {"fun": -3.0}], False),
        ([{"fun": 1e-9}, {"fun": -32.0, "minimum": -32.0}], True),
        ([{}], True),
    ],
    ids=["positive", "below zero", "below zero, where the gap is known", "going on"],
)
def test_the_logarithm_of_a_loss_is_pinned_unless_its_curve_ends_at_zero(results, is_pinned):
    runs = [Record(Path(str(number)), {}, result, "converged") for number, result in enumerate(results)]

    found = urllib.parse.parse_qs(urllib.parse.urlparse(link("http://127.0.0.1:6006/", runs)).query)

    tags = [card["tag"] for card in json.loads(found["pinnedCards"][0])]
    assert ("opt/log10_best" in tags) == is_pinned
    assert {"opt/loss", "opt/log10_gap", "opt/log10_gradient_norm"} <= set(tags)


@pytest.mark.parametrize(
    ("run", "colour"),
    [
        ("0-sgd", "sgd"),
        ("multirun/2026-11-30/02-24-17-0413/12-trust_region", "trust_region"),
        ("multirun/2026-11-30/02-24-17-0413/_summary/sgd lr=0.1", "sgd"),
        ("_summary/mgh_box n=2, adam lr=0.1", "adam"),
        ("2026-11-30/02-24-17-0413-adam", "adam"),
        ("02-24-17-bf1d-trust_region", "trust_region"),
        ("2026-11-30/02-24-17-0413", None),
        ("2026-11-30/02-24-17-bf1d", None),
        ("mine", None),
    ],
)
def test_runs_and_their_summaries_are_coloured_by_optimiser_and_those_with_other_names_one_by_one(run, colour):
    found = re.search(COLOURS, run)

    assert found.groups() == ((colour, None) if colour else (None, run))
