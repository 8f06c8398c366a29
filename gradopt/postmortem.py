"""What is found out after a run: whether a wrong gradient is why it failed, or why it seemed to succeed."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch

from gradopt.differences import Patience, Probe
from gradopt.gradient_check import GradientCheck, check_gradient
from gradopt.oracle import AutogradOracle
from gradopt.stationarity.curvature import sizes
from gradopt.verdict import Status, Verdict

DOUBTED = frozenset({Status.CONVERGED, Status.NOISE_FLOOR})
"""Successes that rest on the gradient."""

EXPLAINED = frozenset({Status.STALLED, Status.DIVERGED, Status.NON_FINITE})
"""Failures that a wrong gradient brings about."""

SECONDS = 2.0
"""How long the search for a wrong gradient takes at most, unless the run took longer."""


def patience(oracle: AutogradOracle, seconds: float, interrupted: Callable[[], bool]) -> Patience:
    """For all that is asked after a run that took so many seconds; what is left of a budget of time bounds it too."""
    return Patience(min(max(SECONDS, seconds), oracle.deadline - time.perf_counter()), interrupted)


def confirmed(oracle: AutogradOracle, verdict: Verdict, loss: float, patience: Patience) -> Verdict:
    """The verdict on the point where the parameters stand, of that loss; `stalled` in place of a success that a wrong
    gradient feigns. Two losses beside the point tell whether there is reason to look further; not under constraints,
    where the loss falls beside most minima.
    """
    if oracle.constraints is not None:
        return verdict
    if verdict.status not in DOUBTED or oracle.micro_batches is not None or not _falls(oracle, loss, patience):
        return verdict
    check = check_gradient(oracle, patience)
    if not check.is_wrong:
        return verdict
    reason = f"the gradient vanishes here, but the loss does not stop falling (loss {loss:.10g}): {check.sentence()}"
    return Verdict(Status.STALLED, reason, {**verdict.evidence, **_evidence(check)})


def explained(oracle: AutogradOracle, verdict: Verdict, patience: Patience) -> Verdict:
    """The verdict, with the wrong gradient named that a failure is due to, if it is. The parameters stand at the best
    point.
    """
    if verdict.status not in EXPLAINED or "gradient_check" in verdict.evidence:
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
