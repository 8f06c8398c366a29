"""Many starts by code that torch's compiler makes of the step of one, mapped over a tile of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gradopt.engines.compiled import SMALL, Step, code_of, held, refused
from gradopt.engines.lane import NUMBERS, Lanes, Visit
from gradopt.engines.mapped_lanes import MappedLanes, masked_row, moved
from gradopt.engines.mapping import MappedStep
from gradopt.engines.tracing import StepGraph

TILE = 16_384
"""Unknowns of the starts of one call: what a call costs is spread over them, and their numbers stay in the cache."""

DEVICE_TILE = 1_000_000
"""The same of another device than the CPU, where a call costs more. Of a few tiles the later ones are left out once
most starts have ended; a tile of all starts would cost as much to the end.
"""

WHOLE = 16
"""Starts in a tile are a multiple of it, if there is more than one."""

CHUNK = 4
"""Steps in one call where a call costs more than a step; a longer one takes long to compile."""

TABLE_CHUNK = 16
"""Rows of the table in one call."""


class CompiledLanes(MappedLanes):
    """Calls for a tile of starts. On a CUDA device they are unproven: they have not run on one yet.

    Args:
        number: How many starts there are.

    Raises:
        Refusal: An operation cannot be mapped over starts, or the compiler fails, with its reason.
    """

    name = "compiled"

    def __init__(self, graph: StepGraph, number: int) -> None:
        super().__init__(graph)
        size = sum(parameter.numel() for parameter in graph.parameters)
        tiles = -(-number * size // (TILE if self._device.type == "cpu" else DEVICE_TILE))
        self._tile = WHOLE * -(-number // max(1, tiles) // WHOLE)  # tiles of one size, whole lanes of the machine
        self._chunk = CHUNK if self._tile * size <= SMALL else 1
        with refused():
            self._rows = _rows(self._mapped, self._fakes(self._tile), len(graph.parameters), self._chunk)
            self._table = _table(self._mapped, self._common(torch.zeros(self.num_common)), graph.num_groups)

    def table(self, common: Tensor, rates: Tensor) -> Tensor:
        here = self._common(common)
        missing = -len(rates) % TABLE_CHUNK
        padded = torch.cat([rates, rates[-1:].expand(missing, -1)])
        parts: list[Tensor] = []
        for some in padded.split(TABLE_CHUNK):
            rows, *here = self._table(*here, some)
            parts.append(rows)
        return torch.cat(parts).view(len(padded), -1)[: len(rates)]

    def _visit(self, lanes: Lanes, visit: Visit, left: Tensor) -> None:
        columns = visit.table[:, self.num_common :].T
        columns = torch.cat([columns, columns[:, -1:].expand(-1, self._chunk - 1)], dim=1)  # a call may go beyond
        tensors = moved(lanes, visit)
        for begin in range(0, len(left), self._tile):
            some = slice(begin, begin + self._tile)
            here, most = left[some], int(left[some].max())
            if not most:
                continue
            counts = here.double(), torch.zeros_like(here, dtype=torch.float64)
            inside = torch.stack(
                [self._laid(side[some] if len(side) > 1 else side.expand(len(here))) for side in visit.bands]
            )
            moving = [self._laid(one) for one in [*[tensor[some] for tensor in tensors], *counts]]
            quiet = columns.new_tensor(float(visit.pending))
            rows = self._needed(columns, lanes.steps[some] - visit.first, here > 0)
            for place in range(0, most, self._chunk):
                moving = self._rows(*moving, quiet, inside, rows(place))
                quiet = quiet.new_zeros(())
            *moving, _, made = moving
            for tensor, value in zip(tensors, moving, strict=True):
                tensor[some] = value.movedim(-1, 0)[: len(here)]
            lanes.made[some] = made[: len(here)].long()

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
        there = self._laid(places) + torch.arange(self._chunk, device=places.device)[:, None]
        return lambda row: columns[:, (there + row).clamp(0, last)]


def _rows(step: MappedStep, fakes: Sequence[Tensor], count: int, chunk: int) -> Step:
    """A chunk of rows of a tile: inputs (*what `masked_row` changes, quiet, bands, needed); outputs it, changed.

    Args:
        fakes: Inputs of `MappedStep.many` for a tile.
        count: Number of parameters.
    """
    own, tile = len(step.own_places), fakes[0].shape[-1]
    here, like = fakes[: count + own], fakes[0].new_empty((), dtype=torch.float64)
    points = [torch.empty_like(one) for one in [*here[:count], *here[:count]]]
    numbers = [like.new_empty(tile) for _ in (*NUMBERS, "left", "made")]
    inputs = [*here, *points, *numbers, like, like.new_empty(6, tile), like.new_empty(len(step.needed), chunk, tile)]
    many = step.over(fakes)

    def rows(*tensors: Tensor) -> list[Tensor]:
        moving, (quiet, bands, needed) = list(tensors[:-3]), tensors[-3:]
        for place in range(chunk):
            values = [one.to(dtype) for one, dtype in zip(needed[:, place].unbind(), step.needed, strict=True)]
            moving = masked_row(many, moving, values, bands, quiet if place == 0 else None, count, own, held)
        return moving

    return code_of(rows, inputs)


def _table(step: MappedStep, states: Sequence[Tensor], groups: int) -> Step:
    """Rows of the table: inputs (*common states, rates), outputs (all numbers in a vector, *new common states)."""
    mode = FakeTensorMode()

    def rows(*tensors: Tensor) -> list[Tensor]:
        *here, rates = tensors
        cells: list[Tensor] = []
        for rate in rates.unbind():
            cells += [*here, *step.numbers(*here, *rate.unbind())]
            here = step.onwards(*here, *rate.unbind())
        return [torch.stack([cell.double() for cell in cells]), *here]

    return code_of(
        rows, [mode.from_tensor(one) for one in [*states, torch.zeros(TABLE_CHUNK, groups, dtype=torch.float64)]]
    )
