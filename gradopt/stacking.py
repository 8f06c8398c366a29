"""Starts become stacked parameters, one entry a start; what cannot be done for many at once is refused."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gradopt.contracts import Objective
from gradopt.mistakes import Mistake
from gradopt.oracle import AutogradOracle
from gradopt.plurals import counted

PROBED = 2
"""Starts at which the losses of many at once are compared with the loss of one."""


def check_kind(one: AutogradOracle) -> None:
    """Refuse the oracle of an objective with constraints or batches.

    Raises:
        Mistake: It has some.
    """
    name = one.objective.describe()
    if one.constraints is not None:
        raise Mistake(f"many starts keep no constraints, and {name} has some: run its starts one after another")
    if one.objective.batches is not None:
        raise Mistake(f"many starts take no batches of data, and {name} has some: run its starts one after another")


def named(objective: Objective, points: Tensor) -> dict[str, Tensor]:
    """Points of shape (starts, n) as starts by parameter name."""
    own = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    pieces = points.split([parameter.numel() for parameter in own.values()], dim=1)
    return {
        name: piece.reshape(len(points), *parameter.shape)
        for (name, parameter), piece in zip(own.items(), pieces, strict=True)
    }


def stacked(one: AutogradOracle, starts: Mapping[str, Tensor]) -> list[nn.Parameter]:
    """Parameters of shape (starts, ...) in the order of those of one, in their dtype and on their device.

    Args:
        starts: By parameter name; they are copied.

    Raises:
        Mistake: They do not fit the unknowns, are not finite, or lie outside the bounds.
    """
    if set(starts) != set(one.names):
        raise Mistake(f"starts are given for {', '.join(starts)}, but the unknowns are {', '.join(one.names)}")
    found, number = [], None
    for name, parameter in zip(one.names, one.parameters, strict=True):
        values = starts[name].detach().to(parameter)
        if values.dim() != parameter.dim() + 1 or values.shape[1:] != parameter.shape:
            shape = ", ".join(map(str, ("starts", *parameter.shape)))
            raise Mistake(f"the starts of {name} have shape {tuple(values.shape)}; they must have ({shape})")
        number = len(values) if number is None else number
        if len(values) != number:
            raise Mistake(f"there are {counted(len(values), 'start')} of {name}, but {number} of {one.names[0]}")
        found.append(nn.Parameter(values.clone()))
    points = torch.cat([part.detach().reshape(len(part), -1) for part in found], dim=1)
    if not bool(points.isfinite().all()):
        row = int((~points.isfinite()).any(1).nonzero()[0])
        raise Mistake(f"start {row} is not finite: {points[row, :8].tolist()}")
    if one.lower is not None and one.upper is not None:
        outside = ((points < one.lower) | (points > one.upper)).any(1)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise Mistake(f"start {row} lies outside the bounds: {points[row, :8].tolist()}; move it or the bounds")
    return found


def check_losses(
    one: AutogradOracle, losses: Callable[[Sequence[Tensor]], Tensor], parameters: Sequence[Tensor]
) -> None:
    """Compare the losses of the first starts with those of each by itself.

    Args:
        losses: Of many starts, given by stacked parameters.

    Raises:
        Mistake: They differ, or there is no way to evaluate many at once.
    """
    name, few = one.objective.describe(), [parameter.detach()[:PROBED] for parameter in parameters]
    points = torch.cat([part.reshape(len(part), -1) for part in few], dim=1)
    expected: list[float] = []
    with one.uncounted():
        for point in points:
            one.write(point)
            expected.append(one.evaluate().loss)
    try:
        found = losses(few).detach()
    except Exception as error:
        reason = re.split(r"\n|\.\s|,? please ", str(error).strip())[0].rstrip(".") or type(error).__name__
        raise Mistake(
            f"{name} cannot be evaluated at many starts at once: torch.vmap says {reason!r}; use torch.where in place "
            "of `if`, and no .item(), .numpy() or random numbers; or define losses(parameters); or take one start"
        ) from error
    if found.shape != (len(points),):
        raise Mistake(
            f"losses() of {name} must have shape ({len(points)},) for so many starts, not {tuple(found.shape)}"
        )
    known = found.new_tensor(expected)
    if not torch.allclose(found, known, rtol=torch.finfo(found.dtype).eps ** 0.5, atol=0.0, equal_nan=True):
        raise Mistake(
            f"{name} has other losses at many starts at once, {found.tolist()}, than at each by itself, {expected}: "
            "it keeps a state of its own, or its losses() is wrong"
        )
