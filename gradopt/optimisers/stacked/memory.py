"""The memory of L-BFGS for many starts."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gradopt.contracts import State
from gradopt.optimisers.memory import RELATIVE_CURVATURE, SMALLEST_DIAGONAL, followed


class StackedMemory:
    """`Memory` of each of many starts, with the same pairs and the same H: by the two loops of Nocedal (1980), as small
    triangular systems, one a start, cost more than loops over the pairs of all starts.

    Inside, the axis of starts is the last: sums over few unknowns then run along many starts. The newest pairs of all
    starts lie in one slot of the ring; where a start leaves a pair out, its older ones move on by a slot.

    Attributes:
        size: Pairs that each start remembers, shape (starts,).
    """

    def __init__(self, limit: int, like: Tensor) -> None:
        number = len(like)
        self._limit = limit
        self._newest, self._count = limit - 1, 0
        self.size = torch.zeros(number, dtype=torch.int64, device=like.device)
        self._steps = self._changes = like.new_zeros(0, like.shape[1], number)
        self._curvatures = like.new_full((limit, number), torch.inf)  # s'y of each pair; infinite where there is none
        self._diagonal = like.new_ones(like.shape[1], number)

    def clear(self, places: Tensor) -> None:
        """Forget all pairs of some starts."""
        self.size[places] = 0
        self._curvatures[:, places] = torch.inf

    def add(self, steps: Tensor, changes: Tensor, moved: Tensor) -> None:
        """Remember a pair for each start that has moved, or leave it out where it has no curvature.

        Args:
            steps, changes: Shape (starts, n).
            moved: Their mask; the others have ended, and their H is of no account from here on.
        """
        if not len(self._steps):
            self._steps, self._changes = (steps.new_zeros(self._limit, *self._diagonal.shape) for _ in range(2))
        step, change = steps.T.contiguous(), changes.T.contiguous()
        curvature, square = _dots(step, change), _dots(change, change)
        curved = curvature.double() > RELATIVE_CURVATURE * (_dots(step, step).double() * square.double()).sqrt()
        kept, left_out = moved & curved, moved & ~curved & (self.size > 0)
        slot = self._newest = (self._newest + 1) % self._limit
        self._count = min(self._count + 1, self._limit)
        if len(late := left_out.nonzero().flatten()):
            for ring in (self._steps, self._changes, self._curvatures):
                ring[..., late] = ring[..., late].roll(1, 0)
        self._steps[slot] = torch.where(kept, step, self._steps[slot])
        self._changes[slot] = torch.where(kept, change, self._changes[slot])
        self._curvatures[slot] = torch.where(kept, curvature, self._curvatures[slot])
        self._diagonal = torch.where(kept & (self.size == 0), square / curvature, self._diagonal)
        self.size = torch.where(kept, self.size + 1, self.size).clamp_(max=self._limit)
        self._follow(step, change, curvature, kept)

    def inverse(self, gradients: Tensor, free: Tensor | None) -> Tensor:
        """H g of each start, shape (starts, n); with `free`, a mask of that shape, of the Hessian restricted to these
        unknowns, and zero in the others.
        """
        if not self._count:
            return gradients.clone()
        steps, changes, curvatures = self._steps, self._changes, self._curvatures
        if free is not None and not bool(free.all()):
            steps, changes, curvatures = self._restricted(free)
        image, parts = gradients.T.contiguous(), {}
        for slot in self._slots():
            parts[slot] = _dots(steps[slot], image) / curvatures[slot]  # whose inverse may overflow
            image = torch.addcmul(image, parts[slot], changes[slot], value=-1)
        image = image / self._diagonal
        for slot in reversed(list(self._slots())):
            part = parts[slot] - _dots(changes[slot], image) / curvatures[slot]
            image = torch.addcmul(image, part, steps[slot])
        return torch.where((self.size > 0).unsqueeze(1), image.T, gradients)

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places from here on."""
        for name in ("size", "_steps", "_changes", "_curvatures", "_diagonal"):
            setattr(self, name, getattr(self, name)[..., kept])

    def state_dict(self) -> State:
        """All of it; the axis of starts is the last one of each tensor."""
        tensors = (self._steps, self._changes, self._curvatures, self._diagonal, self.size)
        return {"numbers": (self._newest, self._count), "tensors": [tensor.clone() for tensor in tensors]}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._newest, self._count = state["numbers"]
        tensors = [tensor.clone() for tensor in state["tensors"]]
        self._steps, self._changes, self._curvatures, self._diagonal, self.size = tensors

    def _slots(self) -> Iterator[int]:
        """Of the pairs, from the newest on."""
        return ((self._newest - age) % self._limit for age in range(self._count))

    def _follow(self, step: Tensor, change: Tensor, curvature: Tensor, kept: Tensor) -> None:
        image = self._diagonal * step
        square = _dots(step, image)
        factor = curvature / square
        mean = (factor * (_dots(change, change / self._diagonal) / curvature)).sqrt()
        factor = torch.where(self.size == self._limit, mean, factor)
        diagonal = followed(self._diagonal, image, change, curvature, square, factor)
        usable = kept & (square > 0) & (factor > 0) & factor.isfinite() & diagonal.isfinite().all(0)
        floor = SMALLEST_DIAGONAL * diagonal.amax(0)
        self._diagonal = torch.where(usable, torch.maximum(diagonal, floor), self._diagonal)

    def _restricted(self, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs where only some unknowns count; those without curvature then count for nothing."""
        mask = free.T
        steps, changes = self._steps * mask, self._changes * mask
        curvature = (steps * changes).sum(1)
        sizes = steps.square().sum(1).double() * changes.square().sum(1).double()
        curved = self._curvatures.isfinite() & (curvature.double() > RELATIVE_CURVATURE * sizes.sqrt())
        return steps, changes, torch.where(curved, curvature, torch.inf)


def _dots(one: Tensor, other: Tensor) -> Tensor:
    """Over the unknowns, shape (n, starts), of each start."""
    return (one * other).sum(0)
