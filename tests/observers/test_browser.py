"""What TensorBoard's own tabs show of runs, in a browser."""

import re
import shutil

import pytest
import torch

from gradopt.assemble import assemble
from gradopt.board import link
from gradopt.conclusion import form_of
from gradopt.execution import execute
from gradopt.hparams_tab import FIRST
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.observers.history import HistoryFile
from gradopt.observers.tensorboard import TensorBoard
from gradopt.settings import Stop
from tests.dashboards import board as served_board
from tests.dashboards import browser, get, open_tab, server, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def single(sweep, tmp_path_factory):
    """A log directory of one run."""
    place = tmp_path_factory.mktemp("single") / "runs"
    shutil.copytree(sweep / "failing", place / "failing")
    return place


@pytest.fixture(scope="module", params=["sweep", "single"])
def board(request):
    """The address of a server that has read all runs, and the names of these."""
    logdir = request.getfixturevalue(request.param)
    events = {file.parent.relative_to(logdir).as_posix() for file in logdir.rglob("events.out.tfevents.*")}
    with server(logdir) as address:
        until(lambda: get(f"{address}/data/runs")[1], lambda runs: events <= set(runs))
        yield address, events


@pytest.fixture
def page(tmp_path):
    """A page that keeps its errors, in `page.errors`; none are there at the end."""
    with browser(tmp_path) as (page, errors):
        yield page
    assert errors == []


def test_time_series_draws_lines_and_lists_values(board, page, tmp_path):
    address, runs = board
    open_tab(page, address, "timeseries", "smoothing=0&tagFilter=opt%2Floss%24")
    page.wait_for_selector("scalar-card line-chart")
    page.wait_for_selector("scalar-card tb-data-table-content-row")
    own = [run for run in runs if "_summary" not in run]
    rows = until(
        lambda: page.locator("scalar-card").first.locator("tb-data-table-content-row").all_inner_texts(),
        lambda rows: len(rows) >= len(own),
    )
    page.screenshot(path=tmp_path / "timeseries.png")

    assert all(any(run.split("/")[-1] in row for row in rows) for run in own)
    assert all(any(character.isdigit() for character in row.split("\n")[-1]) for row in rows), rows
    assert any("40" in row.split() for row in rows), rows  # the last step of the failing run


def test_hparams_lists_runs_with_status_and_values(board, page, tmp_path):
    address, _ = board
    open_tab(page, address, "hparams")
    texts = until(
        lambda: page.locator("vaadin-grid-cell-content").all_inner_texts(),
        lambda texts: any("polynomial" in text for text in texts) and any(text.strip() == "-42328" for text in texts),
    )
    page.screenshot(path=tmp_path / "hparams.png")
    body = {
        "startIndex": 0,
        "sliceSize": 100,
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN", "STATUS_RUNNING"],
        "colParams": [],
    }
    answer = page.request.post(f"{address}/data/plugin/hparams/session_groups", data=body).json()
    statuses = {
        session["name"]: session["status"] for group in answer["sessionGroups"] for session in group["sessions"]
    }

    assert any("trial" in text.lower() for text in texts), texts
    assert statuses["failing"] == "STATUS_FAILURE"
    assert all(status == "STATUS_SUCCESS" for name, status in statuses.items() if name.endswith(("adam", "lbfgs")))


def test_text_shows_the_config_and_the_verdict(board, page, tmp_path):
    address, _ = board
    open_tab(page, address, "text")
    page.get_by_text("run/config").first.wait_for()
    page.locator("tf-tag-filterer input").first.fill("verdict")
    page.get_by_text("the loss has fallen from 64").first.wait_for()  # of the failing run
    page.screenshot(path=tmp_path / "text.png")

    assert page.get_by_text("tag: run/verdict").count() >= 1


def test_graphs_draws_the_nodes_of_the_loss(board, page, tmp_path):
    address, _ = board
    open_tab(page, address, "graphs")
    page.wait_for_selector("svg g.node")
    page.screenshot(path=tmp_path / "graphs.png")

    assert page.locator("svg g.node").count() >= 2


def test_images_shows_pictures(board, page, tmp_path):
    address, _ = board
    open_tab(page, address, "images")
    page.wait_for_selector("tf-image-loader img")
    page.screenshot(path=tmp_path / "images.png")

    loaded = page.locator("tf-image-loader img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert loaded and all(width > 0 for width in loaded)


RATES, SEEDS = 30, 5


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory):
    """The log directory of a sweep: two optimisers at thirty rates, five seeds each, which are other starts."""
    place = tmp_path_factory.mktemp("hundreds") / "runs"
    number = 0
    for name in ("sgd", "adam"):
        for rate in torch.logspace(-4, -1.8, RATES, dtype=torch.float64).tolist():
            for seed in range(SEEDS):
                objective = Rosenbrock(2)
                with torch.no_grad():
                    next(objective.parameters()).add_(0.1 * seed)
                config = {"optimiser": {"name": name, "lr": rate}, "objective": {"name": "rosenbrock"}, "seed": seed}
                chosen = {"objective": "rosenbrock", "optimiser": name, "optimiser.lr": rate}
                assembly = assemble(objective, name, {"lr": rate}, stop=Stop(max_steps=20), engine="eager")
                directory = place / f"{number}-{name}"
                execute(
                    assembly,
                    [TensorBoard(), HistoryFile()],  # by which gradopt board knows a run
                    form_of(objective),
                    directory=directory,
                    config=config,
                    chosen=chosen,
                    sweep="sweep",
                )
                number += 1
    return place


def test_hparams_shows_hundreds_of_runs_with_seeds_grouped(hundreds, page, tmp_path):
    number = 2 * RATES * SEEDS
    page.set_viewport_size({"width": 1240, "height": 900})
    with served_board(hundreds) as address:
        until(lambda: get(f"{address}/data/runs")[1], lambda runs: len(runs) == number)
        open_tab(page, address, "hparams")
        texts = until(
            lambda: [text.strip() for text in page.locator("vaadin-grid-cell-content").all_inner_texts()],
            lambda texts: sum(text == "adam" for text in texts) >= 10 and "21.000" in texts,
        )
        headers = page.locator("vaadin-grid-cell-content:has(.table-header)")
        places = {text.strip(): headers.nth(n).bounding_box()["x"] for n, text in enumerate(headers.all_inner_texts())}
        page.screenshot(path=tmp_path / "table.png")
        page.get_by_text("Parallel coordinates view", exact=False).first.click()
        plot = page.locator("tf-hparams-parallel-coords-plot")
        lines = until(
            lambda: plot.locator("g.foreground path").evaluate_all("all => all.map(one => one.getAttribute('d'))"),
            lambda lines: len(lines) >= number // SEEDS,
        )
        axes = plot.locator("text.axis-title").all_text_contents()
        page.screenshot(path=tmp_path / "parallel.png")
        body = {
            "startIndex": 0,
            "sliceSize": 1000,
            "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN", "STATUS_RUNNING"],
            "colParams": [],
        }
        groups = page.request.post(f"{address}/data/plugin/hparams/session_groups", data=body).json()["sessionGroups"]

    assert len(groups) == number // SEEDS and {len(group["sessions"]) for group in groups} == {SEEDS}
    names = [re.fullmatch(r"(sgd|adam) [0-9a-f]{8}, sweep", text) for text in texts if text.endswith(", sweep")]
    assert len(names) >= 20 and all(names)
    assert "rosenbrock" not in texts  # which all have
    assert sorted((name for name in places if places[name] < 1200), key=lambda name: places[name]) == [
        *("Trial ID", "Show Metrics", "optimiser", "optimiser.lr", "final/loss", "final/success", "final/evaluations")
    ]
    assert axes == ["optimiser", "optimiser.lr", *FIRST]
    assert len(lines) == number // SEEDS and len(set(lines)) == len(lines)  # each group is a line of its own
    assert all("NaN" not in line and line.count("L") >= len(axes) - 1 for line in lines), lines[0]


def test_the_printed_address_leaves_the_older_tabs_unsmoothed(sweep, page, tmp_path):
    with server(sweep) as address:
        until(lambda: get(f"{address}/data/runs")[1], lambda runs: any("_summary" in run for run in runs))
        page.goto(link(f"{address}/", []))
        page.wait_for_selector("scalar-card line-chart")
        weights = {}
        for tab in ("Custom Scalars", "Scalars"):
            page.locator("[role=tab]").filter(has_text=re.compile(rf"^\s*{tab}\s*$", re.IGNORECASE)).first.click()
            smoothing = page.locator("tf-smoothing-input:visible").first
            smoothing.wait_for()
            weights[tab] = smoothing.evaluate("one => one.weight")
            page.locator("vz-line-chart2:visible").first.wait_for()
            if tab == "Custom Scalars":
                page.get_by_text("Matches (2)").first.wait_for()  # the seeds of two optimisers
                page.get_by_text("Matches (1)").first.wait_for()  # the band of many starts, until losses are negative
                complaints = page.get_by_text("do not match").count()
            page.screenshot(path=tmp_path / f"{tab}.png")

    assert complaints == 0
    assert weights == {"Custom Scalars": 0, "Scalars": 0}
