"""The verdict alone, for those who want no more: what --quiet prints."""

from collections.abc import Callable, Mapping
from typing import TextIO

from gradopt.contracts import Block, Run
from gradopt.observers.output import Output
from gradopt.observers.report import verdict_line
from gradopt.result import Result, Results


class VerdictLine:
    """One line at the end: the status, and why.

    Args:
        stream: Where to write; standard output if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._output = Output(stream)

    def open(self, run: Run) -> None:
        """Nothing is said."""

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Nothing is said."""

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Say how it ended."""
        if result is not None:
            self._output.line(verdict_line(result, self._output))
