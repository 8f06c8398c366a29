"""The local minima of a search, each with the number of local searches that ended in it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from gradopt.contracts import Minimum, State

SAME = 1e-3
"""Ends of local searches closer than this part of the box, in every unknown, are one minimum."""


MOST = 1000
"""Minima that are told apart."""

MOST_NUMBERS = 200_000
"""Unknowns of all points that are kept of where local searches began."""


def clustered(points: Tensor, losses: Tensor, width: Tensor) -> Iterator[tuple[Minimum, Tensor]]:
    """The minima among the ends of many local searches, lowest first, each with the indices of those that ended in it.

    Args:
        points: Shape (ends, n), float64 on the CPU; losses: shape (ends,).
        width: Of the box in each unknown, shape (n,), positive.
    """
    order = losses.argsort()
    for _ in range(MOST):
        if not len(order):
            return
        lowest = points[order[0]]
        near = ((points[order] - lowest).abs() / width).amax(1) <= SAME
        yield Minimum(lowest, losses[order[0]].item(), int(near.sum())), order[near]
        order = order[~near]


@dataclass(slots=True)
class Basin(Minimum):
    """A minimum, and how often local searches whose start was drawn from the whole box have ended in it."""

    drawn: int = 0


class Basins:
    """The minima found so far, clustered, lowest first.

    Args:
        width: Of the box in each unknown, shape (n,), positive.
        limit: As many are kept; the highest are forgotten first.
    """

    def __init__(self, width: Tensor, limit: int = 1000) -> None:
        self._width, self._limit = width, limit
        self._list: list[Basin] = []
        self._num_begins = 0
        self.num_drawn = 0
        self.num_found = 0

    def __len__(self) -> int:
        return len(self._list)

    def __iter__(self) -> Iterator[Basin]:
        return iter(self._list)

    def __getitem__(self, rank: int) -> Basin:
        return self._list[rank]

    def add(self, point: Tensor, loss: float, begin: Tensor, *, drawn: bool) -> None:
        """Count the end of a local search; unless that is where it began, as it is all over a plateau.

        Args:
            begin: Where it started.
            drawn: Its start was drawn from the whole box, so that it tells how much of the box is known.
        """
        if self._list and torch.equal(point, begin):
            return
        basin = self.refine(point, loss)
        basin.visits += 1
        if (self._num_begins + 1) * len(begin) <= MOST_NUMBERS:
            basin.begins.append(begin)
            self._num_begins += 1
        self.num_drawn += drawn
        self.num_found += drawn and not basin.drawn
        basin.drawn += drawn
        del self._list[self._limit :]

    def refine(self, point: Tensor, loss: float) -> Basin:
        """Put the basin of a point on it if it is lower; a point of no known basin makes a new one."""
        basin = self._near(point)
        if basin is None:
            basin = Basin(point, loss)
            self._list.append(basin)
        elif loss < basin.loss:
            basin.point, basin.loss = point, loss
        self._list.sort(key=lambda one: one.loss)
        return basin

    def visits(self, point: Tensor) -> int:
        """How many local searches have ended where this point is."""
        basin = self._near(point)
        return 0 if basin is None else basin.visits

    def unseen(self) -> float:
        """The expected part of the box from which descent leads to a minimum not found yet: w (w + 1) / (N (N - 1))
        after N searches from drawn starts that ended in w minima (Boender and Rinnooy Kan, 1987, eq. 8).
        """
        searches, found = self.num_drawn, self.num_found
        return 1.0 if searches < 2 else min(1.0, found * (found + 1) / (searches * (searches - 1)))

    def state_dict(self) -> State:
        """All of it; points have the axis (parameter)."""
        return {"list": [asdict(basin) for basin in self._list], "counts": (self.num_drawn, self.num_found)}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._list = [Basin(**basin) for basin in state["list"]]
        self.num_drawn, self.num_found = state["counts"]
        self._num_begins = sum(len(basin.begins) for basin in self._list)

    def _near(self, point: Tensor) -> Basin | None:
        if not self._list:
            return None
        away = ((torch.stack([basin.point for basin in self._list]) - point).abs() / self._width).amax(1)
        index = int(away.argmin())
        return self._list[index] if away[index] <= SAME else None
