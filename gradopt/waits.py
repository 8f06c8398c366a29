"""What a run waits for, told to whoever shows it: neither side knows the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

PROGRAM = "building the program"

Show = Callable[[str], None]

_shows: list[Show] = []


@contextmanager
def shown(show: Show) -> Iterator[None]:
    """While it lasts, `show` is told what is waited for, and "" when that is over."""
    _shows.append(show)
    try:
        yield
    finally:
        _shows.remove(show)


@contextmanager
def wait(what: str) -> Iterator[None]:
    """What takes seconds in which nothing else happens."""
    _tell(what)
    try:
        yield
    finally:
        _tell("")


def _tell(what: str) -> None:
    for show in _shows:
        show(what)
