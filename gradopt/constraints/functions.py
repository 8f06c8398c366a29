"""Constraints on functions of the unknowns: all of an objective's as one vector, lower <= c(x) <= upper."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import side
from gradopt.contracts import Constraint, Constraints
from gradopt.mistakes import Mistake


class ConstraintFunctions:
    """The constraints of an objective, one behind the other. They are evaluated once, to learn their shapes.

    Args:
        constraints: At least one; their functions take no argument.

    Attributes:
        lower, upper: Shape (m,), in the dtype of the values; infinite where there is no limit.
        names: Of the constraints, in their order.

    Raises:
        Mistake: A value that is no tensor, does not depend on the unknowns or is not finite; limits that do not fit.
    """

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self._constraints = constraints
        self.names: Sequence[str] = _names(constraints)
        values = [_value(name, one) for name, one in zip(self.names, constraints, strict=True)]
        self._shapes = [value.shape for value in values]
        sides = [_sides(*three) for three in zip(self.names, constraints, values, strict=True)]
        self.lower = torch.cat([low.reshape(-1) for low, _ in sides])
        self.upper = torch.cat([high.reshape(-1) for _, high in sides])

    def values(self) -> Tensor:
        """c(x) at the current unknowns, shape (m,), with its graph."""
        return torch.cat([value.reshape(-1) for value in self.values_by_name().values()])

    def values_by_name(self) -> Mapping[str, Tensor]:
        """The same, each in the shape of its constraint."""
        return {name: one.function() for name, one in zip(self.names, self._constraints, strict=True)}

    def by_name(self, vector: Tensor) -> Mapping[str, Tensor]:
        """The parts of a vector (m,), each in the shape of its constraint."""
        parts = torch.split(vector, [shape.numel() for shape in self._shapes])
        return {name: part.reshape(shape) for name, part, shape in zip(self.names, parts, self._shapes, strict=True)}

    def describe(self) -> str:
        """How many there are of each kind."""
        equal = self.lower == self.upper
        counts = {
            "equality constraints": int(equal.sum()),
            "inequality constraints": int((~equal & (self.lower.isfinite() | self.upper.isfinite())).sum()),
        }
        return ", ".join(
            f"{count} {kind.removesuffix('s' if count == 1 else '')}" for kind, count in counts.items() if count
        )


def check(constraint: Any) -> None:
    """Refuse what is no constraint.

    Raises:
        Mistake: A plain function, or one that is none, with the form to write.
    """
    form = "gradopt.Constraint(function, lower=..., upper=...)"
    if not isinstance(constraint, Constraint) and callable(constraint):
        name = getattr(constraint, "__name__", type(constraint).__name__)
        raise Mistake(f"the constraint {name} comes without limits: wrap it into {form}")
    if not isinstance(constraint, Constraint):
        raise Mistake(f"a constraint must be {form}, got {constraint!r}")
    if not callable(constraint.function):
        raise Mistake(f"a constraint is on a function, and was given {constraint.function!r}: {form}")


def excess(values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """By how much each value lies above its upper limit (> 0) or below its lower one (< 0), shape (m,)."""
    return values - values.clamp(lower, upper)


def worst(constraints: Constraints, values: Tensor) -> dict[str, Any]:
    """The constraint that is missed by most, as evidence: its name as `worst`, and as `worst_by` by how much, in its
    own units; 0 where all are kept.
    """
    missed = constraints.by_name(excess(values, constraints.lower, constraints.upper))
    sizes = {name: part.abs().max().item() for name, part in missed.items() if part.numel()}
    name = max(sizes, key=lambda one: sizes[one])
    return {"worst": name, "worst_by": sizes[name]}


def missed_in_words(evidence: Mapping[str, Any]) -> str:
    """What `worst` has found, with the `violation` of the evidence beside it."""
    if evidence["worst_by"] == 0:
        return "the constraints are kept"
    part = f"{evidence['violation']:.2g} of the unknowns' size"
    if evidence["violation"] == math.inf:
        part = "which to first order no move of the unknowns inside their bounds lessens"
    return f"constraint {evidence['worst']!r} is missed by {evidence['worst_by']:.3g}, {part}"


def natural_units(jacobian: Tensor, values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """By how much each constraint changes with the unknown it depends on most, shape (m,); where that is nothing, its
    distance from its limits: divided by it, constraints can be compared.
    """
    slopes = jacobian.abs().amax(1)
    units = torch.where(slopes > 0, slopes, torch.minimum((values - lower).abs(), (values - upper).abs()))
    return torch.where((units > 0) & units.isfinite(), units, 1.0)


def _names(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    names: list[str] = []
    for index, one in enumerate(constraints):
        check(one)
        own = getattr(one.function, "__name__", "<none>")
        if one.name in names:
            raise Mistake(f"two constraints are called {one.name!r}; give each a name of its own")
        names.append(one.name or (f"c{index}" if own.startswith("<") or own in names else own))
    return tuple(names)


def _value(name: str, constraint: Constraint) -> Tensor:
    value = constraint.function()
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise Mistake(f"constraint {name} must return a tensor of real numbers, it returns {kind}")
    if not value.numel():
        raise Mistake(f"constraint {name} returns no values, a tensor of shape {tuple(value.shape)}: leave it out")
    if not value.requires_grad:
        raise Mistake(
            f"constraint {name} does not depend on the unknowns by differentiable operations (no grad_fn): compute it "
            "from the parameters, without .item(), .detach(), torch.tensor(...) or NumPy on the way"
        )
    if not bool(value.isfinite().all()):
        raise Mistake(f"constraint {name} is not finite at the start: {value.tolist()}; move the start into its domain")
    return value.detach()


def _sides(name: str, constraint: Constraint, value: Tensor) -> tuple[Tensor, Tensor]:
    title = f"constraint {name}"
    low = side(title, "lower", constraint.lower, -torch.inf, value)
    high = side(title, "upper", constraint.upper, torch.inf, value)
    if bool((low > high).any()):
        raise Mistake(f"{title} leaves no room: lower {constraint.lower} is above upper {constraint.upper}")
    if bool((low == torch.inf).any() | (high == -torch.inf).any()):
        raise Mistake(f"{title} leaves no room: a lower limit of +infinity, or an upper one of -infinity")
    if not bool((low.isfinite() | high.isfinite()).any()):
        raise Mistake(f"{title} has no limit: give lower, upper, or both (the same, for an equality)")
    return low, high
