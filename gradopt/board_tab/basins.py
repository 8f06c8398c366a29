"""Where the starts of one run ended: its minima, and for two unknowns a map of the starts."""

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy

from gradopt.board_tab.leaderboard import minima, searches, visits
from gradopt.comparison.records import Record
from gradopt.verdict import SUCCESS

SAMPLE = "starts.npz"

MOST_BARS = 12
"""Minima that are told one by one."""


def basins(record: Record) -> dict[str, Any]:
    """The lowest minima with the number of starts that ended in each, `others` and `none` (at no minimum), and `map`:
    by index of the minimum (-1: none, or not among those told) the starts as a flat list x, y, x, y, ...; None unless
    there are two unknowns and a sample of the starts on disk.
    """
    number, counts = searches(record) or 0, visits(record)
    told = [
        {"loss": _number(one.get("fun")), "starts": count, "x": _point(one.get("x"))}
        for one, count in zip(minima(record)[:MOST_BARS], counts, strict=False)
    ]
    ended = max(_succeeded(record, number), sum(counts))
    return {
        "number": number,
        "minima": told,
        "others": ended - sum(counts[:MOST_BARS]),
        "none": max(0, number - ended),
        "map": _map(record, len(told)),
    }


def _succeeded(record: Record, number: int) -> int:
    """Starts that ended at a minimum: of many minima the result lists but the lowest."""
    starts = record.result.get("starts")
    counts = starts.get("counts") if isinstance(starts, Mapping) else None
    if not isinstance(counts, Mapping):
        return number
    found = [counts.get(status.value) for status in SUCCESS]
    return sum(one for one in found if isinstance(one, int))


def _map(record: Record, told: int) -> dict[str, list[float]] | None:
    try:
        with (record.directory / SAMPLE).open("rb") as file, numpy.load(file, allow_pickle=False) as sample:
            x0, basin = sample["x0"], sample["basin"]
        if x0.ndim != 2 or x0.shape[1] != 2 or basin.shape != (len(x0),):
            return None
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):  # none was written, or half of it
        return None
    shown = numpy.where(basin < told, basin, -1)
    sound = numpy.isfinite(x0).all(1)
    return {str(index): x0[(shown == index) & sound].ravel().tolist() for index in range(-1, told)}


def _point(x: Any) -> list[float]:
    """The first unknowns, in a row."""
    leaves = list(x.values()) if isinstance(x, Mapping) else []
    try:
        return numpy.concatenate([numpy.ravel(numpy.asarray(leaf, dtype=float)) for leaf in leaves])[:10].tolist()
    except (TypeError, ValueError):
        return []


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
