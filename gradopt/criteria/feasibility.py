"""Feasibility: constraints that cannot be met, told from constraints that have not been met yet."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.constraints.functions import excess, missed_in_words, natural_units, worst
from gradopt.contracts import Band, Block, Evaluation, Judgement, Linearised, Oracle, State, Stuck
from gradopt.stationarity.curvature import Curvature, examine, sizes, ways
from gradopt.stationarity.falls import fall, is_asleep
from gradopt.verdict import Status

FIRST_LOOK = 20
"""Steps before the first look; the next ones come as the steps double, and where the optimiser is stuck."""

REDUCED = 0.4
"""A Newton step that takes less than eps to this power of the squared violation does not reduce it."""


class Infeasible:
    """Ends at a point that misses the constraints and is a minimum of by how much.

    That is theta = sum_i (v_i / u_i)^2 / 2, with v what is missed inside the bounds and u the natural units of the
    constraints at the start. A Newton step on theta must take no more than eps^0.4 of it, its curvature must be nowhere
    negative, and where there is none theta must not fall all the same, as that of x y z = 1 does from 0. It is a
    statement about the neighbourhood: another start may do better.
    """

    def __init__(self) -> None:
        self._next = 0
        self._units: Tensor | None = None

    def bands(self) -> Mapping[str, Band]:
        return {}

    def due(self, step: int) -> float:
        return self._next

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        if self._units is None:
            self._units = _units(oracle)
        stuck = isinstance(block.cut_short, Stuck)
        if block.last_step < self._next and not stuck:
            return None
        self._next = max(2 * block.last_step, FIRST_LOOK)
        violation = block["violation"][-1, 0].item()
        if violation <= oracle.violation_tolerance or violation != violation or (block.cut_short and not stuck):
            return None
        if not math.isfinite(block["loss"][-1, 0].item()):
            return None
        return self._judge_point(block, oracle, violation)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return (
            f"the constraints cannot be met near here, where what is missed is at its smallest: "
            f"{missed_in_words(evidence)} (step {evidence['step']}, loss {evidence['loss']:.10g}). To mend: start "
            "somewhere else, or look for limits that contradict each other, or the bounds"
        )

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)

    def _judge_point(self, block: Block, oracle: Oracle, violation: float) -> Judgement | None:
        assert oracle.constraints is not None and self._units is not None
        point, linear = oracle.read(), oracle.linearised_constraints()
        origin = point if oracle.origin is None else oracle.origin
        size = sizes(point, origin)
        missed = excess(linear.residuals, oracle.constraints.lower, oracle.constraints.upper)
        rows = missed.nonzero().flatten()
        jacobian = linear.jacobian(rows)
        units = self._units[rows]
        weights = torch.zeros_like(missed).index_put((rows,), missed[rows] / units.square())
        gradient = jacobian.T @ weights[rows]
        curved = oracle.hessian(weights, loss=0.0)
        if curved is None:
            return None
        free = torch.ones_like(point, dtype=torch.bool)
        if oracle.lower is not None and oracle.upper is not None:
            free = projected_gradient(gradient, point, oracle.lower, oracle.upper) == gradient
        if bool(free.any()):
            outer = jacobian / units[:, None]

            def hessian(vector: Tensor) -> Tensor:
                return curved(vector) + outer.T @ (outer @ vector)

            found = examine(hessian, free, size, gradient)
            theta = 0.5 * (missed[rows] / units).square().sum().item()
            gain = found.decrease(found.slopes(gradient))
            if found.sign == "negative" or gain > torch.finfo(point.dtype).eps ** REDUCED * theta:
                return None
            if found.sign == "none":
                here = Evaluation(theta, gradient.abs().max().item(), point, gradient)
                asleep = free & (gradient == 0) & (hessian(size) == 0)
                if self._falls(here, oracle, found, asleep, ways(point, origin)):
                    return None
        return Judgement.one(
            Status.INFEASIBLE,
            len(block) - 1,
            violation=violation,
            **worst(oracle.constraints, linear.residuals),
            loss=block["loss"][-1, 0].item(),
            step=block.last_step,
        )

    def _falls(self, here: Evaluation, oracle: Oracle, found: Curvature, asleep: Tensor, way: Tensor) -> bool:
        """Whether what is missed falls beside the point, or within reach of unknowns it does not depend on there."""
        assert self._units is not None
        missed = _Missed(oracle, self._units)
        none = torch.zeros_like(asleep)
        return is_asleep(here, missed, asleep, way) or fall(here, missed, found, none, way) is not None


class _Missed:
    """The `Landscape` of theta."""

    def __init__(self, oracle: Oracle, units: Tensor) -> None:
        self._oracle, self._units = oracle, units
        self.lower, self.upper = oracle.lower, oracle.upper
        self.read = oracle.read

    def _at(self, point: Tensor) -> tuple[Tensor, Linearised]:
        """What is missed at another point, in natural units, shape (m,), and the constraints there."""
        oracle, here = self._oracle, self._oracle.read()
        assert oracle.constraints is not None
        oracle.write(point)
        try:
            linear = oracle.linearised_constraints()
        finally:
            oracle.write(here)
        return excess(linear.residuals, oracle.constraints.lower, oracle.constraints.upper) / self._units, linear

    def loss(self, point: Tensor) -> float:
        """Theta at another point."""
        return 0.5 * self._at(point)[0].square().sum().item()

    def gradient(self, point: Tensor) -> Tensor:
        """Of theta at another point, shape (n,)."""
        missed, linear = self._at(point)
        return linear.vjp(missed / self._units)


def _units(oracle: Oracle) -> Tensor:
    assert oracle.constraints is not None
    linear = oracle.linearised_constraints()
    rows = torch.arange(len(linear.residuals), device=linear.residuals.device)
    limits = oracle.constraints.lower, oracle.constraints.upper
    return natural_units(linear.jacobian(rows), linear.residuals, *limits)
