"""An ending becomes a result: the point that is returned, and what is said about it."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradopt import postmortem
from gradopt.assemble import Assembly
from gradopt.contracts import Block, Objective
from gradopt.covariance import MAX_UNKNOWNS, covariance
from gradopt.criteria.optimality import endless, multipliers
from gradopt.loop import Ending
from gradopt.objectives.function import FunctionObjective
from gradopt.observers.history import History
from gradopt.oracle import AutogradOracle
from gradopt.result import Result
from gradopt.unknowns import split
from gradopt.verdict import Status

log = logging.getLogger("gradopt")

UNPROVED = frozenset({Status.STALLED, Status.MAX_STEPS, Status.MAX_EVALUATIONS, Status.MAX_SECONDS})
"""Endings under constraints that multipliers without end may be the reason of."""


def concluded(
    assembly: Assembly,
    block: Block,
    ending: Ending,
    history: History,
    form: Callable[[Sequence[Tensor]], Any],
    directory: str | Path | None,
) -> Result:
    """On success the judged point, otherwise the best one; the parameters are put there. Where constraints cannot be
    met, the judged point is the one that misses them least.

    Args:
        block: The last one of the run, cut at the ending.
        form: From tensors shaped like the parameters to the form of the start.
    """
    oracle, verdict = assembly.oracle, ending.verdicts[0]

    def shown(vector: Tensor) -> Any:
        return form([part.clone() for part in split(vector, oracle.parameters)])

    here, pinned = oracle.read(), oracle.pinned
    loss = block["full_loss" if oracle.has_full_loss else "loss"][-1, 0].item()
    seconds = block["seconds"][-1, 0].item()
    patience = postmortem.patience(oracle, seconds, lambda: assembly.interrupt.signal is not None)
    verdict = postmortem.confirmed(oracle, verdict, loss, patience)
    if verdict.status in UNPROVED and (found := endless(oracle)):  # here, where the run has ended
        verdict = replace(verdict, reason=f"{verdict.reason}. Found: {found}")
    best = oracle.best
    violation = None if oracle.constraints is None else block["violation"][-1, 0].item()
    if verdict.status is Status.INFEASIBLE:  # judged by how much is missed, not by how far off the unknowns are
        best = None
    better = best is not None and (_missed(best.violation, oracle), best.loss) < (_missed(violation, oracle), loss)
    if best is not None and not verdict.success and (better or not math.isfinite(loss)):
        oracle.write(best.point)
        verdict, pinned = verdict.returning(best.loss), best.pinned
        loss, violation = best.loss, None if violation is None else best.violation
    elif best is not None and better:
        verdict = replace(verdict, evidence={**verdict.evidence, "lower_loss_seen": best.loss})
    if oracle.is_sparing and oracle.lowest_loss < loss:  # at a step whose point was not kept
        verdict = replace(verdict, evidence={**verdict.evidence, "lower_loss_seen": oracle.lowest_loss})
    verdict = postmortem.explained(oracle, verdict, patience)
    counts = (oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products)
    point = oracle.read()
    if torch.equal(here, point) and oracle.micro_batches is None and block.cut_short is None:
        gradient = oracle.full_gradient().clone()
    else:  # one more gradient, for the report only
        with oracle.uncounted():
            gradient = oracle.gradient(point)
    return Result(
        x=shown(point),
        fun=loss,
        jac=shown(gradient if pinned is None else _with_infinities(gradient, point, pinned, oracle)),
        verdict=verdict,
        nit=block.last_step,
        nfev=counts[0],
        njev=counts[1],
        nhev=counts[2],
        seconds=seconds,
        engine=assembly.engine.name,
        history=history.columns(),
        metrics=dict(oracle.metrics()),
        covariance=_covariance(oracle, loss) if verdict.success else None,
        minima=[
            {
                "x": shown(one.point),
                "fun": one.loss,
                "visits": one.visits,
                **({"x0": torch.stack(one.begins)} if one.begins else {}),
            }
            for one in getattr(assembly.engine.optimiser, "minima", ())
        ],
        multipliers=_multipliers(oracle, gradient),
        violation=violation,
        directory=None if directory is None else str(directory),
    )


def _with_infinities(gradient: Tensor, point: Tensor, pinned: Tensor, oracle: AutogradOracle) -> Tensor:
    """The gradient as the objective has it."""
    assert oracle.lower is not None
    infinite = torch.where(point <= oracle.lower, torch.inf, -torch.inf).to(gradient)
    return torch.where(pinned, infinite, gradient)


def _missed(violation: float | None, oracle: AutogradOracle) -> float:
    """A violation that counts: none within the tolerance."""
    if violation is None or violation <= oracle.violation_tolerance:
        return 0.0
    return violation if violation == violation else float("inf")


def _multipliers(oracle: AutogradOracle, gradient: Tensor) -> Mapping[str, Tensor] | None:
    if oracle.constraints is None or not bool(gradient.isfinite().all()):
        return None
    return oracle.constraints.by_name(multipliers(oracle, gradient).values)


def _covariance(oracle: AutogradOracle, loss: float) -> Tensor | None:
    """That of a fit whose unknowns are those of the bounds that leave them room. Other bounds are not seen. None
    without residuals, or with no more of them than unknowns, nor under constraints.
    """
    if not oracle.has_residuals or sum(p.numel() for p in oracle.parameters) > MAX_UNKNOWNS:
        return None
    if oracle.constraints is not None:
        return None
    if oracle.pinned is not None:  # an infinite derivative leaves its unknown no variance, and the rest no meaning
        return None
    with oracle.uncounted():
        linear = oracle.linearised()
    jacobian = linear.jacobian()
    eps, jacobian = torch.finfo(jacobian.dtype).eps, jacobian.double()
    free = torch.ones(jacobian.shape[1], dtype=torch.bool, device=jacobian.device)
    if oracle.lower is not None and oracle.upper is not None:
        free = oracle.lower < oracle.upper
    if len(jacobian) <= int(free.sum()) or not bool(jacobian.isfinite().all()):
        return None
    return covariance(jacobian, torch.tensor(loss, dtype=torch.float64, device=jacobian.device), free, eps)


def form_of(objective: Objective) -> Callable[[Sequence[Tensor]], Any]:
    """From tensors shaped like the trainable parameters to what a `Result` shows: the form of x0, else one tensor or a
    dict by name.
    """
    if isinstance(objective, FunctionObjective):
        return objective.structured
    names = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    return lambda parts: parts[0] if len(parts) == 1 else dict(zip(names, parts, strict=True))


def known_minimum(objective: Objective) -> float | None:
    """The lowest loss there is, where the objective knows it; a run is worth more than one that cannot be told."""
    try:
        return objective.minimum()
    except Exception as error:
        log.warning("minimum() of the objective failed: %s: %s", type(error).__name__, error)
        return None
