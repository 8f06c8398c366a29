"""What a run shows as pictures: the graph of its objective, its convergence, its landscape, its starts."""

from pathlib import Path

FILES = ("graph.svg", "graph.png", "convergence.png", "landscape.png", "starts.png")
"""In the directory of a run."""


def clear(directory: str | Path) -> None:
    """Take away the pictures of a run before in the same directory: the next one may not draw all of them again."""
    for name in FILES:
        (Path(directory) / name).unlink(missing_ok=True)
