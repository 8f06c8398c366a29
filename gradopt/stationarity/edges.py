"""Edges of a loss: places where it falls on one side, by a kink or a jump, though the gradient there has vanished."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradopt.contracts import Evaluation

NUM_AXES = 8
"""Unknowns up to which each is moved by itself; beyond, and also, all are moved at once in random patterns of signs."""

NUM_PATTERNS = 3

RUNGS = 4
"""Step sizes, each a third of the one before, that must agree at least."""

SQUARE = 0.2
"""What a third of the step leaves of a fall at most that is as its square, of 1/9; of one in proportion it is 1/3."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A direction in which the loss falls however small the step.

    Attributes:
        step: A move of the unknowns, shape (n,).
        fall: Of the loss along it.
        jumps: Whether smaller steps bring the same fall, rather than a part of it.
        bends: Whether it falls as the square of the step, and on the other side, too: a saddle point that is smooth.
        peaks: Whether it does so in every direction that was looked at.
    """

    step: Tensor
    fall: float
    jumps: bool = False
    bends: bool = False
    peaks: bool = False

    def sentence(self) -> str:
        """What the loss does there, in numbers."""
        if self.bends:
            what = "a maximum" if self.peaks else "a saddle point"
            return f"{what}: the loss falls by {self.fall:.3g} over a move of {self.step.norm():.3g} to either side"
        if self.jumps:
            return f"a jump: the loss is {self.fall:.3g} lower right beside this point"
        return f"a kink: on one side of this point the loss falls with a slope of {self.fall / self.step.norm():.3g}"


def edge(
    here: Evaluation,
    way: Tensor,
    left: float,
    loss: Callable[[Tensor], float],
    gradient: Callable[[Tensor], Tensor],
) -> Edge | None:
    """An edge through a point whose gradient has vanished, or so close to it that the unknowns cannot tell; else None.

    The loss must fall in proportion to the step (or as its root or its square), or all at once, over steps of a wide
    range that are far below the unknowns' ways; by more than rounding and the gradient here explain. The gradient
    beside the point must confirm a kink, and on the other side of a jump the loss must not fall: so noise makes no
    edge.

    Args:
        way: How far each unknown may reach; 0 for those that stay.
        left: What the gradient leaves the loss to fall by: no more than that is no edge.
        loss, gradient: At other points; NaN where there is none.
    """
    eps = torch.finfo(way.dtype).eps
    bend = way @ (gradient(here.point + eps**0.25 * way) - here.gradient).abs() / eps**0.25
    terms = bend.item() if bend.isfinite() else 0.0  # of the loss, that cancel where it vanishes
    noise = 100 * eps * max(abs(here.loss) + eps * terms, math.ulp(0.0)) + 4 * left
    for pattern in _patterns(way):
        for part in (eps**0.25, eps**0.375):
            step = part * pattern * way
            if not _fall(here, step, noise, loss) > 0:
                continue
            found = _followed(here, step, way, noise, loss, gradient)
            if found is not None and found.bends:
                falls = [_fall(here, part * other * way, noise, loss) for other in _patterns(way)]
                return replace(found, peaks=len(way) <= NUM_AXES and all(falls))
            if found is not None:
                return found
    return None


def may_be_edges(
    point: Tensor,
    loss: Tensor,
    gradient: Tensor,
    way: Tensor,
    losses: Callable[[Tensor], Tensor],
    gradients: Callable[[Tensor], Tensor],
) -> Tensor:
    """Which of many points, shape (starts, n), have a lower loss beside them where `edge` asks first; or a gradient
    that is not finite. There is none at the others.
    """
    eps = torch.finfo(way.dtype).eps
    bend = (way * (gradients(point + eps**0.25 * way) - gradient).abs()).sum(1) / eps**0.25
    terms = torch.where(bend.isfinite(), bend, 0.0)
    noise = 100 * eps * (loss.abs() + eps * terms).clamp(min=math.ulp(0.0))
    found = ~gradient.isfinite().all(1)
    for pattern in _patterns(way[0]):
        for part in (eps**0.25, eps**0.375):
            step = part * pattern * way
            found |= loss - losses(point + step) > noise + 2 * (gradient * step).sum(1).abs()
    return found


def _patterns(like: Tensor) -> Iterator[Tensor]:
    """Directions in units of the ways, shape (n,), in the dtype of `like`."""
    n = len(like)
    if n <= NUM_AXES:
        for row in torch.eye(n).to(like):
            yield row
            yield -row
    if n > 1:
        signs = torch.randint(0, 2, (NUM_PATTERNS, n), generator=torch.Generator().manual_seed(2)) * 2 - 1
        for row in signs.to(like):
            yield row
            yield -row


def _fall(here: Evaluation, step: Tensor, noise: float, loss: Callable[[Tensor], float]) -> float:
    """By how much the loss falls; 0 where rounding or the gradient explain it."""
    fall = here.loss - loss(here.point + step)
    return fall if fall > noise + 2 * abs((here.gradient @ step).item()) else 0.0


def _followed(
    here: Evaluation,
    step: Tensor,
    way: Tensor,
    noise: float,
    loss: Callable[[Tensor], float],
    gradient: Callable[[Tensor], Tensor],
) -> Edge | None:
    """The edge that a fall is due to: what is left of it at smaller and smaller steps tells, down to twice the square
    root of eps (closer to the edge the point need not be) or to where it cannot be seen.
    """
    smallest = 1.9 * torch.finfo(way.dtype).eps ** 0.5
    falls: list[float] = []
    while (step.abs() / way).max().item() / 3 ** len(falls) >= smallest:
        fall = _fall(here, step / 3 ** len(falls), noise, loss)
        if not fall > 0:
            if falls[-1] > 20 * noise:
                return None
            break
        falls.append(fall)
    if len(falls) < RUNGS - 1:
        return None
    if len(falls) >= RUNGS and all(0.9 <= fall / falls[-1] <= 1.1 for fall in falls):
        behind = [_fall(here, -step / 3**k, noise, loss) for k in range(RUNGS)]
        return None if any(behind) else Edge(step, falls[0], jumps=True)
    if not all(1 / 15 <= small / large <= 0.7 for large, small in itertools.pairwise(falls)):
        return None
    slope = -(gradient(here.point + step / 2) @ step).item()
    if not slope > 0.25 * falls[0]:
        return None
    squares = all(small / large <= SQUARE for large, small in itertools.pairwise(falls))
    behind = [_fall(here, -step / 3**k, noise, loss) for k in range(RUNGS - 1)]
    bends = squares and all(0.5 <= other / fall <= 2 for other, fall in zip(behind, falls[: RUNGS - 1], strict=True))
    return Edge(step, falls[0], bends=bends) if bends or len(falls) >= RUNGS else None
