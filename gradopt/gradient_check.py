"""The gradient against differences of the loss: whether it is wrong, by how much, and in which unknowns."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradopt.differences import TOLERANCE, ConstraintProbe, Neighbourhood, OutOfPatience, Patience, Probe, Slope
from gradopt.oracle import AutogradOracle

MAX_SLOPES = 40
"""Slopes measured at most in search of the entries of one block that are wrong."""

MAX_NAMED = 3
_OPPOSITE = " (opposite sign)"


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """What differences say of a gradient.

    Attributes:
        slopes: Along the gradient and along a random direction.
        culprits: The unknowns in which it is wrong, each with its slope; empty where it is wrong by one factor
            throughout.
        functions: The custom `autograd.Function`s in the graph of the loss.
        unjudged: Why nothing can be said, if so.
        constraint: The name of the constraint whose gradient it is; that of the loss if empty.
        cut_short: Whether there was no time to say anything.
    """

    slopes: Sequence[Slope] = ()
    culprits: Sequence[tuple[str, Slope]] = ()
    functions: Sequence[str] = ()
    unjudged: str = ""
    constraint: str = ""
    cut_short: bool = False

    @property
    def is_wrong(self) -> bool:
        return any(slope.is_wrong for slope in self.slopes)

    @property
    def agrees(self) -> bool:
        """Along every direction that could be judged, and there is one."""
        judged = [slope for slope in self.slopes if slope.is_judged]
        return bool(judged) and not self.is_wrong

    @property
    def worst(self) -> Slope:
        """The first slope that is wrong; else the one known least well."""
        wrong = [slope for slope in self.slopes if slope.is_wrong]
        if wrong:
            return wrong[0]
        judged = [slope for slope in self.slopes if slope.is_judged]
        return max(judged, key=lambda slope: abs(slope.measured - slope.claimed) / (slope.scale or 1.0))

    def sentence(self) -> str:
        """What is wrong with it, in numbers, and where to look."""
        of = f" of constraint {self.constraint}" if self.constraint else ""
        return f"the gradient{of} is wrong: {self._what()}; {self._hint()}"

    @property
    def _subject(self) -> str:
        return "its value" if self.constraint else "the loss"

    def _what(self) -> str:
        if self.culprits:
            named = [_in_unknown(self._subject, name, slope) for name, slope in self.culprits[:MAX_NAMED]]
            more = len(self.culprits) - MAX_NAMED
            return ", ".join(named) + (f", and in {more} more" if more > 0 else "")
        slope = self.worst
        along = "along it" if slope is self.slopes[0] else "along a random direction"
        measured, claimed = _numbers(slope, "+")
        return f"{along} {self._subject} changes by {measured} where the gradient says {claimed}{_kind(slope.factor)}"

    def _hint(self) -> str:
        if self.functions:
            return f"check the backward of {', '.join(self.functions)}, a custom autograd.Function"
        return f"look for .detach(), .data, no_grad or a hook between the unknowns and {self._subject}"


def _in_unknown(subject: str, name: str, slope: Slope) -> str:
    measured, claimed = _numbers(slope)
    opposite = _OPPOSITE if _is_opposite(slope.factor) else ""
    return f"in {name} {subject} changes by {measured} where the gradient says {claimed}{opposite}"


def _kind(factor: float) -> str:
    if _is_opposite(factor):
        return _OPPOSITE
    if factor == 0 or not math.isfinite(factor):
        return ""
    return f" (scale {factor:.3g})" if abs(factor - 1) > 0.01 else f" (scale 1 {factor - 1:+.1e})"


def _is_opposite(factor: float) -> bool:
    return abs(factor + 1) < 0.01


def check_gradient(oracle: AutogradOracle, patience: Patience | None = None, *, one_by_one: int = 0) -> GradientCheck:
    """Compare the gradient of the full loss at the current parameters with differences of the loss.

    With a point on a bound, a point a little inside is taken instead: the objective is never evaluated outside.

    Args:
        one_by_one: Up to so many unknowns each entry is checked, also where the gradient as a whole agrees.
    """
    if not oracle.has_full_loss:
        return GradientCheck(unjudged="the objective has no full_loss(), and losses of batches cannot be compared")
    return _asked(Probe(oracle, patience), one_by_one)


def check_constraints(
    oracle: AutogradOracle, patience: Patience | None = None, *, one_by_one: int = 0
) -> Iterator[GradientCheck]:
    """The same for each constraint, one after the other; of one with many values, for a random sum of these."""
    if oracle.constraints is None:
        return
    count = len(oracle.constraints.lower)
    weights = 0.5 + torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, rows in oracle.constraints.by_name(torch.arange(count)).items():
        of_rows = torch.zeros_like(weights).index_put((rows.reshape(-1),), weights[rows.reshape(-1)])
        found = _asked(ConstraintProbe(oracle, of_rows / of_rows.max(), patience), one_by_one)
        yield replace(found, constraint=name)


def _asked(probe: Probe, one_by_one: int) -> GradientCheck:
    with probe:
        try:
            return _checked(Neighbourhood(probe), probe, one_by_one)
        except OutOfPatience:
            return GradientCheck(unjudged="the loss takes too long to evaluate", cut_short=True)
        except Exception as error:  # the objective's own, such as a domain error beside the point
            return GradientCheck(unjudged=f"beside the point the objective raised {type(error).__name__}: {error}")


def _checked(near: Neighbourhood, probe: Probe, one_by_one: int) -> GradientCheck:
    oracle = probe.oracle
    if near.unjudged:
        return GradientCheck(unjudged=near.unjudged)
    scaled = near.size.cpu().double() * near.gradient
    random = torch.rand(len(scaled), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = [torch.where(random < 0.5, -1.0, 1.0) * (0.5 + random)]
    if bool(scaled.any()):
        directions.insert(0, scaled / scaled.abs().max())
    slopes = [near.slope(weights) for weights in directions]
    if not any(slope.is_judged for slope in slopes):
        return GradientCheck(slopes, unjudged="differences of the loss are lost in rounding, noise or kinks here")
    wrong = [weights for weights, slope in zip(directions, slopes, strict=True) if slope.is_wrong]
    if wrong and near.leaves_range([slope for slope in slopes if slope.is_wrong]):
        what = str(near.size.dtype).removeprefix("torch.")
        return GradientCheck(unjudged=f"the squares of numbers here leave the range of {what}")
    culprits: list[tuple[str, Slope]] = []
    if not wrong:
        if len(scaled) <= one_by_one:
            culprits = [(name, slope) for name, slope in _entries(near, oracle) if slope.is_wrong]
        slopes += [slope for _, slope in culprits]
        return GradientCheck(slopes, culprits, probe.custom_functions() if culprits else ())
    if not _one_factor(slopes):
        with suppress(OutOfPatience):  # that it is wrong is known all the same
            for name, block, shape in blocks(oracle):
                culprits += _culprits(near, wrong[0], name, block, shape)
    return GradientCheck(slopes, culprits, probe.custom_functions())


def _entries(near: Neighbourhood, oracle: AutogradOracle) -> Iterator[tuple[str, Slope]]:
    for name, block, shape in blocks(oracle):
        for index in block:
            unit = torch.zeros_like(near.gradient)
            unit[index] = 1.0
            yield entry(name, index - block[0], shape), near.slope(unit)


def _culprits(
    near: Neighbourhood, weights: Tensor, name: str, block: range, shape: torch.Size
) -> list[tuple[str, Slope]]:
    """The entries of a block that are wrong, found by halving it as long as the slope over a part is wrong; the block
    as a whole where that is all of them, or takes too many slopes.
    """

    def over(part: range) -> Slope:
        only = torch.zeros_like(weights)
        only[part.start : part.stop] = weights[part.start : part.stop] if len(part) > 1 else 1.0
        return near.slope(only)

    whole = over(block)
    if not whole.is_wrong:
        return []
    waiting, measured = _halves(block), 1
    found: list[tuple[str, Slope]] = [] if waiting else [(name, whole)]
    while waiting and measured < MAX_SLOPES:
        part = waiting.pop(0)
        slope = over(part)
        measured += 1
        if slope.is_wrong and len(part) == 1:
            found.append((entry(name, part[0] - block[0], shape), slope))
        elif slope.is_wrong:
            waiting += _halves(part)
    complete = found and not waiting and len(found) < max(len(block), MAX_NAMED + 1)
    return found if complete else [(name, whole)]


def _one_factor(slopes: Sequence[Slope]) -> bool:
    """Whether the slopes are all wrong by the same factor."""
    if len(slopes) < 2 or not all(slope.is_wrong and slope.measured and slope.claimed for slope in slopes):
        return False
    factors = [slope.factor for slope in slopes]
    blur = min(TOLERANCE, 0.1 * abs(factors[0] - 1)) + sum(abs(slope.error / slope.measured) for slope in slopes)
    return max(factors) - min(factors) <= blur * abs(factors[0])


def _numbers(slope: Slope, sign: str = "") -> tuple[str, str]:
    """What is measured and what is claimed, to as many digits as it takes to tell them apart."""
    apart = abs(slope.measured - slope.claimed) / (slope.scale or 1.0)
    digits = max(4, 2 - math.floor(math.log10(apart))) if 0 < apart < 1 else 4
    return f"{slope.measured:{sign}.{digits}g}", f"{slope.claimed:{sign}.{digits}g}"


def blocks(oracle: AutogradOracle) -> Iterator[tuple[str, range, torch.Size]]:
    """The name of each parameter, which of the unknowns it holds, and its shape."""
    start = 0
    for name, parameter in zip(oracle.names, oracle.parameters, strict=True):
        yield name, range(start, start + parameter.numel()), parameter.shape
        start += parameter.numel()


def _halves(part: range) -> list[range]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else []


def entry(name: str, index: int, shape: torch.Size) -> str:
    """The name of an unknown by its place in its parameter."""
    """ "x[3]", "weight[1, 2]", or the name alone of a single number."""
    places: list[str] = []
    for extent in reversed(shape):
        index, place = divmod(index, extent)
        places.insert(0, str(place))
    return f"{name}[{', '.join(places)}]" if places else name
