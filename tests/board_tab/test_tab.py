"""What the tab answers, within TensorBoard's own application and beside its real servers."""

import json
import shutil
import time

import pytest
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext
from werkzeug.test import Client

from gradopt.board_tab.entry import TabLoader
from gradopt.board_tab.runs import RunDirectories
from tests.board_tab.files import write_run
from tests.dashboards import get, server, until
from tests.installed import REPOSITORY

LOADERS = ("true", "false")


@pytest.fixture
def ask(tmp_path):
    """Asks the tab of a log directory at `tmp_path`."""
    tab = TabLoader().load(TBContext(logdir=str(tmp_path)))
    applications = tab.get_plugin_apps()

    def asked(path):
        return Client(applications[path.partition("?")[0]]).get(path)

    asked.tab = tab
    return asked


def test_it_is_active_where_there_are_runs(ask, tmp_path):
    assert not ask.tab.is_active()

    write_run(tmp_path / "deep" / "down" / "run")

    assert ask.tab.is_active()
    metadata = ask.tab.frontend_metadata()
    assert isinstance(metadata, FrontendMetadata) and metadata.es_module_path in ask.tab.get_plugin_apps()


def test_it_answers_with_rows_groups_and_profiles(ask, tmp_path):
    write_run(tmp_path / "a", status="diverged", fun=float("inf"))
    write_run(tmp_path / "b", optimiser="sgd", losses=(10.0, 0.0))
    for name in ("adam", "sgd"):
        write_run(tmp_path / f"c-{name}", optimiser=name, losses=(10.0, 0.0), seed=1)

    answer = ask("/runs")
    content = json.loads(answer.data, parse_constant=pytest.fail)  # NaN and Infinity are no JSON

    assert answer.status_code == 200
    assert [(row["run"], row["kind"], row["loss"]) for row in content["runs"]] == [
        ("a", "failure", "Infinity"),
        ("b", "success", 0.0),
        ("c-adam", "success", 0.0),
        ("c-sgd", "success", 0.0),
    ]
    assert len(content["groups"]) == len(content["profiles"]["solvers"]) == 2


def test_an_empty_log_directory_is_answered_with_nothing(ask):
    content = ask("/runs").json

    assert content["runs"] == content["groups"] == content["profiles"]["solvers"] == []


@pytest.mark.parametrize("name", ["missing", "../../etc", "/etc/passwd", ""])
def test_only_runs_under_the_log_directory_are_told_of(ask, name, tmp_path):
    write_run(tmp_path / "run")

    answer = ask(f"/basins?run={name}")

    assert (answer.status_code, answer.json) == (404, {"error": f"there is no run {name!r}"})


def test_an_error_is_told_to_the_page_and_ends_nothing(ask, monkeypatch):
    def raises(self):
        raise MemoryError("too many runs")

    monkeypatch.setattr(RunDirectories, "read", raises)

    answer = ask("/runs")

    assert (answer.status_code, answer.json) == (500, {"error": "MemoryError: too many runs"})


def test_its_page_is_made_of_its_own_files_and_reads_no_string_as_html(ask):
    scripts = [path for path in ask.tab.get_plugin_apps() if path.endswith((".js", ".css"))]

    assert {"/index.js", "/style.css"} <= set(scripts)
    for path in scripts:
        answer = ask(path)
        assert answer.status_code == 200 and answer.mimetype in ("text/javascript", "text/css")
        text = answer.get_data(as_text=True)
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", ""), "asks the network"


def write_many(place, number):
    for seed in range(number // 5):
        for optimiser in ("adam", "sgd", "lbfgs", "rprop", "nadam"):
            losses = [100.0 / (1 + step) ** 2 for step in range(200)]
            write_run(place / optimiser / str(seed), optimiser=optimiser, seed=seed, losses=losses)


def test_five_hundred_runs_are_answered_at_once(ask, tmp_path):
    write_many(tmp_path, 500)
    assert len(ask("/runs").json["runs"]) == 500

    seconds = min(timed(lambda: ask("/runs")) for _ in range(3))

    assert seconds < 1.0


def timed(action):
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_both_servers_show_the_tab_of_real_runs(loader, sweep):
    with server(sweep, f"--load_fast={loader}") as address:
        _, listing = get(f"{address}/data/plugins_listing")
        _, content = get(f"{address}/data/plugin/gradopt/runs")
        _, basins = get(f"{address}/data/plugin/gradopt/basins", run="many")
        until(lambda: get(f"{address}/data/runs")[1], lambda runs: {row["run"] for row in content["runs"]} <= set(runs))

    assert listing["gradopt"]["enabled"] and listing["gradopt"]["tab_name"] == "gradopt"
    statuses = {row["run"]: row["status"] for row in content["runs"]}
    assert (statuses["failing"], statuses["torn"], statuses["many"]) == ("unbounded", "torn result", "converged")
    assert {(group["optimiser"].split()[0], group["runs"], group["succeeded"]) for group in content["groups"]} >= {
        ("lbfgs", 3, 3),
        ("adam", 3, 0),
    }
    solvers = {one["solver"].split()[0]: one for one in content["profiles"]["solvers"]}
    assert content["profiles"]["cases"] == 3 and solvers["lbfgs"]["curves"]["1e-09"]["data"][-1][1] == 1.0
    assert basins["number"] == 400 and len(basins["minima"]) >= 4
    assert sum(len(flat) for flat in basins["map"].values()) == 2 * 400
    assert [len(basins["map"][str(index)]) // 2 for index in range(2)] == [
        one["starts"] for one in basins["minima"][:2]
    ]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_both_servers_answer_for_many_runs_at_once_and_for_none(loader, tmp_path):
    (tmp_path / "empty").mkdir()
    write_many(tmp_path / "many", 500)

    with server(tmp_path / "many", f"--load_fast={loader}") as address:
        first = timed(lambda: get(f"{address}/data/plugin/gradopt/runs"))
        later = min(timed(lambda: get(f"{address}/data/plugin/gradopt/runs")) for _ in range(3))
    with server(tmp_path / "empty", f"--load_fast={loader}") as address:
        enabled = get(f"{address}/data/plugins_listing")[1]["gradopt"]["enabled"]
        status, content = get(f"{address}/data/plugin/gradopt/runs")

    print(f"500 runs: {first:.2f} s at first, {later:.2f} s later")
    assert later < 1.0
    assert (enabled, status, content["runs"]) == (False, 200, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [("tab.py", "raise RuntimeError('mine')\n"), ("runs.py", "import a_package_that_is_not_there\n")],
)
def test_tensorboard_starts_without_a_tab_that_raises(file, content, sweep, tmp_path):
    shutil.copytree(REPOSITORY / "gradopt", tmp_path / "gradopt", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "gradopt" / "board_tab" / file).write_text(content)

    with server(sweep, path=tmp_path) as address:
        runs = until(lambda: get(f"{address}/data/runs")[1], len)
        _, listing = get(f"{address}/data/plugins_listing")

    assert "gradopt" not in listing and listing["scalars"]["enabled"]
    assert "failing" in runs
