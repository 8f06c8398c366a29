"""What a run returns, and what it leaves on disk as `result.json`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gradopt.plurals import counted
from gradopt.verdict import STATUSES, SUCCESS, Status, Verdict

MAX_LISTED = 1000
"""Unknowns that `result.json` lists itself; more go to `x.pt` beside it."""


@dataclass(frozen=True, slots=True)
class Result:
    """The ending of a run. The keys are SciPy's where SciPy has one.

    Attributes:
        x: The unknowns, in the form in which the start was given; a detached copy. On success the judged point,
            otherwise the best one; that which misses the constraints least where it is `infeasible`.
        fun: The loss at `x`.
        jac: The gradient at `x`, in the form of `x`.
        nit: Steps made: accepted updates, so trials that a solver rejects are not among them.
        nfev: Losses evaluated, with or without gradient, by the optimiser and by the criteria that judge its points;
            `max_evaluations` bounds these. Constraints are evaluated with the loss, and not counted.
        njev: Gradients evaluated. Residuals with their Jacobian count as one more.
        nhev: Products of the Hessian with a vector; a whole Hessian of n unknowns counts as n. The loss and gradient
            that they start from are not counted anew.
        seconds_by: The time of the run, by what it went into. Of steps, by what a tenth of them took: `forward`,
            `backward`, `update`, and `records` (reading and measuring); or all as `steps`, by a program, from many
            starts, and on other devices than the CPU. Then `judging`, with what is looked into at the end, and
            `logging`.
        engine: What made the last step: with `auto` what it has come to; eager, too, where no program was proved yet.
        history: float64 tensors by column, one value a step: `loss`, `gradient_norm`, ...; empty if not kept.
        metrics: The objective's metrics at `x`.
        covariance: Of the unknowns as one vector, shape (n, n), for objectives with more residuals than unknowns (up to
            1000); else None. With a robust loss it is that of the weighed residuals. An unknown that equal bounds fix
            is a constant: its row and column are 0, and it takes no degree of freedom. Bounds that hold an unknown
            otherwise are not seen: its entry is what it would be there without them. It is a statement about a
            minimum: None too under constraints, where the run was no success, and where an infinite derivative holds an
            unknown on a bound.
        minima: The local minima that were found on the way, lowest first, where the optimiser looks for them
            (`multi_start`, `tiktak`): for each `x` in the form of the start, `fun`, `visits`, the local searches that
            ended there, and `x0`, where the first of these began, shape (searches, n), float64.
        multipliers: y of the constraints at `x`, by name and in the shape of their values: how fast `fun` falls as a
            limit is raised, so positive for upper limits and negative for lower ones (with `maximise=True` the other
            way round); by least squares, so that `jac` + J'y is as small as it can be. None without constraints.
        violation: By how much the worst constraint is missed at `x`, free of units: the part of their own size by which
            the unknowns would have to move. None without constraints.
        directory: Where the run wrote its files, None if it wrote none.
    """

    x: Any
    fun: float
    jac: Any
    verdict: Verdict
    nit: int
    nfev: int
    njev: int
    nhev: int
    seconds: float
    seconds_by: Mapping[str, float] = field(default_factory=dict, repr=False)
    engine: str = field(default="eager", repr=False)
    history: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict)
    covariance: Any = field(default=None, repr=False)
    minima: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    multipliers: Mapping[str, Any] | None = None
    violation: float | None = None
    directory: str | None = None

    @property
    def standard_errors(self) -> Any:
        """Square roots of the diagonal of `covariance`, shape (n,), in the units of the unknowns: 0 for those that
        equal bounds fix, and as without bounds for those that a bound holds. None without it.
        """
        return None if self.covariance is None else self.covariance.diagonal().sqrt()

    @property
    def success(self) -> bool:
        """True only for a minimum or the target; a used-up budget is no success."""
        return self.verdict.success

    @property
    def status(self) -> Status:
        return self.verdict.status

    @property
    def message(self) -> str:
        return self.verdict.reason

    @property
    def grad(self) -> Any:
        """The same as `jac`."""
        return self.jac

    def __str__(self) -> str:
        work = f"{counted(self.nit, 'step')}, {counted(self.nfev, 'evaluation')}, {self.seconds:.3g} s"
        return f"{self.verdict.status.value}: {self.verdict.reason}\n  fun {self.fun:.10g}, {work}"


class Verdicts(Protocol):
    """Of all starts: a sequence of their verdicts, and how many ended how."""

    codes: Any

    def __getitem__(self, start: int) -> Verdict: ...

    def __len__(self) -> int: ...

    def counts(self) -> dict[Status, int]: ...


@dataclass(frozen=True, slots=True)
class Results:
    """The endings of many starts. What is a number in `Result` is a tensor of shape (starts,) here, and what is a
    tensor has a leading axis of starts; `results[i]` is the `Result` of start i.

    Attributes:
        x, fun, jac: Of each start as in `Result`: on success the judged point, otherwise the best one.
        verdicts: One each; their sentences are made when they are asked for.
        nit, nfev, njev, nhev: Of each start, int64.
        seconds: Of the whole run.
        seconds_by, engine: As in `Result`, of the whole run.
        history: Of the whole run, one value a step: the median of the starts that went on, the lowest loss so far of
            all (`best_loss`), the evaluations of all together (`all_evaluations`), and how many went on (`going`).
        covariance: Of each fit as in `Result`, shape (starts, n, n), NaN for starts that have none; None without
            residuals, and where all together would have more than 1e7 entries.
        minima: The local minima found, lowest first: for each `x`, `fun`, and `visits`, the starts that ended there.
        x0: Where each start began, in the form of `x`.
        basin: Of each start the index in `minima` of the one where it ended, int64; -1 where it ended at none.
        best: The start with the lowest loss; among those that differ by rounding, one that succeeded.
        directory: Where the run wrote its files, None if it wrote none.
    """

    x: Any
    fun: Any
    jac: Any
    verdicts: Verdicts
    nit: Any
    nfev: Any
    njev: Any
    nhev: Any
    seconds: float
    best: int
    x0: Any = field(repr=False)
    basin: Any = field(repr=False)
    seconds_by: Mapping[str, float] = field(default_factory=dict, repr=False)
    engine: str = field(default="eager", repr=False)
    history: Mapping[str, Any] = field(default_factory=dict, repr=False)
    covariance: Any = field(default=None, repr=False)
    minima: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    directory: str | None = None

    @property
    def standard_errors(self) -> Any:
        """Of each fit as in `Result`, shape (starts, n); None without covariances."""
        return None if self.covariance is None else self.covariance.diagonal(dim1=1, dim2=2).sqrt()

    @property
    def success(self) -> Any:
        """Whether each start found a minimum or the target; bool."""
        codes = self.verdicts.codes
        return sum((codes == status.code for status in SUCCESS), start=codes < 0)

    @property
    def status(self) -> Sequence[Status]:
        """How each start ended."""
        return [STATUSES[code] for code in self.verdicts.codes.tolist()]

    @property
    def counts(self) -> dict[Status, int]:
        """How many starts ended how, the most frequent first."""
        return self.verdicts.counts()

    @property
    def message(self) -> str:
        """How many ended how, and the best one's message."""
        parts = ", ".join(f"{number} {status.value}" for status, number in self.counts.items())
        return f"{parts}; the best is start {self.best}: {self.best_start.message}"

    @property
    def best_start(self) -> Result:
        """The `Result` of the best start."""
        return replace(self[self.best], history=self.history, minima=self.minima, seconds_by=self.seconds_by)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, start: int) -> Result:
        if not -len(self) <= start < len(self):
            raise IndexError(f"there is no start {start} among {len(self)}")
        covariance = None if self.covariance is None else self.covariance[start]
        return Result(
            x=entry(self.x, start),
            fun=self.fun[start].item(),
            jac=entry(self.jac, start),
            verdict=self.verdicts[start],
            nit=int(self.nit[start]),
            nfev=int(self.nfev[start]),
            njev=int(self.njev[start]),
            nhev=int(self.nhev[start]),
            seconds=self.seconds,
            engine=self.engine,
            covariance=None if covariance is None or bool(covariance.isnan().any()) else covariance,
            directory=self.directory,
        )

    def __iter__(self) -> Iterator[Result]:
        return (self[start] for start in range(len(self)))

    def __str__(self) -> str:
        best = self.best_start
        work = f"{counted(best.nit, 'step')}, {self.seconds:.3g} s"
        return f"{counted(len(self), 'start')}: {self.message}\n  fun {best.fun:.10g}, {work}"


def entry(structure: Any, start: int) -> Any:
    """That of one start, where each tensor has a leading axis of starts."""
    if isinstance(structure, Mapping):
        return {name: part[start] for name, part in structure.items()}
    return tuple(part[start] for part in structure) if isinstance(structure, tuple) else structure[start]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write valid JSON, whatever the numbers are (NaN and infinities become strings), in one piece or not at all."""
    text = as_json(content, indent=2)
    with whole(path) as file:
        file.write(f"{text}\n".encode())


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is at `path` once it is complete; of one that finds no room nothing is left."""
    part = path.with_suffix(f"{path.suffix}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def as_json(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Valid JSON, on one line unless it is indented: NaN and infinities are the strings NaN, Infinity, -Infinity."""
    return json.dumps(plain(content), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """For JSON: numbers that are none there become strings, which both `float` and JavaScript's `Number` read."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
