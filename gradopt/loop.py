"""The one loop. It knows no part by name: engines advance, criteria judge, whoever listens gets the blocks."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch

from gradopt.contracts import Band, Block, Criterion, Engine, Judgement
from gradopt.verdict import STATUSES, Verdict

MAX_ROWS = 10_000
PULSE_SECONDS = 0.1
"""How long Ctrl-C, the clock and the progress line wait at most, unless one evaluation takes longer."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a run ended: per start a verdict, and the row of the last block at which the last of them holds."""

    verdicts: tuple[Verdict, ...]
    row: int


def iterate(
    engine: Engine, criteria: Sequence[Criterion], *, max_rows: int = MAX_ROWS
) -> Generator[Block, None, Ending]:
    """Advance, judge, rewind to the first ending, hand over the block, update; until a criterion has a verdict.

    While the caller holds a block, the parameters stand at its last row, evaluated and not yet updated. What a
    criterion refuses never moves the parameters.

    Raises:
        ValueError: No criterion: the run would never end.
    """
    if not criteria:
        raise ValueError("no criteria: the run would never end. Add one, such as MaxSteps.")
    limit = 1  # which step comes first is the engine's: a run may go on from a saved state
    while True:
        block = engine.advance(limit, _narrowest(criteria), PULSE_SECONDS)
        step = block.last_step
        ending = _first_ending(criteria, [criterion.judge(block, engine.oracle) for criterion in criteria])
        if ending is not None:
            engine.rewind(ending.row)
            yield block.upto(ending.row)
            return ending
        yield block
        engine.update()
        due = min(criterion.due(step) for criterion in criteria)
        limit = int(min(max_rows, max(1, due - step)))


def _narrowest(criteria: Sequence[Criterion]) -> Mapping[str, Band]:
    bands: dict[str, Band] = {}
    for criterion in criteria:
        for column, band in criterion.bands().items():
            other = bands.get(column, band)
            bands[column] = Band(max(band.low, other.low), min(band.high, other.high))
    return bands


def _first_ending(criteria: Sequence[Criterion], judgements: Sequence[Judgement | None]) -> Ending | None:
    """Per start the earliest ending, by precedence of status within a row; None while any start goes on."""
    found = [(criterion, one) for criterion, one in zip(criteria, judgements, strict=True) if one is not None]
    if not found:
        return None
    codes = torch.stack([judgement.code for _, judgement in found])
    rows = torch.stack([judgement.row for _, judgement in found])
    rank = torch.where(codes >= 0, rows * len(STATUSES) + codes, torch.iinfo(torch.int64).max)
    lowest, chosen = rank.min(dim=0)
    if bool((lowest == torch.iinfo(torch.int64).max).any()):
        return None
    verdicts: list[Verdict] = []
    for start, index in enumerate(chosen):
        criterion, judgement = found[int(index)]
        status, evidence = STATUSES[int(judgement.code[start])], judgement.of(start)
        verdicts.append(Verdict(status, criterion.sentence(status, evidence), evidence))
    return Ending(tuple(verdicts), int(rows.gather(0, chosen.unsqueeze(0)).max()))
