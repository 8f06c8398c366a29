"""The one exception for what the user can mend: a sentence that says what was given, what is allowed and what to
try.
"""

import difflib
from collections.abc import Iterable


class Mistake(ValueError):
    """A mistake in the configuration or the arguments: printed as one line, exit code 2."""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """ " Did you mean 'adam'?" with a leading space, or "" if nothing allowed is near."""
    near = difflib.get_close_matches(given, list(allowed), n=3, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(name) for name in near)}?"


def available(names: Iterable[str]) -> str:
    """ "Available: adam, sgd", without the full stop; families of names, such as mgh/..., are not spelt out."""
    shown = dict.fromkeys(f"{name.partition('/')[0]}/..." if "/" in name else name for name in names)
    return f"Available: {', '.join(shown) or 'none'}"
