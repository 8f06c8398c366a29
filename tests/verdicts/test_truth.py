"""Every case times every optimiser there is: no false success, no false alarm, the best point always returned."""

import traceback
from collections.abc import Sequence

import pytest
import torch

from tests.verdicts.cases import CASES, PEERS, Case
from tests.verdicts.entrants import QUICK, SLOW, Entrant, run
from tests.verdicts.truth import lies

cases = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def lies_of(case: Case, entrants: Sequence[Entrant], dtypes: Sequence[torch.dtype]) -> list[str]:
    """One line for each lie: case, optimiser, dtype, status, what is wrong, message."""
    told = []
    for entrant in entrants:
        for dtype in dtypes if entrant.takes(case) else ():
            label = f"{case.name} / {entrant} / {str(dtype).removeprefix('torch.')}"
            try:
                result, watched = run(case, entrant, dtype)
            except Exception:  # a crash is the worst of all messages
                told.append(f"{label}: crash\n{traceback.format_exc(limit=-4)}")
                continue
            told += [
                f"{label}: {result.status.value}: {lie}\n    {result.message}"
                for lie in lies(case, entrant, dtype, result, watched)
            ]
    return told


@cases
def test_endings_are_true(case):
    dtypes = case.dtypes if case in PEERS else [case.dtypes[CASES.index(case) % len(case.dtypes)]]

    told = lies_of(case, QUICK, dtypes)

    assert not told, "\n".join(told)


@pytest.mark.slow
@cases
def test_endings_are_true_for_every_optimiser_in_every_dtype(case):
    told = lies_of(case, QUICK + SLOW, case.dtypes)

    assert not told, "\n".join(told)


def test_the_table_is_as_large_as_it_must_be():
    assert len(PEERS) == 11
    assert len(CASES) - len(PEERS) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
