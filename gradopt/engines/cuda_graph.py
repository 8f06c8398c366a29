"""Steps as one CUDA graph that is replayed: the host waits for the device once in many steps.

Unproven: it has not run on a GPU yet.
"""

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradopt.engines.graph import STEP_NORM, Watch
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import StepGraph

CAPACITY = 1024
"""Rows that one call of `run` can hold."""

REPLAYS = 32
"""Rows between two reads."""

COLUMNS = 3


def captured(graph: StepGraph) -> "MaskedProgram":
    """Capture a row on the device of the parameters.

    Raises:
        Refusal: They are on no CUDA device, or an operation cannot be captured.
    """
    device = cuda_device(graph)
    program = MaskedProgram(graph)
    program.row = replayed(program.row, device)
    return program


def cuda_device(graph: StepGraph) -> torch.device:
    """Where the parameters are.

    Raises:
        Refusal: On no CUDA device.
    """
    device = graph.parameters[0].device
    if device.type != "cuda":
        raise Refusal(f"the unknowns are on {device}, and CUDA graphs need device=cuda")
    return device


def replayed(row: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture a row, which reads and writes tensors that stay where they are: what comes back launches all of it.

    It is made a few times, so its tensors are set afterwards.

    Raises:
        Refusal: An operation cannot be captured.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose their kernels and take their memory before a capture
                row()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                row()
        except RuntimeError as error:
            raise Refusal(f"it cannot be captured: {str(error).partition(chr(10))[0]}") from error
    return graph.replay


class MaskedProgram:
    """A `Program` whose rows judge themselves: from the first one outside the bands on, nothing moves any more.

    So rows can be launched blindly; the records say how many of them there were. All tensors stay where they are.

    Attributes:
        row: Evaluates where the unknowns stand, records, and updates them if the row is inside its bands and not the
            last one.
    """

    def __init__(self, graph: StepGraph) -> None:
        device = graph.parameters[0].device
        self.row: Callable[[], None] = self._row
        self.step_norm = math.nan
        self.best: tuple[float, Tensor] | None = None
        self._graph, self._count = graph, len(graph.parameters)
        self._here = [torch.zeros(t.shape, dtype=t.dtype, device=device) for t in graph.inputs[: -graph.num_groups]]
        self._behind = [torch.zeros_like(tensor) for tensor in self._here]
        self._gradients = [torch.zeros_like(tensor) for tensor in self._here[: self._count]]
        self._best_point = [torch.zeros_like(tensor) for tensor in self._gradients]
        self._rates = torch.zeros(CAPACITY, graph.num_groups, dtype=torch.float64, device=device)
        self._records = torch.zeros(CAPACITY, COLUMNS, dtype=torch.float64, device=device)
        self._bands = torch.zeros(COLUMNS, 3, dtype=torch.float64, device=device)  # whether tested, low, high
        self._best_loss, self._norm, self._norm_behind = torch.zeros(3, dtype=torch.float64, device=device).unbind()
        self._rows, self._limit = torch.zeros(2, dtype=torch.int64, device=device).unbind()
        self._alive = torch.zeros((), dtype=torch.bool, device=device)

    def run(self, rates: Tensor, watched: Sequence[Watch], stop: float) -> Tensor:
        """See `Program.run`."""
        rates = rates[:CAPACITY]
        bands = torch.tensor([[0.0, -math.inf, math.inf]] * COLUMNS, dtype=torch.float64)
        for column, low, high in watched:
            bands[column] = torch.tensor([1.0, max(low, bands[column, 1]), min(high, bands[column, 2])])
        self._bands.copy_(bands)
        self._rates[: len(rates)] = rates
        self._norm.fill_(self.step_norm)
        self._limit.fill_(len(rates))
        self._rows.zero_()
        self._alive.fill_(True)
        self._best_loss.fill_(math.inf)
        self._copy(self._here, self._live())
        while True:
            for _ in range(min(REPLAYS, len(rates))):
                self.row()
            if not self._alive.item():
                break
            if time.perf_counter() >= stop:  # one row more: the run stands on one that is evaluated
                self._limit.copy_(self._rows + 1)
        self._copy(self._live(), self._here)
        for parameter, gradient in zip(self._graph.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        loss = self._best_loss.item()
        self.best = (loss, torch.cat([part.flatten() for part in self._best_point])) if loss < math.inf else None
        return self._records[: int(self._rows.item())].cpu()

    def update(self, rates: Tensor) -> None:
        """See `Program.update`: it has been computed beside the live tensors."""
        self._copy(self._live(), self._behind)
        self.step_norm = self._norm_behind.item()

    def _row(self) -> None:
        index = (self._rows - (~self._alive).long()).unsqueeze(0)  # the last row once more, when that was the last
        rates = self._rates.index_select(0, index).flatten().unbind()
        with torch.no_grad():
            out = self._graph.module(*self._here, *rates)
        moved = out[COLUMNS + self._count :]
        record = torch.stack([out[0].double(), out[1].double(), self._norm])
        kept = torch.where(self._alive, record, self._records.index_select(0, index).flatten())
        self._records.index_copy_(0, index, kept.unsqueeze(0))
        better = self._alive & record[0].isfinite() & (record[0] < self._best_loss)
        self._best_loss.copy_(torch.where(better, record[0], self._best_loss))
        for best, here in zip(self._best_point, self._here, strict=False):
            best.copy_(torch.where(better, here, best))
        self._copy(self._gradients, out[COLUMNS:])
        self._copy(self._behind, moved)
        self._norm_behind.copy_(out[STEP_NORM])
        self._rows += self._alive
        tested, low, high = self._bands.unbind(1)
        inside = ((tested == 0) | ((record > low) & (record < high))).all()
        self._alive &= inside & (self._rows < self._limit)
        for here, new in zip(self._here, moved, strict=True):
            here.copy_(torch.where(self._alive, new, here))
        self._norm.copy_(torch.where(self._alive, self._norm_behind, self._norm))

    def _live(self) -> list[Tensor]:
        return [*self._graph.parameters, *self._graph.state()]

    def _copy(self, targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for target, value in zip(targets, values, strict=False):
                target.copy_(value)
