"""The one exception for what the user can mend: a sentence that says what was given, what is allowed and what to
try.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class Mistake(ValueError):
    """A mistake in the configuration or the arguments: printed as one line, exit code 2."""


def did_you_mean(given: Any, allowed: Iterable[str]) -> str:
    """ " Did you mean 'adam'?" with a leading space, or "" if nothing allowed is near, or no name was given at all."""
    names = list(allowed) if isinstance(given, str) else []
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.6) if names else []
    near = near or [name for name in names if sorted(name) == sorted(given) or name == _initials(given)]
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(name) for name in near)}?"


def _initials(name: str) -> str:
    """ "lr" of "learning_rate"."""
    return "".join(word[:1] for word in name.replace("-", "_").split("_"))


def available(names: Iterable[str]) -> str:
    """ "Available: adam, sgd", without the full stop; families of names, such as mgh/..., are not spelt out."""
    shown = dict.fromkeys(f"{name.partition('/')[0]}/..." if "/" in name else name for name in names)
    return f"Available: {', '.join(shown) or 'none'}"
