"""What is found out after a run: whether a wrong gradient is why it failed, or why it seemed to succeed; and whether a
success stands on an edge of the loss.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from gradopt.contracts import Evaluation
from gradopt.differences import Patience, Probe
from gradopt.gradient_check import GradientCheck, check_gradient
from gradopt.oracle import AutogradOracle
from gradopt.stationarity.curvature import sizes, ways
from gradopt.stationarity.edges import Edge, edge
from gradopt.verdict import Status, Verdict

DOUBTED = frozenset({Status.CONVERGED, Status.NOISE_FLOOR})
"""Successes that rest on the gradient."""

FEIGNED = frozenset({Status.SADDLE_POINT, Status.MAXIMUM})
"""Endings at which the loss falls though the gradient vanishes: so it does, too, where the gradient is wrong."""

EXPLAINED = frozenset({Status.STALLED, Status.DIVERGED, Status.NON_FINITE})
"""Failures that a wrong gradient brings about."""

EXHAUSTED = frozenset({Status.MAX_STEPS, Status.MAX_EVALUATIONS})
"""Endings that a wrong gradient may be the reason of, too: looked into after a run of `ENOUGH` evaluations."""

ENOUGH = 200

SECONDS = 2.0
"""How long the search for a wrong gradient takes at most, unless the run took longer."""


def patience(oracle: AutogradOracle, seconds: float, interrupted: Callable[[], bool]) -> Patience:
    """For all that is asked after a run that took so many seconds; what is left of a budget of time bounds it too."""
    return Patience(min(max(SECONDS, seconds), oracle.deadline - time.perf_counter()), interrupted)


def confirmed(oracle: AutogradOracle, verdict: Verdict, loss: float, patience: Patience) -> Verdict:
    """The verdict on the point where the parameters stand, of that loss; `stalled` in place of a success, a saddle
    point or a maximum that a wrong gradient feigns, and of a success on an edge of the loss. A few losses beside the
    point tell whether there is reason to look further; not under constraints, where the loss falls beside most minima.
    """
    feigned = verdict.status in FEIGNED
    if oracle.constraints is not None or verdict.status not in DOUBTED | FEIGNED or oracle.micro_batches is not None:
        return verdict
    found = None if feigned else _edge(oracle, loss, verdict.evidence.get("newton_decrease", 0.0), patience)
    if found is None and not feigned and not _falls(oracle, loss, patience):
        return verdict
    check = check_gradient(oracle, patience)
    if check.is_wrong:
        why = f"the gradient vanishes here, but the loss does not stop falling (loss {loss:.10g}): {check.sentence()}"
        return Verdict(Status.STALLED, why, {**verdict.evidence, **_evidence(check)})
    if found is None:
        return verdict
    why = (
        f"the gradient vanishes here, but this is {found.sentence()} (loss {loss:.10g}): no minimum. To mend: start on "
        "the other side"
    )
    return Verdict(Status.STALLED, why, {**verdict.evidence, **_evidence(check), "edge_fall": found.fall})


def explained(oracle: AutogradOracle, verdict: Verdict, patience: Patience) -> Verdict:
    """The verdict, with the wrong gradient named that a failure, or a budget used up, is due to, if it is. The
    parameters stand at the best point.
    """
    lengthy = verdict.status in EXHAUSTED and oracle.num_losses >= ENOUGH and oracle.micro_batches is None
    if not (verdict.status in EXPLAINED or lengthy) or "gradient_check" in verdict.evidence:
        return verdict
    check = check_gradient(oracle, patience)
    reason = f"{verdict.reason}. Found: {check.sentence()}" if check.is_wrong else verdict.reason
    return replace(verdict, reason=reason, evidence={**verdict.evidence, **_evidence(check)})


def _evidence(check: GradientCheck) -> dict[str, str | float]:
    if check.unjudged:
        return {"gradient_check": f"unjudged: {check.unjudged}"}
    worst = check.worst
    return {
        "gradient_check": "wrong" if check.is_wrong else "agrees",
        "slope_of_gradient": worst.claimed,
        "slope_of_differences": worst.measured,
        "slope_error": worst.error,
    }


def _falls(oracle: AutogradOracle, loss: float, patience: Patience) -> bool:
    """Whether the loss falls beside the point by more than rounding explains, as it does at no minimum."""
    point = oracle.read()
    eps = torch.finfo(point.dtype).eps
    signs = torch.randint(0, 2, point.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    move = eps**0.25 * signs.to(point) * sizes(point, point)
    with Probe(oracle, patience) as probe, suppress(Exception):  # whatever the objective raises there
        for there in (point + move, point - move):
            if oracle.lower is not None and oracle.upper is not None:
                there = there.clamp(oracle.lower, oracle.upper)
            if loss - probe.loss(there) > 100 * eps * max(abs(loss), math.ulp(0.0)):
                return True
    return False


def _edge(oracle: AutogradOracle, loss: float, left: float, patience: Patience) -> Edge | None:
    """The edge of the loss on which the parameters stand, if they do; `left` is what a Newton step would gain."""
    with Probe(oracle, patience) as probe, suppress(Exception):  # whatever the objective raises beside the point
        point = oracle.read()

        def inside(there: Tensor) -> Tensor:
            return there if oracle.lower is None or oracle.upper is None else there.clamp(oracle.lower, oracle.upper)

        def slopes(there: Tensor) -> Tensor:
            return probe.gradient(inside(there)).to(point).masked_fill(stays, 0.0)

        stays = torch.zeros_like(point, dtype=torch.bool) if oracle.pinned is None else oracle.pinned
        gradient = slopes(point)
        way = ways(point, point if oracle.origin is None else oracle.origin).masked_fill(stays, 0.0)
        here = Evaluation(loss, gradient.abs().max().item(), point, gradient)
        return edge(here, way, left, lambda there: probe.loss(inside(there)), slopes)
    return None
