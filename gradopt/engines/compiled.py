"""Steps by code that torch's compiler makes of the graph, called directly: without Dynamo's guards and wrappers."""

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradopt.engines.graph import LOSS, Watch
from gradopt.engines.tracing import StepGraph

Step = Callable[..., Sequence[Tensor]]
"""A function of the inputs of a `StepGraph` that returns its outputs in new tensors."""


class StepProgram:
    """A `Program` of calls that make new tensors: inputs stay as they are, so a row is kept by keeping its tensors.

    Args:
        step: One step.
    """

    def __init__(self, graph: StepGraph, step: Step) -> None:
        self.step_norm = math.nan
        self.best: tuple[float, Tensor] | None = None
        self._graph, self._step = graph, step
        self._count = len(graph.parameters)
        self._behind: Sequence[Tensor] = ()

    def run(self, rates: Tensor, watched: Sequence[Watch], stop: float) -> Tensor:
        """See `Program.run`."""
        here = [*[parameter.detach() for parameter in self._graph.parameters], *self._graph.state()]
        rows: list[tuple[float, float, float]] = []
        lowest: float = math.inf
        best = here
        by_row = [rates[0].unbind()] * len(rates) if rates.stride(0) == 0 else [row.unbind() for row in rates.unbind()]
        while True:
            out = self._step(*here, *by_row[len(rows)])
            row = (out[0].item(), out[1].item(), self.step_norm)
            rows.append(row)
            if -math.inf < row[LOSS] < lowest:
                lowest, best = row[LOSS], here
            outside = any([not low < row[column] < high for column, low, high in watched])
            if outside or len(rows) == len(rates) or time.perf_counter() >= stop:
                break
            here, self.step_norm = self._next(out), out[2].item()
        if lowest < math.inf:
            self.best = lowest, torch.cat([part.reshape(-1) for part in best[: self._count]])
        self._put(here)
        for parameter, gradient in zip(self._graph.parameters, out[3:], strict=False):
            parameter.grad = gradient
        self._behind = out
        return torch.tensor(rows, dtype=torch.float64)

    def update(self, rates: Tensor) -> None:
        """See `Program.update`: `run` has made it already, beside the live tensors."""
        self._put(self._next(self._behind))
        self.step_norm = self._behind[2].item()

    def _next(self, out: Sequence[Tensor]) -> Sequence[Tensor]:
        return out[3 + self._count :]

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for live, value in zip([*self._graph.parameters, *self._graph.state()], values, strict=True):
                live.copy_(value)
