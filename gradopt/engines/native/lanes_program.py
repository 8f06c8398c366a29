"""Many starts by a program in C: each from where it stands to its own next row of interest."""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt.engines.native.calls import Unprintable
from gradopt.engines.native.compiler import NoCompiler, find_compiler
from gradopt.engines.native.lanes import printed_lanes
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import StepGraph

NUMBERS = ("loss", "size", "moved", "before", "lowest", "lowest_size", "bottom")
"""Columns of `Lanes` that the program reads and writes, float64."""


class _Columns(ctypes.Structure):
    _fields_ = [
        ("bands", ctypes.c_void_p * 6),
        ("spread", ctypes.c_int64 * 6),
        ("due", ctypes.c_void_p),
        ("live", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("made", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in NUMBERS),
    ]


@dataclass(slots=True)
class Lanes:
    """Where many starts stand: tensors with a leading axis of starts, which the program reads and changes in place.

    Attributes:
        steps: Of the row at which each stands.
        made: Rows each has evaluated in the last visit.
        loss, size: And gradient norm of the row at which each stands, which was evaluated unless it is the first.
        moved: The largest change of an unknown by the update before it, NaN where there was none.
        before, bottom: The loss one row earlier, and the lowest finite one of the last visit.
        lowest, lowest_size: The lowest finite loss so far, and the gradient norm there.
        gradients, points: By parameter, the gradient at the row, and the point of the lowest loss.
    """

    steps: Tensor
    made: Tensor
    loss: Tensor
    size: Tensor
    moved: Tensor
    before: Tensor
    lowest: Tensor
    lowest_size: Tensor
    bottom: Tensor
    gradients: list[Tensor]
    points: list[Tensor]

    @classmethod
    def of(cls, parameters: Sequence[Tensor], steps: Tensor) -> "Lanes":
        """Of starts that stand at rows not evaluated yet."""
        number = len(steps)
        numbers: dict[str, Any] = {name: torch.full((number,), math.nan, dtype=torch.float64) for name in NUMBERS}
        for name in ("lowest", "lowest_size", "bottom"):
            numbers[name].fill_(math.inf)
        gradients = [torch.zeros_like(p, memory_format=torch.contiguous_format) for p in parameters]
        points = [p.detach().clone(memory_format=torch.contiguous_format) for p in parameters]
        return cls(steps.clone(), torch.zeros_like(steps), **numbers, gradients=gradients, points=points)

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places."""
        for name in ("steps", "made", *NUMBERS):
            setattr(self, name, getattr(self, name)[kept])
        self.gradients = [one[kept] for one in self.gradients]
        self.points = [one[kept] for one in self.points]


class LanesProgram:
    """The step of one start, printed for many.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    def __init__(self, graph: StepGraph) -> None:
        try:
            self._source = printed_lanes(graph.module, len(graph.parameters), graph.num_groups)
            library = find_compiler().load(self._source.text)
        except (Unprintable, NoCompiler) as reason:
            raise Refusal(str(reason)) from reason
        except RecursionError as error:
            raise Refusal("a chain of operations too long to be printed") from error
        self._visit, self._scalars = library.visit, library.scalars
        self._visit.restype = self._scalars.restype = None
        pointer, number = ctypes.c_void_p, ctypes.c_long
        self._visit.argtypes = [pointer, pointer, number, number, number, number, pointer]
        self._scalars.argtypes = [pointer, pointer, number, number, pointer]
        self._graph = graph

    @property
    def num_common(self) -> int:
        """Of the numbers of a state that all starts have in common at a step."""
        return len(self._source.common)

    def slots(self) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        """The places (number of the parameter, key) of the states that each start has, and of those in common."""
        slots = self._graph.slots
        return [slots[place] for place in self._source.states], [slots[place] for place in self._source.common]

    def fits(self, parameters: Sequence[Tensor], states: Sequence[Tensor]) -> bool:
        """Whether stacked tensors have the form that the program reads."""
        own = [self._graph.inputs[len(parameters) + place] for place in self._source.states]
        examples = [*self._graph.inputs[: len(parameters)], *own]
        return all(
            tensor.is_contiguous() and tensor.dtype is example.dtype and tensor.shape[1:] == example.shape
            for tensor, example in zip([*parameters, *states], examples, strict=True)
        )

    def table(self, common: Tensor, rates: Tensor) -> Tensor:
        """What the steps to come have in common, a row a step; it begins with the states in common, as `common`."""
        table = torch.empty(len(rates), self._source.width, dtype=torch.float64)
        self._scalars(common.data_ptr(), rates.data_ptr(), rates.stride(0), len(rates), table.data_ptr())
        return table

    def visit(
        self,
        lanes: Lanes,
        live: Tensor,
        parameters: Sequence[Tensor],
        states: Sequence[Tensor],
        table: Tensor,
        first: int,
        limit: int,
        due: Tensor,
        bands: Sequence[Tensor],
        *,
        pending: bool,
    ) -> None:
        """Evaluate up to `limit` rows of each live start, and update between them, until a start has a row outside its
        bands or comes to its due step; it then stands there, evaluated and not updated.

        Args:
            live: Shape (starts,), bool.
            table: Of the steps from `first` on, as far as any start may come.
            bands: Low and high of loss, gradient norm and step norm: float64, shape (starts,) or (1,).
            pending: Whether the update behind the row where it stands comes before.
        """
        columns = _Columns()
        for place, band in enumerate(bands):
            columns.bands[place], columns.spread[place] = band.data_ptr(), int(len(band) > 1)
        columns.due, columns.live = due.data_ptr(), live.data_ptr()
        columns.steps, columns.made = lanes.steps.data_ptr(), lanes.made.data_ptr()
        for name in NUMBERS:
            setattr(columns, name, getattr(lanes, name).data_ptr())
        tensors = [*parameters, *states, *lanes.gradients, *lanes.points, *self._source.constants]
        addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        self._visit(addresses, table.data_ptr(), first, len(live), limit, int(pending), ctypes.byref(columns))
