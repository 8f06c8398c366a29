"""Doubts about successes: what the loss does beside points whose gradient vanishes, of one or of many at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradopt.differences import tolerance
from gradopt.stationarity.curvature import sizes, ways

NUM_SLOPES = 2
"""Random directions in which a success is asked for a slope."""


@dataclass(frozen=True, slots=True)
class Points:
    """Points, and the loss round them.

    Attributes:
        point, origin: Where they are, and where their runs began; shape (starts, n).
        loss: There, shape (starts,), float64 on the CPU.
        losses: At as many points inside the bounds, shape (starts, n): as `loss`.
        gradients: The same for gradients, shape (starts, n), float64 on the CPU.
        box: The bounds, shape (n,) each, if there are any.
    """

    point: Tensor
    origin: Tensor
    loss: Tensor
    losses: Callable[[Tensor], Tensor]
    gradients: Callable[[Tensor], Tensor]
    box: tuple[Tensor, Tensor] | None = None

    @property
    def eps(self) -> float:
        return torch.finfo(self.point.dtype).eps

    @property
    def rounding(self) -> Tensor:
        """Differences of losses that rounding explains."""
        return 100 * self.eps * self.loss.abs().clamp(min=math.ulp(0.0))

    def rise(self, move: Tensor) -> Tensor:
        """Of the loss, by a move that ends inside the bounds."""
        there = self.point + move
        return self.losses(there if self.box is None else there.clamp(*self.box)) - self.loss


def are_doubtful(here: Points) -> Tensor:
    """Beside which of the points the loss falls by more than rounding explains, as it does at no minimum; or has a
    slope that is not the gradient's, and is steep enough to put the minimum somewhere else. A mask on the CPU.
    """
    found = _fall(here)
    return found if bool(found.all()) else found | _are_elsewhere(here)


def _fall(here: Points) -> Tensor:
    point = here.point
    signs = torch.randint(0, 2, point.shape[-1:], generator=torch.Generator().manual_seed(1)) * 2 - 1
    move = here.eps**0.25 * signs.to(point) * sizes(point, point)
    found = -here.rise(move) > here.rounding
    return found if bool(found.all()) else found | (-here.rise(-move) > here.rounding)


def _are_elsewhere(here: Points) -> Tensor:
    """Whether central differences along random directions show a slope that the gradient does not have, the same over
    the whole reach and half of it: noise is in no proportion to the step.
    """
    point, reach = here.point, here.eps**0.25
    way = ways(point, here.origin)
    if here.box is not None:  # differences are central: what has no room stays
        (lower, upper), room = here.box, 1.5 * reach * way
        way = way.masked_fill((point - room < lower) | (point + room > upper), 0.0)
    gradient, generator = here.gradients(point), torch.Generator().manual_seed(1)
    found = torch.zeros_like(here.loss, dtype=torch.bool)
    for _ in range(NUM_SLOPES):
        random = torch.rand(point.shape[-1:], generator=generator, dtype=torch.float64)
        direction = torch.where(random < 0.5, -1.0, 1.0).to(point) * (0.5 + random).to(point) * way
        whole = _astray(here, direction, reach, gradient)
        if bool(whole.any()):
            half = _astray(here, direction, reach / 2, gradient)
            found |= (whole != 0) & ((half - whole).abs() < 0.25 * whole.abs())
        if bool(found.all()):
            break
    return found


def _astray(here: Points, direction: Tensor, reach: float, gradient: Tensor) -> Tensor:
    """By how much the slope of the loss is another than the gradient's; 0 if a point much nearer than the direction is
    long would make up for it, or rounding explains it.
    """
    ahead, behind = here.rise(reach * direction), here.rise(-reach * direction)
    slope, turn = (ahead - behind) / (2 * reach), (ahead + behind).abs() / reach**2
    found = slope - (gradient * direction.cpu().double()).sum(1)
    least = here.rounding / reach + tolerance(here.point.dtype) * turn
    return torch.where(torch.minimum(found.abs(), slope.abs()) > least, found, 0.0)
