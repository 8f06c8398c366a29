"""Boxes: lower <= parameter <= upper, entry by entry."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Bound
from gradopt.mistakes import Mistake


class Box:
    """The bounds of all parameters, checked against them, and as vectors of the flattened unknowns.

    Attributes:
        lower, upper: Shape (n,), in the dtype of the parameters; infinite where free.
    """

    def __init__(self, parameters: Mapping[str, Tensor], bounds: Mapping[str, tuple[Bound, Bound]]) -> None:
        """Check and spread the bounds.

        Raises:
            ValueError: A name that is no parameter, a shape that does not fit, an empty interval, or a start outside.
        """
        for name in bounds:
            if name not in parameters:
                raise Mistake(
                    f"bounds are given for {name!r}, which is not among the unknowns ({', '.join(parameters)})"
                )
        self._sides: list[tuple[Tensor, Tensor]] = []
        for name, parameter in parameters.items():
            lower, upper = bounds.get(name, (None, None))
            low = side(name, "lower", lower, -torch.inf, parameter)
            high = side(name, "upper", upper, torch.inf, parameter)
            if bool((low > high).any()):
                raise Mistake(f"the bounds of {name} leave no room: lower {lower} is above upper {upper}")
            outside = (parameter < low) | (parameter > high)
            if bool(outside.any()):
                where = int(outside.flatten().nonzero()[0])
                raise Mistake(
                    f"the start lies outside the bounds: {name}{f'[{where}]' if parameter.ndim else ''} = "
                    f"{parameter.flatten()[where].item():g} is not in [{low.flatten()[where].item():g}, "
                    f"{high.flatten()[where].item():g}]; move x0 or the bounds"
                )
            self._sides.append((low, high))
        self.lower = torch.cat([low.reshape(-1) for low, _ in self._sides])
        self.upper = torch.cat([high.reshape(-1) for _, high in self._sides])
        infinity = torch.full_like(self.lower, torch.inf)
        self._inner = self.lower.nextafter(infinity), self.upper.nextafter(-infinity)

    def has_inside(self, point: Tensor) -> bool:
        """Whether no unknown is at a bound or beyond; `point` is of shape (n,). A fifth of a projection's time."""
        return torch.equal(point.clamp(*self._inner), point)

    def project(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Move each parameter, in place, to the nearest point of the box."""
        for parameter, (lower, upper) in zip(parameters, self._sides, strict=True):
            parameter.detach().clamp_(lower, upper)


def projected_gradient(gradient: Tensor, point: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The part of the gradient along which descent stays inside the box, all of shape (..., n).

    It is zero where an unknown lies on its bound and descent would leave the box.
    """
    held = ((point <= lower) & (gradient > 0)) | ((point >= upper) & (gradient < 0))
    return gradient.masked_fill(held, 0.0)


def pinned(gradient: Tensor, point: Tensor, lower: Tensor, upper: Tensor) -> Tensor | None:
    """The unknowns that an infinite derivative presses against the bound they lie on, as sqrt(x) does at 0: a mask of
    shape (n,), None where there are none. That is first-order optimal: no finite change of the others moves them.
    """
    if bool(gradient.isfinite().all()):
        return None
    mask = ((point <= lower) & (gradient == torch.inf)) | ((point >= upper) & (gradient == -torch.inf))
    return mask if bool(mask.any()) else None


def mending(jacobian: Tensor, missed: Tensor, point: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The Jacobian of constraints, shape (m, n), without what cannot mend them: unknowns on a bound that would have to
    leave the box for less to be missed. What is missed, shape (m,), is positive above a limit, 0 inside.
    """
    way = -missed.sign()[:, None] * jacobian
    blocked = ((point <= lower) & (way < 0)) | ((point >= upper) & (way > 0))
    return jacobian.masked_fill(blocked, 0.0)


def side(name: str, word: str, bound: Bound, free: float, like: Tensor) -> Tensor:
    """One side of a box, spread to the shape of what it bounds; `free` stands where it is None.

    Raises:
        Mistake: No numbers, NaN, or a shape that does not fit; it names `name` and the `word` for the side.
    """
    if not isinstance(bound, Tensor):
        bound = _filled(bound, free)
    try:
        value = torch.as_tensor(bound, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError) as error:
        raise Mistake(f"the {word} bound of {name}, {bound!r}, is no number or list of numbers") from error
    if bool(value.isnan().any()):
        raise Mistake(f"the {word} bound of {name} is NaN")
    try:
        return value.detach().expand(like.shape).clone()
    except RuntimeError:
        raise Mistake(
            f"the {word} bound of {name} has shape {tuple(value.shape)}, which does not fit its {tuple(like.shape)}"
        ) from None


def _filled(bound: Any, free: float) -> Any:
    """None, alone or inside lists, as an infinity."""
    if bound is None:
        return free
    return [_filled(entry, free) for entry in bound] if isinstance(bound, list | tuple) else bound
