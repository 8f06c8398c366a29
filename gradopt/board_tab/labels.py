"""What runs are called beside each other: the names of their parts, and the options in which they differ."""

import json
from collections.abc import Callable, Mapping, Sequence

from gradopt.board_tab.runs import Run

UNTOLD = ("observers", "threads", "seed", "criteria")
"""Options that make no other run."""

BUDGETS = ("stop", "starts")
"""Options that say how long to go on, and how often to begin, but not in which way."""


class Labels:
    """Of some runs: the problem, the way it is solved, and both without the seed.

    Args:
        runs: Those that are shown beside each other.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._objectives = _varying(runs, "objective.name", is_problem)
        self._optimisers = _varying(runs, "optimiser.name", is_solver)

    def objective(self, run: Run) -> str:
        """The objective's name, and options that other runs of it have different."""
        return _label(run, "objective.name", self._objectives)

    def optimiser(self, run: Run) -> str:
        """The optimiser's name, and options that other runs of it have different: also those of schedule and engine."""
        return _label(run, "optimiser.name", self._optimisers)


def problem(run: Run) -> str:
    """The same for runs of one objective and one start."""
    return _key(run, lambda name: is_problem(name) or name == "seed")


def solver(run: Run) -> str:
    """The same for runs that minimise in the same way."""
    return _key(run, is_solver)


def group(run: Run) -> str:
    """The same for runs that differ in their seeds alone."""
    return _key(run, lambda name: name.partition(".")[0] not in UNTOLD)


def is_problem(option: str) -> bool:
    """Whether an option says what is minimised."""
    return option.startswith("objective.")


def is_solver(option: str) -> bool:
    """Whether an option says how."""
    return not is_problem(option) and option.partition(".")[0] not in UNTOLD + BUDGETS


def _key(run: Run, belongs: Callable[[str], bool]) -> str:
    return json.dumps({name: value for name, value in run.config.items() if belongs(name)}, sort_keys=True, default=str)


def _varying(runs: Sequence[Run], name: str, belongs: Callable[[str], bool]) -> Mapping[str, Sequence[str]]:
    """By the name of a part: the options that belong and in which the runs that share it differ."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(_named(run, name), []).append(run)
    found = {}
    for family, members in families.items():
        options = dict.fromkeys(option for run in members for option in run.config if belongs(option))
        found[family] = [one for one in options if len({repr(run.config.get(one)) for run in members}) > 1]
    return found


def _named(run: Run, name: str) -> str:
    """The name of a part; of a function, or another package's class, its own name."""
    target = run.config.get(f"{name.removesuffix('name')}target")
    return str(target or run.config.get(name, "?"))


def _label(run: Run, name: str, varying: Mapping[str, Sequence[str]]) -> str:
    told = _named(run, name)
    prefix, values = name.removesuffix("name"), run.config
    options = [one for one in varying.get(told, ()) if values.get(one) is not None]
    return " ".join([told, *(f"{one.removeprefix(prefix)}={values[one]}" for one in options)])
