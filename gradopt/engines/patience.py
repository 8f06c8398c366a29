"""How long `auto` waits before it builds a program."""

import sys

FIRST_TRACE = 2.0
"""Seconds that the first trace of a process takes longer than those that follow: it imports SymPy."""


def patience(seconds: float) -> float:
    """Seconds of eager work after which to build a program that takes `seconds`, and that must be left of a budget."""
    return seconds + FIRST_TRACE if seconds > 0 and "sympy" not in sys.modules else seconds
