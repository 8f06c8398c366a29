"""Exceptions of Hydra and OmegaConf as one line for people. No torch here."""

import re
from collections.abc import Iterable

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from gradopt.mistakes import Mistake, available, did_you_mean


def explain(error: BaseException, excuse: str = "", names: Iterable[str] = ()) -> str | None:
    """One line that says what to mend, or None if this is no mistake of the user's.

    Args:
        names: What is there beside the files that Hydra lists, where a name was not found.
        excuse: What to add where a name was not found: the plugins that could not be asked for it.
    """
    if isinstance(error, Mistake):
        return _one_line(str(error))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_name(error.missing_cfg_file, {*(error.options or ()), *names}) + excuse
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read the override {error.override!r}: {_first(error)}; write key=value, and quote values with "
            "spaces or special characters: 'key=\"a value\"'"
        )
    text = _first(error)
    if isinstance(error, ValueError) and text.startswith("Config group override must be a string"):  # objective=null
        return "a config group needs a name, and was given null; say objective=NAME (schedule=none for no schedule)"
    if text.startswith("Ambiguous value for argument"):
        given = text.removeprefix("Ambiguous value for argument ").strip("'")
        return f"{given}: several values need -m, one run for each: gradopt -m {given}"
    if text.startswith("Multiple values for "):
        group = text.removeprefix("Multiple values for ").partition(".")[0]
        return f"{group} is chosen twice: say {group}=NAME, once and without +"
    if isinstance(error, ValueError) and text.startswith(("The --resolve flag", "The --package flag")):
        return text
    inner = _unknown_key(error)
    if inner is not None:
        return inner
    if isinstance(error, ConfigCompositionException | HydraException | OmegaConfBaseException):
        return _composition(error)
    return None


def _composition(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    text = _first(cause or error)
    key = re.search(r"full_key: (\S+)", str(cause or error))
    if key and text.endswith("does not support deletion"):
        return f"{key[1]} cannot be taken out; for its default, say nothing of it"
    prefix = f"{key[1]}: " if key and key[1] not in text else ""
    missing = re.match(r"Could not override '([^']+)'", _first(error))
    if missing and cause is None:
        return f"there is no option {missing[1]!r}"
    group = re.match(r"Could not override '(.+)'\. No match in the defaults list", _first(error))
    return f"there is no config group {group[1]!r}" if group else prefix + text


def _unknown_name(file: str, known: set[str]) -> str:
    group, slash, name = file.partition("/")  # a name may hold more of them: mgh/helical_valley
    if not slash:
        return (
            f"there is no config {group!r} to begin with: --config-name and --config-path put another in the place of "
            "gradopt's own; leave them away, and add a directory of yours by --config-dir=DIR"
        )
    names = sorted(known - {"schema"})
    return f"there is no {group} named {name!r}.{did_you_mean(name, names)} {available(names)}."


def _unknown_key(error: BaseException) -> str | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ConfigAttributeError | ConfigKeyError):
        seen = seen.__cause__
    parent = getattr(seen, "parent_node", None)
    if seen is None or parent is None or not hasattr(parent, "keys"):
        return None
    key, keys = str(seen.key), [str(known) for known in parent if str(known) not in {"name", "hydra"}]
    path = parent._get_full_key(None)
    return (
        f"there is no option {f'{path}.' if path else ''}{key!r}.".replace(f"{path}.'", f"'{path}." if path else "'")
        + f"{did_you_mean(key, keys)} Available: {', '.join(sorted(keys))}."
    )


def _first(error: BaseException) -> str:
    return _one_line(str(error).partition("\n")[0])


def _one_line(text: str) -> str:
    return " ".join(text.split())
