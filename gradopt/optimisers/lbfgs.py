"""Limited-memory BFGS, with bounds."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import Evaluation, NonFiniteTrial, Oracle, State, Stuck
from gradopt.optimisers.line_search import FIRST_STEP, NO_SLOPE, NO_STEP, NOISE, NOISE_UP_TO, LineSearch, Trial
from gradopt.optimisers.loss_unit import LossUnit
from gradopt.optimisers.memory import Memory
from gradopt.optimisers.stacked.lbfgs import StackedLBFGS
from gradopt.stacked import StackedOracle


class LBFGS:
    """Limited-memory BFGS with a strong Wolfe line search that works down to rounding; keeps bounds by projection.

    The inverse Hessian is held in the compact form of Byrd, Nocedal and Schnabel (1994), eq. 3.1. With bounds, unknowns
    that are on a bound and pushed against it are fixed, the direction is taken in the others, and the search runs
    along the path projected on the box (Bertsekas, 1982). A line search that fails drops the memory and tries the
    gradient once.

    Args:
        history_size: Pairs of steps and gradient changes that are remembered.
    """

    bounds = True

    def __init__(self, parameters: Sequence[nn.Parameter], *, history_size: Annotated[int, ">= 1"] = 20) -> None:
        self._memory = Memory(history_size)
        self._unit = LossUnit()
        self._search: LineSearch | None = None
        self._accepted = True
        self._point = self._gradient = self._direction = torch.empty(0)

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the line search is content with the trial; a first point is always accepted."""
        if self._search is None:
            return True
        evaluation = self._unit.of(evaluation)
        self._accepted = self._search.accepts(evaluation.loss, self._slope(evaluation, oracle))
        return self._accepted

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Begin a search at an accepted point, or make the next trial of the one that is under way.

        Raises:
            Stuck: Neither the direction nor the gradient leads to a lower loss in this dtype.
            NonFiniteTrial: Likewise, and what stands in the way is a loss that is not finite, however short the step.
        """
        if self._accepted:
            evaluation = self._unit.of(evaluation)
            point, gradient = evaluation.point, evaluation.gradient
            if self._search is not None:
                self._memory.add(point - self._point, gradient - self._gradient)
            self._point, self._gradient = point, gradient
            self._begin(evaluation.loss, oracle)
        elif self._search is not None and not self._advances(self._search, oracle):
            if not self._memory.size:
                if self._search.not_finite is not None and self._search.is_walled_in:
                    raise NonFiniteTrial(self._search.not_finite, however_short=True)
                raise Stuck(NO_STEP)
            self._memory.clear()
            self._begin(self._search.loss, oracle)
        assert self._search is not None
        self._accepted = False
        oracle.write(self._trial(self._search.step, oracle))

    def learning_rate(self) -> float:
        """The last step along the direction."""
        return math.nan if self._search is None else self._search.step

    def renew(self) -> None:
        """Begin anew at the next evaluation, of a function much like the one before: the memory is kept."""
        self._search, self._accepted = None, True

    def stacked(self, oracle: StackedOracle) -> StackedLBFGS:
        """The same for many starts."""
        return StackedLBFGS(oracle, self._memory.limit)

    def state_dict(self) -> State:
        """The unit of the loss, the memory, the point the search began at, and the search."""
        return {
            "unit": self._unit.state_dict(),
            "memory": self._memory.state_dict(),
            "search": None if self._search is None else asdict(self._search),
            "accepted": self._accepted,
            "vectors": (self._point, self._gradient, self._direction),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken."""
        self._unit.load_state_dict(state["unit"])
        self._memory.load_state_dict(state["memory"])
        self._search = None if state["search"] is None else _search(state["search"])
        self._accepted = state["accepted"]
        self._point, self._gradient, self._direction = state["vectors"]

    def _begin(self, loss: float, oracle: Oracle) -> None:
        gradient, free = self._gradient, None
        if oracle.lower is not None and oracle.upper is not None:
            gradient = projected_gradient(gradient, self._point, oracle.lower, oracle.upper)
            free = gradient != 0
        self._direction = -self._memory.inverse(gradient, free)
        slope = float(self._gradient @ self._direction)
        if self._memory.size and not (slope < 0 and math.isfinite(slope)):
            self._memory.clear()
            self._direction = -gradient
            slope = float(self._gradient @ self._direction)
        if slope == -math.inf:  # the square of the gradient overflows
            self._direction = self._direction / self._direction.abs().max()
            slope = float(self._gradient @ self._direction)
        if not slope < 0:
            raise Stuck(NO_SLOPE)
        step = 1.0
        if not self._memory.size:
            step = min(1.0, max(1.0, FIRST_STEP * float(self._point.norm())) / math.sqrt(-slope))
        noise, lowest = NOISE * torch.finfo(self._point.dtype).eps * abs(loss), loss
        if self._search is not None:  # what the last search has learnt
            noise = max(noise, min(self._search.noise, NOISE_UP_TO * abs(loss)))
            lowest = self._search.lowest
        self._search = LineSearch(loss, slope, step, noise, lowest)

    def _advances(self, search: LineSearch, oracle: Oracle) -> bool:
        """Set the next trial, if there is one. What a step tells that moves nothing is known, and not evaluated."""
        while search.advance():
            if not torch.equal(self._trial(search.step, oracle), self._point):
                return True
            search.accepts(search.loss, search.slope)
        return False

    def _trial(self, step: float, oracle: Oracle) -> Tensor:
        longest = torch.finfo(self._point.dtype).max  # a loss that falls for ever asks for more
        point = torch.add(self._point, self._direction, alpha=min(step, longest))
        return point if oracle.lower is None else point.clamp(oracle.lower, oracle.upper)

    def _slope(self, evaluation: Evaluation, oracle: Oracle) -> float:
        """The derivative of the loss along the path, which stands still for unknowns that have met a bound."""
        direction = self._direction
        if oracle.lower is not None and oracle.upper is not None:
            direction = -projected_gradient(-direction, evaluation.point, oracle.lower, oracle.upper)
        return float(evaluation.gradient @ direction)


def _search(state: dict[str, Any]) -> LineSearch:
    search = LineSearch(state["loss"], state["slope"], state["step"], state["noise"], state["lowest"])
    for name in ("low", "high", "before", "best"):
        setattr(search, name, None if state[name] is None else Trial(**state[name]))
    search.num_trials, search.forced, search.not_finite = state["num_trials"], state["forced"], state["not_finite"]
    return search
