"""The seeds of a sweep together, read back with TensorBoard's own reader."""

import numpy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from gradopt.comparison import summary
from gradopt.comparison.groups import grouped
from gradopt.comparison.records import SUMMARY, find


def events_of(directory):
    found = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    found.Reload()
    return found


def test_a_sweep_leaves_the_median_and_the_band_of_each_group_for_tensorboard(sweep):
    (place,) = sweep.glob(f"runs/multirun/*/*/{SUMMARY}")
    assert f"medians and bands over seeds: {place.relative_to(sweep)}" in (sweep / "output.txt").read_text()
    assert {directory.name for directory in place.iterdir()} == {"adam", "sgd"}
    records = [record for record in find([sweep / "runs"]) if record.config["optimiser.name"] == "sgd"]
    lowest = min(record.loss for record in find([sweep / "runs"]))

    found = events_of(place / "sgd")

    assert set(found.Tags()["scalars"]) == {f"seeds/function/log10_{part}" for part in ("10", "median", "90")}
    middle = found.Scalars("seeds/function/log10_median")
    assert (middle[0].step, middle[-1].step) == (0, 40)
    expected = numpy.log10(sorted(record.loss - lowest for record in records)[1])
    assert middle[-1].value == pytest.approx(expected, rel=1e-6)


def test_the_layout_is_one_margin_chart_for_the_objective(sweep):
    (place,) = sweep.glob(f"runs/multirun/*/*/{SUMMARY}")

    (event,) = events_of(place / "adam").Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])

    (category,) = layout.category
    (chart,) = category.chart
    (series,) = chart.margin.series
    assert chart.title == "function: log10(best loss - lowest found)"
    assert (series.lower, series.value, series.upper) == tuple(
        f"seeds/function/log10_{part}" for part in ("10", "median", "90")
    )


def test_a_second_summary_takes_the_place_of_the_first(write, tmp_path):
    for seed in range(2):
        write(str(seed), seed=seed, losses=[8.0, 1.0 + seed])
    groups = grouped(find([tmp_path / "runs"]))

    first = summary.write(groups, tmp_path)
    second = summary.write(groups, tmp_path)

    assert first == second
    assert len(list((tmp_path / SUMMARY / "sgd").iterdir())) == 1


def test_without_seeds_there_is_nothing_to_say(write, tmp_path):
    write("1", losses=[8.0, 1.0])
    write("2", optimiser="adam", losses=[8.0, 1.0])

    assert summary.write(grouped(find([tmp_path / "runs"])), tmp_path) is None
    assert not (tmp_path / SUMMARY).exists()


def test_several_objectives_have_a_chart_each(write, tmp_path):
    for seed in range(2):
        write(f"bowl-{seed}", seed=seed, losses=[8.0, 1.0 + seed])
        write(f"mgh-{seed}", objective="mgh/box", seed=seed, losses=[8.0, 1.0 + seed])

    summary.write(grouped(find([tmp_path / "runs"])), tmp_path)

    assert {directory.name for directory in (tmp_path / SUMMARY).iterdir()} == {"bowl, sgd", "mgh_box, sgd"}
    (event,) = events_of(tmp_path / SUMMARY / "bowl, sgd").Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert len(layout.category[0].chart) == 2


def test_a_sweep_that_does_not_log_to_tensorboard_has_no_summary(write, tmp_path):
    for seed in range(2):
        write(str(seed), seed=seed, losses=[8.0, 1.0 + seed], observers=["console", "history"])

    assert summary.of_sweep(tmp_path / "runs") is None
    assert not (tmp_path / "runs" / SUMMARY).exists()
