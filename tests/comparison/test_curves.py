import math

import numpy

from gradopt.comparison import curves
from gradopt.comparison.groups import grouped
from gradopt.comparison.looks import looks
from gradopt.comparison.records import find


def drawn(place):
    return curves.drawable(grouped(find([place])))


def test_bands_are_quantiles_of_the_best_losses_at_each_evaluation(write, tmp_path):
    for seed, losses in enumerate(([8.0, 4.0, 2.0], [8.0, 3.0], [8.0, 9.0, 1.0])):
        write(str(seed), seed=seed, losses=losses)
    ((_, (group,)),) = drawn(tmp_path).items()

    low, middle, high = curves.bands(curves.traces(group), "evaluations", numpy.array([0.0, 1.0, 2.0, 3.0, 9.0]))

    numpy.testing.assert_equal(low, [math.nan, 8.0, 3.0, 1.0, 1.0])
    numpy.testing.assert_equal(middle, [math.nan, 8.0, 4.0, 2.0, 2.0])
    numpy.testing.assert_equal(high, [math.nan, 8.0, 8.0, 3.0, 3.0])  # the run that has ended keeps its 3


def test_losses_are_shown_above_the_minimum_or_as_they_are(write, tmp_path):
    write("1", objective="known", losses=[8.0, -31.0], result={"minimum": -32.0})
    write("2", objective="tiny", losses=[8.0, 1e-9])
    write("3", objective="offset", losses=[8.0, 3.0])
    write("4", objective="zero", losses=[8.0, 0.5], result={"minimum": 0.0})

    assert {problem.name: curves.scale(problem) for problem in drawn(tmp_path)} == {
        "known": (-32.0, "best loss - minimum (-32)"),
        "tiny": (0.0, "best loss"),
        "offset": (3.0, "best loss - lowest found (3)"),
        "zero": (0.0, "best loss"),
    }


def test_what_has_no_history_or_no_floor_is_not_drawn(write, tmp_path):
    write("1", optimiser="sgd", losses=[8.0, 1.0])
    write("2", optimiser="adam")
    write("3", optimiser="adamw", losses=[8.0, -1e9], status="unbounded")

    ((_, groups),) = drawn(tmp_path).items()

    assert [group.solver for group in groups] == ["sgd"]


def test_a_picture_has_a_panel_a_problem_and_a_line_a_solver(sweep):
    found = drawn(sweep / "runs")
    ((_, groups),) = found.items()

    figure = curves.picture(found, looks(group.solver for group in groups))

    (axes,) = figure.axes
    assert {line.get_linestyle() for line in axes.lines} == {"-", "--"}
    assert len(axes.collections) == 2  # the bands
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"adam", "sgd"}


def test_no_two_looks_are_the_same():
    names = [str(number) for number in range(50)]
    found = looks(names)

    assert len({(look["color"], look["linestyle"], look["marker"]) for look in found.values()}) == len(names)
