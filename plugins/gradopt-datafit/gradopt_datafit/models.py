"""What can be fitted: the named models, each with a start read from the data, and the user's own functions."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradopt import Mistake
from gradopt.mistakes import did_you_mean
from gradopt.objectives.function import load

MAX_SEARCHED = 1000
"""Rows, evenly chosen, in which the frequency of a sine is looked for, up to one period in 2 of them."""

MAX_EXPONENT = 50.0
"""Beyond it the height at x = 0 says nothing about the data in double precision."""


@dataclass(frozen=True, slots=True)
class Model:
    """A function of x and of named numbers, the parameters.

    Attributes:
        function: Called with x of shape (rows,), or (columns, rows) if there are several, and the parameters by
            keyword; returns the model's values, shape (rows,).
        start: Where each parameter starts; None where the function has no default for it.
        formula: For people.
    """

    function: Callable[..., Tensor]
    start: Mapping[str, float | None]
    formula: str


Start = dict[str, float]
Guess = Callable[[Tensor, Tensor], Start]


def line(x: Tensor, intercept: Tensor, slope: Tensor) -> Tensor:
    """Intercept + slope x."""
    return intercept + slope * x


def exponential(x: Tensor, amplitude: Tensor, rate: Tensor, offset: Tensor) -> Tensor:
    """Amplitude exp(-rate x) + offset."""
    return amplitude * torch.exp(-rate * x) + offset


def saturation(x: Tensor, limit: Tensor, rate: Tensor) -> Tensor:
    """Limit (1 - exp(-rate x))."""
    return -limit * torch.expm1(-rate * x)


def gaussian(x: Tensor, amplitude: Tensor, centre: Tensor, width: Tensor, offset: Tensor) -> Tensor:
    """Amplitude exp(-((x - centre) / width)^2 / 2) + offset."""
    return amplitude * torch.exp(-0.5 * ((x - centre) / width) ** 2) + offset


def logistic(x: Tensor, limit: Tensor, rate: Tensor, midpoint: Tensor) -> Tensor:
    """Limit / (1 + exp(-rate (x - midpoint)))."""
    return limit * torch.sigmoid(rate * (x - midpoint))


def michaelis_menten(x: Tensor, vmax: Tensor, km: Tensor) -> Tensor:
    """Vmax x / (km + x)."""
    return vmax * x / (km + x)


def sine(x: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, offset: Tensor) -> Tensor:
    """Amplitude sin(2 pi frequency x + phase) + offset."""
    return amplitude * torch.sin(2 * math.pi * frequency * x + phase) + offset


def _start_line(x: Tensor, y: Tensor) -> Start:
    return {"intercept": y.mean().item(), "slope": 0.0}


def _start_exponential(x: Tensor, y: Tensor) -> Start:
    """The end at which the curve is flat is the offset; the rate is from where half the way to it is gone."""
    first, last = y[0].item(), y[-1].item()
    half_way = int((y - (first + last) / 2).abs().argmin())
    decays = x[half_way] - x[0] <= x[-1] - x[half_way]
    flat, steep = (last, 0) if decays else (first, -1)
    distance = max(abs((x[half_way] - x[steep]).item()), _range(x) / 20)
    rate = math.log(2) / distance * (1 if decays else -1)
    exponent = rate * x[steep].item()
    if abs(exponent) > MAX_EXPONENT:
        raise Mistake(
            f"objective.model=exponential: x, from {x[0].item():g} to {x[-1].item():g}, is too far from 0 for an "
            f"amplitude, which is the height at x = 0; subtract {x[steep].item():g} from the x column"
        )
    return {"amplitude": (y[steep].item() - flat) * math.exp(exponent), "rate": rate, "offset": flat}


def _start_saturation(x: Tensor, y: Tensor) -> Start:
    limit = _largest(y)
    return {"limit": limit, "rate": math.log(2) / _where(x, y, limit / 2)}


def _start_gaussian(x: Tensor, y: Tensor) -> Start:
    offset = y.median().item()
    peak = int((y - offset).abs().argmax())
    amplitude = y[peak].item() - offset
    high = x[(y - offset) * math.copysign(1.0, amplitude) >= abs(amplitude) / 2]
    full_width = max(_range(high), _range(x) / len(x))
    return {"amplitude": amplitude, "centre": x[peak].item(), "width": full_width / 2.355, "offset": offset}


def _start_logistic(x: Tensor, y: Tensor) -> Start:
    limit = 1.05 * _largest(y)
    quarters = [x[int((y - share * limit).abs().argmin())].item() for share in (0.25, 0.5, 0.75)]
    rise = quarters[2] - quarters[0] or _range(x) / 4
    return {"limit": limit, "rate": 2 * math.log(3) / rise, "midpoint": quarters[1]}


def _start_michaelis_menten(x: Tensor, y: Tensor) -> Start:
    vmax = 1.1 * _largest(y)
    return {"vmax": vmax, "km": _where(x, y, vmax / 2)}


def _start_sine(x: Tensor, y: Tensor) -> Start:
    """The frequency at which sine, cosine and a constant explain most (Lomb, Astrophys. Space Sci. 39 (1976) 447)."""
    span = _range(x)
    every = math.ceil(len(x) / MAX_SEARCHED)
    x, y = x[::every], y[::every]
    best = (math.inf, 0.0, y[:1])
    for number in range(2, max(3, 2 * len(x) - 1)):
        frequency = number / (4 * span)
        angle = 2 * math.pi * frequency * x
        waves = torch.stack([angle.sin(), angle.cos(), torch.ones_like(angle)], 1)
        found = torch.linalg.lstsq(waves, y.unsqueeze(1)).solution
        left = (waves @ found - y.unsqueeze(1)).square().sum().item()
        if left < best[0]:
            best = (left, frequency, found.flatten())
    _, frequency, waves = best
    along, across, offset = waves.tolist()
    return {
        "amplitude": math.hypot(along, across),
        "frequency": frequency,
        "phase": math.atan2(across, along),
        "offset": offset,
    }


NAMED: dict[str, tuple[Callable[..., Tensor], Guess]] = {
    "line": (line, _start_line),
    "exponential": (exponential, _start_exponential),
    "saturation": (saturation, _start_saturation),
    "gaussian": (gaussian, _start_gaussian),
    "logistic": (logistic, _start_logistic),
    "michaelis_menten": (michaelis_menten, _start_michaelis_menten),
    "sine": (sine, _start_sine),
}
LINEAR = ("polynomial", "plane")
"""Named models whose number of parameters is not fixed: by a degree, by the number of x columns."""


def find(which: str | Callable[..., Tensor], degree: int | None, x: Tensor, y: Tensor) -> Model:
    """What `objective.model` names.

    Args:
        which: A named model, "file.py:function", "module:function", or a function.
        degree: Of a polynomial.
        x: Shape (rows,), or (columns, rows) if there are several; float64, on the CPU, as `y` of shape (rows,).

    Raises:
        Mistake: There is no such model, or it cannot take this x.
    """
    names = (*NAMED, *LINEAR)
    if degree is not None and which != "polynomial":
        raise Mistake(f"objective.degree={degree} is for objective.model=polynomial only, and this is {which}")
    if callable(which):
        return _own(which, getattr(which, "__name__", type(which).__name__))
    if ":" in which:
        return _own(load(which), which)
    if which not in names:
        raise Mistake(
            f"objective.model={which} is no named model.{did_you_mean(which, names)} Named models: {', '.join(names)}; "
            "a function of your own is written file.py:function or module:function"
        )
    if which == "plane":
        return _plane(x, y)
    if x.ndim > 1:
        raise Mistake(
            f"objective.model={which} takes one x column, got {len(x)}; for several: plane, or your own function"
        )
    if which == "polynomial":
        return _polynomial(2 if degree is None else degree, y)
    if _range(x) == 0.0 and which != "line":
        raise Mistake(f"objective.model={which} needs two different values of x or more, got only {x[0].item():g}")
    function, guess = NAMED[which]
    order = x.argsort()
    formula = (function.__doc__ or "").rstrip(".")
    return Model(function, guess(x[order], y[order]), f"y = {formula[0].lower()}{formula[1:]}")


def _polynomial(degree: int, y: Tensor) -> Model:
    names = [f"c{power}" for power in range(degree + 1)]

    def function(x: Tensor, **coefficients: Tensor) -> Tensor:
        value = coefficients[names[-1]].expand_as(x)
        for name in reversed(names[:-1]):
            value = value * x + coefficients[name]
        return value

    terms = [name + ("" if power == 0 else " x" if power == 1 else f" x^{power}") for power, name in enumerate(names)]
    return Model(
        function, {name: y.mean().item() if name == "c0" else 0.0 for name in names}, f"y = {' + '.join(terms)}"
    )


def _plane(x: Tensor, y: Tensor) -> Model:
    names = [f"c{index}" for index in range(1, len(x) + 1 if x.ndim > 1 else 2)]

    def function(x: Tensor, c0: Tensor, **slopes: Tensor) -> Tensor:
        columns = x if x.ndim > 1 else x.unsqueeze(0)
        return c0 + torch.stack([slopes[name] for name in names]) @ columns

    start = {"c0": y.mean().item(), **dict.fromkeys(names, 0.0)}
    terms = [f"{name} x{index}" for index, name in enumerate(names, 1)]
    return Model(function, start, f"y = {' + '.join(['c0', *terms])}")


def _own(function: Callable[..., Tensor], title: str) -> Model:
    """Its arguments behind the first are the parameters; those with a default that is no number are left alone."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise Mistake(f"the arguments of the model {title} cannot be read: {error}") from error
    start: dict[str, float | None] = {}
    for argument in arguments[1:]:
        if argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            raise Mistake(f"the model {title} must name its parameters one by one, and has {argument}")
        if argument.default is argument.empty:
            start[argument.name] = None
        elif isinstance(argument.default, int | float) and not isinstance(argument.default, bool):
            start[argument.name] = float(argument.default)
    if not start:
        raise Mistake(
            f"the model {title} has no parameters to fit: write it as a function of x and of numbers, "
            "such as f(x, a=1.0, b=0.5)"
        )
    return Model(function, start, title)


def _range(x: Tensor) -> float:
    return (x.max() - x.min()).item()


def _largest(y: Tensor) -> float:
    """The value furthest from 0, with its sign; 1 if all are 0."""
    return y[int(y.abs().argmax())].item() or 1.0


def _where(x: Tensor, y: Tensor, level: float) -> float:
    """The x, away from 0, at which y is nearest to a level."""
    return x[int((y - level).abs().argmin())].item() or _range(x) / 2
