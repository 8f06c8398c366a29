"""What a person reads in the terminal: the problem, a live line, the verdict and what it rests on."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, TextIO

from gradopt.contracts import Block, Run
from gradopt.observers.live_line import LiveLine
from gradopt.observers.output import Output
from gradopt.observers.report import LastSteps, aligned, facts, fit, size_of, statuses, verdict_line
from gradopt.pictures import NO_MATPLOTLIB
from gradopt.result import Result, Results

PLACES = ("run", "dashboards")
COPIED = (*PLACES, "pictures")
"""What is there to be copied: never broken into lines."""


class Console:
    """The objective and its start, a live progress line when on a terminal, and the verdict with its numbers.

    Args:
        stream: Where to write; standard output if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._output = Output(stream)
        self._line = LiveLine(self._output)
        self._last = LastSteps()
        self._lacks: Mapping[str, str] = {}

    def open(self, run: Run) -> None:
        """Say what is about to run."""
        self._list(run.facts)
        self._line.open(run)
        if run.directory and run.sweep is None and _draws(run.config) and find_spec("matplotlib") is None:
            self._lacks = {"pictures": NO_MATPLOTLIB}

    def wait(self, what: str) -> None:
        """Show what the run waits for in the place of the live line, until it is told of an empty text."""
        self._output.live(f"{what} ..." if what else "")

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Move the live line on."""
        self._last.add(block)
        self._line.record(block)

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Say how it ended."""
        self._output.live("")
        if result is None:
            return
        self._output.line()  # here: warnings may stand below the facts
        self._output.line(verdict_line(result, self._output), indent=2)
        self._output.line()
        self._list({**facts(result), **_places(result), **self._lacks})
        if isinstance(result, Results):
            self._table(aligned(statuses(result), self._output.width, "median steps"))
            result = result.best_start
        else:
            self._table(aligned(self._last.table(size_of(result.x)), self._output.width, "evaluations"))
        if result.standard_errors is not None:
            self._table(fit(result))

    def _list(self, rows: Mapping[str, str]) -> None:
        width = max(map(len, rows))
        for name, value in rows.items():
            self._output.line(f"{name:<{width}}  {value}", indent=None if name in COPIED else width + 2)

    def _table(self, lines: Iterable[str]) -> None:
        for number, line in enumerate(lines):
            if number == 0:
                self._output.line()
            self._output.line(line)


def _draws(config: Mapping[str, Any]) -> bool:
    """Whether the run was asked for pictures."""
    nodes = config.get("observers", ())
    return "pictures" in [node.get("name") if isinstance(node, Mapping) else node for node in nodes]


def _places(result: Result | Results) -> dict[str, str]:
    where = result.directory
    return dict(zip(PLACES, (where, f"gradopt board {shlex.quote(where)}"), strict=True)) if where else {}
