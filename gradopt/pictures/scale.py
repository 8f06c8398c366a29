"""Numbers of any size on an axis: less an offset and in a power of ten, both of which its label tells.

matplotlib adds and multiplies what it is given: numbers like 1e300 or 1e-300 would leave float64, and 1e15 and a little
more would all have the same label.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy

ALIKE = 1e-4
"""Of their size: numbers that differ by less have their lowest taken from them."""

PLAIN = (-3, 4)
"""Powers of ten of numbers that are written without one."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Scale:
    """Shows (number - offset) / 10^power."""

    offset: float = 0.0
    power: int = 0

    def shown(self, values: Any) -> Any:
        """Numbers as they stand on the axis; what is not finite leaves a gap."""
        values = numpy.asarray(values, dtype=float)
        values = numpy.where(numpy.isfinite(values), values, numpy.nan) - self.offset
        half = self.power // 2  # 1e-310 has lost digits
        return values / 10.0**half / 10.0 ** (self.power - half)

    def label(self, name: str) -> str:
        """What stands on the axis, for something called `name`."""
        less = f"{name} {'-' if self.offset > 0 else '+'} {_exactly(abs(self.offset))}" if self.offset else name
        if not self.power:
            return less
        return f"{f'({less})' if self.offset else less} / 10{str(self.power).translate(RAISED)}"


def scale(values: Any) -> Scale:
    """The scale on which numbers can be told apart; those that are not finite do not matter."""
    values = numpy.asarray(values, dtype=float)
    values = values[numpy.isfinite(values)]
    if not len(values):
        return Scale()
    low, high = float(values.min()), float(values.max())
    half = high / 2 - low / 2  # their difference may be no number
    offset = low if 0 < half < ALIKE / 2 * max(abs(low), abs(high)) else 0.0
    return less(offset, low, high)


def less(offset: float, low: float, high: float) -> Scale:
    """The scale with a given offset, for numbers between two."""
    size = max(abs(low - offset), abs(high - offset))
    power = math.floor(math.log10(size)) if size > 0 else 0
    return Scale(offset, 0 if PLAIN[0] <= power <= PLAIN[1] else power)


def written(number: float) -> str:
    """0.02, and 2·10⁻⁶ where that would be long."""
    power = math.floor(math.log10(abs(number)) + 1e-9) if number else 0
    if PLAIN[0] <= power <= PLAIN[1]:
        return f"{number:g}"
    mantissa = number / 10.0 ** (power // 2) / 10.0 ** (power - power // 2)
    raised = f"10{str(power).translate(RAISED)}"
    return raised if f"{mantissa:.3g}" == "1" else f"{mantissa:.3g}·{raised}"


def _exactly(number: float) -> str:
    return f"{number:.6g}" if float(f"{number:.6g}") == number else repr(number)
