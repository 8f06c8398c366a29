"""The command line: `python -m gradopt [overrides]` runs, a bare first word is a command."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from gradopt import __version__
from gradopt.mistakes import did_you_mean

COMMANDS = ("board", "check", "compare", "plugins")

SWITCHES: dict[str, tuple[str, ...] | None] = {
    "--help": (),
    "--version": (),
    "--multirun": (),
    "--disable-plugin": None,
    "--quiet": (),
    "--json": (),
    "--cfg": ("job", "hydra", "all"),
    "--config-dir": None,
    "--config-name": None,
    "--config-path": None,
    "--experimental-rerun": None,
    "--hydra-help": (),
    "--info": (),
    "--package": None,
    "--resolve": (),
    "--run": (),
    "--shell-completion": (),
}
"""Each with the values it must be given: none, one of these, or any (None)."""

SHORT = {"-h": "--help", "-m": "--multirun", "-c": "--cfg", "-cd": "--config-dir", "-cn": "--config-name"}
SHORT |= {"-cp": "--config-path", "-i": "--info", "-p": "--package", "-r": "--run", "-sc": "--shell-completion"}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success or a used-up budget, 3 a failing verdict, 2 a mistake in the
    configuration, 1 a bug or a broken environment, 130 or 143 interrupted.
    """
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("board", "compare"):  # which have switches of their own
        return _command(arguments[0], arguments[1:])
    if message := _wrong_switch(arguments):
        print(f"gradopt: error: {message}", file=sys.stderr)
        return 2
    arguments = _without_disabled(arguments)
    wants_help = any(word in ("--help", "-h") for word in arguments)
    if arguments and _is_command(arguments[0]) and not wants_help:
        return _command(arguments[0], arguments[1:])
    if wants_help:
        from gradopt.manual import manual

        print(manual(arguments), end="")
        return 0
    if "--version" in arguments:
        print(f"gradopt {__version__}")
        return 0
    voices, arguments = _voices(arguments)
    if len(voices) > 1:
        print(f"gradopt: error: {' and '.join(voices)} exclude each other: say one of them", file=sys.stderr)
        return 2
    for voice in voices:
        os.environ["GRADOPT_OUTPUT"] = voice.removeprefix("--")  # workers inherit it
    from gradopt.jobs import start  # Hydra: not needed for --help

    return start(arguments)


def _is_command(word: str) -> bool:
    return "=" not in word and not word.startswith(("-", "+", "~"))


def _command(name: str, rest: list[str]) -> int:
    if name not in COMMANDS:
        print(
            f"gradopt: error: there is no command {name!r}.{did_you_mean(name, COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}; "
            "an option is written key=value",
            file=sys.stderr,
        )
        return 2
    if name == "check":
        from gradopt.inspection import check  # Hydra: not needed for the other commands

        return check(rest)
    if name == "compare":
        from gradopt.comparison.command import compare  # NumPy

        return compare(rest)
    if name == "board":
        from gradopt.board import board  # TensorBoard

        return board(rest)
    if rest:
        print(f"gradopt: error: gradopt plugins takes no arguments, got {' '.join(rest)}", file=sys.stderr)
        return 2
    from gradopt.manual import plugin_list

    print(plugin_list(), end="")
    return 0


def _wrong_switch(arguments: Sequence[str]) -> str | None:
    """What is wrong with the first switch that is, in place of the usage that Hydra's parser would print."""
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        known = [switch for switch in SWITCHES if switch.startswith(SHORT.get(name, name))]
        if not known or name in ("-", "--"):
            return f"there is no switch {name!r}.{did_you_mean(name, SWITCHES)} Switches: {', '.join(SWITCHES)}"
        values = SWITCHES[known[0]]
        if values == ():
            continue
        value = value if equals else after
        form = "a value" if values is None else f"one of {', '.join(values)}"
        if not value or (not equals and value.startswith("-")):
            hint = "; gradopt plugins lists their names" if known[0] == "--disable-plugin" else ""
            return f"{known[0]} needs {form}{hint}"
        if values is not None and value not in values:
            return f"{known[0]} takes {form}, got {value!r}.{did_you_mean(value, values)}"
    return None


def _voices(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The switches that say what standard output is for, and the arguments without them."""
    named = [
        (word, next((one for one in SWITCHES if one.startswith(word.partition("=")[0])), "")) for word in arguments
    ]
    said = [name for _, name in named if name in ("--quiet", "--json")]
    return sorted(set(said)), [word for word, name in named if name not in said]


def _without_disabled(arguments: list[str]) -> list[str]:
    """Take `--disable-plugin NAME` out; workers inherit it through the environment."""
    kept: list[str] = []
    names = [name for name in os.environ.get("GRADOPT_DISABLE_PLUGINS", "").split(",") if name]
    words = iter(arguments)
    for word in words:
        if word == "--disable-plugin":
            names.append(next(words, ""))
        elif word.startswith("--disable-plugin="):
            names.append(word.partition("=")[2])
        else:
            kept.append(word)
    if names:
        os.environ["GRADOPT_DISABLE_PLUGINS"] = ",".join(names)
    return kept
