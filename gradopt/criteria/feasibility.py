"""Feasibility: constraints that cannot be met, told from constraints that have not been met yet."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.constraints.functions import excess, missed_in_words, natural_units, worst
from gradopt.contracts import Band, Block, Judgement, Oracle, State, Stuck
from gradopt.stationarity.curvature import examine, sizes
from gradopt.verdict import Status

FIRST_LOOK = 20
"""Steps before the first look; the next ones come as the steps double, and where the optimiser is stuck."""

REDUCED = 0.4
"""A Newton step that takes less than eps to this power of the squared violation does not reduce it."""


class Infeasible:
    """Ends at a point that misses the constraints and is a minimum of by how much.

    That is theta = sum_i (v_i / u_i)^2 / 2, with v what is missed inside the bounds and u the natural units of the
    constraints at the start. A Newton step on theta must take no more than eps^0.4 of it, and its
    curvature must be nowhere negative. It is a statement about the neighbourhood: another start may do better.
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
        size = sizes(point, point if oracle.origin is None else oracle.origin)
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
        return Judgement.one(
            Status.INFEASIBLE,
            len(block) - 1,
            violation=violation,
            **worst(oracle.constraints, linear.residuals),
            loss=block["loss"][-1, 0].item(),
            step=block.last_step,
        )


def _units(oracle: Oracle) -> Tensor:
    assert oracle.constraints is not None
    linear = oracle.linearised_constraints()
    rows = torch.arange(len(linear.residuals), device=linear.residuals.device)
    limits = oracle.constraints.lower, oracle.constraints.upper
    return natural_units(linear.jacobian(rows), linear.residuals, *limits)
