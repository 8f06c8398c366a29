"""A step graph as a program in C that runs many rows in place on the live tensors."""

import ctypes
import math
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from gradopt.engines.native.compiler import NoCompiler, find_compiler
from gradopt.engines.native.rules import Unprintable
from gradopt.engines.native.source import ALIGNMENT, printed
from gradopt.engines.native.step import NUM_COLUMNS
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import StepGraph


class NativeProgram:
    """A `Program`. It keeps `.grad` of the parameters in memory of its own.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    def __init__(self, graph: StepGraph) -> None:
        try:
            source = printed(graph.module, len(graph.parameters), graph.num_groups)
            self._rows = find_compiler().load(source.text).rows
        except (Unprintable, NoCompiler) as reason:
            raise Refusal(str(reason)) from reason
        if _overlap(graph.parameters):
            raise Refusal("two unknowns share memory")
        self._rows.restype = ctypes.c_long
        self.step_norm = math.nan
        self.best: tuple[float, Tensor] | None = None
        self._graph = graph
        self._forms = [(example.shape, example.stride(), example.dtype) for example in source.inputs]
        self._gradients = [_zeros(example) for example in source.inputs[: len(graph.parameters)]]
        self._points = [_zeros(example) for example in source.inputs[: len(graph.parameters)]]
        self._constants = source.constants
        memory = torch.zeros(source.workspace + ALIGNMENT, dtype=torch.uint8)
        self._workspace = memory[-memory.data_ptr() % ALIGNMENT :]

    def run(self, rates: Tensor, watched: Sequence[tuple[int, float, float]], stop: float) -> Tensor:
        """Evaluate up to len(rates) rows; see `Program.run`."""
        table = [(0.0, -math.inf, math.inf)] * NUM_COLUMNS
        for column, low, high in watched:
            table[column] = (1.0, max(low, table[column][1]), min(high, table[column][2]))
        bands = torch.tensor(table, dtype=torch.float64)
        records = torch.empty(len(rates), NUM_COLUMNS, dtype=torch.float64)
        return records[: self._call(rates, len(rates), bands, records, stop - time.perf_counter())]

    def update(self, rates: Tensor) -> None:
        """The update behind the last row; see `Program.update`."""
        nothing = torch.empty(0, dtype=torch.float64)
        self._call(rates.reshape(1, -1), 0, nothing, nothing, math.inf)

    def _call(self, rates: Tensor, limit: int, bands: Tensor, records: Tensor, seconds: float) -> int:
        best_loss = ctypes.c_double(math.inf if self.best is None else self.best[0])
        lowest, step_norm = best_loss.value, ctypes.c_double(self.step_norm)
        addresses = self._addresses()
        rows = self._rows(
            (ctypes.c_void_p * len(addresses))(*addresses),
            ctypes.c_void_p(rates.data_ptr()),
            ctypes.c_long(rates.stride(0)),
            ctypes.c_long(limit),
            ctypes.c_void_p(bands.data_ptr()),
            ctypes.c_void_p(records.data_ptr()),
            ctypes.byref(best_loss),
            ctypes.byref(step_norm),
            ctypes.c_double(seconds),
        )
        self.step_norm = step_norm.value
        if best_loss.value < lowest:
            self.best = best_loss.value, torch.cat([point.reshape(-1) for point in self._points])
        return rows

    def _addresses(self) -> list[int]:
        """Of the live tensors, which may be others than at the last call: a loaded state brings its own."""
        live = [*self._graph.parameters, *self._graph.state()]
        for tensor, (shape, stride, dtype) in zip(live, self._forms, strict=True):
            assert tensor.shape == shape and tensor.stride() == stride and tensor.dtype == dtype, (
                "the state has changed its form"
            )
        for parameter, gradient in zip(self._graph.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return [t.data_ptr() for t in (*live, *self._gradients, *self._points, *self._constants, self._workspace)]


def _zeros(example: Tensor) -> Tensor:
    return torch.empty_strided(example.shape, example.stride(), dtype=example.dtype).zero_()


def _overlap(tensors: Sequence[Tensor]) -> bool:
    """Whether any two of these dense tensors do."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.numel() * t.itemsize) for t in tensors if t.numel())
    return any(end > start for (_, end), (start, _) in pairwise(spans))
