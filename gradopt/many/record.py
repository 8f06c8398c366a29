"""What a run of many starts, or of many local searches, leaves on disk beside `result.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from gradopt.description import STARTS_FILES
from gradopt.result import Result, Results, whole
from gradopt.verdict import STATUSES

MOST_STARTS = 10_000
"""Starts in the sample; of more, evenly chosen ones stand for all."""

MOST_NUMBERS = 200_000
"""Unknowns of all starts in the sample: of larger starts there are fewer."""

COLUMNS = ("x", "fun", "jac", "nit", "nfev", "njev", "nhev")


def write(found: Results, directory: Path) -> None:
    """All starts in full as `starts.pt`, for torch; and a sample as `starts.npz`, small and for anybody: where each
    began (`x0`) and ended (`x`), shape (starts, n) and float64, its loss (`fun`), its `status`, an index into
    `statuses`, the index of its minimum (`basin`, -1: none), and which start it is (`start`).
    """
    with whole(directory / STARTS_FILES["all"]) as file:
        torch.save({**{name: getattr(found, name) for name in COLUMNS}, "code": found.verdicts.codes}, file)
    x0, x = _rows(found.x0), _rows(found.x)
    most = max(1, min(MOST_STARTS, MOST_NUMBERS // x.shape[1]))
    chosen = torch.linspace(0, len(found) - 1, min(most, len(found)), dtype=torch.float64).round().long()
    columns = {"x0": x0, "x": x, "fun": found.fun.double(), "status": found.verdicts.codes, "basin": found.basin}
    arrays: dict[str, Any] = {name: column.cpu()[chosen].numpy() for name, column in columns.items()}
    names = numpy.array([status.value for status in STATUSES])
    with whole(directory / STARTS_FILES["sample"]) as file:
        numpy.savez_compressed(file, **arrays, start=chosen.numpy(), statuses=names)


def write_searches(found: Result, directory: Path) -> None:
    """Where the local searches of one run began (`x0`), shape (searches, n), and the index of the minimum that each
    ended at (`basin`), as the same sample; nothing without searches.
    """
    begins = {index: one["x0"] for index, one in enumerate(found.minima) if "x0" in one}
    if begins:
        basin = numpy.repeat(list(begins), [len(points) for points in begins.values()])
        x0 = torch.cat(list(begins.values())).numpy()
        with whole(directory / STARTS_FILES["sample"]) as file:
            numpy.savez_compressed(file, x0=x0, basin=basin)


def _rows(x: Any) -> Tensor:
    """One row a start, of all its unknowns."""
    leaves = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]
    return torch.cat([leaf.reshape(len(leaf), -1).double() for leaf in leaves], dim=1)
