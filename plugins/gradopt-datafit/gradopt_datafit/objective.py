"""The objective: how far a model is from the data."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from gradopt import Mistake, Objective
from gradopt.mistakes import did_you_mean
from gradopt_datafit import models
from gradopt_datafit.models import Model
from gradopt_datafit.table import Table, read


class DataFit(Objective):
    """Fit a model to a CSV file: objective.data=my.csv objective.x=time objective.y=signal objective.model=line.

    The loss is the mean of w (model - y)^2 over the rows, with w = 1, the column `weights`, or 1 / `sigma`^2. Data and
    unknowns take torch's default dtype, which gradopt's command line sets to float64.

    Args:
        data: The CSV file: a line with the names of the columns, then rows of numbers.
        x: The column the model is a function of, or a list of columns: x is then a tensor of shape (columns, rows).
        y: The column it is fitted to.
        model: line, polynomial, plane, exponential, saturation, gaussian, logistic, michaelis_menten, sine, or your own
            function, file.py:function or module:function, such as `def rational(x, a=1.0, b=0.5)`.
        degree: Of a polynomial; 2 if left out.
        sigma: The column of standard deviations of y.
        weights: The column of weights; with `sigma`, use one of them.
        start: Where parameters start, by name. Left out: a named model reads it from the data, a function has defaults.
        bounds: {name: [lower, upper]}, each a number or null. A start that was not given is moved inside.
        fixed: Parameters that stay where they start.
        delimiter: What parts the cells of the file.
    """

    def __init__(
        self,
        data: Path,
        x: str | list[str],
        y: str,
        model: str | Callable[..., Tensor],
        degree: Annotated[int, ">= 0"] | None = None,
        sigma: str | None = None,
        weights: str | None = None,
        start: dict[str, float] | None = None,
        bounds: dict[str, Any] | None = None,
        fixed: list[str] | None = None,
        delimiter: Literal["comma", "semicolon", "tab", "space"] = "comma",
    ) -> None:
        super().__init__()
        columns = [str(name) for name in x] if isinstance(x, list | tuple) else [str(x)]
        if not columns:
            raise Mistake("objective.x=[] names no column; give one or more")
        table = read(Path(data), delimiter)
        inputs = [table.numbers(name, "objective.x") for name in columns]
        targets = table.numbers(str(y), "objective.y")
        scales = _weights(table, sigma, weights)
        if not targets:
            raise Mistake(f"{table.path} has no rows of numbers below the names of its columns")
        exact = torch.tensor(inputs if len(inputs) > 1 else inputs[0], dtype=torch.float64, device="cpu")
        found = models.find(model, degree, exact, torch.tensor(targets, dtype=torch.float64, device="cpu"))
        self._bounds = _bounds(found, bounds or {})
        begin = _start(found, start or {}, self._bounds)
        held = _known("objective.fixed", fixed or [], found)
        if len(held) == len(begin):
            raise Mistake(f"objective.fixed holds every parameter ({', '.join(begin)}); leave one free")
        free = [name for name in begin if name not in held]
        if len(targets) < len(free):
            raise Mistake(
                f"{table.path} has {_count(len(targets), 'row')}, too few to fit {_count(len(free), 'parameter')} "
                f"({', '.join(free)}); give more rows, or hold some parameters by objective.fixed"
            )
        self.register_buffer("_x", exact.to(torch.empty(0)))
        self.register_buffer("_y", torch.tensor(targets))
        self.register_buffer("_root_weights", None if scales is None else torch.tensor(scales).sqrt())
        self._function = found.function
        self._names = tuple(begin)
        for name, value in begin.items():
            self._add(name, value, free=name in free)
        self._title = f"{found.formula}, fitted to {_count(len(targets), 'row')} of {table.path.name}"
        self._title += f" ({y} against {', '.join(columns)})"
        self._try(found.formula, table)

    def residuals(self) -> Tensor:
        """Model minus data times the root of the weight, shape (rows,), over the root of rows / 2: the loss, half the
        sum of their squares, is then the mean square.
        """
        gap = (self.predict() - self._y) * math.sqrt(2 / len(self._y))
        return gap if self._root_weights is None else gap * self._root_weights

    def predict(self, x: Tensor | None = None) -> Tensor:
        """The model at the current parameters, shape (rows,): at the rows of the data, or at `x` of the same form."""
        return self._function(self._x if x is None else x, **{name: getattr(self, name) for name in self._names})

    def bounds(self) -> Mapping[str, tuple[float | None, float | None]]:
        """As given, for the parameters that are free."""
        return {name: sides for name, sides in self._bounds.items() if getattr(self, name).requires_grad}

    def metrics(self) -> Mapping[str, float]:
        """Root mean squared error in the units of y, and the explained share of the variance of y; both weighted."""
        weights = torch.ones_like(self._y) if self._root_weights is None else self._root_weights.square()
        error = (weights * (self.predict().detach() - self._y).square()).sum() / weights.sum()
        mean = (weights * self._y).sum() / weights.sum()
        variance = (weights * (self._y - mean).square()).sum() / weights.sum()
        explained = 1.0 - (error / variance).item() if variance > 0 else math.nan  # a constant y has nothing to explain
        return {"rmse": error.sqrt().item(), "r_squared": explained}

    def describe(self) -> str:
        """The formula, the size of the data and where they come from."""
        return self._title

    def _add(self, name: str, value: float, *, free: bool) -> None:
        try:
            self.register_parameter(name, nn.Parameter(torch.tensor(value), requires_grad=free))
        except KeyError as error:
            raise Mistake(
                f"the model's parameter {name!r} has a name that torch modules use themselves; call it {name}_"
            ) from error

    def _try(self, title: str, table: Table) -> None:
        """Call the model once, so that what is wrong with a function is said before the run."""
        free = {name: p for name in self._names if (p := getattr(self, name)).requires_grad}
        try:
            values = self.predict()
        except Exception as error:
            raise Mistake(f"the model {title} failed at the start: {type(error).__name__}: {error}") from error
        if not isinstance(values, Tensor) or values.shape not in ((), self._y.shape):
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise Mistake(
                f"the model {title} must return a tensor with one value for each row, "
                f"shape {tuple(self._y.shape)}, got {got}"
            )
        if not values.isfinite().all():
            row = int((~values.isfinite()).expand_as(self._y).nonzero()[0])
            start = ", ".join(f"{name} = {getattr(self, name).item():g}" for name in self._names)
            raise Mistake(
                f"the model {title} is not finite at line {table.line(row)} of {table.path} when it starts from "
                f"{start}; choose another objective.start"
            )
        gradients = (
            torch.autograd.grad(values.sum(), list(free.values()), allow_unused=True)
            if values.requires_grad
            else [None] * len(free)
        )
        cut = [name for name, gradient in zip(free, gradients, strict=True) if gradient is None]
        if cut:
            raise Mistake(
                f"the model {title} does not depend on {', '.join(cut)} by operations of torch: use them, "
                "with torch.exp(a) rather than math.exp(a)"
            )


def _weights(table: Table, sigma: str | None, weights: str | None) -> list[float] | None:
    if sigma is None and weights is None:
        return None
    if sigma is not None and weights is not None:
        raise Mistake("objective.sigma and objective.weights are both given; use one of them")
    if sigma is not None:
        deviations = table.numbers(sigma, "objective.sigma")
        _hold(table, sigma, [value > 0 for value in deviations], "standard deviations, so all must be above 0")
        return [value**-2 for value in deviations]
    found = table.numbers(str(weights), "objective.weights")
    _hold(table, str(weights), [value >= 0 for value in found], "weights, so none may be below 0")
    _hold(table, str(weights), [any(found)] * len(found), "weights, so not all may be 0")
    return found


def _hold(table: Table, column: str, good: Sequence[bool], law: str) -> None:
    if not all(good):
        raise Mistake(f"column {column!r} of {table.path} holds {law}; see line {table.line(good.index(False))}")


def _known(option: str, names: Sequence[str], found: Model) -> list[str]:
    for name in names:
        if name not in found.start:
            near = did_you_mean(name, found.start)
            raise Mistake(
                f"{option}: the model has no parameter {name!r}.{near} Its parameters: {', '.join(found.start)}"
            )
    return list(names)


def _bounds(found: Model, given: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    _known("objective.bounds", list(given), found)
    kept = {}
    for name, sides in given.items():
        if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(map(_is_side, sides)):
            raise Mistake(f"objective.bounds.{name} must be [lower, upper], each a number or null, got {sides!r}")
        lower, upper = sides
        if lower is not None and upper is not None and lower > upper:
            raise Mistake(f"objective.bounds.{name} leaves no room: lower {lower:g} is above upper {upper:g}")
        kept[name] = (lower, upper)
    return kept


def _is_side(side: object) -> bool:
    return side is None or (isinstance(side, int | float) and not isinstance(side, bool) and not math.isnan(side))


def _start(
    found: Model, given: Mapping[str, float], bounds: Mapping[str, tuple[float | None, float | None]]
) -> dict[str, float]:
    _known("objective.start", list(given), found)
    start = {}
    for name, default in found.start.items():
        value = given.get(name, default)
        if value is None:
            raise Mistake(f"parameter {name!r} of the model has no start; say objective.start={{{name}: ...}}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise Mistake(f"objective.start.{name} must be a finite number, got {value!r}")
        if name not in given and name in bounds:  # what the user did not choose, we may move
            lower, upper = bounds[name]
            value = max(value, -math.inf if lower is None else lower)
            value = min(value, math.inf if upper is None else upper)
        start[name] = float(value)
    return start


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
