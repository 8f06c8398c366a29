"""Limited-memory BFGS, with bounds."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import Evaluation, Oracle, State, Stuck
from gradopt.optimisers.line_search import LineSearch, Trial

RELATIVE_CURVATURE = 1e-10
"""A pair is kept if s'y > this * |s| |y|: relative, as an absolute threshold stalls problems of small loss."""

NOISE = 400
"""Differences of losses up to this many roundings are noise: 1e-13 of the loss in float64."""


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
        self._search: LineSearch | None = None
        self._accepted = True
        self._point = self._gradient = self._direction = torch.empty(0)

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the line search is content with the trial; a first point is always accepted."""
        if self._search is None:
            return True
        self._accepted = self._search.accepts(evaluation.loss, self._slope(evaluation, oracle))
        return self._accepted

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Begin a search at an accepted point, or make the next trial of the one that is under way.

        Raises:
            Stuck: Neither the direction nor the gradient leads to a lower loss in this dtype.
        """
        if self._accepted:
            point, gradient = evaluation.point, evaluation.gradient
            if self._search is not None:
                self._memory.add(point - self._point, gradient - self._gradient)
            self._point, self._gradient = point, gradient
            self._begin(evaluation.loss, oracle)
        elif self._search is not None and not self._search.advance():
            if not self._memory.size:
                raise Stuck("no step along the gradient lowers the loss in this dtype")
            self._memory.clear()
            self._begin(self._search.loss, oracle)
        assert self._search is not None
        self._accepted = False
        oracle.write(self._trial(self._search.step, oracle))

    def learning_rate(self) -> float:
        """The last step along the direction."""
        return math.nan if self._search is None else self._search.step

    def state_dict(self) -> State:
        """The memory, the point the search began at, and the search."""
        return {
            "memory": self._memory.state_dict(),
            "search": None if self._search is None else asdict(self._search),
            "accepted": self._accepted,
            "vectors": (self._point, self._gradient, self._direction),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken."""
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
        if not slope < 0:
            raise Stuck("the gradient is zero, or vanishes when it is squared, in this dtype")
        step = 1.0
        if not self._memory.size:
            length = math.sqrt(-slope)
            step = min(1.0, max(1.0, 0.01 * float(self._point.norm())) / length)
        noise = NOISE * torch.finfo(self._point.dtype).eps * abs(loss)
        self._search = LineSearch(loss, slope, step, noise)

    def _trial(self, step: float, oracle: Oracle) -> Tensor:
        point = torch.add(self._point, self._direction, alpha=step)
        return point if oracle.lower is None else point.clamp(oracle.lower, oracle.upper)

    def _slope(self, evaluation: Evaluation, oracle: Oracle) -> float:
        """The derivative of the loss along the path, which stands still for unknowns that have met a bound."""
        direction = self._direction
        if oracle.lower is not None and oracle.upper is not None:
            direction = -projected_gradient(-direction, evaluation.point, oracle.lower, oracle.upper)
        return float(evaluation.gradient @ direction)


class Memory:
    """Pairs of steps s and gradient changes y, and the inverse Hessian they stand for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._order: list[int] = []
        self._steps = self._changes = self._products = self._squares = torch.empty(0)

    @property
    def size(self) -> int:
        """Pairs there are."""
        return len(self._order)

    def clear(self) -> None:
        """Forget all pairs."""
        self._order = []

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair, in the place of the oldest if there is no room; one without curvature is left out."""
        curvature, squares = float(step @ change), float(step @ step) * float(change @ change)
        if not curvature > RELATIVE_CURVATURE * math.sqrt(squares):
            return
        if self._steps.numel() == 0:
            self._steps, self._changes = (step.new_zeros(self._limit, len(step)) for _ in range(2))
            self._products, self._squares = (step.new_zeros(self._limit, self._limit) for _ in range(2))
        slot = self._order.pop(0) if len(self._order) == self._limit else len(self._order)
        self._order.append(slot)
        self._steps[slot], self._changes[slot] = step, change
        self._products[slot], self._products[:, slot] = self._changes @ step, self._steps @ change
        self._squares[slot] = self._squares[:, slot] = self._changes @ change

    def inverse(self, gradient: Tensor, free: Tensor | None) -> Tensor:
        """H g; with `free`, of the Hessian restricted to these unknowns, and zero in the others."""
        if not self._order:
            return gradient.clone()
        order, products, squares = self._order, self._products, self._squares
        steps, changes = self._steps, self._changes
        if free is not None and not bool(free.all()):
            steps, changes = steps * free, changes * free
            products, squares = steps @ changes.T, changes @ changes.T
            lengths = steps.square().sum(1)
            keep = products.diag() > RELATIVE_CURVATURE * (lengths * squares.diag()).sqrt()
            order = [slot for slot in order if bool(keep[slot])]
            if not order:
                return gradient.clone()
        last = order[-1]
        scale = products[last, last] / squares[last, last]
        index = torch.tensor(order, device=gradient.device)
        inner, outer = products[index][:, index].triu(), squares[index][:, index]
        along = torch.linalg.solve_triangular(inner, (steps @ gradient)[index, None], upper=True)
        right = inner.diag()[:, None] * along + scale * (outer @ along - (changes @ gradient)[index, None])
        weights = torch.linalg.solve_triangular(inner.T, right, upper=False)
        whole = gradient.new_zeros(2, len(steps))
        whole[0, index], whole[1, index] = weights[:, 0], along[:, 0]
        return scale * gradient + whole[0] @ steps - scale * (whole[1] @ changes)

    def state_dict(self) -> State:
        """All of it; tensors with the axes (pair, parameter) and (pair, pair)."""
        return {
            "order": list(self._order),
            "tensors": [t.clone() for t in (self._steps, self._changes, self._products, self._squares)],
        }

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._order = list(state["order"])
        self._steps, self._changes, self._products, self._squares = (t.clone() for t in state["tensors"])


def _search(state: dict[str, Any]) -> LineSearch:
    search = LineSearch(state["loss"], state["slope"], state["step"], state["noise"])
    for name in ("low", "high", "before", "best"):
        setattr(search, name, None if state[name] is None else Trial(**state[name]))
    search.num_trials, search.forced = state["num_trials"], state["forced"]
    return search
