"""The one loop. It knows no part by name: engines advance, criteria judge, whoever listens gets the blocks."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, Criterion, Engine, StartsEngine
from gradopt.stopwatch import Stopwatch
from gradopt.verdict import Verdict
from gradopt.verdicts import Verdicts

MAX_ROWS = 10_000
PULSE_SECONDS = 0.1
"""How long Ctrl-C, the clock and the progress line wait at most, unless one evaluation takes longer."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a run ended: per start a verdict, and the row of the last block at which the last of them holds."""

    verdicts: Sequence[Verdict]
    row: int


def iterate(
    engine: Engine,
    criteria: Sequence[Criterion],
    *,
    max_rows: int = MAX_ROWS,
    verdicts: Verdicts | None = None,
    stopwatch: Stopwatch | None = None,
) -> Generator[Block, None, Ending]:
    """Advance, judge, rewind to the first ending, hand over the block, update; until all starts have a verdict.

    While the caller holds a block, the parameters stand at its last row, evaluated and not yet updated. What a
    criterion refuses never moves the parameters.

    Args:
        verdicts: Of many starts, those that have ended so far, by these criteria; the engine of many is a
            `StartsEngine`, and its criteria have a `keep`.
        stopwatch: Tells steps, judging and what the caller does with blocks (logging) apart.

    Raises:
        ValueError: No criterion: the run would never end.
    """
    if not criteria:
        raise ValueError("no criteria: the run would never end. Add one, such as MaxSteps.")
    verdicts = Verdicts(criteria) if verdicts is None else verdicts
    stopwatch = Stopwatch() if stopwatch is None else stopwatch
    stopwatch.turn("steps")
    limit: Any = 1  # which step comes first is the engine's: a run may go on from a saved state
    while True:
        block = engine.advance(limit, _narrowest(criteria), PULSE_SECONDS)
        stopwatch.turn("judging")
        ended = verdicts.add(block, [criterion.judge(block, engine.oracle) for criterion in criteria])
        if ended is not None:
            engine.rewind(verdicts.row)
            block = block.upto(verdicts.row)
        stopwatch.turn("logging")
        yield block
        stopwatch.turn("judging")
        if verdicts.complete:
            return Ending(verdicts, verdicts.row)
        steps = block.steps
        if ended is not None:
            kept = cast(StartsEngine, engine).retire(ended)
            steps = steps if kept is None else steps[kept]
            for criterion in criteria if kept is not None else ():
                criterion.keep(kept)  # type: ignore[attr-defined] - what judges many starts has it
        stopwatch.turn("steps")
        engine.update()
        limit = _rows_until([criterion.due(steps) for criterion in criteria], steps, max_rows)


def _rows_until(due: Sequence[Any], step: Any, most: int) -> Any:
    """How many rows may come before somebody must be asked: a number, with many starts one for each."""
    if not isinstance(step, Tensor):
        return int(min(most, max(1, min(due) - step)))
    earliest = torch.full(step.shape, math.inf, dtype=torch.float64)
    for one in due:
        earliest = torch.minimum(earliest, torch.as_tensor(one, dtype=torch.float64))
    return (earliest - step).clamp(1, most).long()


def _narrowest(criteria: Sequence[Criterion]) -> Mapping[str, Band]:
    bands: dict[str, Band] = {}
    for criterion in criteria:
        for column, band in criterion.bands().items():
            bands[column] = bands[column] & band if column in bands else band
    return bands
