"""Profiles and basins, from numbers small enough to reckon by hand."""

import numpy
import pytest

from gradopt.board_tab.basins import basins
from gradopt.board_tab.leaderboard import board
from gradopt.board_tab.runs import RunDirectories
from tests.board_tab.files import write_run
from tests.installed import gradopt


def read(place):
    return RunDirectories({"": place}).read()


def test_curves_are_shares_of_cases_solved(tmp_path):
    # To 0.1 of the way from 10 to 0: fast takes 2 and 3 evaluations, slow 4 on the first case alone.
    write_run(tmp_path / "fast0", optimiser="fast", losses=(10, 0.5, 0), seed=0)
    write_run(tmp_path / "slow0", optimiser="slow", losses=(10, 0.5, 0.2), each=2, seed=0)
    write_run(tmp_path / "fast1", optimiser="fast", losses=(10, 5, 0), seed=1)
    write_run(tmp_path / "slow1", optimiser="slow", losses=(10, 9, 8), each=2, seed=1)

    found = board(read(tmp_path))["profiles"]
    fast, slow = (one["curves"]["0.1"] for one in found["solvers"])

    assert [one["solver"] for one in found["solvers"]] == ["fast", "slow"]
    assert (found["cases"], found["problems"], found["not_drawn"]) == (2, 1, [])
    assert fast == {"performance": [(1.0, 0.5), (1.0, 1.0)], "data": [(2.0, 0.5), (3.0, 1.0)]}
    assert slow == {"performance": [(2.0, 0.5)], "data": [(4.0, 0.5)]}
    assert found["solvers"][1]["curves"]["1e-09"]["data"] == []


def test_what_is_not_drawn_is_named(tmp_path):
    for seed in range(3):
        for number in range(10):
            losses = (10.0, *[1.0] * number, 0.0)
            write_run(tmp_path / f"{number}-{seed}", optimiser=f"o{number}", seed=seed, losses=losses)
    write_run(tmp_path / "seldom", optimiser="seldom")

    found = board(read(tmp_path))["profiles"]

    assert len(found["solvers"]) == 8 and set(found["not_drawn"]) == {"o8", "o9", "seldom"}


def test_the_cheapest_is_drawn_though_others_solve_more(tmp_path):
    for seed in range(3):
        for number in range(9):
            losses = (10.0, 5.0, *[1.0] * number, 0.0)
            write_run(tmp_path / f"{number}-{seed}", optimiser=f"o{number}", seed=seed, losses=losses)
        brief = (10.0, 0.0) if seed == 0 else (10.0, 9.0)
        write_run(tmp_path / f"brief-{seed}", optimiser="brief", seed=seed, losses=brief, status="diverged")

    found = board(read(tmp_path))["profiles"]
    curves = {one["solver"]: one["curves"] for one in found["solvers"]}

    assert found["tolerance"] == "1e-06" and set(found["not_drawn"]) == {"o7", "o8"}
    for tolerance in found["tolerances"]:
        at_once = [share for its in curves.values() for x, share in its[tolerance]["performance"] if x == 1.0]
        assert max(at_once, default=0.0) == pytest.approx(2 / 3)
        assert curves["brief"][tolerance]["performance"] == [(1.0, pytest.approx(1 / 3))]


def test_one_optimiser_has_no_profile(tmp_path):
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1)

    found = board(read(tmp_path))["profiles"]

    assert (found["cases"], found["solvers"]) == (0, [])


def starts(place, number=5, n=2):
    write_run(
        place,
        minima=[{"x": {"x": [-1.0, 0.0]}, "fun": -2.0, "visits": 3}, {"x": {"x": [1.0, 0.0]}, "fun": 0.5, "visits": 1}],
        starts={"number": number, "best": 0, "counts": {"converged": 4, "stalled": 1}},
    )
    x0 = numpy.arange(5.0 * n).reshape(5, n)
    numpy.savez(place / "starts.npz", x0=x0, basin=numpy.array([0, 1, 0, -1, 0]))
    return place


def test_starts_are_mapped_by_the_minimum_they_ended_at(tmp_path):
    starts(tmp_path / "run")

    found = basins(read(tmp_path)["run"])

    assert [(one["loss"], one["starts"]) for one in found["minima"]] == [(-2.0, 3), (0.5, 1)]
    assert (found["number"], found["none"], found["others"]) == (5, 1, 0)
    assert found["map"] == {
        "none": [6.0, 7.0],
        "others": [],
        "0": [0.0, 1.0, 4.0, 5.0, 8.0, 9.0],
        "1": [2.0, 3.0],
    }


def test_higher_minima_are_told_from_none_on_the_map(tmp_path):
    minima = [{"x": {"x": [float(i), 0.0]}, "fun": i, "visits": 1} for i in range(14)]
    counts = {"converged": 14, "stalled": 1}
    write_run(tmp_path / "run", minima=minima, starts={"number": 15, "best": 0, "counts": counts})
    numpy.savez(tmp_path / "run" / "starts.npz", x0=numpy.arange(30.0).reshape(15, 2), basin=numpy.arange(15) % 15 - 1)

    found = basins(read(tmp_path)["run"])

    assert (found["others"], found["none"]) == (2, 1)
    assert (found["map"]["others"], found["map"]["none"]) == ([26.0, 27.0, 28.0, 29.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("x", "names"),
    [
        ({"x": [1.0, 2.0]}, ["x[0]", "x[1]"]),
        ({"a": 1.0, "b": [[2.0, 3.0]]}, ["a", "b[0, 0]", "b[0, 1]"]),
        ({"x": [0.0] * 99}, [f"x[{place}]" for place in range(10)]),
        ({"x": [1.0, [2.0]]}, ["x[0]", "x[1]"]),
        ("x.pt", []),
        (None, []),
    ],
)
def test_axes_are_called_as_the_unknowns(x, names, tmp_path):
    assert basins(read(write_run(tmp_path / "run", x=x))["."])["names"] == names


def test_only_two_unknowns_make_a_map(tmp_path):
    starts(tmp_path / "run", n=3)

    assert basins(read(tmp_path)["run"])["map"] is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"no archive"])
def test_a_broken_sample_leaves_the_bars(content, tmp_path):
    (starts(tmp_path / "run") / "starts.npz").write_bytes(content)

    found = basins(read(tmp_path)["run"])

    assert found["map"] is None and len(found["minima"]) == 2


def test_minima_that_are_not_told_are_counted(tmp_path):
    minima = [{"x": {"x": [float(i)]}, "fun": i, "visits": 2} for i in range(20)]
    write_run(tmp_path / "run", minima=minima)

    found = basins(read(tmp_path)["run"])

    assert len(found["minima"]) == 12 and found["number"] == 40
    assert (found["others"], found["none"]) == (16, 0)


@pytest.mark.parametrize("minima", [None, 3, ["x"], [{"x": 3, "fun": "high", "visits": "many"}], [{}]])
def test_results_that_are_not_as_expected_are_no_error(minima, tmp_path):
    write_run(tmp_path / "run", minima=minima, starts={"number": "many", "counts": 3})

    assert basins(read(tmp_path)["run"])["number"] == 0


@pytest.mark.parametrize("optimiser", ["multi_start", "tiktak"])
def test_local_searches_have_a_map_too(optimiser, tmp_path):
    (tmp_path / "wells.py").write_text("def wells(x):\n    return ((x**2 - 1) ** 2 + 0.1 * x).sum()\n")
    done = gradopt(
        *("objective=function", "objective.target=wells.py:wells", "objective.x0=[0.9,0.9]"),
        *("objective.bounds=[[-2,-2],[2,2]]", f"optimiser={optimiser}", "optimiser.max_evaluations=1500"),
        *("observers=[]", "hydra.run.dir=runs/search"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr

    found = basins(read(tmp_path / "runs")["search"])

    assert found["number"] >= 10 and found["names"] == ["x[0]", "x[1]"]
    parts = {name: len(flat) // 2 for name, flat in found["map"].items()}
    told = [one["starts"] for one in found["minima"]]
    assert parts == {"none": 0, "others": 0, **{str(index): starts for index, starts in enumerate(told)}}
    assert '"x0"' not in (tmp_path / "runs" / "search" / "result.json").read_text(), "which would be long"
