"""Many starts by code that torch's compiler makes of the step of one, mapped over a tile of them."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._guards import detect_fake_mode

from gradopt.engines.compiled import SMALL, Step, code_of, held, refused
from gradopt.engines.lane import NUMBERS, Lanes, Visit
from gradopt.engines.mapping import MappedStep, mapped
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import Slot, StepGraph

TILE = 16_384
"""Unknowns of the starts of one call: what a call costs is spread over them, and their numbers stay in the cache."""

WHOLE = 16
"""Starts in a tile are a multiple of it, if there is more than one."""

CHUNK = 4
"""Steps in one call where a call costs more than a step; a longer one takes long to compile."""

TABLE_CHUNK = 16
"""Rows of the table in one call."""


class CompiledLanes:
    """A `LanesProgram` of calls for a tile of starts, in which each start stops by itself.

    Inside a call starts are the last axis of every tensor: code runs along them, however few unknowns there are.

    Args:
        number: How many starts there are.

    Raises:
        Refusal: An operation cannot be mapped over starts, or the compiler fails, with its reason.
    """

    name = "compiled"

    def __init__(self, graph: StepGraph, number: int) -> None:
        if graph.parameters[0].device.type != "cpu":
            raise Refusal("the unknowns are not on the CPU, and many starts have not been compiled elsewhere yet")
        self._graph = graph
        size = sum(parameter.numel() for parameter in graph.parameters)
        tiles = -(-number * size // TILE)
        self._tile = WHOLE * -(-number // max(1, tiles) // WHOLE)  # tiles of one size, whole lanes of the machine
        self._chunk = CHUNK if self._tile * size <= SMALL else 1
        self._mapped = mapped(graph)
        with refused():
            self._rows = _rows(graph, self._mapped, self._tile, self._chunk)
            self._table = _table(graph, self._mapped)

    @property
    def num_common(self) -> int:
        return len(self._mapped.common_places)

    def slots(self) -> tuple[list[Slot], list[Slot]]:
        slots = self._graph.slots
        places = self._mapped.own_places, self._mapped.common_places
        return [slots[place] for place in places[0]], [slots[place] for place in places[1]]

    def fits(self, parameters: Sequence[Tensor], states: Sequence[Tensor]) -> bool:
        own = [self._graph.inputs[len(parameters) + place] for place in self._mapped.own_places]
        return all(
            tensor.dtype is example.dtype and tensor.shape[1:] == example.shape
            for tensor, example in zip(
                [*parameters, *states], [*self._graph.inputs[: len(parameters)], *own], strict=True
            )
        )

    def table(self, common: Tensor, rates: Tensor) -> Tensor:
        here = [
            common[place].to(self._graph.inputs[len(self._graph.parameters) + slot].dtype)
            for place, slot in enumerate(self._mapped.common_places)
        ]
        missing = -len(rates) % TABLE_CHUNK
        padded = torch.cat([rates, rates[-1:].expand(missing, -1)])
        parts: list[Tensor] = []
        for some in padded.split(TABLE_CHUNK):
            rows, *here = self._table(*here, some)
            parts.append(rows)
        return torch.cat(parts).view(len(padded), -1)[: len(rates)]

    def run(self, lanes: Lanes, visit: Visit) -> None:
        live, pending = visit.live, int(visit.pending)
        at = lanes.steps + pending
        left = torch.where(live, (visit.due - at + 1).clamp(min=1, max=visit.limit) + pending, 0)
        lanes.bottom.fill_(math.inf)
        lanes.made.zero_()
        columns = visit.table[:, self.num_common :].T
        columns = torch.cat([columns, columns[:, -1:].expand(-1, self._chunk - 1)], dim=1)  # a call may go beyond
        tensors = [*visit.parameters, *visit.states, *lanes.gradients, *lanes.points]
        numbers = [getattr(lanes, name) for name in NUMBERS]
        for begin in range(0, len(live), self._tile):
            some = slice(begin, begin + self._tile)
            here, most = left[some], int(left[some].max())
            if not most:
                continue
            counts = here.double(), torch.zeros_like(here, dtype=torch.float64)
            inside = torch.stack(
                [self._laid(side[some] if len(side) > 1 else side.expand(len(here))) for side in visit.bands]
            )
            moving = [self._laid(one) for one in [*[tensor[some] for tensor in [*tensors, *numbers]], *counts]]
            quiet = torch.tensor(float(pending), dtype=torch.float64)
            rows = self._needed(columns, lanes.steps[some] - visit.first, here > 0)
            for row in range(0, most, self._chunk):
                moving = self._rows(*moving, quiet, inside, rows(row))
                quiet = quiet.new_zeros(())
            *moving, _, made = moving
            for tensor, value in zip([*tensors, *numbers], moving, strict=True):
                tensor[some] = value.movedim(-1, 0)[: len(here)]
            lanes.made[some] = made[: len(here)].long()
        lanes.steps += torch.where(live, (lanes.made - 1).clamp(min=0) + pending, 0)

    def _laid(self, some: Tensor) -> Tensor:
        """Starts as the last axis, filled up to a tile."""
        whole = some.new_zeros(*some.shape[1:], self._tile)
        whole[..., : len(some)] = some.movedim(0, -1)
        return whole

    def _needed(self, columns: Tensor, places: Tensor, going: Tensor) -> Callable[[int], Tensor]:
        """What starts at these rows of the table need of it, `row` later; shape (numbers, rows of a call, tile)."""
        last, low = columns.shape[1] - self._chunk, int(places[going].min())
        if bool((places[going] == low).all()):
            whole = -1, -1, self._tile
            return lambda row: columns[:, min(low + row, last) :, None][:, : self._chunk].expand(whole).contiguous()
        there = self._laid(places) + torch.arange(self._chunk)[:, None]
        return lambda row: columns[:, (there + row).clamp(0, last)]


def _rows(graph: StepGraph, step: MappedStep, tile: int, chunk: int) -> Step:
    """A chunk of rows of a tile: inputs (*parameters, *own states, *gradients, *best points, *numbers, left, made,
    quiet, bands, needed); outputs those up to `made`, changed.

    A start has `made` some rows, and `left` are those it may still make: none from the first one outside its bands on.
    A first row that is `quiet` makes the update behind the row before, and is not recorded.
    """
    count, own = len(graph.parameters), len(step.own_places)
    examples = [*graph.inputs[:count], *[graph.inputs[count + place] for place in step.own_places]]
    mode = detect_fake_mode(graph.inputs)
    assert mode is not None, "the inputs of a graph are fake"

    def blank(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        with mode:
            return torch.empty(shape, dtype=dtype)

    here = [blank(*one.shape, tile, dtype=one.dtype) for one in examples]
    points = [blank(*one.shape, tile, dtype=one.dtype) for one in [*examples[:count], *examples[:count]]]
    numbers = [blank(tile) for _ in (*NUMBERS, "left", "made")]
    inputs = [*here, *points, *numbers, blank(), blank(6, tile), blank(len(step.needed), chunk, tile)]
    many = step.over(here, [blank(tile, dtype=dtype) for dtype in step.needed])

    def rows(*tensors: Tensor) -> list[Tensor]:
        moving, (quiet, bands, needed) = list(tensors[:-3]), tensors[-3:]
        for row in range(chunk):
            values = [one.to(dtype) for one, dtype in zip(needed[:, row].unbind(), step.needed, strict=True)]
            moving = _row(many, moving, values, bands, quiet if row == 0 else None, count, own)
        return moving

    return code_of(rows, inputs)


def _row(
    many: Callable[..., list[Tensor]],
    moving: Sequence[Tensor],
    values: Sequence[Tensor],
    bands: Tensor,
    quiet: Tensor | None,
    count: int,
    own: int,
) -> list[Tensor]:
    """One row of a tile.

    The compiler's code for truth values is slow. So they are numbers in memory, and conditions that must all hold are
    differences, the least of which is positive; one that is NaN is not.
    """
    here, gradients = moving[: count + own], moving[count + own : 2 * count + own]
    points, numbers = moving[2 * count + own : 3 * count + own], moving[3 * count + own :]
    loss, size, moved, before, lowest, lowest_size, bottom, left, made = numbers
    new_loss, new_size, new_moved, *others = [one.contiguous() for one in many(*here, *values)]
    slopes, behind = others[:count], others[count:]
    new_loss, new_size = new_loss.double(), new_size.double()
    evaluated = held(((left if quiet is None else left * (1 - quiet)) > 0).double())
    is_here, left = evaluated != 0, left - 1
    finite = torch.where(new_loss > -math.inf, new_loss, math.inf)
    lower = lowest - finite
    is_better = held((torch.where(lower == 0, lowest_size - new_size, lower) * evaluated > 0).double()) != 0
    least = torch.minimum(left, _margin(bands, new_loss, new_size, moved))
    going = held(((least if quiet is None else torch.where(quiet != 0, left + 1, least)) > 0).double())
    goes = going != 0

    def chosen(mask: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
        return [torch.where(mask, one, other) for one, other in zip(new, old, strict=True)]

    return [
        *chosen(goes, behind, here),
        *chosen(is_here, slopes, gradients),
        *chosen(is_better, here[:count], points),
        *chosen(is_here, (new_loss, new_size), (loss, size)),
        torch.where(goes, new_moved.double(), moved),
        torch.where(is_here, loss, before),
        *chosen(is_better, (new_loss, new_size), (lowest, lowest_size)),
        torch.where(is_here, torch.minimum(finite, bottom), bottom),
        left * going,
        made + evaluated,
    ]


def _margin(bands: Tensor, loss: Tensor, size: Tensor, moved: Tensor) -> Tensor:
    """How far loss, gradient norm and step norm are inside their bands; a step that has not been made is."""
    low, high = bands[::2], bands[1::2]
    loss, size, step = (
        torch.minimum(value - low[place], high[place] - value) for place, value in enumerate((loss, size, moved))
    )
    return torch.minimum(torch.minimum(loss, size), torch.where(moved != moved, math.inf, step))


def _table(graph: StepGraph, step: MappedStep) -> Step:
    """Rows of the table: inputs (*common states, rates), outputs (all numbers in a vector, *new common states)."""
    count, groups = len(graph.parameters), graph.num_groups
    states = [graph.inputs[count + place] for place in step.common_places]

    def rows(*tensors: Tensor) -> list[Tensor]:
        *here, rates = tensors
        cells: list[Tensor] = []
        for row in rates.unbind():
            behind = step.common(*here, *row.unbind())
            cells += [*here, *behind[len(here) :]]
            here = behind[: len(here)]
        return [torch.stack([cell.double() for cell in cells]), *here]

    rates = graph.inputs[-1].expand(TABLE_CHUNK, groups).clone()
    return code_of(rows, [*states, rates])
