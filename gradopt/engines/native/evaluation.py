"""Loss and gradient as a program in C, at one start and at many."""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.utils._pytree import tree_leaves

from gradopt.engines.loss_graph import LossGraph
from gradopt.engines.native.program import NO_BANDS, loaded
from gradopt.engines.native.source import ALIGNMENT
from gradopt.engines.native.step import NUM_COLUMNS

MANY = f"""
void starts(void *const *tensors, const long *bytes, long count, long number, const double *bands, double *records)
{{
void *here[count];
double results[2] = {{-INFINITY, NAN}};
for (long k = 0; k < count; k++) here[k] = tensors[k];
for (long s = 0; s < number; s++, records += {NUM_COLUMNS}) {{
rows(here, 0, 0, 1, bands, records, results, INFINITY);
for (long k = 0; k < count; k++) here[k] = (char *) here[k] + bytes[k];
}}
}}
"""
"""One row of each of `number` starts, whose tensors are so many bytes apart."""


class NativeEvaluation:
    """Computes the loss, and leaves the gradient in new tensors in `.grad`: a step that moves nothing, cut short before
    its update.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    def __init__(self, graph: LossGraph) -> None:
        self._parameters = graph.parameters
        source, library = loaded(_standing(graph.module), graph.parameters, num_groups=0)
        self._rows = library.rows
        self._forms = [(one.shape, one.stride(), one.dtype) for one in source.inputs]
        self._places: list[int] = []
        self._constants, self._workspace = source.constants, _aligned(source.workspace)
        own = [tensor.data_ptr() for tensor in (*self._constants, self._workspace)]
        count = len(graph.parameters)
        # Pointers of parameters, gradients and best points, which it keeps none of, then of what is its own.
        self._tensors = (ctypes.c_void_p * (3 * count + len(own)))(*[None] * (3 * count), *own)
        self._record = torch.zeros(NUM_COLUMNS, dtype=torch.float64)
        results = (ctypes.c_double * 2)(-math.inf, math.nan)
        self._arguments = (self._tensors, None, 0, 1, _no_bands(), self._record.data_ptr(), results, math.inf)
        self._loss = self._record[0]

    def __call__(self) -> Tensor:
        """Its value holds until the next call."""
        tensors, count = self._tensors, len(self._parameters)
        places = [parameter.data_ptr() for parameter in self._parameters]
        if places != self._places:
            self._look(places)
        for slot, parameter in enumerate(self._parameters, count):
            parameter.grad = gradient = torch.empty_like(parameter)
            tensors[slot] = gradient.data_ptr()
        self._rows(*self._arguments)
        return self._loss

    def _look(self, places: Sequence[int]) -> None:
        """Take the parameters where they are now."""
        if [(one.shape, one.stride(), one.dtype) for one in self._parameters] != self._forms:
            raise RuntimeError("an unknown has another shape, stride or type than when it was traced")
        self._tensors[: len(places)] = self._places = list(places)


class NativeEvaluations:
    """The same at many starts, one after another: see `StackedOracle.differentiate`.

    Raises:
        Refusal: As `NativeEvaluation`.
    """

    def __init__(self, graph: LossGraph) -> None:
        source, library = loaded(_standing(graph.module), graph.parameters, num_groups=0, behind=MANY)
        self._starts = library.starts
        self._starts.restype, pointer, number = None, ctypes.c_void_p, ctypes.c_long
        self._starts.argtypes = [pointer, pointer, number, number, pointer, pointer]
        self._examples, self._dtype = source.inputs, graph.loss.dtype
        self._constants, self._workspace = source.constants, _aligned(source.workspace)
        own = [tensor.data_ptr() for tensor in (*self._constants, self._workspace)]
        sizes = [example.numel() * example.itemsize for example in source.inputs]
        self._own = [*[0] * len(sizes), *own]
        self._count = 2 * len(sizes) + len(self._own)
        self._bytes = (ctypes.c_long * self._count)(*sizes, *sizes, *[0] * len(self._own))
        self._bands = _no_bands()

    def __call__(self, parts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The losses at starts given by stacked parameters, shape (starts,), and their gradients in new tensors."""
        number = len(parts[0])
        points, gradients = ([self._room(number, example) for example in self._examples] for _ in range(2))
        for point, part in zip(points, parts, strict=True):
            point.copy_(part.detach())
        records = torch.empty(number, NUM_COLUMNS, dtype=torch.float64)
        addresses = [tensor.data_ptr() for tensor in (*points, *gradients)]
        tensors = (ctypes.c_void_p * self._count)(*addresses, *self._own)
        self._starts(tensors, self._bytes, self._count, number, self._bands, records.data_ptr())
        return records[:, 0].to(self._dtype), gradients

    @staticmethod
    def _room(number: int, example: Tensor) -> Tensor:
        """For so many tensors like one, each as dense in memory as that."""
        strides = example.numel(), *example.stride()
        return torch.empty_strided((number, *example.shape), strides, dtype=example.dtype)


def _standing(module: GraphModule) -> GraphModule:
    """The evaluation as a step that moves nothing: the loss stands for the norms as well, which nobody reads."""
    graph = Graph()
    loss, *gradients = tree_leaves(graph.graph_copy(module.graph, {}))
    graph.output((loss, loss, loss, *gradients, *[node for node in graph.nodes if node.op == "placeholder"]))
    return GraphModule(module, graph)


def _aligned(size: int) -> Tensor:
    """So many bytes of memory."""
    memory = torch.zeros(size + ALIGNMENT, dtype=torch.uint8)
    return memory[-memory.data_ptr() % ALIGNMENT :]


def _no_bands() -> "ctypes.Array[ctypes.c_double]":
    return (ctypes.c_double * len(NO_BANDS))(*NO_BANDS)
