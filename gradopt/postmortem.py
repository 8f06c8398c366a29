"""What is found out after a run: whether a wrong gradient is why it failed, or why it seemed to succeed; and whether a
success stands on an edge of the loss.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from gradopt.contracts import Evaluation
from gradopt.criteria.budget import Timed
from gradopt.criteria.optimality import multipliers
from gradopt.differences import OutOfPatience, Patience, Probe
from gradopt.doubts import Points, are_doubtful
from gradopt.gradient_check import GradientCheck, check_constraints, check_gradient
from gradopt.oracle import AutogradOracle
from gradopt.stationarity.curvature import ways
from gradopt.stationarity.edges import Edge, edge
from gradopt.verdict import Status, Verdict

DOUBTED = frozenset({Status.CONVERGED, Status.NOISE_FLOOR})
"""Successes that rest on the gradient."""

FEIGNED = frozenset({Status.SADDLE_POINT, Status.MAXIMUM})
"""Endings at which the loss falls though the gradient vanishes: so it does, too, where the gradient is wrong."""

EXPLAINED = frozenset({Status.STALLED, Status.DIVERGED, Status.NON_FINITE, Status.INFEASIBLE})
"""Failures that a wrong gradient brings about."""

EXHAUSTED = frozenset({Status.MAX_STEPS, Status.MAX_EVALUATIONS, Status.MAX_SECONDS})
"""Endings that a wrong gradient may be the reason of, too: looked into after a run of `ENOUGH` evaluations."""

ENOUGH = 200

SECONDS = 2.0
"""How long the search for a wrong gradient takes at most, unless the run took longer."""

GRACE = 0.5
"""How long it may take, in seconds, though a budget of time is used up: what it would have found is worth more."""


def patience(oracle: Timed, seconds: float, interrupted: Callable[[], bool]) -> Patience:
    """For all that is asked after a run that took so many seconds; what is left of a budget of time, or `GRACE`, bounds
    it too.
    """
    left = max(oracle.deadline - time.perf_counter(), GRACE)
    return Patience(min(max(SECONDS, seconds), left), interrupted)


def confirmed(oracle: AutogradOracle, verdict: Verdict, loss: float, patience: Patience) -> Verdict:
    """The verdict on the point where the parameters stand, of that loss; `stalled` in place of a success, a saddle
    point or a maximum that a wrong gradient feigns, and of a success on an edge of the loss; a saddle point or maximum
    in place of one whose curvature was not checked. A few losses beside the point tell whether there is reason to look
    further. Under constraints it is looked further at once, and for no edge: the loss falls beside most minima. On a
    constraint with room to its limits no verdict rests: that its gradient is wrong is said, and no more. A success that
    nobody had the time to check says so.
    """
    feigned = verdict.status in FEIGNED
    if verdict.status not in DOUBTED | FEIGNED or oracle.micro_batches is not None:
        return verdict
    if oracle.constraints is not None:
        checks = _checks(oracle, patience)
        found = None
    else:
        try:
            doubtful = feigned or _is_doubtful(oracle, loss, patience)
        except OutOfPatience:
            return _unchecked(verdict)
        found = None if feigned else _edge(oracle, loss, verdict.evidence.get("newton_decrease", 0.0), patience)
        if found is None and not doubtful:
            return verdict
        checks = [check_gradient(oracle, patience)]
    idle = _idle(oracle) if any(check.is_wrong and check.constraint for check in checks) else frozenset()
    for check in checks:
        if check.is_wrong and check.constraint in idle:
            verdict = replace(verdict, reason=f"{verdict.reason}. Not active here, but {check.sentence()}")
        elif check.is_wrong:
            beside = "" if oracle.constraints is not None else ", but the loss does not stop falling"
            why = f"the gradient vanishes here{beside} (loss {loss:.10g}): {check.sentence()}"
            return Verdict(Status.STALLED, why, {**verdict.evidence, **_evidence(check)})
    if found is None:
        return _unchecked(verdict) if not feigned and any(check.cut_short for check in checks) else verdict
    evidence = {**verdict.evidence, **_evidence(checks[0]), "edge_fall": found.fall}
    why = f"the gradient vanishes here, but this is {found.sentence()} (loss {loss:.10g}): no minimum. To mend: start "
    if found.bends:  # only curvature that is unchecked lets one pass for a success
        evidence |= {"direction": (found.step / found.step.norm())[None]}
        return Verdict(Status.MAXIMUM if found.peaks else Status.SADDLE_POINT, f"{why}somewhere else", evidence)
    return Verdict(Status.STALLED, f"{why}on the other side", evidence)


def explained(oracle: AutogradOracle, verdict: Verdict, patience: Patience) -> Verdict:
    """The verdict, with the wrong gradient named that a failure, or a budget used up, is due to, if it is. The
    parameters stand at the best point.
    """
    lengthy = verdict.status in EXHAUSTED and oracle.num_losses >= ENOUGH and oracle.micro_batches is None
    if not (verdict.status in EXPLAINED or lengthy) or "gradient_check" in verdict.evidence:
        return verdict
    checks = _checks(oracle, patience)
    check = next((check for check in checks if check.is_wrong), checks[0])
    reason = f"{verdict.reason}. Found: {check.sentence()}" if check.is_wrong else verdict.reason
    return replace(verdict, reason=reason, evidence={**verdict.evidence, **_evidence(check)})


def _checks(oracle: AutogradOracle, patience: Patience) -> Sequence[GradientCheck]:
    """Of the loss, and of each constraint."""
    return [check_gradient(oracle, patience), *check_constraints(oracle, patience)]


def _idle(oracle: AutogradOracle) -> frozenset[str]:
    """The constraints that have room to their limits where the parameters stand."""
    assert oracle.constraints is not None
    with oracle.uncounted():
        active = multipliers(oracle, oracle.gradient(oracle.read())).active
    names = oracle.constraints.by_name(torch.arange(len(oracle.constraints.lower), device=active.device))
    return frozenset(name for name, rows in names.items() if not bool(torch.isin(rows, active).any()))


def _unchecked(verdict: Verdict) -> Verdict:
    evidence = {**verdict.evidence, "gradient_check": "unjudged: there was no time left for it"}
    return replace(
        verdict, reason=f"{verdict.reason}; the gradient was not checked, for want of time", evidence=evidence
    )


def _evidence(check: GradientCheck) -> dict[str, str | float]:
    if check.unjudged:
        return {"gradient_check": f"unjudged: {check.unjudged}"}
    worst = check.worst
    return {
        "gradient_check": "wrong" if check.is_wrong else "agrees",
        "slope_of_gradient": worst.claimed,
        "slope_of_differences": worst.measured,
        "slope_error": worst.error,
    } | ({"constraint": check.constraint} if check.constraint else {})


def _is_doubtful(oracle: AutogradOracle, loss: float, patience: Patience) -> bool:
    """Whether what the loss does beside the point is a reason to look further.

    Raises:
        OutOfPatience: Before it is known.
    """
    with Probe(oracle, patience) as probe:
        point = oracle.read()
        here = Points(
            point.unsqueeze(0),
            (point if oracle.origin is None else oracle.origin).unsqueeze(0),
            torch.tensor([loss], dtype=torch.float64),
            lambda there: torch.tensor([probe.loss(there[0])], dtype=torch.float64),
            lambda there: probe.gradient(there[0]).unsqueeze(0),
            None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper),
        )
        try:
            return bool(are_doubtful(here))
        except OutOfPatience:
            raise
        except Exception:  # whatever the objective raises there
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
