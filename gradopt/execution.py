"""An assembly, run to its end: the loop with everybody who listens."""

import errno
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from gradopt import devices, leftovers, pictures
from gradopt.assemble import Assembly
from gradopt.conclusion import concluded, known_minimum
from gradopt.contracts import Attempt, Band, Block, Criterion, Engine, Evaluation, Observer, Oracle, Run
from gradopt.loop import MAX_ROWS, Ending, iterate
from gradopt.mistakes import Mistake
from gradopt.observers.history import History
from gradopt.plurals import counted
from gradopt.result import Result, Results
from gradopt.soundings import Soundings
from gradopt.stacked import StackedOracle
from gradopt.stopwatch import Stopwatch, split
from gradopt.verdicts import Verdicts

log = logging.getLogger("gradopt")

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What writing fails with where a disk has no room, or takes nothing."""


def execute(
    assembly: Assembly,
    observers: Sequence[Observer],
    form: Callable[[Sequence[Tensor]], Any],
    *,
    directory: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    chosen: Mapping[str, Any] | None = None,
    sweep: str | None = None,
    thread_count: int | str = "auto",
) -> Result:
    """Run the loop with observers to the end, and put the parameters at the result's point.

    Args:
        form: From tensors shaped like the parameters to the form of the start.
        config, chosen, sweep: See `Run`.
    """
    oracle = assembly.oracle
    check_observers(observers)
    prepare(directory)
    history = History()
    attempt = Attempt(None if directory is None else str(directory), config or {}, chosen or {}, sweep)
    watchers = Watchers([history, *observers], attempt)
    size = sum(parameter.numel() for parameter in oracle.parameters)
    last_recorded = -1
    with ExitStack() as stack:
        stack.enter_context(assembly.interrupt)
        count = stack.enter_context(devices.threads(thread_count, size))
        memory = stack.enter_context(devices.kept_memory(size))
        result: Result | None = None
        error: BaseException | None = None
        try:
            engine = assembly.engine if memory is None else cast(Engine, Keeping(assembly.engine, memory))
            blocks = Blocks(engine, assembly.criteria)
            for block in blocks:
                if last_recorded < 0:
                    watchers.open(_run(assembly, block, attempt, count))
                if block.last_step > last_recorded:
                    watchers.record(block, oracle.metrics)
                    last_recorded = block.last_step
            result = concluded(assembly, blocks.last, blocks.ending, history, form, directory)
            result = replace(result, **blocks.times(assembly.engine.stopwatch.seconds))
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            watchers.close(result, error)


def prepare(directory: str | Path | None) -> None:
    """Make the directory of a run, without the pictures of one before in it: this one may raise before it has any."""
    if directory is not None:
        place = Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        leftovers.remove(place, pictures.FILES)


def check_observers(observers: Sequence[Observer]) -> None:
    """Refuse what is no observer.

    Raises:
        Mistake: It has no `record`.
    """
    if isinstance(observers, str) or not isinstance(observers, Sequence):
        raise Mistake(f"observers must be a list of objects with a record(), such as [Console()], got {observers!r}")
    for observer in observers:
        if not callable(getattr(observer, "record", None)):
            raise Mistake(f"observers must be objects with a record(), such as Console(), got {observer!r}")


class Keeping:
    """An engine that makes its steps in a context."""

    def __init__(self, engine: Engine, steps: AbstractContextManager[None]) -> None:
        self._engine, self._steps = engine, steps

    def advance(self, limit: Any, bands: Mapping[str, Band], seconds: float) -> Block:
        with self._steps:
            return self._engine.advance(limit, bands, seconds)

    def update(self) -> None:
        with self._steps:
            self._engine.update()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Blocks:
    """The blocks of a run as an iterator that keeps the last one, how the run ended, and what its time went into."""

    def __init__(
        self,
        engine: Engine,
        criteria: Sequence[Criterion],
        *,
        max_rows: int = MAX_ROWS,
        verdicts: Verdicts | None = None,
    ) -> None:
        self.stopwatch = Stopwatch()
        self._blocks = iterate(engine, criteria, max_rows=max_rows, verdicts=verdicts, stopwatch=self.stopwatch)
        self._began = math.nan
        self.last: Block
        self.ending: Ending

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        try:
            self.last = next(self._blocks)
        except StopIteration as stopped:
            self.ending = stopped.value
            raise
        if self._began != self._began:  # a run that goes on has begun before
            self._began = time.perf_counter() - self.last["seconds"][-1, 0].item()
        return self.last

    def times(self, parts: Mapping[str, float]) -> dict[str, Any]:
        """`seconds` and `seconds_by` of a `Result` up to now, which ends the watch. After its last record a run has
        spent time too: on trials that were cut, and on its verdict. Of what the steps are made is the engine's to tell:
        see `stopwatch.split`.
        """
        self.stopwatch.turn(None)
        seconds = time.perf_counter() - self._began
        return {"seconds": seconds, "seconds_by": split(self.stopwatch.seconds, parts)}


@contextmanager
def attempted(observers: Sequence[Observer], attempt: Attempt) -> Iterator[None]:
    """Tell observers of a run whose parts cannot be made."""
    try:
        yield
    except Exception as error:
        Watchers(observers, attempt).close(None, error)
        raise


class Watchers:
    """Observers, each on its own: one that raises is reported once and dropped, and a full disk once for all."""

    def __init__(self, observers: Sequence[Observer], attempt: Attempt) -> None:
        self._alive = list(observers)
        self._attempt = attempt
        self._opened = False
        self._has_warned = False

    def open(self, run: Run) -> None:
        self._opened = True
        self._each(lambda observer: observer.open(run))

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        self._each(lambda observer: observer.record(block, metrics))

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        if self._opened:
            self._each(lambda observer: observer.close(result, error))
        else:
            self._each(lambda observer: getattr(observer, "fail", _ignored)(self._attempt, error))

    def _each(self, call: Callable[[Observer], None]) -> None:
        for observer in list(self._alive):
            try:
                call(observer)
            except Exception as error:  # whatever it is: the run is worth more than its log
                self._alive.remove(observer)
                self._report(observer, error)

    def _report(self, observer: Observer, error: Exception) -> None:
        level = logging.WARNING
        if isinstance(error, OSError) and error.errno in UNWRITABLE:  # one disk, though several write to it
            level = logging.INFO
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "the disk takes no more (%s): curves, pictures and history may be missing or cut short; "
                    "the run goes on",
                    error.strerror,
                )
        name = type(observer).__name__
        log.log(level, "observer %s failed and is left out from here on: %s: %s", name, type(error).__name__, error)


def _ignored(attempt: Attempt, error: BaseException | None) -> None:
    """What an observer does with a run that was never opened, unless it says otherwise."""


def _run(assembly: Assembly, block: Block, attempt: Attempt, count: int) -> Run:
    oracle = assembly.oracle
    gradient = oracle.full_gradient()
    start = Evaluation(block["loss"][0, 0].item(), block["gradient_norm"][0, 0].item(), oracle.read(), gradient)
    named = dict(zip(oracle.names, (p.detach().clone() for p in oracle.parameters), strict=True))
    facts = dict(assembly.facts)
    facts["start"] = _start(start)
    dtype = str(start.point.dtype).removeprefix("torch.")
    facts["device"] = f"{start.point.device}, {dtype}, {counted(count, 'thread')}"
    soundings = Soundings(oracle)
    return Run(
        attempt.directory,
        attempt.config,
        facts,
        start,
        named,
        assembly.budget,
        *limits(oracle, block),
        step=block.first_step,
        minimum=known_minimum(oracle.objective),
        sweep=attempt.sweep,
        chosen=attempt.chosen,
        point=oracle.read,
        gradient=lambda: oracle.full_gradient().clone(),
        bounds=None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper),
        graph=soundings.graph,
        losses=None if oracle.micro_batches is not None else soundings.losses,
        constraints=oracle.constraints,
        constraint_values=None if oracle.constraints is None else soundings.constraint_values,
        violation_tolerance=oracle.violation_tolerance,
    )


def limits(oracle: Oracle | StackedOracle, block: Block) -> tuple[float, float]:
    """The budgets of evaluations and of seconds, these from when those of the block count."""
    return oracle.max_evaluations, oracle.deadline - time.perf_counter() + block["seconds"][-1, 0].item()


def _start(start: Evaluation) -> str:
    if start.point.numel() == 1:
        return f"x = {start.point.item():.10g}, y = {start.loss:.10g}, dy/dx = {start.gradient.item():.10g}"
    return f"{start.point.numel()} unknowns, loss {start.loss:.10g}, largest gradient entry {start.gradient_norm:.6g}"
