"""TensorBoard event files, written on a schedule with TensorBoard's own record writer."""

# The protocol buffers make their classes when they are imported: the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from gradopt.contracts import Block, Run
from gradopt.result import Result, Results

FLUSH_SECONDS = 2.0
METRICS_SHARE = 0.05
"""Share of the time that evaluating metrics may take."""

EVERY_STEP = 64
"""Steps logged one by one; later ones at about this many points for each doubling of the steps: under 1000 a run."""


class TensorBoard:
    """Scalars, config and final result of the run for TensorBoard, in the run directory.

    One event holds all values of a step. The first and the last step are always there, and so is all that was logged up
    to two seconds before a kill. A new file each session; files are never appended to.
    """

    def __init__(self) -> None:
        self._writer: RecordWriter | None = None
        self._flushed = 0.0
        self._last_logged = -1
        self._best = math.inf
        self._known: set[str] = set()
        self._metrics_free = 0.0
        self._pending: tuple[Block, Callable[[], Mapping[str, float]]] | None = None

    def open(self, run: Run) -> None:
        """Open the file, write the config and the start of the session."""
        if run.directory is None:
            return
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (Path(run.directory) / name).open("wb")
        self._writer = RecordWriter(self._file)
        self._wall = time.time()
        self._event(file_version="brain.Event:2")
        # Without it TensorBoard draws a resumed run in zigzags.
        self._event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        rows = "".join(f"| {name} | {value} |\n" for name, value in run.facts.items())
        self._event(summary=[_text("run/facts", f"| | |\n|---|---|\n{rows}")])
        self._event(summary=[_text("run/config", f"```yaml\n{_yaml(run.config)}```")])
        self._event(summary=[_session_start(dict(_flat(run.config)), self._wall)])

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Write the rows that are due."""
        if self._writer is None:
            return
        losses = block["best_loss" if "best_loss" in block.columns else "full_loss"][:, 0]
        finite = torch.where(losses.isfinite(), losses, math.inf)
        best = torch.cummin(torch.cat([torch.tensor([self._best], dtype=torch.float64), finite]), dim=0).values[1:]
        self._best = best[-1].item()
        for row in (index for index in range(len(block)) if _due(block.first_step + index)):
            self._row(block, row, best[row].item(), {})
        started = time.perf_counter()
        if block.first_step == 0 or (block.measured[-1] and started >= self._metrics_free):
            values = metrics()
            if values:
                self._scalars(block, len(block) - 1, {f"metrics/{name}": value for name, value in values.items()})
            ended = time.perf_counter()
            self._metrics_free = ended + (ended - started) / METRICS_SHARE
        self._pending = (block, metrics)
        now = time.perf_counter()
        if now - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = now

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Write the last step, the verdict and the end of the session."""
        if self._writer is None:
            return
        shown = result.best_start if isinstance(result, Results) else result
        if self._pending is not None:
            block, _ = self._pending
            last = len(block) - 1
            if self._last_logged < block.last_step:
                self._row(block, last, self._best, {})
            if shown is not None:
                final = {f"metrics/{name}": value for name, value in shown.metrics.items()}
                self._scalars(block, last, {"final/loss": shown.fun, "final/steps": float(shown.nit), **final})
        text = str(result) if result is not None else f"{type(error).__name__}: {error}"
        self._event(summary=[_text("run/verdict", text)])
        self._event(summary=[_session_end(shown is not None and not shown.status.failure)])
        self._writer.flush()
        self._file.close()

    def _row(self, block: Block, row: int, best: float, extra: Mapping[str, float]) -> None:
        values = {
            "opt/loss": block["loss"][row, 0].item(),
            "opt/best_loss": best,
            "opt/gradient_norm": block["gradient_norm"][row, 0].item(),
            "opt/step_norm": block["step_norm"][row, 0].item(),
            "opt/learning_rate": block["learning_rate"][row, 0].item(),
            "time/evaluations": block["evaluations"][row, 0].item(),
        }
        if "going" in block.columns:
            values["opt/going"] = block["going"][row, 0].item()
        if "violation" in block.columns:
            values["opt/violation"] = block["violation"][row, 0].item()
            del values["opt/best_loss"]  # the lowest is of a point that misses the constraints
        if block["full_loss"] is not block["loss"] and block.measured[row]:
            values["opt/full_loss"] = block["full_loss"][row, 0].item()
        if block.first_step + row == 0:  # there is no step before the first row
            del values["opt/step_norm"]
        self._scalars(block, row, {**values, **extra})
        self._last_logged = block.first_step + row

    def _scalars(self, block: Block, row: int, values: Mapping[str, float]) -> None:
        # Only the first value of a tag says what it is: the rest of the file is a third as long, and as quick to write.
        summary = [_scalar(tag, value, first=tag not in self._known) for tag, value in values.items()]
        self._known.update(values)
        self._event(summary=summary, step=block.first_step + row, wall=self._wall + block["seconds"][row, 0].item())

    def _event(
        self, *, summary: Iterable[Any] | None = None, step: int = 0, wall: float | None = None, **content: Any
    ) -> None:
        assert self._writer is not None
        event = event_pb2.Event(wall_time=time.time() if wall is None else wall, step=step, **content)
        if summary is not None:
            event.summary.value.extend(summary)
        self._writer.write(event.SerializeToString())


def _due(step: int) -> bool:
    return step < EVERY_STEP or step % (1 << (step // EVERY_STEP).bit_length() - 1) == 0


def _scalar(tag: str, value: float, *, first: bool) -> Any:
    if not first:
        return summary_pb2.Summary.Value(tag=tag, simple_value=value)
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_SCALAR)
    return summary_pb2.Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def _text(tag: str, markdown: str) -> Any:
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        string_val=[markdown.encode()],
        tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]),
    )
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=_metadata("text", b""))


def _session_start(hparams: Mapping[str, Any], wall: float) -> Any:
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=wall)
    for name, value in hparams.items():
        if isinstance(value, bool):  # before int, which it is too
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        elif value is not None:  # as a string, None would turn a column of numbers into one of strings
            info.hparams[name].string_value = str(value)
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _hparams("_hparams_/session_start_info", data.SerializeToString())


def _session_end(fine: bool) -> Any:
    status = api_pb2.STATUS_SUCCESS if fine else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _hparams("_hparams_/session_end_info", data.SerializeToString())


def _hparams(tag: str, content: bytes) -> Any:
    empty = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=0)])
    null = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=empty)
    return summary_pb2.Summary.Value(tag=tag, tensor=null, metadata=_metadata("hparams", content))


def _metadata(plugin: str, content: bytes) -> Any:
    return summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The config's leaves by dotted name; without `seed`, so that runs that differ only in it form one group."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "seed":
            yield f"{prefix}{name}", value


def _yaml(config: Mapping[str, Any], indent: str = "") -> str:
    text = ""
    for name, value in config.items():
        text += f"{indent}{name}:"
        text += f"\n{_yaml(value, indent + '  ')}" if isinstance(value, Mapping) and value else f" {value}\n"
    return text
