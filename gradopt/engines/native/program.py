"""A step graph as a program in C that runs many rows in place on the live tensors."""

import ctypes
import math
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.fx import GraphModule

from gradopt.engines.native.calls import Unprintable
from gradopt.engines.native.compiler import NoCompiler, find_compiler
from gradopt.engines.native.source import ALIGNMENT, Source, printed
from gradopt.engines.native.step import NUM_COLUMNS
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import StepGraph

ARGUMENTS = [
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_long,
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_double,
]

NO_BANDS = (0.0, -math.inf, math.inf) * NUM_COLUMNS


class NativeProgram:
    """A `Program`. It keeps `.grad` of the parameters in memory of its own.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    def __init__(self, graph: StepGraph) -> None:
        source, library = loaded(graph.module, graph.parameters, graph.num_groups)
        self._rows = library.rows
        self.step_norm = math.nan
        self.best: tuple[float, Tensor] | None = None
        self._graph = graph
        self._forms = [(example.shape, example.stride(), example.dtype) for example in source.inputs]
        self._gradients = [_zeros(example) for example in source.inputs[: len(graph.parameters)]]
        self._points = [_zeros(example) for example in source.inputs[: len(graph.parameters)]]
        self._constants = source.constants
        memory = torch.zeros(source.workspace + ALIGNMENT, dtype=torch.uint8)
        self._workspace = memory[-memory.data_ptr() % ALIGNMENT :]
        own = (*self._gradients, *self._points, *self._constants, self._workspace)
        self._own_addresses = [tensor.data_ptr() for tensor in own]

    def run(self, rates: Tensor, watched: Sequence[tuple[int, float, float]], stop: float) -> Tensor:
        """Evaluate up to len(rates) rows; see `Program.run`."""
        bands = list(NO_BANDS)
        for column, low, high in watched:
            _, lowest, highest = bands[3 * column : 3 * column + 3]
            bands[3 * column : 3 * column + 3] = 1.0, max(low, lowest), min(high, highest)
        limit = rates.shape[0]
        records = torch.empty(limit, NUM_COLUMNS, dtype=torch.float64)
        rows = self._call(rates, limit, bands, records, stop - time.perf_counter())
        return records[:rows]

    def update(self, rates: Tensor) -> None:
        """The update behind the last row; see `Program.update`."""
        self._call(rates, 0, NO_BANDS, None, math.inf)

    def _call(self, rates: Tensor, limit: int, bands: Sequence[float], records: Tensor | None, seconds: float) -> int:
        lowest = math.inf if self.best is None else self.best[0]
        results = (ctypes.c_double * 2)(lowest, self.step_norm)
        addresses = self._addresses()
        rows = self._rows(
            (ctypes.c_void_p * len(addresses))(*addresses),
            rates.data_ptr(),
            rates.stride(0) if limit else 0,
            limit,
            (ctypes.c_double * len(bands))(*bands),
            None if records is None else records.data_ptr(),
            results,
            seconds,
        )
        best_loss, self.step_norm = results
        if best_loss < lowest:
            self.best = best_loss, torch.cat([point.reshape(-1) for point in self._points])
        return rows

    def _addresses(self) -> list[int]:
        """Of the live tensors, which may be others than at the last call: a loaded state brings its own."""
        live = [*self._graph.parameters, *self._graph.state()]
        for tensor, form in zip(live, self._forms, strict=True):
            if (tensor.shape, tensor.stride(), tensor.dtype) != form:
                raise RuntimeError(
                    f"a tensor of {tensor.dtype}, shape {tuple(tensor.shape)}, was traced in another form"
                )
        for parameter, gradient in zip(self._graph.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return [tensor.data_ptr() for tensor in live] + self._own_addresses


def loaded(
    module: GraphModule, parameters: Sequence[Tensor], num_groups: int, *, behind: str = ""
) -> tuple[Source, ctypes.CDLL]:
    """The source of a step graph, see `printed`, and what has become of it; with more functions in C behind `rows`.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """
    try:
        source = printed(module, len(parameters), num_groups)
        library = find_compiler().load(source.text + behind)
    except (Unprintable, NoCompiler) as reason:
        raise Refusal(str(reason)) from reason
    except RecursionError as error:
        raise Refusal("a chain of operations too long to be printed") from error
    if _overlap(parameters):
        raise Refusal("two unknowns share memory")
    library.rows.restype, library.rows.argtypes = ctypes.c_long, ARGUMENTS
    return source, library


def _zeros(example: Tensor) -> Tensor:
    return torch.empty_strided(example.shape, example.stride(), dtype=example.dtype).zero_()


def _overlap(tensors: Sequence[Tensor]) -> bool:
    """Whether any two of these dense tensors do."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.numel() * t.itemsize) for t in tensors if t.numel())
    return any(end > start for (_, end), (start, _) in pairwise(spans))
