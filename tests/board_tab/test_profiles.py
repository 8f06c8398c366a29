"""Profiles and basins, from numbers small enough to reckon by hand."""

import numpy
import pytest

from gradopt.board_tab.basins import basins
from gradopt.board_tab.labels import Labels
from gradopt.board_tab.profiles import profiles
from gradopt.board_tab.runs import RunDirectories
from tests.board_tab.files import write_run


def read(place):
    return RunDirectories({"": place}).read()


def profiled(place):
    runs = read(place)
    return profiles(runs, Labels(runs))


def test_curves_are_shares_of_problems_solved(tmp_path):
    # To 0.1 of the way from 10 to 0: fast takes 2 and 3 evaluations, slow 4 on the first problem alone.
    write_run(tmp_path / "fast0", optimiser="fast", losses=(10, 0.5, 0), seed=0)
    write_run(tmp_path / "slow0", optimiser="slow", losses=(10, 0.5, 0.2), each=2, seed=0)
    write_run(tmp_path / "fast1", optimiser="fast", losses=(10, 5, 0), seed=1)
    write_run(tmp_path / "slow1", optimiser="slow", losses=(10, 9, 8), each=2, seed=1)

    found = profiled(tmp_path)
    fast, slow = (one["curves"]["0.1"] for one in found["solvers"])

    assert [one["solver"] for one in found["solvers"]] == ["fast", "slow"] and found["problems"] == 2
    assert fast == {"performance": [(1.0, 1.0)], "data": [(2.0, 0.5), (3.0, 1.0)]}
    assert slow == {"performance": [(2.0, 0.5)], "data": [(4.0, 0.5)]}
    assert found["solvers"][1]["curves"]["1e-08"]["data"] == []


def test_shares_are_of_the_problems_an_optimiser_was_run_on(tmp_path):
    for seed in (0, 1):
        for optimiser in ("one", "two", *(["three"] if seed else [])):
            write_run(tmp_path / f"{optimiser}{seed}", optimiser=optimiser, seed=seed)
    write_run(tmp_path / "alone", optimiser="one", objective="quadratic")  # nobody to compare it with

    found = profiled(tmp_path)

    assert found["problems"] == 2
    assert {one["solver"]: one["problems"] for one in found["solvers"]} == {"one": 2, "two": 2, "three": 1}
    assert all(one["curves"]["1e-08"]["data"] == [(3.0, 1.0)] for one in found["solvers"])


def test_problems_without_a_finite_lowest_loss_are_not_counted(tmp_path):
    write_run(tmp_path / "a", optimiser="a", losses=(10.0, float("-inf")))
    write_run(tmp_path / "b", optimiser="b", losses=(10.0, 1.0))
    write_run(tmp_path / "c", optimiser="a", losses=(float("nan"), 1.0), seed=1)
    write_run(tmp_path / "d", optimiser="b", losses=(10.0, 1.0), seed=1)

    assert profiled(tmp_path)["solvers"] == []


def test_of_repeated_runs_the_latest_counts(tmp_path):
    write_run(tmp_path / "other", optimiser="other", losses=(10.0, 0.0))
    write_run(tmp_path / "z", losses=(10.0, 0.0), started="2026-01-01T10:00:00+0000")
    write_run(tmp_path / "a", losses=(10.0, 9.0), started="2026-01-01T11:00:00+0000")

    curves = {one["solver"]: one["curves"]["0.001"]["data"] for one in profiled(tmp_path)["solvers"]}

    assert curves == {"other": [(2.0, 1.0)], "adam": []}


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

    found = basins(read(tmp_path)[0])

    assert [(one["loss"], one["starts"]) for one in found["minima"]] == [(-2.0, 3), (0.5, 1)]
    assert (found["number"], found["none"], found["others"]) == (5, 1, 0)
    assert found["map"] == {"-1": [6.0, 7.0], "0": [0.0, 1.0, 4.0, 5.0, 8.0, 9.0], "1": [2.0, 3.0]}


def test_only_two_unknowns_make_a_map(tmp_path):
    starts(tmp_path / "run", n=3)

    assert basins(read(tmp_path)[0])["map"] is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"no archive"])
def test_a_broken_sample_leaves_the_bars(content, tmp_path):
    (starts(tmp_path / "run") / "starts.npz").write_bytes(content)

    found = basins(read(tmp_path)[0])

    assert found["map"] is None and len(found["minima"]) == 2


def test_minima_that_are_not_told_are_counted(tmp_path):
    minima = [{"x": {"x": [float(i)]}, "fun": i, "visits": 2} for i in range(20)]
    write_run(tmp_path / "run", minima=minima)

    found = basins(read(tmp_path)[0])

    assert len(found["minima"]) == 12 and found["number"] == 40
    assert (found["others"], found["none"]) == (16, 0)


@pytest.mark.parametrize("minima", [None, 3, ["x"], [{"x": 3, "fun": "high", "visits": "many"}], [{}]])
def test_results_that_are_not_as_expected_are_no_error(minima, tmp_path):
    write_run(tmp_path / "run", minima=minima, starts={"number": "many", "counts": 3})

    assert basins(read(tmp_path)[0])["number"] == 0
