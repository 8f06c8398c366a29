"""Runs that differ in nothing but their seed, and the options in which groups of them differ."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy

from gradopt.comparison.labels import natural
from gradopt.comparison.records import NO_GOAL, Record, floor
from gradopt.verdict import Status

SOLVED = 1e-6
"""The tolerance for what is solved, where none is given."""

SILENT = ("seed", "observers", "engine", "threads")
"""What makes no other optimiser: runs that differ in it alone are of one group."""

BUDGETS = ("stop.max_steps", "stop.max_epochs", "stop.max_seconds")
"""What makes none, either, where it has ended no run. `stop.max_evaluations` is not of these: searches plan by it."""

SPENT = frozenset(status.value for status in (Status.MAX_STEPS, Status.MAX_EPOCHS, Status.MAX_SECONDS))

LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9


class Case(NamedTuple):
    """What the losses of runs from one start on the same data are measured by.

    Attributes:
        start: The loss at the first start, NaN if no history was kept.
        lowest: The minimum if it is known, else the lowest loss of all runs; NaN if none has a loss that is a measure.
        held: The same, but of those runs alone whose verdicts hold.
    """

    start: float
    lowest: float
    held: float


@dataclass(frozen=True)
class Problem:
    """What was minimised: an objective with its options, in a dtype.

    Attributes:
        name: The objective, and the options in which it differs from others here.
        start: The loss at the first start, NaN if no history was kept.
        lowest: The lowest loss: the minimum if it is known, else what the best run has found; NaN if no run has a loss
            that is a measure.
        known: Whether `lowest` is the known minimum.
        tolerance: Share of the way from the start down to the lowest loss by which a solution may miss it.
        cases: By seed; all the same one where the seed changes neither data nor start.
    """

    name: str
    start: float
    lowest: float
    known: bool
    tolerance: float
    cases: Mapping[Any, Case] = field(compare=False, repr=False)

    def cost(self, record: Record) -> float:
        """The evaluations until a run has solved its case, infinity if it has not: until its loss was as near to the
        lowest one as the tolerance says (Moré and Wild, 2009).

        A run whose verdict does not hold is not measured by itself, nor by others of that kind.
        """
        start, lowest, held = self.cases[record.seed]
        way = abs(start - lowest)  # a start that violates constraints may lie lower
        goal = lowest + (0.0 if math.isnan(way) else self.tolerance * way)
        return record.cost(goal) if record.holds or held <= goal else math.inf


@dataclass(frozen=True)
class Group:
    """The runs of one solver on one problem.

    Attributes:
        solver: The optimiser, and the options in which it differs from others here.
    """

    problem: Problem
    solver: str
    records: Sequence[Record]

    def quantiles(self, of: str) -> tuple[float, float, float]:
        """10 %, median and 90 % of `loss`, `steps`, `evaluations`, `seconds`, or `cost`, the evaluations until the
        problem was solved; NaN where no run has any.
        """
        if of == "cost":
            return quantiles([self.problem.cost(record) for record in self.records])
        return quantiles([getattr(record, of) for record in self.records])

    @property
    def seeds(self) -> int:
        """How many these runs have; fewer than they are where some repeat others."""
        return len({str(record.seed) for record in self.records})

    @property
    def rank(self) -> tuple[Any, ...]:
        """What sorts best first: those that have solved the problem by what it took, others by their loss, and last
        those whose verdicts are failures.
        """
        middle = quantiles([math.inf if record.fails else record.loss for record in self.records])[1]
        if math.isnan(middle) or middle == math.inf:
            return (2, _last(self.quantiles("loss")[1]))
        cost = self.quantiles("cost")[1]
        if cost != math.inf:
            return (0, _last(cost), middle)
        return (1, middle)


def grouped(records: Sequence[Record], tolerance: float = SOLVED) -> list[Group]:
    """The runs in groups, by problem, and the best first."""
    solvers = _labels(records, _solver, "optimiser.name")
    problems = _labels(records, _problem, "objective.name")
    by_problem: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record, problem, solver in zip(records, problems, solvers, strict=True):
        by_problem[problem][solver].append(record)
    described = {name: _described(name, its, tolerance) for name, its in by_problem.items()}
    groups = [
        Group(described[problem], solver, its)
        for problem, solvers in by_problem.items()
        for solver, its in solvers.items()
    ]
    parts = [part for group in groups for part in _parted(group)]
    return sorted(parts, key=lambda group: (natural(group.problem.name), group.problem.name, group.rank))


def _parted(group: Group) -> list[Group]:
    """Runs that were refused apart from the rest, by what was said to them."""
    parts: dict[str | None, list[Record]] = defaultdict(list)
    for record in group.records:
        parts[record.message if record.refused else None].append(record)
    return [replace(group, records=its) for its in parts.values()]


def quantiles(values: Iterable[float]) -> tuple[float, float, float]:
    """10 %, median and 90 %, each the value of some run: nothing is mixed across decades or with infinities."""
    known = numpy.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return math.nan, math.nan, math.nan
    low, middle, high = numpy.quantile(known, (LOW, MIDDLE, HIGH), method="inverted_cdf")
    return float(low), float(middle), float(high)


def shown(value: Any) -> str:
    """A value of a config, short."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return str(value)


def _described(name: str, by_solver: Mapping[str, Sequence[Record]], tolerance: float) -> Problem:
    records = [record for its in by_solver.values() for record in its]
    start, lowest, held = _case(records)
    minima = [record.minimum for record in records if math.isfinite(record.minimum)]
    known = bool(minima) and not lowest < floor(minima[0])
    if known:
        lowest = held = minima[0]
    by_seed: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        by_seed[record.seed].append(record)
    cases = dict.fromkeys(by_seed, Case(start, lowest, held))
    if len(by_seed) > 1 and any(len(_starts(its)) > 1 for its in by_solver.values()):
        cases = {seed: _case(its) for seed, its in by_seed.items()}
        if known:
            cases = {seed: Case(case.start, lowest, held) for seed, case in cases.items()}
    return Problem(name, start, lowest, known, tolerance, cases)


def _case(records: Sequence[Record]) -> Case:
    """As these runs alone show it."""
    found = [record for record in records if record.status not in NO_GOAL and math.isfinite(record.loss)]
    lowest = min((record.loss for record in found), default=math.nan)
    held = min((record.loss for record in found if record.holds), default=math.nan)
    return Case(next(iter(_starts(records)), math.nan), lowest, held)


def _starts(records: Sequence[Record]) -> list[float]:
    """The losses that these runs begin at, each once."""
    starts = (record.trace.first for record in records if record.trace is not None)
    return list(dict.fromkeys(start for start in starts if math.isfinite(start)))


def _problem(key: str) -> bool:
    return key.startswith(("objective.", "starts.")) or key == "dtype"


def _solver(key: str) -> bool:
    return not _problem(key) and key not in SILENT


def _labels(records: Sequence[Record], is_part: Any, name: str) -> list[str]:
    """For each run the name, and the options that differ: those of the problem among runs of the same name; of a
    solver its own likewise, and others among all, so that it is called the same on every problem.
    """
    family = name.partition(".")[0] + "."
    named: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        named[str(record.config.get(name))].append(record)
    is_own = is_part if is_part is _problem else lambda key: key.startswith((family, *BUDGETS))
    own = {title: _differing(those, is_own) for title, those in named.items()}
    other = _differing(records, lambda key: is_part(key) and not is_own(key))
    return [_label(record, name, family, [*own[str(record.config.get(name))], *other]) for record in records]


def _differing(records: Sequence[Record], is_part: Any) -> list[str]:
    """The keys that have several values. Where one is not there, as in a run of an older gradopt, it is no other."""
    silent = () if any(record.status in SPENT for record in records) else BUDGETS
    values: dict[str, set[str]] = {}
    for record in records:
        for key, value in record.config.items():
            if is_part(key) and key not in silent:
                values.setdefault(key, set()).add(json.dumps(value, default=str))
    return [key for key, its in values.items() if len(its) > 1]


def _label(record: Record, name: str, family: str, keys: Sequence[str]) -> str:
    config: Mapping[str, Any] = record.config
    if not config:
        return "?" if family == "objective." else f"? {record.directory.name}"
    words = [
        f"{key.removeprefix(family).removesuffix('.name')}={shown(config[key])}"
        for key in keys
        if config.get(key) is not None and key != name
    ]
    return " ".join([str(config.get(name, "?")), *words])


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value
