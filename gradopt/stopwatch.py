"""Where the time of a run goes: seconds by section, of which one runs at a time, so that they add up."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

FIRST = 20
"""Steps that are timed one by one: the first ones are not like those that follow."""

EVERY = 10
"""Of later steps one in so many is timed, and stands for all."""


class Stopwatch:
    """Turned from one section to the next, each time at the price of a look at the clock.

    Attributes:
        seconds: By section, those that have ended.
        weight: How many times what is timed counts: more than once where it stands for others.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.weight = 1.0
        self._section: str | None = None
        self._since = 0.0

    def turn(self, section: str | None) -> str | None:
        """End the section that runs and begin another, None to stop; returns the one that has ended, for whoever was
        called in the middle of it to turn back to.
        """
        now, ended = time.perf_counter(), self._section
        if ended is not None:
            self.seconds[ended] = self.seconds.get(ended, 0.0) + self.weight * (now - self._since)
        self._section, self._since = section, now
        return ended

    @contextmanager
    def during(self, section: str) -> Iterator[None]:
        """A section that is timed each time, and the one it came in the middle of after it."""
        self.weight = 1.0
        before = self.turn(section)
        try:
            yield
        finally:
            self.turn(before)


def weight(step: int) -> int:
    """How many steps this one stands for in the split of the time; 0: it is not timed."""
    if step < FIRST:
        return 1
    return 0 if step % EVERY else EVERY


def split(seconds: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, float]:
    """The seconds of a run by section, its `steps` divided among `parts`; what these leave of them are its `records`:
    reading the numbers of a step, measuring it, keeping the best.

    Args:
        parts: Empty where the steps cannot be divided. They may be estimates, of more than there was: then they share
            what there was.
    """
    whole, told = seconds.get("steps", 0.0), sum(parts.values())
    if not told:
        return dict(seconds)
    share = min(1.0, whole / told)
    found = {name: share * part for name, part in parts.items()}
    rest = {name: value for name, value in seconds.items() if name != "steps"}
    return {**found, "records": max(0.0, whole - told), **rest}
