"""Convergence: the one road to success without a target."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, Evaluation, Judgement, Oracle, State, Stuck
from gradopt.criteria.failure import EVERY
from gradopt.mistakes import Mistake
from gradopt.plurals import counted
from gradopt.stationarity.curvature import SURE
from gradopt.stationarity.points import StationaryPoints
from gradopt.verdict import Status


class Target:
    """Ends at the first loss at or below `value`."""

    def __init__(self, value: float) -> None:
        if not math.isfinite(value):
            raise Mistake(f"target must be a finite loss, got {value}")
        self.value = value

    def bands(self) -> Mapping[str, Band]:
        return {"full_loss": Band(low=self.value)}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        low = block.measured.unsqueeze(1) & (block["full_loss"] <= self.value)
        if oracle.constraints is not None:  # a loss that only the constraints forbid is not reached
            low &= block["violation"] <= oracle.violation_tolerance
        reached = low.any(0)
        if not bool(reached.any()):
            return None
        row = low.int().argmax(0)  # the first
        loss = block["full_loss"].gather(0, row.unsqueeze(0))[0]
        code = torch.where(reached, Status.TARGET_REACHED.code, -1)
        return Judgement(code, row, {"loss": loss, "target": self.value, "step": block.steps - (len(block) - 1 - row)})

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return (
            f"the loss {evidence['loss']:.10g} is at or below the target {evidence['target']:.10g} "
            f"(step {evidence['step']})"
        )

    def keep(self, kept: Tensor) -> None:
        """Nothing is remembered of a start."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


class Convergence:
    """Ends at a point that is first-order optimal, with what its curvature says it is, as `StationaryPoints` tells.

    Args:
        escapes: Whether the optimiser leaves saddle points and maxima: one then ends the run only where the optimiser
            has found no lower loss beside it, and is stuck.
    """

    def __init__(self, points: StationaryPoints, *, escapes: bool = False) -> None:
        self._points, self._escapes = points, escapes
        self._overdue = False

    def bands(self) -> Mapping[str, Band]:
        gradient = Band(low=math.inf if self._overdue else self._points.needed)
        return {"full_gradient_norm": gradient, "step_norm": Band(low=0.0)}

    def due(self, step: int) -> float:
        # The bands move when the optimiser leaves a saddle point, at any step; a block keeps to those it began with.
        return step + 1 if self._escapes else self._points.due

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        step = block.last_step
        self._overdue = step >= self._points.due and not bool(block.measured[-1])
        if self._overdue:  # the full loss was not evaluated here: ask at the next row where it is
            self._points.due = step + EVERY
            return None
        if block.searching:
            self._points.begin(oracle.read(), block["full_loss"][-1, 0].item())
            return None
        stuck = isinstance(block.cut_short, Stuck)
        if block.cut_short is not None and not stuck:
            return None
        loss, gradient_norm = block["full_loss"][-1, 0].item(), block["full_gradient_norm"][-1, 0].item()
        still = block["step_norm"][-1, 0].item() == 0
        if not (still or stuck or self._points.is_due(step, gradient_norm)):
            return None
        evaluation = Evaluation(loss, gradient_norm, oracle.read(), oracle.full_gradient(), pinned=oracle.pinned)
        found = self._points.look(evaluation, oracle, step, still=still, stuck=stuck)
        if found is None or (self._escapes and found.falls and not stuck):
            return None
        return Judgement.one(found.status, len(block) - 1, **found.evidence)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        place = f"at step {evidence['step']}, loss {evidence['loss']:.10g}"
        if times := evidence["num_escapes"]:
            place += f", having escaped {'once' if times == 1 else f'{times} times'}"
        gradient = f"{evidence['word']}gradient {evidence['gradient_norm']:.3g}"
        if status in (Status.SADDLE_POINT, Status.MAXIMUM):
            what = "a maximum" if status is Status.MAXIMUM else "a saddle point"
            hint = "start somewhere else" if self._escapes else "on_saddle=escape, or start somewhere else"
            falls = f"falls along a direction of curvature {evidence['curvature_min']:.3g}"
            if depth := evidence["fall"]:
                falls = f"falls all the same, by {depth:.3g} over a move of {evidence['fall_length']:.3g}"
            return (
                f"the gradient vanishes ({evidence['gradient_norm']:.3g}), but this is {what}: the loss {falls} "
                f"({place}). To mend: {hint}"
            )
        if status is Status.STALLED:
            return (
                f"a plateau: the gradient ({evidence['gradient_norm']:.3g}) vanishes, but so does the curvature, and "
                f"no minimum shows as far around as the unknowns have come ({place}). To mend: start somewhere else"
            )
        relative = f"{evidence['relative']:.2g} of its scale (tolerance {evidence['tolerance']:.2g})"
        if status is Status.NOISE_FLOOR:
            return (
                f"{gradient} is at its own rounding, {relative}, and cannot be told from zero in this dtype ({place})"
            )
        smallest = min(evidence["curvature_min"], evidence.get("curvature_max", math.inf))
        curvature = {
            "positive": f"the curvature is positive (smallest {smallest:.3g})",
            "none": f"no negative curvature was found (smallest {smallest:.3g}{_unsure(evidence)})",
            "held": "every unknown is held by a bound",
            "unchecked": "the curvature is unchecked: the objective has no second derivatives",
        }[evidence["curvature"]]
        return f"first-order optimal, {gradient} is {relative}, and {curvature} ({place})"

    def state_dict(self) -> State:
        return {"points": self._points.state_dict(), "overdue": self._overdue}

    def load_state_dict(self, state: State) -> None:
        self._points.load_state_dict(state["points"])
        self._overdue = state["overdue"]


def _unsure(evidence: Mapping[str, Any]) -> str:
    """How far curvature could not be told: what Lanczos leaves open, and rounding."""
    error, count = evidence.get("curvature_error", 0.0), evidence.get("num_flat", 0)
    known = f", known to {error:.1g}" if error > SURE * abs(evidence["curvature_min"]) else ""
    return known + (f"; {counted(count, 'direction')} flat to rounding" if count else "")
