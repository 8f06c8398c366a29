"""L-BFGS of many starts at once: each takes the steps it takes alone."""

import math

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import Halted, NonFiniteTrial, State, Stuck
from gradopt.optimisers.line_search import FIRST_STEP, NO_SLOPE, NO_STEP, NOISE, NOISE_UP_TO
from gradopt.optimisers.stacked.line_search import BAD, StackedLineSearch
from gradopt.optimisers.stacked.loss_unit import StackedLossUnit
from gradopt.optimisers.stacked.memory import StackedMemory
from gradopt.stacked import Evaluations, StackedOracle

CAUSES = (Stuck(NO_STEP), *(NonFiniteTrial(loss, however_short=True) for loss in BAD), Stuck(NO_SLOPE))
"""Why a start may be halted: the first three in the order of `StackedLineSearch.walls`."""


class StackedLBFGS:
    """`LBFGS` of many starts: a `StackedOptimiser`.

    Args:
        history_size: As there.
    """

    makes_trials = True

    def __init__(self, oracle: StackedOracle, history_size: int) -> None:
        point = oracle.read()
        self._memory = StackedMemory(history_size, point)
        self._search = StackedLineSearch(len(point))
        self._unit = StackedLossUnit(point)
        self._began = False
        self._point, self._gradient, self._direction = (torch.zeros_like(point) for _ in range(3))

    def accepts(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Tensor | None:
        """Which line searches are content; first points always are."""
        if not self._began:
            return None
        loss, gradient = self._unit.of(evaluations, places)
        direction = self._direction[places]
        if oracle.lower is not None and oracle.upper is not None:  # unknowns that have met a bound stand still
            direction = -projected_gradient(-direction, evaluations.point, oracle.lower, oracle.upper)
        return self._search.accepts(places, loss, _dots(gradient, direction))

    def retry(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Make the next trials. Where a search has failed, drop the memory and try the gradient once."""
        found = self._advances(places, oracle)
        if bool(found.all()):
            return self._write(places, oracle)
        failed = places[~found]
        is_bare = self._memory.size[failed].cpu() == 0
        bare, again = failed[is_bare], failed[~is_bare]
        self._memory.clear(again)
        gradient = self._projected(oracle)[again]
        lost = self._begin(again, self._search.of("loss", again), gradient, -gradient)
        self._write(torch.cat([places[found], again]), oracle)
        return Halted.joined([Halted(bare, self._search.walls(bare), CAUSES), lost])

    def update(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Begin new searches, where the last ones have ended."""
        everywhere = torch.arange(len(evaluations.loss))
        point, (loss, gradient) = evaluations.point, self._unit.of(evaluations, everywhere)
        if self._began:
            moved = torch.zeros(len(loss), dtype=torch.bool)
            moved[places] = True
            self._memory.add(point - self._point, gradient - self._gradient, moved.to(point.device))
        self._point, self._gradient = point, gradient
        gradient = self._projected(oracle)
        free = None if oracle.lower is None else gradient != 0
        direction = -self._memory.inverse(gradient, free)
        halted = self._begin(places, loss[places], gradient[places], direction[places])
        self._began = True
        self._write(places, oracle)
        return halted

    def learning_rate(self) -> Tensor | float:
        """The last steps along the directions."""
        return self._search.step if self._began else math.nan

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places from here on."""
        for part in (self._memory, self._search, self._unit):
            part.keep(kept)
        self._point, self._gradient = self._point[kept], self._gradient[kept]
        self._direction = self._direction[kept]

    def state_dict(self) -> State:
        """The memories, the searches, and where they began; see the parts for the axes."""
        return {
            "unit": self._unit.state_dict(),
            "memory": self._memory.state_dict(),
            "search": self._search.state_dict(),
            "began": self._began,
            "vectors": tuple(vector.clone() for vector in (self._point, self._gradient, self._direction)),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken."""
        self._unit.load_state_dict(state["unit"])
        self._memory.load_state_dict(state["memory"])
        self._search.load_state_dict(state["search"])
        self._began = state["began"]
        self._point, self._gradient, self._direction = (vector.clone() for vector in state["vectors"])

    def _projected(self, oracle: StackedOracle) -> Tensor:
        if oracle.lower is None or oracle.upper is None:
            return self._gradient
        return projected_gradient(self._gradient, self._point, oracle.lower, oracle.upper)

    def _begin(self, places: Tensor, loss: Tensor, gradient: Tensor, direction: Tensor) -> Halted | None:
        """Set up searches along these directions, or along the gradient where one does not descend.

        Args:
            loss: Of each of these starts, float64.
            gradient: Inside the bounds.
        """
        full = self._gradient[places]
        slope = _dots(full, direction)
        has_memory = self._memory.size[places].cpu() > 0
        useless = has_memory & ~((slope < 0) & slope.isfinite())
        if bool(useless.any()):
            self._memory.clear(places[useless])
            has_memory &= ~useless
            direction = torch.where(useless.to(full.device).unsqueeze(1), -gradient, direction)
            slope = _dots(full, direction)
        overflows = slope == -math.inf
        if bool(overflows.any()):  # the square of the gradient does
            scaled = direction / direction.abs().amax(1, keepdim=True)
            direction = torch.where(overflows.to(full.device).unsqueeze(1), scaled, direction)
            slope = _dots(full, direction)
        self._direction[places] = direction
        size = FIRST_STEP * torch.linalg.vector_norm(self._point[places], dim=1).double().cpu()
        first = (size.clamp(min=1.0) / (-slope).sqrt()).clamp(max=1.0)
        noise, lowest = NOISE * torch.finfo(direction.dtype).eps * loss.abs(), loss
        if self._began:  # what the last search has learnt
            noise = torch.maximum(noise, torch.minimum(self._search.of("noise", places), NOISE_UP_TO * loss.abs()))
            lowest = self._search.of("lowest", places)
        self._search.begin(places, loss, slope, torch.where(has_memory, 1.0, first), noise, lowest)
        lost = places[~(slope < 0)]
        return Halted(lost, torch.full_like(lost, len(CAUSES) - 1), CAUSES) if len(lost) else None

    def _advances(self, places: Tensor, oracle: StackedOracle) -> Tensor:
        """Set the next trials; which searches have one. What a step tells that moves nothing is known, and not
        evaluated.
        """
        search = self._search
        found = search.advance(places)
        waiting = found.nonzero().flatten()
        while len(waiting):
            there = places[waiting]
            waiting = waiting[(self._trials(there, oracle) == self._point[there]).all(1).cpu()]
            still = places[waiting]
            search.accepts(still, search.of("loss", still), search.of("slope", still))
            found[waiting] = search.advance(still)
            waiting = waiting[found[waiting]]
        return found

    def _write(self, places: Tensor, oracle: StackedOracle) -> None:
        """Move these starts to their trials."""
        oracle.write(places, self._trials(places, oracle))

    def _trials(self, places: Tensor, oracle: StackedOracle) -> Tensor:
        longest = torch.finfo(self._point.dtype).max  # a loss that falls for ever asks for more
        steps = self._search.of("step", places).clamp(max=longest).to(self._point)
        return oracle.inside(torch.addcmul(self._point[places], steps.unsqueeze(1), self._direction[places]))


def _dots(one: Tensor, other: Tensor) -> Tensor:
    """Of the vectors of each start, shape (starts, n), as float64 on the CPU."""
    return torch.linalg.vecdot(one, other).double().cpu()
