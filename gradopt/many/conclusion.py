"""Endings of many starts become results: the points that are returned, and the minima among them."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gradopt import postmortem
from gradopt.constraints.box import pinned
from gradopt.contracts import Block, Evaluation, Minimum
from gradopt.covariance import MAX_UNKNOWNS, covariance
from gradopt.differences import Patience
from gradopt.doubts import Points, are_doubtful
from gradopt.engines.stacked import Ended
from gradopt.loop import Ending
from gradopt.many.assembly import StartsAssembly
from gradopt.observers.history import History
from gradopt.optimisers.basins import clustered
from gradopt.result import Results, entry
from gradopt.stacked import StackedOracle
from gradopt.stationarity.curvature import ways
from gradopt.stationarity.edges import may_be_edges
from gradopt.verdict import SUCCESS, Status
from gradopt.verdicts import Verdicts

MAX_ENTRIES = 500_000
"""Of points that are evaluated together."""

MAX_COVARIANCES = 10_000_000
"""Entries of all fits' covariances up to which they come with the result."""

MOST_ASKED = 64
"""Saddle points and maxima that are looked into for a wrong gradient; and starts at which it is wrong, after which
others are not asked any more.
"""


def concluded(
    assembly: StartsAssembly,
    block: Block,
    ending: Ending,
    begin: Tensor,
    history: History,
    form: Callable[[Sequence[Tensor]], Any],
    directory: str | Path | None,
) -> Results:
    """Of each start on success the judged point, otherwise the best one; the objective's parameters are put at the best
    of all.

    Args:
        block: The last one of the run.
        begin: The points at the start, shape (starts, n).
        form: From tensors shaped like the parameters, with a leading axis, to the form of the starts.
    """
    oracle, ended, verdicts = assembly.oracle, assembly.engine.ended(), cast(Verdicts, ending.verdicts)
    seconds = block["seconds"][-1, 0].item()
    patience = postmortem.patience(oracle, seconds, lambda: assembly.interrupt.signal is not None)
    _confirm(oracle, ended, begin, verdicts, patience)
    success = _success(verdicts).to(ended.loss.device)
    better = ~success & ((ended.best_loss < ended.loss) | ~ended.loss.isfinite())
    loss = torch.where(better, ended.best_loss, ended.loss)
    point = torch.where(better.unsqueeze(1), ended.best_point, ended.point)
    gradient = torch.cat([oracle.gradients_at(part) for part in _parts(point, point.shape[1])])
    best = _best(loss, success)
    verdicts.returned = torch.where(better, loss, math.nan).double().cpu()
    with oracle.at(_evaluation(oracle, point[best], loss[best]), begin[best]) as one:
        one.num_losses, verdict = int(ended.counts[0, best]), verdicts[best]
        told = postmortem.explained(one, verdict, patience)
        if told is not verdict:
            verdicts.revise(best, told)
    losses, gradients, products = ended.counts.long()
    minima, basin = _minima(oracle, point, loss, begin, success)

    def shown(points: Tensor) -> Any:
        return form([part.clone() for part in oracle.split(points)])

    return Results(
        x=shown(point),
        fun=loss,
        jac=shown(gradient),
        verdicts=verdicts,
        nit=verdicts.steps,
        nfev=losses,
        njev=gradients,
        nhev=products,
        seconds=seconds,
        engine=assembly.engine.name,
        best=best,
        x0=shown(begin),
        basin=basin,
        history=history.columns(),
        covariance=_covariances(oracle, point, loss, _success(verdicts)),
        minima=[
            {"x": entry(shown(one.point.to(point).unsqueeze(0)), 0), "fun": one.loss, "visits": one.visits}
            for one in minima
        ],
        directory=None if directory is None else str(directory),
    )


def _evaluation(oracle: StackedOracle, point: Tensor, loss: Tensor) -> Evaluation:
    """Of one start at a point, shape (n,), without counting."""
    gradient, mask = oracle.gradients_at(point.unsqueeze(0))[0], None
    if oracle.lower is not None and oracle.upper is not None:
        mask = pinned(gradient, point, oracle.lower, oracle.upper)
    if mask is not None:
        gradient = gradient.masked_fill(mask, 0.0)
    return Evaluation(loss.item(), gradient.abs().max().item(), point, gradient, pinned=mask)


def _covariances(oracle: StackedOracle, point: Tensor, loss: Tensor, success: Tensor) -> Tensor | None:
    """Those of the fits that succeeded, NaN for the others."""
    number, n = point.shape
    if not oracle.has_residuals or n > MAX_UNKNOWNS or number * n * n > MAX_COVARIANCES:
        return None
    found = torch.full((number, n, n), math.nan, dtype=torch.float64, device=point.device)
    free = torch.ones(n, dtype=torch.bool, device=point.device)
    if oracle.lower is not None and oracle.upper is not None:
        free = oracle.lower < oracle.upper
    for part in _parts(success.nonzero().flatten(), n):
        jacobian = oracle.linearised_at(point[part]).jacobian()
        eps, jacobian = torch.finfo(jacobian.dtype).eps, jacobian.double()
        sound = jacobian.isfinite().all(-1).all(-1) & (jacobian.shape[1] > free.sum())
        rows = part.to(point.device)[sound]
        found[rows] = covariance(jacobian[sound], loss[rows].double(), free, eps)
    return found


def _success(verdicts: Verdicts) -> Tensor:
    return _among(verdicts, SUCCESS)


def _among(verdicts: Verdicts, statuses: Iterable[Status]) -> Tensor:
    """A mask of the starts that ended with one of these."""
    return torch.isin(verdicts.codes, torch.tensor([status.code for status in statuses]))


def _parts(rows: Tensor, n: int) -> Sequence[Tensor]:
    """The rows of a tensor, one a start of n unknowns, in parts that are evaluated together."""
    return rows.split(max(1, MAX_ENTRIES // n)) if len(rows) else ()


def _confirm(oracle: StackedOracle, ended: Ended, begin: Tensor, verdicts: Verdicts, patience: Patience) -> None:
    """Put `stalled` in the place of endings that a wrong gradient feigns, and of successes on an edge of the loss.

    What is beside all successes tells which of them to look into, each by itself. There is an end of it where the
    gradient was found wrong at many: other successes that are suspected then are none either, and other saddle points
    and maxima, which are no successes, stay what they are.
    """
    suspects: list[int] = []
    places = _among(verdicts, postmortem.DOUBTED).nonzero().flatten()
    for these in _parts(places, begin.shape[1]):
        suspects += these[_is_suspect(oracle, ended.point[these], begin[these], ended.loss[these])].tolist()
    suspects += _among(verdicts, postmortem.FEIGNED).nonzero().flatten()[:MOST_ASKED].tolist()
    wrong, number = None, 0
    for start in suspects:
        told, point, loss = verdicts[start], ended.point[start], ended.loss[start]
        if wrong and told.status in postmortem.DOUBTED and (number >= MOST_ASKED or patience.is_over):
            verdicts.revise(start, wrong)
            continue
        with oracle.at(_evaluation(oracle, point, loss), begin[start]) as one:
            verdict = postmortem.confirmed(one, told, loss.item(), patience)
        if verdict is not told:
            verdicts.revise(start, verdict)
        if verdict.evidence.get("gradient_check") == "wrong":
            wrong, number = verdict, number + 1


def _is_suspect(oracle: StackedOracle, point: Tensor, origin: Tensor, loss: Tensor) -> Tensor:
    """Of successes, whether `postmortem.confirmed` has a reason to look further: a mask on the CPU."""

    def losses(there: Tensor) -> Tensor:
        return oracle.losses_at(oracle.inside(there))

    def gradients(there: Tensor) -> Tensor:
        return oracle.gradients_at(oracle.inside(there))

    box = None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper)
    here = Points(
        point,
        origin,
        loss.double().cpu(),
        lambda there: losses(there).double().cpu(),
        lambda there: gradients(there).double().cpu(),
        box,
    )
    edges = may_be_edges(point, loss, gradients(point), ways(point, origin), losses, gradients)
    return edges.cpu() | are_doubtful(here)


def _best(loss: Tensor, success: Tensor) -> int:
    """The start of lowest loss; where others are as low, to rounding, one that succeeded."""
    ranked = torch.where(loss.isnan(), math.inf, loss)
    lowest = ranked.min()
    rounding = 10 * torch.finfo(loss.dtype).eps * lowest.abs()
    as_low = success & (ranked <= lowest + rounding)
    return int(torch.where(as_low, ranked, math.inf).argmin()) if bool(as_low.any()) else int(ranked.argmin())


def _minima(
    oracle: StackedOracle, point: Tensor, loss: Tensor, begin: Tensor, success: Tensor
) -> tuple[list[Minimum], Tensor]:
    """The minima that starts ended at, and the index among them of each start's own, -1 where it ended at none."""
    places, basin = success.nonzero().flatten(), torch.full((len(point),), -1)
    if not len(places):
        return [], basin
    if oracle.lower is not None and oracle.upper is not None:
        width = oracle.upper - oracle.lower
    else:
        width = torch.full_like(begin[0], math.inf)
    both = torch.cat([begin, point[places]])
    width = torch.where(width.isfinite() & (width > 0), width, both.amax(0) - both.amin(0))
    width = torch.where(width > 0, width, torch.maximum(point[places[0]].abs(), torch.ones_like(width)))
    minima = []
    for one, members in clustered(point[places].double().cpu(), loss[places].double().cpu(), width.double().cpu()):
        basin[places.cpu()[members]] = len(minima)
        minima.append(one)
    return minima, basin
