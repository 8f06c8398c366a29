"""What TensorBoard reads, as its own protocol buffers: values of each kind, and the events that carry them.

An event holds any number of values of one step. Every function here is pure; `EventFile` writes what they return.
"""

# The protocol buffers make their classes when they are imported: the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

import html
import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

BINS = 30

LARGEST = float(numpy.finfo(numpy.float32).max)
"""What TensorBoard can draw."""

NARROWEST, WIDEST = 1e-12, 1e300
"""Of the numbers of a histogram: how far they differ, relative to their size, where bins can tell them apart; and the
largest size, of which differences are numbers still."""


class Margin(NamedTuple):
    """The tags of a curve in a band, for `margin_charts`."""

    value: str
    lower: str
    upper: str


def event(values: Iterable[Any], *, step: int = 0, wall: float | None = None) -> Any:
    """An event of values made below.

    Args:
        wall: Seconds since 1970; now if left out.
    """
    made = event_pb2.Event(wall_time=time.time() if wall is None else wall, step=step)
    made.summary.value.extend(values)
    return made


def version() -> Any:
    """The event that every file begins with."""
    return event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")


def started(step: int) -> Any:
    """The event with which a session begins whose first step is `step`: points of earlier sessions from there on are
    void. Without one in each session, the first included, TensorBoard draws a resumed run in zigzags.
    """
    return event_pb2.Event(
        wall_time=time.time(), step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    )


def scalar(tag: str, value: float) -> Any:
    """A point of a curve; TensorBoard keeps it as a float32."""
    return summary_pb2.Summary.Value(tag=tag, simple_value=value)


def described_scalar(tag: str, value: float, name: str = "", description: str = "") -> Any:
    """The first point of a curve, which says what it is.

    Later ones need not: the rest of the file is a third as long, and as quick to write.

    Args:
        name: Shown in place of the tag.
        description: Markdown, shown beside it.
    """
    metadata = _metadata("scalars", summary_pb2.DATA_CLASS_SCALAR, display_name=name, summary_description=description)
    return summary_pb2.Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def text(tag: str, markdown: str) -> Any:
    """A text, shown as Markdown."""
    tensor = _strings([markdown.encode()], 1)
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=_metadata("text", summary_pb2.DATA_CLASS_TENSOR))


def table(rows: Mapping[str, Any], names: str) -> str:
    """A Markdown table of names and values, for `text`.

    Args:
        names: What they are, at the head of their column.
    """
    lines = [(names, "value"), ("---", "---"), *((_cell(name), _cell(value)) for name, value in rows.items())]
    return "".join(f"| {name} | {value} |\n" for name, value in lines)


def histogram(tag: str, sample: Any, *, name: str = "", description: str = "") -> Any:
    """A histogram of an array in equal bins; what is not finite is left out, what differs by rounding is in one bin."""
    sample = numpy.asarray(sample, numpy.float64).ravel()
    sample = sample[numpy.isfinite(sample)].clip(-WIDEST, WIDEST)
    low, high = (sample.min(), sample.max()) if len(sample) else (0.0, 1.0)
    if high - low <= NARROWEST * max(abs(low), abs(high)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    counts, edges = numpy.histogram(sample, BINS, (low, high))
    rows = numpy.stack([edges[:-1], edges[1:], counts], axis=1).astype("<f8")
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_DOUBLE, tensor_content=rows.tobytes(), tensor_shape=_shape(BINS, 3)
    )
    metadata = _metadata(
        "histograms", summary_pb2.DATA_CLASS_TENSOR, display_name=name, summary_description=description
    )
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def session_start(hparams: Mapping[str, Any], *, group: str = "", wall: float | None = None) -> Any:
    """The hyperparameters of a run: its row in the HPARAMS tab.

    Args:
        hparams: Numbers, flags and strings; lists and others are shown as strings, and None is left out.
        group: Runs of the same group, such as those that differ in their seed only, are one row, with the mean of their
            values. It must be unique to the sweep where sweeps share a directory.
    """
    info = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time() if wall is None else wall)
    for name, value in hparams.items():
        if isinstance(value, bool):  # before int, which it is too
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float) and math.isfinite(value):  # TensorBoard's JSON has no infinity
            info.hparams[name].number_value = value
        elif value is not None:  # as a string, None would turn a column of numbers into one of strings
            info.hparams[name].string_value = str(value)
    return _session("session_start_info", plugin_data_pb2.HParamsPluginData(session_start_info=info))


def session_end(*, success: bool) -> Any:
    """The end of the run that `session_start` began."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return _session("session_end_info", plugin_data_pb2.HParamsPluginData(session_end_info=info))


def margin_charts(categories: Mapping[str, Mapping[str, Margin | Iterable[Margin]]]) -> Any:
    """The layout of the CUSTOM SCALARS tab: by category and title a chart of curves, each in a band."""
    layout = layout_pb2.Layout()
    for category, charts in categories.items():
        drawn = layout.category.add(title=category)
        for title, margins in charts.items():
            chart = drawn.chart.add(title=title)
            for margin in [margins] if isinstance(margins, Margin) else margins:
                chart.margin.series.add(value=margin.value, lower=margin.lower, upper=margin.upper)
    metadata = _metadata("custom_scalars", summary_pb2.DATA_CLASS_TENSOR)
    tensor = _strings([layout.SerializeToString()])
    return summary_pb2.Summary.Value(tag="custom_scalars__config__", tensor=tensor, metadata=metadata)


def log10(value: float) -> float:
    """Of a positive number; NaN for others. Values are shown in float32 with four decimals, on a linear axis: small
    ones are to be seen by their logarithm.
    """
    return math.log10(value) if value > 0 else math.nan


def _session(name: str, content: Any) -> Any:
    null = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=_shape(0))
    metadata = _metadata("hparams", summary_pb2.DATA_CLASS_UNKNOWN, content.SerializeToString())
    return summary_pb2.Summary.Value(tag=f"_hparams_/{name}", tensor=null, metadata=metadata)


def _metadata(plugin: str, data_class: int, content: bytes = b"", **described: str) -> Any:
    data = summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return summary_pb2.SummaryMetadata(plugin_data=data, data_class=data_class, **described)


def _strings(values: list[bytes], *sizes: int) -> Any:
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=values, tensor_shape=_shape(*sizes))


def _shape(*sizes: int) -> Any:
    return tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in sizes])


def _cell(value: Any) -> str:
    return re.sub(r"([\\`*_|])", r"\\\1", html.escape(str(value), quote=False)).replace("\n", " ")
