"""Lines on a stream: whole ones, one that is written over where there is a terminal, and colours where they show."""

import os
import sys
import textwrap
from typing import TextIO

COLOURS = {"red": 31, "green": 32, "yellow": 33}


class Output:
    """A stream that people or programs read. A reader that goes away, such as `head`, ends nothing.

    Attributes:
        is_terminal: Whether it can write a line over: a terminal, and none of TERM=dumb.

    Args:
        stream: Standard output if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self.is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._has_colours = self.is_terminal and not os.environ.get("NO_COLOR")
        self._covered = 0

    def line(self, text: str = "", *, indent: int | None = None) -> None:
        """Write a line, in place of the live one if there is one.

        Args:
            indent: Break it at the width of a terminal, and let what follows begin at this column.
        """
        self.live("")
        if indent is not None and self.is_terminal and len(text) > self.width:
            text = textwrap.fill(
                text, self.width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
            )
        self._write(text + "\n")

    def live(self, text: str) -> None:
        """Show a text that the next one covers; nothing where there is no terminal."""
        if self.is_terminal and (text or self._covered):
            text = text[: self.width - 1]
            self._write(f"\r{text:<{self._covered}}" + ("" if text else "\r"))
            self._covered = len(text)

    def coloured(self, text: str, colour: str) -> str:
        """The text in that colour, or as it is."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self._has_colours else text

    @property
    def width(self) -> int:
        """Columns of the terminal now, 80 where it does not say."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:  # the run goes on without a reader
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
