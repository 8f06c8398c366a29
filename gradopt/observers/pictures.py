"""The run as pictures: the graph of its loss, its convergence, its landscape, its starts."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from gradopt.contracts import Block, Run
from gradopt.observers.event_images import write_graph, write_images
from gradopt.pictures import drawn_graph
from gradopt.pictures.graph import MAX_NODES, graph, recorded, size
from gradopt.result import Result, Results

log = logging.getLogger("gradopt")


class Pictures:
    """The graph of the loss, and how the run went over it, as PNG files in the run directory and in TensorBoard.

    Args:
        in_sweeps: Draw the runs of a sweep, too; otherwise these get their graph in TensorBoard alone.
    """

    def __init__(self, in_sweeps: bool = False) -> None:
        self._in_sweeps = in_sweeps
        self._images: dict[str, bytes] = {}
        self._directory: Path | None = None

    def open(self, run: Run) -> None:
        """Write the graph: it is there while the run goes on."""
        if run.directory is None:
            return
        self._run, self._directory = run, Path(run.directory)
        self._draws = self._in_sweeps or not run.in_sweep
        self._graph(run, self._directory)

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Keep the path."""

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Draw what there is to see."""
        if self._directory is None or result is None:
            return
        nit = result.best_start.nit if isinstance(result, Results) else result.nit
        if self._images:
            write_images(self._directory, self._images, nit)

    def _graph(self, run: Run, directory: Path) -> None:
        if run.graph is None:
            return
        named: dict[int, str] = {}

        def evaluate() -> Tensor:
            assert run.graph is not None
            output, unknowns = run.graph()
            named.update({id(unknown): name for name, unknown in unknowns.items()})
            return output

        output = recorded(evaluate)
        if (number := size(output, MAX_NODES)) >= MAX_NODES:
            log.info("pictures: no graph, as it has %d operations or more", number)
            return
        nodes = graph(output, named)
        write_graph(directory, nodes)
        if not self._draws:
            return
        if len(nodes) > drawn_graph.MAX_DRAWN:
            log.info("pictures: no graph.png, as its %d boxes could not be read; see the tab Graphs", len(nodes))
            return
        drawing = drawn_graph.laid_out(nodes)
        self._save("graph", drawn_graph.png(nodes, drawing))
        text = drawn_graph.svg(nodes, drawing, run.facts.get("objective", "loss"))
        (directory / "graph.svg").write_text(text, encoding="utf-8")

    def _save(self, name: str, png: bytes) -> None:
        assert self._directory is not None
        (self._directory / f"{name}.png").write_bytes(png)
        self._images[f"pictures/{name}"] = png
