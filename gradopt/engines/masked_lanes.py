"""Many starts by rows that are launched blindly: each start stops by itself, and the host looks once in many rows.

On the CPU a row is plain tensor code. Captured as a CUDA graph it is unproven: it has not run on a GPU yet.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._guards import detect_fake_mode

from gradopt.engines.cuda_graph import CAPACITY, REPLAYS, cuda_device, replayed
from gradopt.engines.lane import Lanes, Visit
from gradopt.engines.mapped_lanes import MappedLanes, masked_row, moved
from gradopt.engines.mapping import MappedStep
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import StepGraph

log = logging.getLogger("gradopt")

Row = Callable[[], None]


def captured_lanes(graph: StepGraph, number: int) -> "MaskedLanes":
    """Rows that are captured on the device of the parameters, at the first visit.

    Raises:
        Refusal: They are on no CUDA device, or an operation cannot be mapped over starts.
    """
    device = cuda_device(graph)
    return MaskedLanes(graph, lambda row: replayed(row, device))


class MaskedLanes(MappedLanes):
    """Rows of all starts together, as one tensor program.

    Its tensors have room for the starts of a visit. For another number they are made anew, and a row is captured anew:
    that comes once each time half of the starts have ended and takes a few rows' time, and a row costs half as much
    from there on. Room for all of them to the end would be one capture, and the last start would cost as much as all.

    Args:
        launch: Makes of a row what is called in its place; it may raise `Refusal`, which counts at the first visit.

    Raises:
        Refusal: An operation cannot be mapped over starts.
    """

    name = "cuda_graph"

    def __init__(self, graph: StepGraph, launch: Callable[[Row], Row] = lambda row: row) -> None:
        super().__init__(graph)
        self._launch = launch
        self._made: tuple[_Room, Row] | None = None
        mode = detect_fake_mode(graph.inputs)
        assert mode is not None, "the inputs of a graph are fake"
        try:
            with mode:
                self._mapped.many(*self._fakes(2))
        except Exception as error:  # whatever an operation without a rule raises
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise Refusal(f"it cannot be mapped over starts: {reason}") from error

    def _visit(self, lanes: Lanes, visit: Visit, left: Tensor) -> None:
        tensors = moved(lanes, visit)
        room, row = self._fitting(tensors, len(visit.table))
        room.enter(tensors, left, visit, lanes.steps - visit.first, visit.table[:, self.num_common :])
        while most := int(room.left.max()):
            for _ in range(min(REPLAYS, most)):
                row()
        room.leave(tensors)
        lanes.made.copy_(room.made)

    def _fitting(self, tensors: Sequence[Tensor], length: int) -> "tuple[_Room, Row]":
        """Room for these tensors and a table of this length, and what is called for a row there."""
        made, capacity = self._made, CAPACITY
        if made is not None:
            capacity = made[0].capacity
            if made[0].number == len(tensors[0]) and length <= capacity:
                return made
        is_first, self._made, made = made is None, None, None  # its memory is free for the new one
        room = _Room(self._mapped, tensors, len(self._graph.parameters), max(capacity, 2 * length))
        self._made = made = room, self._launched(room.row, is_first=is_first)
        return made

    def _launched(self, row: Row, *, is_first: bool) -> Row:
        """What is called for a row. Of a run that is under way none is lost: it goes on, slowly."""
        try:
            return self._launch(row)
        except Refusal as refusal:
            if is_first:
                raise
            log.warning("engine: %s goes on row by row, as %s", self.name, refusal)
            return row


class _Room:
    """Tensors that stay where they are, with starts as the last axis, and the row that moves them.

    Attributes:
        left, made: Of each start the rows it may still make, and those it has.

    Args:
        tensors: Of many starts, their first axis, like those that will enter.
        capacity: Rows of a table.
    """

    def __init__(self, step: MappedStep, tensors: Sequence[Tensor], count: int, capacity: int) -> None:
        self.number, self.capacity = len(tensors[0]), capacity
        self._step, self._count = step, count
        number, device = self.number, tensors[0].device
        self._tensors = [tensor.new_zeros(*tensor.shape[1:], number) for tensor in tensors]
        self.left, self.made = torch.zeros(2, number, dtype=torch.float64, device=device).unbind()
        self._bands = torch.zeros(6, number, dtype=torch.float64, device=device)
        self._places = torch.zeros(number, dtype=torch.int64, device=device)
        self._columns = torch.zeros(len(step.needed), capacity, dtype=torch.float64, device=device)
        self._quiet = torch.zeros((), dtype=torch.float64, device=device)

    def enter(self, tensors: Sequence[Tensor], left: Tensor, visit: Visit, places: Tensor, columns: Tensor) -> None:
        """Take over where the starts stand; `places` are their rows of the table, `columns` what steps need of it."""
        for ours, tensor in zip(self._tensors, tensors, strict=True):
            ours.copy_(tensor.movedim(0, -1))
        for ours, band in zip(self._bands, visit.bands, strict=True):
            ours.copy_(band)
        self.left.copy_(left)
        self.made.zero_()
        self._places.copy_(places)
        self._columns[:, : len(columns)] = columns.T
        self._quiet.fill_(float(visit.pending))

    def leave(self, tensors: Sequence[Tensor]) -> None:
        """Put where the starts have come to into these tensors."""
        for ours, tensor in zip(self._tensors, tensors, strict=True):
            tensor.copy_(ours.movedim(-1, 0))

    def row(self) -> None:
        """One row of all starts that may still make one."""
        step, moving = self._step, [*self._tensors, self.left, self.made]
        places = self._places.clamp(0, self.capacity - 1)  # who has stopped may be beyond
        needed = self._columns.index_select(1, places).unbind()
        values = [one.to(dtype) for one, dtype in zip(needed, step.needed, strict=True)]
        with torch.no_grad():
            values = masked_row(step.many, moving, values, self._bands, self._quiet, self._count, len(step.own_places))
        for tensor, value in zip(moving, values, strict=True):
            tensor.copy_(value)
        self._places += 1
        self._quiet.zero_()
