"""Events come back from TensorBoard's readers, and their files survive full disks, forks and torn tails."""

import math
import os
import subprocess
import sys

import numpy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from gradopt.observers import events
from gradopt.observers.event_file import EventFile
from gradopt.observers.events import Margin
from tests.installed import environment


def read(place):
    accumulator = EventAccumulator(os.fspath(place), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_come_back_as_float32(tmp_path):
    values = [1.5, math.inf, -math.inf, math.nan, -0.0, 1e-40, 1e-60]
    with EventFile(tmp_path) as file:
        for step, value in enumerate(values):
            made = (
                events.scalar("größe", value) if step else events.described_scalar("größe", value, "size", "How big.")
            )
            file.write([made], step=step, wall=100.0 + step)

    found = read(tmp_path)
    points = found.Scalars("größe")
    assert [point.step for point in points] == list(range(len(values)))
    assert [point.wall_time for point in points] == [100.0 + step for step in range(len(values))]
    numpy.testing.assert_array_equal([point.value for point in points], numpy.float32(values).astype(float))
    assert found.SummaryMetadata("größe").display_name == "size"


@pytest.mark.parametrize("sample", [[3.0] * 5, [-1.0316284534898772, -1.031628453489877], [-1e308, 1e308], [0.0]])
def test_a_histogram_takes_whatever_is_finite(sample):
    rows = numpy.frombuffer(events.histogram("h", sample).tensor.tensor_content).reshape(-1, 3)

    assert rows[:, 2].sum() == len(sample) and numpy.isfinite(rows).all() and (rows[:, 0] < rows[:, 1]).all()


def test_a_histogram_counts_what_is_finite(tmp_path):
    with EventFile(tmp_path) as file:
        file.write([events.histogram("h", [0.0, 1.0, 1.0, math.nan, math.inf]), events.histogram("none", [math.nan])])

    found = read(tmp_path)
    rows = tensor_util.make_ndarray(found.Tensors("h")[0].tensor_proto)
    assert rows.shape == (events.BINS, 3)
    assert (rows[0, 2], rows[-1, 2], rows[:, 2].sum()) == (1, 2, 3)
    assert (rows[0, 0], rows[-1, 1]) == (0.0, 1.0)
    assert tensor_util.make_ndarray(found.Tensors("none")[0].tensor_proto)[:, 2].sum() == 0


def test_hparams_keep_their_types():
    value = events.session_start({"flag": True, "number": 3, "none": None, "list": [1], "far": math.inf}, group="g")

    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    info = HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info
    assert info.group_name == "g"
    assert info.hparams["flag"].WhichOneof("kind") == "bool_value"
    assert info.hparams["number"].number_value == 3.0
    assert info.hparams["list"].string_value == "[1]" and info.hparams["far"].string_value == "inf"
    assert "none" not in info.hparams


def test_charts_keep_their_order():
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    value = events.margin_charts({"c": {"one": Margin("v", "l", "u"), "two": [Margin("a", "b", "c")] * 2}})

    (category,) = Layout.FromString(value.tensor.string_val[0]).category
    assert [chart.title for chart in category.chart] == ["one", "two"]
    assert [series.lower for series in category.chart[1].margin.series] == ["b", "b"]


def test_a_torn_tail_leaves_the_rest_readable(tmp_path):
    with EventFile(tmp_path) as file:
        for step in range(10):
            file.write([events.scalar("a", float(step))], step=step)
    (torn,) = tmp_path.iterdir()
    torn.write_bytes(torn.read_bytes()[:-5])

    assert [point.step for point in read(tmp_path).Scalars("a")] == list(range(9))


def child(code, place):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


FORK = """
import os
from gradopt.observers import events
from gradopt.observers.event_file import EventFile
file = EventFile(".")
file.write([events.scalar("a", 1.0)], step=1)
if os.fork() == 0:
    file.write([events.scalar("a", 2.0)], step=2)
    file.close()
    raise SystemExit
os.wait()
file.write([events.scalar("a", 3.0)], step=3)
file.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_writes_nothing_twice(tmp_path):
    done = child(FORK, tmp_path)

    assert done.returncode == 0, done.stderr
    assert [point.step for point in read(tmp_path).Scalars("a")] == [1, 3]


FULL = """
import resource, sys
import torch, gradopt
from gradopt.observers.history import HistoryFile
from gradopt.observers.tensorboard import TensorBoard
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
result = gradopt.minimise(
    lambda x: (x - 3).square().sum(), [0.0], optimiser="sgd", optimiser_options={"lr": 1e-7}, engine="eager",
    stop=gradopt.Stop(max_steps=30_000), observers=[TensorBoard(), HistoryFile()], directory=".",
)
print(result.nit, result.status.value, len(result.history["loss"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to files")
def test_a_full_disk_costs_a_warning_and_no_more(tmp_path):
    done = child(FULL, tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["30000", "max_steps", "30001"]
    (warning,) = done.stderr.splitlines()  # of the disk; the log has who found no room
    assert warning.startswith("the disk takes no more (")
    history = numpy.load(tmp_path / "history.npy")
    assert 0 < len(history) < 30_000 and list(history["step"][:3]) == [0, 1, 2]
    steps = [point.step for point in read(tmp_path).Scalars("opt/loss")]
    assert steps[:3] == [0, 1, 2] and len(steps) > 100
