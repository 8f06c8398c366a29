"""Where the starts of one run ended: its minima, and for two unknowns a map of the starts."""

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy

from gradopt.board_tab.runs import Run

SAMPLE = "starts.npz"

MOST_BARS = 12
"""Minima that are told one by one."""


def basins(run: Run) -> dict[str, Any]:
    """The lowest minima with the number of starts that ended in each, `others` and `none` (at no minimum), and `map`:
    by index of the minimum (-1: none, or not among those told) the starts as a flat list x, y, x, y, ...; None unless
    there are two unknowns and a sample of the starts on disk.
    """
    starts, listed = run.result.get("starts"), run.result.get("minima")
    minima = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    visits = [_whole(one.get("visits")) for one in minima]
    number = _whole(starts.get("number")) if isinstance(starts, dict) else sum(visits)
    told = [
        {"loss": _number(one.get("fun")), "starts": count, "x": _point(one.get("x"))}
        for one, count in zip(minima[:MOST_BARS], visits, strict=False)
    ]
    ended = _ended(run, number, sum(visits))
    return {
        "run": run.name,
        "number": number,
        "minima": told,
        "others": ended - sum(visits[:MOST_BARS]),
        "none": max(0, number - ended),
        "map": _map(run, len(told)),
    }


def _ended(run: Run, number: int, visits: int) -> int:
    """Starts that ended at a minimum: `result.json` lists but the lowest ones."""
    counts = run.result.get("starts", {}).get("counts") if isinstance(run.result.get("starts"), dict) else None
    if not isinstance(counts, dict):
        return max(number, visits)
    found = sum(_whole(counts.get(status)) for status in ("converged", "target_reached", "noise_floor"))
    return max(found, visits)


def _map(run: Run, told: int) -> dict[str, list[float]] | None:
    try:
        with (run.directory / SAMPLE).open("rb") as file, numpy.load(file, allow_pickle=False) as sample:
            x0, basin = sample["x0"], sample["basin"]
        if x0.ndim != 2 or x0.shape[1] != 2 or basin.shape != (len(x0),):
            return None
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):  # none was written, or half of it
        return None
    shown = numpy.where(basin < told, basin, -1)
    x0 = numpy.where(numpy.isfinite(x0).all(1, keepdims=True), x0, numpy.nan)
    sound = numpy.isfinite(x0[:, 0])
    return {str(index): x0[(shown == index) & sound].ravel().tolist() for index in range(-1, told)}


def _point(x: Any) -> list[float]:
    """The unknowns in a row."""
    leaves = list(x.values()) if isinstance(x, Mapping) else []
    try:
        return numpy.concatenate([numpy.ravel(numpy.asarray(leaf, dtype=float)) for leaf in leaves])[:10].tolist()
    except ValueError:
        return []


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
