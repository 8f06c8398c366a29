"""A step graph as a program in C that runs many rows in place on the live tensors."""

import ctypes
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradopt.engines.native.compiler import NoCompiler, find_compiler
from gradopt.engines.native.rules import Unprintable
from gradopt.engines.native.source import printed

NUM_COLUMNS = 3


class NativeProgram:
    """A `Program`; see `printed` for the function it calls.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    def __init__(self, graph: Any) -> None:
        source = printed(graph.module, len(graph.parameters), graph.num_groups)
        self.text = source.text
        self._rows = find_compiler().load(source.text).rows
        self._rows.restype = ctypes.c_long
        self._graph = graph
        self._parameters = list(graph.parameters)
        self._gradients = [torch.zeros_like(p) for p in self._parameters]
        self._points = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in self._parameters]
        self._constants = source.constants
        self._workspace = torch.empty(source.workspace + 64, dtype=torch.uint8)
        self._best_loss = ctypes.c_double(math.inf)
        self._step_norm = ctypes.c_double(math.nan)

    def run(self, rates: Tensor, bands: Sequence[tuple[int, float, float]], stop: float) -> Tensor:
        """Evaluate up to len(rates) rows; see `Program.run`."""
        table = [(0.0, 0.0, 0.0)] * NUM_COLUMNS
        for column, low, high in bands:
            if table[column][0]:
                low, high = max(low, table[column][1]), min(high, table[column][2])
            table[column] = (1.0, low, high)
        watched = torch.tensor(table, dtype=torch.float64)
        records = torch.empty(len(rates), NUM_COLUMNS, dtype=torch.float64)
        count = self._call(rates, len(rates), watched, records, stop - time.perf_counter())
        return records[:count]

    def update(self, rates: Tensor) -> None:
        """Make the update behind the last row."""
        nothing = torch.empty(0, dtype=torch.float64)
        self._call(rates, 0, nothing, nothing, math.inf)

    @property
    def best(self) -> tuple[float, Tensor] | None:
        """Lowest finite loss since it was last taken, and where; taking it forgets it."""
        if self._best_loss.value == math.inf:
            return None
        loss = self._best_loss.value
        self._best_loss.value = math.inf
        return loss, torch.cat([point.reshape(-1) for point in self._points])

    def _call(self, rates: Tensor, limit: int, bands: Tensor, records: Tensor, seconds: float) -> int:
        rates = rates.to(torch.float64).contiguous()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        tensors = [
            *self._parameters, *self._graph.state(), *self._gradients, *self._points, *self._constants, self._workspace,
        ]  # fmt: skip
        addresses = (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
        start = self._workspace.data_ptr()
        addresses[len(tensors) - 1] = start + -start % 64
        return self._rows(
            addresses,
            ctypes.c_void_p(rates.data_ptr()),
            ctypes.c_long(limit),
            ctypes.c_void_p(bands.data_ptr()),
            ctypes.c_void_p(records.data_ptr()),
            ctypes.byref(self._best_loss),
            ctypes.byref(self._step_norm),
            ctypes.c_double(seconds),
        )


__all__ = ["NativeProgram", "NoCompiler", "Unprintable"]
