"""What a run leaves in its directory, of which nothing may stay when another run begins there."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gradopt import pictures

RESULTS = ("result.json", "history.npy")
"""By which a directory is known as that of a run."""

FILES = (
    *RESULTS,
    *("x.pt", "starts.pt", "starts.npz"),
    *pictures.FILES,
)


def clear(directory: Path) -> None:
    """Remove what an earlier run has left, if there was one: the new one may not write all of it again. Events stay,
    which TensorBoard tells apart by themselves.
    """
    if any((directory / name).is_file() for name in RESULTS):
        remove(directory, FILES)


def remove(directory: Path, names: Iterable[str]) -> None:
    """Remove files, and what a kill has left of those that were being written."""
    for name in names:
        for file in (directory / name, directory / f"{name}.part"):
            with suppress(OSError):  # what cannot be removed cannot be written either, which is told then
                file.unlink(missing_ok=True)
