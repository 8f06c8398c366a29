"""What a run waits for, told to whoever shows it: neither side knows the other."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("gradopt")

PROGRAM = "building the program"

Show = Callable[[str], None]

_shows: list[Show] = []
_waits: list[str] = []


class Abandoned(KeyboardInterrupt):
    """What was waited for is not wanted any more. Whoever builds it goes on without, or it is a Ctrl-C like another."""


@contextmanager
def shown(show: Show) -> Iterator[None]:
    """While it lasts, `show` is told what is waited for, and "" when that is over. If it raises it is reported and told
    no more.
    """
    _shows.append(show)
    try:
        yield
    finally:
        if show in _shows:
            _shows.remove(show)


@contextmanager
def wait(what: str) -> Iterator[None]:
    """What takes seconds in which nothing else happens, and may be abandoned."""
    _tell(what)
    _waits.append(what)
    try:
        yield
    finally:
        _waits.pop()
        _tell("")


def abandon() -> None:
    """From a signal: leave what is waited for, if anything is.

    Raises:
        Abandoned: Into that.
    """
    if _waits:
        raise Abandoned


def _tell(what: str) -> None:
    for show in tuple(_shows):
        try:
            show(what)
        except Exception as error:  # whatever it is: the run is worth more than who shows what it waits for
            _shows.remove(show)
            name = getattr(show, "__qualname__", repr(show))
            log.warning("%s failed and is not told what is waited for: %s: %s", name, type(error).__name__, error)
