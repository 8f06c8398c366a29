"""Loss and gradient as a program in C."""

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


class NativeEvaluation:
    """Computes the loss, and leaves the gradient in new tensors in `.grad`: a step that moves nothing, cut short before
    its update.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    def __init__(self, graph: LossGraph) -> None:
        self._parameters = graph.parameters
        source, self._rows = loaded(_standing(graph.module), graph.parameters, num_groups=0)
        self._forms = [(one.shape, one.stride(), one.dtype) for one in source.inputs]
        self._places: list[int] = []
        self._constants = source.constants
        memory = torch.zeros(source.workspace + ALIGNMENT, dtype=torch.uint8)
        self._workspace = memory[-memory.data_ptr() % ALIGNMENT :]
        own = [tensor.data_ptr() for tensor in (*self._constants, self._workspace)]
        count = len(graph.parameters)
        # Pointers of parameters, gradients and best points, which it keeps none of, then of what is its own.
        self._tensors = (ctypes.c_void_p * (3 * count + len(own)))(*[None] * (3 * count), *own)
        self._record = torch.zeros(NUM_COLUMNS, dtype=torch.float64)
        results, bands = (ctypes.c_double * 2)(-math.inf, math.nan), (ctypes.c_double * len(NO_BANDS))(*NO_BANDS)
        self._arguments = (self._tensors, None, 0, 1, bands, self._record.data_ptr(), results, math.inf)
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


def _standing(module: GraphModule) -> GraphModule:
    """The evaluation as a step that moves nothing: the loss stands for the norms as well, which nobody reads."""
    graph = Graph()
    loss, *gradients = tree_leaves(graph.graph_copy(module.graph, {}))
    graph.output((loss, loss, loss, *gradients, *[node for node in graph.nodes if node.op == "placeholder"]))
    return GraphModule(module, graph)
