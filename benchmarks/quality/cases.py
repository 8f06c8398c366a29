"""Problems from starts: every class of the problem library, from each of its starts, with one signature."""

import importlib
import inspect
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, get_args

import torch
from gradopt_problems.names import problems
from torch import Tensor, nn

from gradopt import Constraint, Objective, devices

SCALES = (1.0, 10.0, 100.0)
"""Factors on the start of a problem that takes a `scale`; with bounds or constraints there is the standard start alone:
factors would lead to the corners of the box.
"""


@dataclass(frozen=True)
class Case:
    """A problem from one of its starts, in float64.

    Attributes:
        problem: The name in the library: mgh/helical_valley.
        arguments: Of the class: (("scale", 10.0),).
        rescaled: Whether the solver meets it in other variables u: x = shift + factor u, with factors 10^U(-1, 1) and
            shifts of the size of the start, both seeded by the name.
    """

    problem: str
    arguments: tuple[tuple[str, Any], ...] = ()
    rescaled: bool = False

    @property
    def name(self) -> str:
        """Unique within a group: `mgh/helical_valley scale=10`."""
        return " ".join([self.problem, *(f"{key}={value:g}" for key, value in self.arguments)])

    @property
    def family(self) -> str:
        return self.problem.partition("/")[0]

    def original(self) -> Objective:
        """A fresh instance of the problem itself; a start outside the bounds is moved into them."""
        module, _, name = problems()[self.problem].partition(":")
        with devices.defaults(torch.device("cpu"), torch.float64):
            problem = getattr(importlib.import_module(module), name)(**dict(self.arguments))
        lower, upper = box(problem)
        with torch.no_grad():
            problem.x.clamp_(lower, upper)
        return problem

    def objective(self) -> Objective:
        """What a solver is given, with one parameter: a fresh instance each time."""
        problem = self.original()
        if not self.rescaled:
            return problem
        return (RescaledResiduals if has_residuals(problem) else Rescaled)(problem, *self._map)

    def restore(self, point: Tensor) -> Tensor:
        """A solver's point in the variables of the problem."""
        if not self.rescaled:
            return point
        factor, shift = self._map
        return shift + factor * point

    @cached_property
    def _map(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        start = self.original().x.detach()
        draws = 2 * torch.rand(2, start.numel(), generator=generator, dtype=torch.float64) - 1
        return 10.0 ** draws[0], draws[1] * start.abs().clamp(min=1.0)


class Rescaled(Objective):
    """A problem in the variables u, where x = shift + factor u."""

    def __init__(self, problem: Objective, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self._factor, self._shift = factor, shift
        self._lower, self._upper = ((side - shift) / factor for side in box(problem))
        self.x = nn.Parameter((problem.x.detach() - shift) / factor)
        del problem.x  # from here on a plain attribute, set before each use
        self._problem = problem

    def forward(self, batch: Any = None) -> Tensor:
        return self._moved()()

    def bounds(self) -> dict[str, tuple[Tensor, Tensor]]:
        free = bool((self._lower.isinf() & self._upper.isinf()).all())
        return {} if free else {"x": (self._lower, self._upper)}

    def constraints(self) -> Sequence[Constraint]:
        def moved(function: Any) -> Any:
            def value() -> Tensor:
                self._moved()
                return function()

            return value

        return [replace(one, function=moved(one.function)) for one in self._moved().constraints()]

    def _moved(self) -> Objective:
        self._problem.x = self._shift + self._factor * self.x
        return self._problem


class RescaledResiduals(Rescaled):
    """The same for a sum of squares."""

    def residuals(self) -> Tensor:
        return self._moved().residuals()


def has_residuals(problem: Objective) -> bool:
    return type(problem).residuals is not Objective.residuals


def box(problem: Objective) -> tuple[Tensor, Tensor]:
    """Its bounds as vectors, infinite where it is free."""
    like = problem.x.detach()
    sides = zip(problem.bounds().get("x", (None, None)), (-torch.inf, torch.inf), strict=True)
    lower, upper = (
        torch.as_tensor(free if side is None else side, dtype=like.dtype).expand_as(like) for side, free in sides
    )
    return lower, upper


@cache
def library() -> tuple[Case, ...]:
    """Every problem from each of its starts where a loss is known to be the lowest and the start is finite."""
    cases = (Case(name, start) for name in problems() for start in _starts(name))
    return tuple(case for case in cases if _is_usable(case))


def _starts(name: str) -> Iterator[tuple[tuple[str, Any], ...]]:
    module, _, cls = problems()[name].partition(":")
    arguments = inspect.signature(getattr(importlib.import_module(module), cls)).parameters
    if "scale" in arguments:
        problem = Case(name, (("scale", 1.0),)).original()
        free = not (problem.bounds() or problem.constraints())
        yield from ((("scale", scale),) for scale in (SCALES if free else SCALES[:1]))
    elif "start" in arguments:
        yield from ((("start", value),) for value in get_args(arguments["start"].annotation))
    else:
        yield ()


def _is_usable(case: Case) -> bool:
    problem = case.original()
    loss = problem()
    (gradient,) = torch.autograd.grad(loss, problem.x)
    return problem.minimum() is not None and bool(loss.isfinite()) and bool(gradient.isfinite().all())
