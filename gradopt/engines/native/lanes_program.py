"""Many starts by a program in C: each from where it stands to its own next row of interest."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from gradopt.engines.lane import NUMBERS, Lanes, Visit
from gradopt.engines.native.calls import Unprintable
from gradopt.engines.native.compiler import NoCompiler, find_compiler
from gradopt.engines.native.lanes import printed_lanes
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import Slot, StepGraph


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


class NativeLanes:
    """A `LanesProgram`: the step of one start, printed for many.

    Raises:
        Refusal: No compiler, or the graph holds what is not printed.
    """

    name = "native"

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
        return len(self._source.common)

    def slots(self) -> tuple[list[Slot], list[Slot]]:
        slots = self._graph.slots
        return [slots[place] for place in self._source.states], [slots[place] for place in self._source.common]

    def fits(self, parameters: Sequence[Tensor], states: Sequence[Tensor]) -> bool:
        own = [self._graph.inputs[len(parameters) + place] for place in self._source.states]
        examples = [*self._graph.inputs[: len(parameters)], *own]
        return all(
            tensor.is_contiguous() and tensor.dtype is example.dtype and tensor.shape[1:] == example.shape
            for tensor, example in zip([*parameters, *states], examples, strict=True)
        )

    def table(self, common: Tensor, rates: Tensor) -> Tensor:
        table = torch.empty(len(rates), self._source.width, dtype=torch.float64)
        self._scalars(common.data_ptr(), rates.data_ptr(), rates.stride(0), len(rates), table.data_ptr())
        return table

    def run(self, lanes: Lanes, visit: Visit) -> None:
        columns = _Columns()
        for place, band in enumerate(visit.bands):
            columns.bands[place], columns.spread[place] = band.data_ptr(), int(len(band) > 1)
        columns.due, columns.live = visit.due.data_ptr(), visit.live.data_ptr()
        columns.steps, columns.made = lanes.steps.data_ptr(), lanes.made.data_ptr()
        for name in NUMBERS:
            setattr(columns, name, getattr(lanes, name).data_ptr())
        tensors = [*visit.parameters, *visit.states, *lanes.gradients, *lanes.points, *self._source.constants]
        addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        numbers = visit.first, len(visit.live), visit.limit, int(visit.pending)
        self._visit(addresses, visit.table.data_ptr(), *numbers, ctypes.byref(columns))
