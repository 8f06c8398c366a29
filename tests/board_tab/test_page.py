"""The tab in a browser: what people see of real runs, of broken ones and of none."""

import pytest

from tests.board_tab.files import write_run
from tests.dashboards import browser, open_tab, server

pytestmark = pytest.mark.slow


def opened(page, address, query="darkMode=false"):
    """The frame of the tab, once it is drawn."""
    open_tab(page, address, "gradopt", query)
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready]").wait_for()
    return frame


def column(frame, title):
    """The texts of a column, from above."""
    titles = frame.locator(".leaderboard thead button").all_inner_texts()
    index = [text.rstrip(" ▲▼") for text in titles].index(title) + 1
    return frame.locator(f".leaderboard tbody td:nth-child({index})").all_inner_texts()


def test_it_shows_real_runs(sweep, tmp_path):
    with server(sweep) as address, browser(tmp_path) as (page, errors):
        frame = opened(page, address)
        page.screenshot(path=tmp_path / "tab.png", full_page=True)
        verdicts = frame.locator(".leaderboard .badge").all_inner_texts()
        names = column(frame, "run")
        curves = [path.get_attribute("d") for path in frame.locator("path.profile").all()]
        dots = [path.get_attribute("d").count("M") for path in frame.locator("path.basin").all()]
        rings = frame.locator("path.minimum").count()
        bars = frame.locator(".bars tbody tr").all_inner_texts()
        ground = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        hacked = page.frames[-1].evaluate("window.hacked")
        frame = opened(page, address, "darkMode=true")
        dark = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        page.screenshot(path=tmp_path / "dark.png", full_page=True)

    assert errors == []
    assert len(verdicts) == len(names) == 10
    assert verdicts.count("+ converged") == 4 and verdicts.count("- max_steps") == 4
    assert "x unbounded" in verdicts and "! torn result" in verdicts
    assert "<img src=x onerror=window.hacked=1>" in names and hacked is None
    assert len(curves) == 4 and all("V" in curve for curve in curves if curve.count("H") > 1)
    assert sum(dots) == 400 and rings >= 4
    assert len(bars) >= 4 and "%" in bars[0] and "-1.03163" in bars[0]
    assert (ground, dark) == ("rgb(255, 255, 255)", "rgb(48, 48, 48)")


def test_rows_are_sorted_filtered_and_joined(sweep, tmp_path):
    with server(sweep) as address, browser(tmp_path) as (page, errors):
        frame = opened(page, address)
        frame.locator("[data-column=evaluations]").click()
        rising = column(frame, "evaluations")
        frame.locator("[data-column=evaluations]").click()
        falling = column(frame, "evaluations")
        frame.locator("#filter").press_sequentially("lbfgs rosenbrock")  # each letter draws anew
        filtered = column(frame, "optimiser")
        frame.locator("#grouped").check()
        joined = frame.locator(".leaderboard tbody tr").all_inner_texts()
        strict = frame.locator(".charts").first.inner_html()
        frame.locator("#filter").fill("3-lbfgs converged")  # which are words of runs, not of groups
        by_run = frame.locator(".leaderboard tbody tr").all_inner_texts()
        frame.locator("#tolerance").select_option("0.1")
        loose = frame.locator(".charts").first.inner_html()

    assert errors == []
    numbers = [float(text) for text in rising if text]
    assert numbers == sorted(numbers) and len(numbers) == 10
    assert [float(text) for text in falling] == numbers[::-1]
    assert len(filtered) == 3 and all(text.startswith("lbfgs") for text in filtered)
    assert len(joined) == 1 and "3 of 3" in joined[0]
    assert len(by_run) == 1 and by_run[0].startswith("rosenbrock\tlbfgs")
    assert strict != loose


def test_failures_come_last_and_the_tolerance_is_that_of_the_comparison(tmp_path):
    for seed in range(2):
        write_run(tmp_path / "runs" / f"a{seed}", optimiser="sgd", seed=seed, losses=(10.0, 0.0), status="diverged")
        write_run(tmp_path / "runs" / f"b{seed}", seed=seed, losses=(10.0, 1.0))
    with server(tmp_path / "runs") as address, browser(tmp_path) as (page, errors):
        frame = opened(page, address)
        verdicts = column(frame, "verdict")
        frame.locator("#grouped").check()
        joined = column(frame, "optimiser")
        tolerance = frame.locator("#tolerance").input_value()
        page.screenshot(path=tmp_path / "tab.png", full_page=True)

    assert errors == []
    assert verdicts == ["+ converged"] * 2 + ["x diverged"] * 2
    assert [text.split()[0] for text in joined] == ["adam", "sgd"]
    assert tolerance == "1e-06"


def test_it_shows_runs_that_come_while_it_is_open(tmp_path):
    write_run(tmp_path / "runs" / "first")
    with server(tmp_path / "runs") as address, browser(tmp_path) as (page, errors):
        frame = opened(page, address)
        first = frame.locator(".leaderboard tbody tr").count()
        write_run(tmp_path / "runs" / "second", seed=1)
        frame.locator(".leaderboard tbody tr >> nth=1").wait_for()

    assert errors == [] and first == 1


def test_without_runs_it_says_so(tmp_path):
    (tmp_path / "runs").mkdir()
    with server(tmp_path / "runs") as address, browser(tmp_path) as (page, errors):
        page.goto(f"{address}/data/plugin_entry.html?name=gradopt")  # TensorBoard offers no tab here
        page.locator("body[data-ready]").wait_for()
        text = page.locator("#message").inner_text()

    assert errors == [] and text.startswith("There are no runs of gradopt in this log directory.")
