"""The run as pictures: the graph of its loss, its convergence, its landscape, its starts."""

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import Block, Run
from gradopt.observers.event_images import write_graph, write_images
from gradopt.pictures import NO_MATPLOTLIB, drawn_graph
from gradopt.pictures.basins import basins, begins, of_searches, of_starts
from gradopt.pictures.convergence import convergence
from gradopt.pictures.feasible import Feasible
from gradopt.pictures.graph import MAX_NODES, graph, recorded, size
from gradopt.pictures.landscape import Scene, Unaffordable, free, landscape, of_free
from gradopt.result import Result, Results

log = logging.getLogger("gradopt")

SECONDS = 0.3
"""That evaluating the loss for a landscape may take."""

MIN_STEPS = 2
"""Of a run that has something to show: drawing takes longer than most of those with fewer."""

EVERY_POINT = 64
"""Steps whose points are all kept for the path; of later ones about this many for each factor of e."""

MAX_UNKNOWNS = 100_000
"""Up to which a slice is taken through the loss."""


class Pictures:
    """The graph of the loss, and how the run went over it, as PNG files in the run directory and in TensorBoard.

    Args:
        in_sweeps: Draw the runs of a sweep, too; otherwise these get their graph in TensorBoard alone.
    """

    def __init__(self, in_sweeps: bool = False) -> None:
        self._in_sweeps = in_sweeps
        self._images: dict[str, bytes] = {}
        self._directory: Path | None = None
        self._path: list[Tensor] = []
        self._next = 0

    def open(self, run: Run) -> None:
        """Write the graph: it is there while the run goes on."""
        if run.directory is None:
            return
        self._run, self._directory = run, Path(run.directory)
        self._draws = self._in_sweeps or run.sweep is None
        self._graph(run, self._directory)

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Keep the path: all of its first points, then fewer and fewer."""
        if self._directory is None or not self._draws:
            return
        for step, point in block.points:
            if step >= self._next:
                self._path.append(point)
                self._next = step + 1 + step // EVERY_POINT

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Draw what there is to see."""
        if self._directory is None or result is None:
            return
        nit = max(result.nit.tolist()) if isinstance(result, Results) else result.nit
        if self._draws and nit >= MIN_STEPS:
            if find_spec("matplotlib") is None:
                log.info("pictures: %s", NO_MATPLOTLIB)
            else:
                self._charts(result)
        elif self._draws:
            log.info("pictures: only the graph, as there are fewer than %d steps", MIN_STEPS)
        if self._images:
            write_images(self._directory, self._images, nit)

    def _charts(self, result: Result | Results) -> None:
        title = self._run.facts.get("objective", "loss")
        found = convergence(result, title, self._run.minimum, self._run.violation_tolerance)
        if found is not None:
            self._save("convergence", found)
        try:
            self._landscape(result, title)
        except Unaffordable as reason:
            log.info("pictures: no landscape, as %s", reason)

    def _landscape(self, result: Result | Results, title: str) -> None:
        run = self._run
        if run.losses is None:
            raise Unaffordable("the loss differs from batch to batch")
        start = run.start.point.detach().double().cpu().unsqueeze(0)
        if len(start[0]) > MAX_UNKNOWNS:
            raise Unaffordable(f"there are more than {MAX_UNKNOWNS} unknowns")
        step = result.history["seconds"].diff().median().item()  # with its gradient
        if not isinstance(result, Results) and step > SECONDS:
            raise Unaffordable(f"a step takes {step:.2g} s")
        again = run.losses(start)[0].item()
        rounding = torch.finfo(run.start.point.dtype).eps ** 0.4
        if not math.isclose(again, run.start.loss, rel_tol=rounding) and math.isfinite(run.start.loss):
            raise Unaffordable(f"the loss at the start was {run.start.loss:.6g}, and is {again:.6g} now")
        bounds = None if run.bounds is None else (run.bounds[0].double().cpu(), run.bounds[1].double().cpu())
        many = isinstance(result, Results)
        best = vector(result.best_start.x if many else result.x)
        if many:
            assert run.starts is not None
            path = run.starts.detach().double().cpu()
        else:
            path = torch.stack([start[0], *(point.detach().double().cpu() for point in self._path), best])
        end = "result" if many or result.success else "best point"
        scene = Scene(run.losses, path, best, bounds, self._names(), title, self._feasible(), end=end)
        if not many:
            self._save("landscape", landscape(scene, SECONDS))
        self._starts(result, scene)

    def _starts(self, result: Result | Results, scene: Scene) -> None:
        """Where many starts ended, or the local searches of one run."""
        minima = torch.stack([vector(one["x"]) for one in result.minima]) if result.minima else scene.path[:0]
        minima = minima[:, free(scene.bounds, len(scene.best))]
        if isinstance(result, Results):
            ends, path, title = of_starts(result, minima), scene.path, scene.title
        elif (path := begins(result)) is not None:
            ends, title = of_searches(result, minima, self._run.start.point.dtype), f"{scene.title}; local searches"
        else:
            return
        self._save("starts", basins(ends, of_free(replace(scene, path=path, title=title)), SECONDS))

    def _feasible(self) -> Feasible | None:
        constraints, values = self._run.constraints, self._run.constraint_values
        if constraints is None or values is None:
            return None
        lower, upper = constraints.lower.double().cpu(), constraints.upper.double().cpu()
        names = [name for name, part in constraints.by_name(constraints.lower).items() for _ in range(part.numel())]
        return Feasible(values, lower, upper, names)

    def _names(self) -> list[str]:
        """Of each unknown, such as x[0] or b1."""
        names: list[str] = []
        for name, tensor in self._run.parameters.items():
            shape = tensor.shape if self._run.starts is None else tensor.shape[1:]
            places = itertools.product(*map(range, shape))
            names += [f"{name}[{', '.join(map(str, place))}]" if place else name for place in places]
        return names

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
        _write(directory / "graph.svg", text.encode())

    def _save(self, name: str, png: bytes) -> None:
        assert self._directory is not None
        _write(self._directory / f"{name}.png", png)
        self._images[f"pictures/{name}"] = png


def _write(path: Path, content: bytes) -> None:
    """In one piece or not at all: a disk may be full."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def vector(x: Any) -> Tensor:
    """The unknowns of a result as one vector, float64 on the CPU."""
    return vectors(x, 1)[0]


def vectors(x: Any, starts: int) -> Tensor:
    """The unknowns of several results, shape (starts, n), float64 on the CPU."""
    parts = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple) else [x]
    return torch.cat([part.detach().double().cpu().reshape(starts, -1) for part in parts], dim=1)
