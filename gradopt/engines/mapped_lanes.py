"""Many starts by the step of one, mapped over them: what programs of that kind have in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradopt.engines.lane import NUMBERS, Lanes, Visit
from gradopt.engines.mapping import mapped
from gradopt.engines.tracing import Slot, StepGraph


class MappedLanes(ABC):
    """A `LanesProgram` whose rows are those of all starts together, in which each start stops by itself."""

    name: str

    def __init__(self, graph: StepGraph) -> None:
        self._graph, self._mapped = graph, mapped(graph)
        self._device = graph.parameters[0].device

    @property
    def num_common(self) -> int:
        return len(self._mapped.common_places)

    def slots(self) -> tuple[list[Slot], list[Slot]]:
        slots = self._graph.slots
        places = self._mapped.own_places, self._mapped.common_places
        return [slots[place] for place in places[0]], [slots[place] for place in places[1]]

    def fits(self, parameters: Sequence[Tensor], states: Sequence[Tensor]) -> bool:
        return all(
            tensor.dtype is example.dtype and tensor.shape[1:] == example.shape
            for tensor, example in zip([*parameters, *states], self._examples, strict=True)
        )

    def table(self, common: Tensor, rates: Tensor) -> Tensor:
        return self._mapped.table(self._common(common), rates)

    def run(self, lanes: Lanes, visit: Visit) -> None:
        pending = int(visit.pending)
        left = (visit.due - lanes.steps - pending + 1).clamp(min=1, max=visit.limit) + pending
        lanes.bottom.fill_(math.inf)
        lanes.made.zero_()
        self._visit(lanes, visit, torch.where(visit.live, left, 0))
        lanes.steps += torch.where(visit.live, (lanes.made - 1).clamp(min=0) + pending, 0)

    @abstractmethod
    def _visit(self, lanes: Lanes, visit: Visit, left: Tensor) -> None:
        """Make the rows of a visit, all but `lanes.steps`.

        Args:
            left: Rows each start may still make, the first one included where an update is pending; int64.
        """

    @property
    def _examples(self) -> list[Tensor]:
        """Fake tensors like the parameters and own states of one start."""
        inputs, count = self._graph.inputs, len(self._graph.parameters)
        return [*inputs[:count], *[inputs[count + place] for place in self._mapped.own_places]]

    def _fakes(self, number: int) -> list[Tensor]:
        """Fake inputs of `MappedStep.many` for so many starts."""
        like = self._graph.inputs[0]
        needed = [like.new_empty(number, dtype=dtype) for dtype in self._mapped.needed]
        return [*[one.new_empty(*one.shape, number) for one in self._examples], *needed]

    def _common(self, values: Tensor) -> list[Tensor]:
        """The common states of these values, in the dtypes of the graph."""
        inputs, count = self._graph.inputs, len(self._graph.parameters)
        return [values[place].to(inputs[count + slot].dtype) for place, slot in enumerate(self._mapped.common_places)]


def moved(lanes: Lanes, visit: Visit) -> list[Tensor]:
    """What a row changes, in the order of `masked_row`, but `left` and `made`; starts are the first axis."""
    return [
        *visit.parameters,
        *visit.states,
        *lanes.gradients,
        *lanes.points,
        *[getattr(lanes, name) for name in NUMBERS],
    ]


def masked_row(
    many: Callable[..., list[Tensor]],
    moving: Sequence[Tensor],
    values: Sequence[Tensor],
    bands: Tensor,
    quiet: Tensor | None,
    count: int,
    own: int,
    held: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> list[Tensor]:
    """One row of all starts, which are the last axis of every tensor: code runs along them, however few unknowns.

    A start has `made` some rows, and `left` are those it may still make: none from the first one outside its bands on.
    A row that is `quiet` makes the update behind the row before, and is not recorded.

    Truth values are numbers in memory, as the compiler's code for them is slow; and conditions that must all hold are
    differences, the least of which is positive; one that is NaN is not.

    Args:
        many: The step; see `MappedStep.many`.
        moving: (*parameters, *own states, *gradients, *best points, *numbers, left, made).
        values: What the step needs at this row of each start.
        bands: Shape (6, starts).
        count, own: Number of parameters and of own states.
        held: Lets the compiler write a number to memory.

    Returns:
        `moving`, changed.
    """
    here, gradients = moving[: count + own], moving[count + own : 2 * count + own]
    points, numbers = moving[2 * count + own : 3 * count + own], moving[3 * count + own :]
    loss, size, step, before, lowest, lowest_size, bottom, left, made = numbers
    new_loss, new_size, new_step, *others = [one.contiguous() for one in many(*here, *values)]
    slopes, behind = others[:count], others[count:]
    new_loss, new_size = new_loss.double(), new_size.double()
    evaluated = held(((left if quiet is None else left * (1 - quiet)) > 0).double())
    is_here, left = evaluated != 0, left - 1
    finite = torch.where(new_loss > -math.inf, new_loss, math.inf)
    lower = lowest - finite
    is_better = held((torch.where(lower == 0, lowest_size - new_size, lower) * evaluated > 0).double()) != 0
    least = torch.minimum(left, _margin(bands, new_loss, new_size, step))
    going = held(((least if quiet is None else torch.where(quiet != 0, left + 1, least)) > 0).double())
    goes = going != 0

    def chosen(mask: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
        return [torch.where(mask, one, other) for one, other in zip(new, old, strict=True)]

    return [
        *chosen(goes, behind, here),
        *chosen(is_here, slopes, gradients),
        *chosen(is_better, here[:count], points),
        *chosen(is_here, (new_loss, new_size), (loss, size)),
        torch.where(goes, new_step.double(), step),
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
