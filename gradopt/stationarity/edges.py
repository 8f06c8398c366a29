"""Edges of a loss: places where it falls on one side, by a kink or a jump, though the gradient there has vanished."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradopt.contracts import Evaluation

NUM_AXES = 8
"""Unknowns up to which each is moved by itself; beyond, and also, all are moved at once in random patterns of signs."""

NUM_PATTERNS = 3

RUNGS = 4
"""Step sizes, each a third of the one before, that must agree at least."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A direction in which the loss falls however small the step.

    Attributes:
        step: A move of the unknowns, shape (n,).
        fall: Of the loss along it.
        jumps: Whether smaller steps bring the same fall, rather than a part of it.
    """

    step: Tensor
    fall: float
    jumps: bool

    def sentence(self) -> str:
        """What the loss does there, in numbers."""
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
    for direction in _directions(way):
        for part in (eps**0.25, eps**0.375):
            step = part * direction
            if not _fall(here, step, noise, loss) > 0:
                continue
            found = _followed(here, step, way, noise, loss, gradient)
            if found is not None:
                return found
    return None


def _directions(way: Tensor) -> Iterator[Tensor]:
    n = len(way)
    if n <= NUM_AXES:
        for index in range(n):
            move = torch.zeros_like(way)
            move[index] = way[index]
            yield move
            yield -move
    if n > 1:
        signs = torch.randint(0, 2, (NUM_PATTERNS, n), generator=torch.Generator().manual_seed(2)) * 2 - 1
        for row in signs.to(way):
            yield row * way
            yield -row * way


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
    if len(falls) < RUNGS:
        return None
    if all(0.9 <= fall / falls[-1] <= 1.1 for fall in falls):
        behind = [_fall(here, -step / 3**k, noise, loss) for k in range(RUNGS)]
        return None if any(behind) else Edge(step, falls[0], jumps=True)
    if not all(1 / 15 <= small / large <= 0.7 for large, small in itertools.pairwise(falls)):
        return None
    slope = -(gradient(here.point + step / 2) @ step).item()
    return Edge(step, falls[0], jumps=False) if slope > 0.25 * falls[0] else None
