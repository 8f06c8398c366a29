"""Where a global search begins its next local search: points of the unit box, float64 on the CPU."""

import math

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from gradopt.contracts import Oracle, State
from gradopt.mistakes import Mistake
from gradopt.plurals import counted

REDUCED = 0.2
"""The part of the sample, the best of it, from which local searches start."""

KEPT = 300
"""Points of it that are remembered at most."""

CLUSTER = 2.0
"""sigma of the critical distance."""

CROSS, REDRAW = 0.25, 0.35
"""Parts of the hops that take unknowns from another minimum, and that draw some anew; the others are steps."""

SHORTEST, LONGEST = 1e-2, 0.3
"""Of a step: the longest as a part of the box, the shortest as a part of that."""


def region(title: str, start: Tensor, oracle: Oracle, radius: float | None) -> tuple[Tensor, Tensor]:
    """The box to search, (lower, upper): the bounds, or where there is none start -+ radius.

    Args:
        title: Of who searches.

    Raises:
        Mistake: An unknown has no interval to search, and there is no radius.
    """
    lower = torch.full_like(start, -math.inf) if oracle.lower is None else oracle.lower
    upper = torch.full_like(start, math.inf) if oracle.upper is None else oracle.upper
    if radius is not None:
        lower = torch.where(lower.isfinite(), lower, torch.minimum(start, upper) - radius)
        upper = torch.where(upper.isfinite(), upper, start + radius)
    open_sides = ~((upper - lower).isfinite())
    if bool(open_sides.any()):
        raise Mistake(
            f"{title} searches a box, and {int(open_sides.sum())} of {counted(len(start), 'unknown')} have no finite "
            "bounds on both sides: give bounds, or optimiser.radius to search that far round the start"
        )
    return lower, upper


class Sample:
    """A Sobol sample of the unit box, and the starts it offers: the filter of multi-level single linkage.

    A point of the reduced sample is a start if no better point lies closer than the critical distance, which shrinks as
    the sample grows (Rinnooy Kan and Timmer, 1987, part II, eq. 1).
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._sobol = SobolEngine(size, scramble=True, seed=seed) if size <= SobolEngine.MAXDIM else None
        self._points = torch.empty(0, size, dtype=torch.float64)
        self._losses = torch.empty(0, dtype=torch.float64)
        self._used = torch.empty(0, dtype=torch.bool)
        self.num_drawn = 0

    def draw(self, generator: torch.Generator) -> Tensor:
        """The next point; beyond the dimensions of Sobol's sequence, a random one."""
        self.num_drawn += 1
        if self._sobol is None:
            return torch.rand(self._size, dtype=torch.float64, generator=generator)
        return self._sobol.draw(1, dtype=torch.float64)[0]

    def add(self, point: Tensor, loss: float, *, used: bool = False) -> None:
        """Take in a point that has been evaluated.

        Args:
            used: A local search has started from it.
        """
        if not math.isfinite(loss):
            return
        losses = torch.cat([self._losses, torch.tensor([loss], dtype=torch.float64)])
        order = losses.argsort(stable=True)[: max(1, min(KEPT, math.ceil(REDUCED * self.num_drawn)))]
        self._losses = losses[order]
        self._points = torch.cat([self._points, point[None]])[order]
        self._used = torch.cat([self._used, torch.tensor([used])])[order]

    def start(self) -> Tensor | None:
        """The best point that has not been used and is not clustered, None if there is none."""
        fresh = (~self._used).nonzero().flatten()
        if not len(fresh):
            return None
        closest = torch.cdist(self._points[fresh], self._points)
        better = torch.arange(len(self._losses)) < fresh[:, None]
        clear = ((closest > self._critical()) | ~better).all(1).nonzero().flatten()
        if not len(clear):
            return None
        index = fresh[clear[0]]
        self._used[index] = True
        return self._points[index]

    def state_dict(self) -> State:
        """The reduced sample, and how far the sequence has got; tensors with the axes (point, parameter)."""
        tensors = [tensor.clone() for tensor in (self._points, self._losses, self._used)]
        return {"tensors": tensors, "num_drawn": self.num_drawn}

    def load_state_dict(self, state: State) -> None:
        """Take it over; the sequence is the one of the same seed."""
        self._points, self._losses, self._used = (tensor.clone() for tensor in state["tensors"])
        self.num_drawn = state["num_drawn"]
        if self._sobol is not None:
            self._sobol.reset().fast_forward(self.num_drawn)

    def _critical(self) -> float:
        """The critical distance for the size of the sample."""
        n, count = self._size, max(2, self.num_drawn)
        volume = math.lgamma(1 + n / 2) + math.log(CLUSTER * math.log(count) / count)
        return math.exp(volume / n) / math.sqrt(math.pi)


class Hops:
    """Random moves from one local minimum to where another may be.

    Unknowns taken from another minimum, as in a genetic algorithm; few unknowns drawn anew, which solves what is nearly
    separable; and steps of one to all unknowns whose length is drawn from a log-uniform law, as nothing is known of
    the distance between minima.
    """

    def propose(self, base: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
        """A point to descend from.

        Args:
            base: The minimum to leave.
            other: One to take unknowns from.
        """
        n = len(base)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, dtype=torch.float64, generator=generator)

        kind = uniform(1).item()
        if kind < CROSS and not torch.equal(base, other):
            there, number = other, max(1, int((uniform(n) < 0.5).sum()))
        elif kind < CROSS + REDRAW:
            there, number = uniform(n), 1 - int(math.log2(1 - uniform(1).item()))
        else:
            length = SHORTEST ** uniform(1).item() * LONGEST
            there = base + length * torch.randn(n, dtype=torch.float64, generator=generator)
            there = 1 - (1 - there.abs()).abs()  # reflected at the faces
            number = int((n + 1) ** uniform(1).item())
        moved = torch.zeros(n, dtype=torch.bool)
        moved[torch.randperm(n, generator=generator)[:number]] = True
        return torch.where(moved, there, base).clamp(0.0, 1.0)
