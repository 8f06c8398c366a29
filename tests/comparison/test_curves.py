import itertools
import math

import numpy
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

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


def test_a_panel_without_anything_above_the_lowest_loss_says_so(write, tmp_path):
    write("1", losses=[3.0, 3.0])
    write("2", objective="known", losses=[-1.0], result={"minimum": -1.0})

    figure = curves.picture(drawn(tmp_path), looks(["sgd"]))

    for axes, loss in zip(figure.axes, ("3", "-1"), strict=False):
        assert not axes.lines and not axes.yaxis_inverted()
        assert axes.texts[0].get_text() == f"no curve: the first loss that counts\nis the lowest, {loss}"


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


@pytest.mark.parametrize(
    ("first", "last"), [(1, 9), (30, 50), (100, 101), (1, 80), (2e5, 4e5), (6e3, 5e5), (3, 900), (1, 1e5)]
)
def test_ticks_of_evaluations_are_two_or_more_readable_labels_in_one_size(write, tmp_path, first, last):
    for objective in ("bowl", "valley", "saddle"):  # as narrow as panels get
        run = write(objective, objective=objective, losses=[8.0, 4.0, 2.0, 1.0])
        history = numpy.load(run / "history.npy")
        history["evaluations"] = numpy.geomspace(first, last, len(history)).round()
        numpy.save(run / "history.npy", history)
    found = drawn(tmp_path)

    figure = curves.picture(found, looks(["sgd"]))
    FigureCanvasAgg(figure).draw()

    axes = figure.axes[0]
    begin, end = axes.get_xlim()
    ticks = [*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks()]
    labels = [tick.label1 for tick in ticks if begin <= tick.get_loc() <= end and tick.label1.get_text()]
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    assert len(labels) >= 2
    assert {label.get_fontsize() for label in labels} == {8}
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert last == 1e5 or all(float(label.get_text()) for label in labels)


def test_a_label_that_is_too_long_for_a_title_keeps_its_start_and_its_end(write, tmp_path):
    options = {"constraints": [{"target": "module.py:disc", "kind": "inequality"}], "target": "module.py:valley"}
    write("1", objective="function", objective_options={**options, "x0": [1.0]}, losses=[8.0, 1.0])
    write("2", objective="function", objective_options={**options, "constraints": [], "x0": [2.0]}, losses=[8.0, 1.0])
    found = drawn(tmp_path)

    figure = curves.picture(found, looks(["sgd"]))

    title = next(axes.get_title() for axes in figure.axes if "…" in axes.get_title()).replace("\n", " ")
    assert title.startswith("function constraints=[{")
    assert title.endswith("x0=[1]")


def test_many_panels_with_long_titles_and_a_long_legend_are_all_readable(write, tmp_path):
    for number in (None, *(2**power for power in range(2, 12))):
        for rate in (0.1, 0.01):
            bounds = {"bounds": None if number is None else [-2, 2]}
            options = {"lr": rate, "betas": [rate, 0.999], "weight_decay": rate}
            write(f"{number}-{rate}", starts=number, objective_options=bounds, options=options, losses=[8.0, 1.0, 0.5])
    found = drawn(tmp_path)
    solvers = dict.fromkeys(group.solver for groups in found.values() for group in groups)

    figure = curves.picture(found, looks(solvers))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()

    titles = [axes.title.get_window_extent() for axes in figure.axes[: len(found)]]
    titles += [axes.xaxis.label.get_window_extent() for axes in figure.axes if axes.get_xlabel()]
    legend = figure.legends[0].get_window_extent()
    assert [problem.name.rpartition("=")[2] for problem in found] == ["bowl", *map(str, (2**n for n in range(2, 12)))]
    assert not any(one.overlaps(other) for one, other in itertools.combinations([*titles, legend], 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in (*titles, legend))
    assert max(axes.bbox.x1 for axes in figure.axes) > 0.95 * figure.bbox.x1
