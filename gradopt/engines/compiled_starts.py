"""Losses and gradients of many starts by code that torch's compiler makes of the evaluation of one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._guards import detect_fake_mode

from gradopt.engines.compiled import code_of, refused
from gradopt.engines.compiled_lanes import WHOLE
from gradopt.engines.loss_graph import LossGraph
from gradopt.engines.mapping import over_starts
from gradopt.engines.purity import Refusal

TILE = 32_768
"""Numbers of the largest tensor on the way of a tile of starts: they stay in the cache, and a whole tile takes less
time than eager takes for one start, so that an evaluation of few may fill it up.
"""


class CompiledEvaluations:
    """See `StackedOracle.differentiate`: calls for tiles of starts, which are the last axis of every tensor inside.

    Args:
        number: How many starts there are at most.

    Raises:
        Refusal: An operation cannot be mapped over starts, or the compiler fails, with its reason.
    """

    def __init__(self, graph: LossGraph, number: int) -> None:
        if graph.inputs[0].device.type != "cpu":
            raise Refusal("the unknowns are not on the CPU, and many starts have not been compiled elsewhere yet")
        values = [node.meta.get("val") for node in graph.module.graph.nodes]
        largest = max(value.numel() for value in values if isinstance(value, Tensor))
        tiles = -(-number // max(1, TILE // largest))
        self._tile = -(-number // tiles)
        if self._tile > 1:  # whole lanes of the machine
            self._tile = WHOLE * -(-self._tile // WHOLE)
        mode = detect_fake_mode(graph.inputs)
        assert mode is not None, "the inputs of a graph are fake"
        with refused():
            with mode:
                inputs = [torch.empty(*one.shape, self._tile, dtype=one.dtype) for one in graph.inputs]
            many = over_starts(graph.module, inputs)
            self._call = code_of(lambda *tensors: [one.contiguous() for one in many(*tensors)], inputs)

    def __call__(self, parts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The losses at starts given by stacked parameters, shape (starts,), and their gradients in new tensors."""
        gradients = [torch.empty_like(part, requires_grad=False) for part in parts]
        losses: list[Tensor] = []
        for begin in range(0, len(parts[0]), self._tile):
            some = slice(begin, begin + self._tile)
            loss, *slopes = self._call(*[self._laid(part.detach()[some]) for part in parts])
            for gradient, slope in zip(gradients, slopes, strict=True):
                rows = gradient[some]
                rows.copy_(slope.movedim(-1, 0)[: len(rows)])
            losses.append(loss)
        return torch.cat(losses)[: len(parts[0])], gradients

    def _laid(self, some: Tensor) -> Tensor:
        """Starts as the last axis, filled up to a tile."""
        whole = some.new_zeros(*some.shape[1:], self._tile)
        whole[..., : len(some)] = some.movedim(0, -1)
        return whole
