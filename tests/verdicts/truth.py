"""What is true of an ending, worked out in float64 from the case alone."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradopt import Result, Status
from tests.verdicts.cases import Case
from tests.verdicts.entrants import Entrant, Watched

GAP = {torch.float64: 1e-8, torch.float32: 1e-4}
"""How much of the way down a success may be short of."""

REACH = {torch.float64: 1e-4, torch.float32: 3e-2}
"""How far from a minimiser it may be, of the way there."""


def lies(case: Case, entrant: Entrant, dtype: torch.dtype, result: Result, watched: Watched) -> list[str]:
    """What is not true of a result: its status, its point, its numbers."""
    x = watched.flat(result.x).detach()
    return [*_of_the_status(case, entrant, dtype, result, watched, x), *_of_the_point(case, dtype, result, watched, x)]


def _of_the_status(
    case: Case, entrant: Entrant, dtype: torch.dtype, result: Result, watched: Watched, x: Tensor
) -> Sequence[str]:
    status = result.status
    if result.success:
        return [] if is_minimum(case, x, dtype) else [f"false success: {_place(case, x)}"]
    if status.exhausted:
        return []
    judged = result.verdict.evidence.get("loss", math.nan)
    if status is Status.UNBOUNDED and case.unbounded:
        return []
    if status is Status.DIVERGED and not entrant.own and has_climbed(result):
        return []
    if (
        status is Status.NON_FINITE
        and (case.broken or case.unbounded or case.walled or not entrant.own)
        and has_broken(result, watched)
    ):
        return []
    if status is Status.SADDLE_POINT and (_is_one_of(judged, case.saddles, case, dtype) or is_saddle(case, x, judged)):
        return []
    if status is Status.MAXIMUM and (_is_one_of(judged, case.maxima, case, dtype) or is_saddle(case, x, judged)):
        return []
    if status is Status.STALLED and "plateau" in result.message:
        return [] if case.plateau else ["there is no plateau"]
    if status is Status.STALLED:
        return ["stalled at the minimum"] if case.minima and not case.edge and is_reached(case, x, dtype) else []
    return [f"false alarm: {_place(case, x)}"]


def _of_the_point(case: Case, dtype: torch.dtype, result: Result, watched: Watched, x: Tensor) -> list[str]:
    found = []
    start = case.loss(torch.tensor(case.start, dtype=dtype)).item()
    losses = result.history["loss"]
    losses = losses[losses.isfinite()].tolist()
    lowest = min(losses, default=math.inf)
    here = case.loss(x).item()
    if here != result.fun and not (here != here and result.fun != result.fun):
        found.append(f"the loss at x is {here!r}, not {result.fun!r}")
    if math.isfinite(start) and not result.fun <= start and not result.success:
        found.append(f"the start was better: {start!r} < {result.fun!r}")
    if not result.success and result.fun > lowest:
        found.append(f"a better point was lost: {lowest!r} < {result.fun!r}")
    if result.success and lowest < result.fun:
        told = result.verdict.evidence.get("lower_loss_seen", math.inf)
        if told > lowest:
            found.append(f"the lower loss {lowest!r} is not in the evidence")
    if losses and not math.isfinite(result.fun):
        found.append(f"loss {result.fun} though finite ones were seen")
    if watched.outside:
        found.append(f"evaluated {watched.outside} times outside the bounds")
    if not result.message or not math.isfinite(result.seconds):
        found.append("no message")
    return found


def is_minimum(case: Case, x: Tensor, dtype: torch.dtype) -> bool:
    """Whether a point is as close to a local minimum as a success in this dtype must be: by loss, and by place."""
    return _is_near(case, x, GAP[dtype], 10 * torch.finfo(dtype).eps, case.reach or REACH[dtype])


def is_reached(case: Case, x: Tensor, dtype: torch.dtype) -> bool:
    """Whether it is so close that nothing is left to gain."""
    eps = torch.finfo(dtype).eps
    return _is_near(case, x, eps**1.25, 0.0, eps**0.625)


def has_climbed(result: Result) -> bool:
    """Whether the last loss is far above all that the run had gained."""
    losses = result.history["loss"]
    losses = losses[losses.isfinite()]
    first, last, best = losses[0].item(), losses[-1].item(), losses.min().item()
    return last - best > 1e6 * max(abs(first), first - best)


def has_broken(result: Result, watched: Watched) -> bool:
    """Whether a loss or a gradient was not finite."""
    return watched.holes > 0 or not math.isfinite(result.verdict.evidence["gradient_norm"])


def is_saddle(case: Case, x: Tensor, judged: float) -> bool:
    """Whether the point returned is the one that was judged, its gradient is small, and its curvature negative."""
    if case.bounds is not None or not math.isclose(case.exact(x), judged, rel_tol=1e-5):
        return False
    point = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(case.loss(point), point, create_graph=True)
    if not slope.requires_grad:
        return False
    hessian = torch.stack([torch.autograd.grad(one, point, retain_graph=True)[0] for one in slope])
    size = torch.maximum(point.detach().abs(), (point.detach() - torch.tensor(case.start).double()).abs())
    small = slope.detach().abs() <= 1e-2 * (hessian.abs() @ size)
    return bool(small.all()) and bool(torch.linalg.eigvalsh(hessian)[0] < 0)


def _is_near(case: Case, x: Tensor, gap: float, rounding: float, reach: float) -> bool:
    loss, start = case.exact(x), torch.tensor(case.start, dtype=torch.float64)
    first = case.exact(start)
    deep = any(
        abs(loss - m) <= gap * abs(first - m if math.isfinite(first) else m) + rounding * abs(m) + case.slack
        for m in case.minima
    )
    if not deep or not case.minimisers:
        return deep
    for place in torch.tensor(case.minimisers, dtype=torch.float64):
        way = torch.maximum(place.abs(), (start - place).abs()).nan_to_num(0.0)
        way = torch.where(way > 1e-12 * way.max(), way, way.max())
        if bool(((x.double() - place).abs() <= reach * way).logical_or(place.isnan()).all()):
            return True
    return False


def _is_one_of(loss: float, known: Sequence[float], case: Case, dtype: torch.dtype) -> bool:
    first = case.exact(torch.tensor(case.start))
    return any(abs(loss - one) <= max(1e-2, GAP[dtype]) * abs(first - one) + 1e-5 * abs(one) for one in known)


def _place(case: Case, x: Tensor) -> str:
    best = min(case.minima, default=math.nan, key=lambda m: abs(case.exact(x) - m))
    return f"x = {[float(f'{v:.6g}') for v in x[:6].tolist()]}, {case.exact(x) - best:.3g} above {best:.6g}"
