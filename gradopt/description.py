"""A result in plain words and numbers: what `result.json` holds, and what programs read from standard output."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from gradopt.result import MAX_LISTED, Result, Results

STARTS_FILES = {"all": "starts.pt", "sample": "starts.npz"}
"""Where many starts are: all of them in full, and a sample."""


def described(found: Result | Results) -> dict[str, Any]:
    """The ending by name, of many starts that of the best, and how many ended how. Where the unknowns are too many to
    be listed, `x` names the file they go to.
    """
    result = found.best_start if isinstance(found, Results) else found
    size = num_unknowns(result.x)
    evidence = {name: value for name, value in result.verdict.evidence.items() if not isinstance(value, torch.Tensor)}
    return {
        "status": result.status.value,
        "success": result.success,
        "message": result.message,
        "fun": result.fun,
        "x": _numbers(result.x) if size <= MAX_LISTED else "x.pt",
        "nit": result.nit,
        "nfev": result.nfev,
        "njev": result.njev,
        "nhev": result.nhev,
        "seconds": result.seconds,
        "seconds_by": dict(result.seconds_by),
        "engine": result.engine,
        "metrics": dict(result.metrics),
        "minima": [
            {"x": _numbers(one["x"]), "fun": one["fun"], "visits": one["visits"]}
            for one in result.minima[: MAX_LISTED // size]
        ],
        **_constrained(result),
        **_fitted(result, size),
        "evidence": evidence,
        "torch": torch.__version__,
        **_many(found),
    }


def num_unknowns(x: Any) -> int:
    """How many numbers there are in the unknowns of a result."""
    return sum(leaf.numel() for _, leaf in _leaves(x))


def _many(found: Result | Results) -> dict[str, Any]:
    """Of many starts: how many ended how, which is the best, what all together took, and where all of them are."""
    if not isinstance(found, Results):
        return {}
    counts = {status.value: number for status, number in found.counts.items()}
    total = {name: int(getattr(found, name).sum()) for name in ("nit", "nfev", "njev", "nhev")}
    return {"starts": {"number": len(found), "best": found.best, "counts": counts, "total": total, **STARTS_FILES}}


def _numbers(x: Any) -> dict[str, Any]:
    return {name or "x": leaf.tolist() for name, leaf in _leaves(x)}


def _constrained(result: Result) -> dict[str, Any]:
    if result.multipliers is None:
        return {}
    listed = {name: y.tolist() for name, y in result.multipliers.items() if y.numel() <= MAX_LISTED}
    return {"violation": result.violation, "multipliers": listed}


def _fitted(result: Result, size: int) -> dict[str, Any]:
    """The standard errors of a fit, in the form of x."""
    if result.standard_errors is None or size > MAX_LISTED:
        return {}
    leaves = list(_leaves(result.x))
    parts = result.standard_errors.split([leaf.numel() for _, leaf in leaves])
    return {"standard_errors": {n or "x": part.view_as(x).tolist() for (n, x), part in zip(leaves, parts, strict=True)}}


def _leaves(x: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(x, Mapping):
        yield from ((str(name), leaf) for name, leaf in x.items())
    elif isinstance(x, tuple):
        yield from ((f"x{index}", leaf) for index, leaf in enumerate(x))
    else:
        yield "", x
