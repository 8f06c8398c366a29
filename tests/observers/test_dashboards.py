"""TensorBoard's servers, with its fast and its slow loader, show what runs have written."""

import json
import math
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import gradopt
from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.execution import execute
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.observers import events
from gradopt.observers.curves import BAND
from gradopt.observers.event_file import EventFile
from gradopt.observers.tensorboard import TensorBoard
from gradopt.settings import Stop
from tests import functions as f
from tests.installed import gradopt as command

LOADERS = ("true", "false")
CUT = 60


def assembled(objective, steps, lr=1e-3):
    return assemble(objective, "adam", {"lr": lr}, stop=Stop(max_steps=steps), engine="eager")


def run(place, objective, steps, *, state=None, config=None, chosen=None, lr=1e-3):
    assembly = assembled(objective, steps, lr)
    if state is not None:
        assembly.engine.load_state_dict(state)
    return execute(assembly, [TensorBoard()], form_of(objective), directory=place, config=config, chosen=chosen)


def state_at(objective, step):
    """Of a run, behind the update after this step."""
    assembly = assembled(objective, step + 1)
    blocks = iterate(assembly.engine, assembly.criteria, max_rows=1)
    for block in blocks:
        if block.last_step == step:
            assembly.engine.update()
            return assembly.engine.state_dict()
    raise AssertionError("the run ended early")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory of runs of every kind."""
    place = tmp_path_factory.mktemp("runs")
    for name, rates in (("first", "0.01,0.001"), ("second", "0.01")):
        words = ["objective=rosenbrock", "optimiser=adam", f"optimiser.lr={rates}", "seed=0,1", "stop.max_steps=20"]
        done = command("-m", *words, "observers=[tensorboard]", f"hydra.sweep.dir={name}", cwd=place)
        assert done.returncode == 0, done.stderr
    config = {"objective": {"name": "a|b <i>_c_*d*"}, "limit": math.inf, "fused": True, "seed": 7, "nothing": None}
    chosen = {"objective": "a|b", "optimiser": "adam", "limit": math.inf, "fused": True, "nothing": None}
    run(place / "wide", Rosenbrock(20), 300, config=config, chosen=chosen)
    run(place / "resumed", Rosenbrock(), 100)
    run(place / "resumed", Rosenbrock(), 120, state=state_at(Rosenbrock(), CUT))
    run(place / "again", Rosenbrock(), 100)
    run(place / "again", Rosenbrock(), 50, lr=1e-2)
    starts = 0.5 * torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradopt.minimise(
        Rosenbrock(), starts={"x": starts}, optimiser="lbfgs", observers=[TensorBoard()], directory=place / "many"
    )
    gradopt.minimise(
        lambda x: x.square().sum(),
        [3.0, 2.0],
        constraints=gradopt.Constraint(lambda x: x.sum(), lower=1.0),
        observers=[TensorBoard()],
        directory=place / "constrained",
    )
    with pytest.raises(ZeroDivisionError):
        execute(assembled(breaks_at(5), 50), [TensorBoard()], tuple, directory=place / "broken", chosen={"a": 1})
    (place / "raises.py").write_text("def at_once(x):\n    raise ZeroDivisionError('mine')\n", encoding="utf-8")
    for name, words in {
        "unborn": "objective=function objective.target=raises.py:at_once objective.x0=[1.0]",
        "unborn_starts": "objective=function objective.target=raises.py:at_once objective.x0=[1.0] starts=4",
    }.items():
        assert command(*words.split(), "observers=[tensorboard]", f"hydra.run.dir={name}", cwd=place).returncode == 1
    return place


def breaks_at(call):
    calls = []

    def loss(x):
        calls.append(None)
        if len(calls) == call:
            raise ZeroDivisionError("mine")
        return f.parabola(x)

    return FunctionObjective(loss, torch.zeros(1, dtype=torch.float64))


class Server:
    """A TensorBoard that is running."""

    def __init__(self, place, loader):
        where = ("--logdir", str(place), "--port", "0", "--host", "127.0.0.1", "--reload_interval", "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *where, f"--load_fast={loader}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        words = (word for line in self.process.stderr for word in line.split())
        self.address = next(word for word in words if word.startswith("http://")).rstrip("/")

    def get(self, path, **query):
        return self._ask(f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def points(self, run, tag):
        """By step."""
        found = self.get("/data/plugin/scalars/scalars", run=run, tag=tag)
        return {step: value for _, step, value in found}

    def groups(self):
        statuses = [f"STATUS_{name}" for name in ("SUCCESS", "FAILURE", "UNKNOWN", "RUNNING")]
        body = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": statuses, "colParams": []}
        return self._ask("/data/plugin/hparams/session_groups", body)["sessionGroups"]

    def close(self):
        self.process.terminate()
        self.process.communicate()

    def _ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def until(holds):
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "the server does not show what was written"
        time.sleep(0.3)


@pytest.fixture(scope="module", params=LOADERS, ids=["fast", "slow"])
def server(runs, request):
    served = Server(runs, request.param)
    until(lambda: sum("run/verdict" in tags for tags in served.get("/data/plugin/text/tags").values()) == 14)
    until(lambda: served.points("resumed", "opt/loss").get(120))
    yield served
    served.close()


@pytest.mark.slow
def test_curves_say_what_they_are_and_hold_their_values(server):
    tags = server.get("/data/plugin/scalars/tags")["wide"]
    losses = server.points("wide", "opt/loss")
    gaps, best = server.points("wide", "opt/log10_gap"), server.points("wide", "opt/best_loss")

    assert tags["opt/log10_gap"]["displayName"] == "opt/log10_gap"
    assert "known minimum" in tags["opt/log10_gap"]["description"]
    assert min(losses) == 0 and max(losses) == 300
    assert all(gaps[step] == pytest.approx(math.log10(value), abs=1e-5) for step, value in best.items())


@pytest.mark.slow
def test_a_resumed_run_is_one_curve(server):
    whole, resumed = server.points("again", "opt/loss"), server.points("resumed", "opt/loss")
    expected = gradopt.minimise(
        Rosenbrock(), optimiser="adam", optimiser_options={"lr": 1e-3}, stop=Stop(max_steps=120), engine="eager"
    )

    assert list(whole) == list(range(51))
    found = server.get("/data/plugin/scalars/scalars", run="resumed", tag="opt/loss")
    steps = [step for _, step, _ in found]
    walls = [wall for wall, _, _ in found]
    assert steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == 120 and CUT + 1 in steps
    assert walls == sorted(walls)
    assert [resumed[step] for step in steps] == pytest.approx(expected.history["loss"][steps].tolist(), rel=1e-6)


@pytest.mark.slow
def test_seeds_of_one_sweep_are_one_row_of_hparams(server):
    groups = {group["name"]: group for group in server.groups()}
    sweeps = {name: group for name, group in groups.items() if name.endswith((", first", ", second"))}
    last = {
        group["hparams"]["optimiser.lr"]: {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        for name, group in sweeps.items()
        if name.endswith("first")
    }

    assert sorted(name.split(", ")[-1] for name in sweeps) == ["first", "first", "second"]
    assert all(name.startswith("adam ") for name in sweeps)
    assert all(len(group["sessions"]) == 2 for group in sweeps.values())
    assert all(one["status"] == "STATUS_SUCCESS" for group in sweeps.values() for one in group["sessions"])
    for name, group in sweeps.items():  # of which the second varies nothing but the seed
        assert set(group["hparams"]) == {
            "objective",
            "optimiser",
            *(["optimiser.lr"] if name.endswith("first") else []),
        }
    assert set(last) == {0.01, 0.001}
    assert last[0.01]["final/steps"] == 20 and last[0.01]["final/loss"] != last[0.001]["final/loss"]
    single = {name.partition(", ")[0]: group for name, group in groups.items() if name not in sweeps}
    wide = single["wide"]
    assert wide["hparams"]["fused"] is True and wide["hparams"]["limit"] == "inf"
    assert "nothing" not in wide["hparams"]
    for run in ("broken", "unborn", "unborn_starts"):
        failed = single[run]
        assert [session["status"] for session in failed["sessions"]] == ["STATUS_FAILURE"]
        assert {value["name"]["tag"]: value["value"] for value in failed["metricValues"]}["final/success"] == -1
        assert failed["hparams"].get("objective.target") == "raises.py:at_once" or run == "broken"


@pytest.mark.slow
def test_texts_are_tables_that_no_name_breaks(server):
    config = server.get("/data/plugin/text/text", run="wide", tag="run/config")[0]["text"]
    verdict = server.get("/data/plugin/text/text", run="broken", tag="run/verdict")[0]["text"]

    assert "<td>objective.name</td>" in config.replace('<td align="left">', "<td>")
    assert "a|b &lt;i&gt;_c_*d*" in config
    assert "<td>ZeroDivisionError: mine</td>" in verdict
    verdict = server.get("/data/plugin/text/text", run="unborn", tag="run/verdict")[0]["text"]
    assert "<td>ZeroDivisionError: mine</td>" in verdict


@pytest.mark.slow
def test_many_unknowns_have_a_few_histograms(server):
    tags = server.get("/data/plugin/histograms/tags")["wide"]
    unknowns = server.get("/data/plugin/histograms/histograms", run="wide", tag="unknowns/x")

    assert {"unknowns/x", "gradient/x"} <= set(tags)
    assert 2 <= len(unknowns) <= 10
    assert (unknowns[0][1], unknowns[-1][1]) == (0, 300)
    assert all(sum(count for _, _, count in bins) == 20 for _, _, bins in unknowns)
    assert "resumed" not in server.get("/data/plugin/histograms/tags")
    assert {"x/x[0]", "x/x[1]"} <= set(server.get("/data/plugin/scalars/tags")["resumed"])


@pytest.mark.slow
def test_many_starts_have_quantiles_in_a_band(server):
    layout = server.get("/data/plugin/custom_scalars/layout")
    (category,) = [one for one in layout["category"] if one["title"] in BAND]
    (series,) = category["chart"][0]["margin"]["series"]
    low, middle, high = (server.points("many", f"ms/loss_{name}") for name in ("q10", "median", "q90"))
    (spread, *_) = server.get("/data/plugin/histograms/histograms", run="many", tag="ms/log10_loss")

    assert all(low[step] <= middle[step] <= high[step] for step in low)
    tags = server.get("/data/plugin/scalars/tags")["many"]
    assert set(series.values()) <= set(tags)
    assert sum(count for _, _, count in spread[2]) == 12
    assert list(server.points("many", "ms/converged_share").values()) == [1.0]
    assert list(server.points("many", "ms/basins").values()) == [1.0]


@pytest.mark.slow
def test_constraints_have_a_curve_in_place_of_a_best_loss(server):
    tags = server.get("/data/plugin/scalars/tags")["constrained"]

    assert "con/violation" in tags and "opt/best_loss" not in tags
    assert list(server.points("constrained", "con/violation").values())[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_a_file_beside_that_of_the_session_begins_none(tmp_path):
    run(tmp_path / "run", Rosenbrock(), 50)
    with EventFile(tmp_path / "run", step=None) as beside:
        beside.write([events.text("beside", "here")], step=0)
    with ThreadPoolExecutor() as pool:
        servers = list(pool.map(lambda loader: Server(tmp_path, loader), LOADERS))

    for server in servers:
        until(lambda server=server: "beside" in server.get("/data/plugin/text/tags").get("run", {}))
        points, text = server.points("run", "opt/loss"), server.get("/data/plugin/text/text", run="run", tag="beside")
        server.close()
        assert list(points) == list(range(51))
        assert "here" in text[0]["text"]
