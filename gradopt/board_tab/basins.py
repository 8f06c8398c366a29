"""Where the starts of one run ended: its minima, and for two unknowns a map of the starts."""

import itertools
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy

from gradopt.board_tab.leaderboard import minima, searches, visits
from gradopt.comparison.records import SAMPLE, Record
from gradopt.verdict import SUCCESS

MOST_BARS = 12
"""Minima that are told one by one."""


def basins(record: Record) -> dict[str, Any]:
    """The lowest minima with the number of starts that ended in each, `others` and `none` (at no minimum), the `names`
    of the first unknowns, and `map`: by index of the minimum, or `others` or `none`, the starts as a flat list x, y, x,
    y, ...; None unless there are two unknowns and a sample of the starts on disk, of which `torn` says whether it
    cannot be read.
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
        "names": list(itertools.islice(_names(record.result.get("x")), 10)),
        "map": _map(record, len(told)),
        "torn": SAMPLE in record.broken,
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
    sound = numpy.isfinite(x0).all(1)
    parts = {"none": basin < 0, "others": basin >= told, **{str(index): basin == index for index in range(told)}}
    return {name: x0[those & sound].ravel().tolist() for name, those in parts.items()}


def _names(x: Any) -> Iterator[str]:
    """Of each unknown, such as x[0] or b1."""
    for name, leaf in x.items() if isinstance(x, Mapping) else ():
        for place, _ in numpy.ndenumerate(numpy.asarray(leaf, dtype=object)):
            yield f"{name}[{', '.join(map(str, place))}]" if place else str(name)


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
