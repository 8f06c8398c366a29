"""CSV files: columns of numbers by name, and where a cell is wrong, its line. No torch here."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradopt import Mistake
from gradopt.mistakes import did_you_mean

DELIMITERS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " "}
NUM_SHOWN = 5
"""Bad cells that a message lists; it counts the rest."""


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a CSV file, as text.

    Attributes:
        header: The names of the columns.
        rows: (number of the line in the file, its cells), without empty lines and comments.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    delimiter: str = "comma"

    def numbers(self, name: str, option: str) -> list[float]:
        """A column as finite numbers.

        Args:
            option: The option that asks for it, for messages.

        Raises:
            Mistake: There is no such column, or a cell in it is empty, no number, NaN or infinite.
        """
        index = self._index(name, option)
        values = [_number(cells[index]) for _, cells in self.rows]
        wrong = [(line, cells[index]) for (line, cells), v in zip(self.rows, values, strict=True) if v is None]
        if wrong:
            shown = ", ".join(f"line {line} has {cell!r}" for line, cell in wrong[:NUM_SHOWN])
            more = f" and {len(wrong) - NUM_SHOWN} lines more are like it" if len(wrong) > NUM_SHOWN else ""
            comma = any(re.fullmatch(r"[+-]?\d+,\d+", cell) for _, cell in wrong)
            hint = "write decimals with a point" if comma else "mend these cells or remove their lines"
            raise Mistake(f"column {name!r} of {self.path} must hold finite numbers, but {shown}{more}; {hint}")
        return [value for value in values if value is not None]

    def line(self, row: int) -> int:
        """The line of the file that a row, counted from 0, stands in."""
        return self.rows[row][0]

    def _index(self, name: str, option: str) -> int:
        count = self.header.count(name)
        if count == 1:
            return self.header.index(name)
        if count > 1:
            raise Mistake(f"{option}={name}: {self.path} has {count} columns named {name!r}; rename all but one")
        hint = did_you_mean(name, self.header)
        if all(_number(cell) is not None for cell in self.header):
            hint = " Its first line holds numbers: put a line with the names of the columns above it."
        elif len(self.header) == 1 and (other := _other_delimiter(self.header[0], self.delimiter)):
            hint = f" Its cells seem to be parted otherwise: try objective.delimiter={other}."
        raise Mistake(
            f"{option}={name}: {self.path} has no such column.{hint} Its columns: {', '.join(map(repr, self.header))}"
        )


def read(path: Path, delimiter: str = "comma") -> Table:
    """Read a CSV file in UTF-8: names of columns first, then rows; empty lines, and lines with # in front, are skipped.

    Raises:
        Mistake: It cannot be read, it is empty, or a row has more or fewer cells than the first line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file, delimiter)
    except UnicodeDecodeError as error:
        raise Mistake(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path, lines: Iterator[str], delimiter: str) -> Table:
    # A comment becomes an empty line, so that the reader counts the lines as an editor does.
    text = ("\n" if line.lstrip().startswith("#") else line for line in lines)
    if delimiter == "space":  # columns set with spaces often end in some
        text = (line.rstrip() + "\n" for line in text)
    reader = csv.reader(text, delimiter=DELIMITERS[delimiter], skipinitialspace=True, strict=True)
    header: tuple[str, ...] | None = None
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        for raw in reader:
            cells = tuple(cell.strip() for cell in raw)
            if not any(cells) and (len(cells) < 2 or header is None):
                continue
            if header is None:
                header = cells
            elif len(cells) != len(header):
                raise Mistake(
                    f"line {reader.line_num} of {path} has {_cells(len(cells))}, but the first line names "
                    f"{len(header)} columns: {', '.join(map(repr, header))}"
                )
            else:
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise Mistake(f"line {reader.line_num} of {path} cannot be read as CSV: {error}") from error
    if header is None:
        raise Mistake(f"{path} is empty: it needs a line with the names of the columns, then rows of numbers")
    return Table(path, header, tuple(rows), delimiter)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None  # Python reads 1_2 as 12


def _other_delimiter(line: str, delimiter: str) -> str | None:
    return next((name for name, sign in DELIMITERS.items() if name != delimiter and sign in line), None)


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
