"""The endings of all starts of a run: kept as tensors, put into words when somebody asks."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from gradopt.contracts import Block, Criterion, Judgement, State
from gradopt.verdict import STATUSES, Status, Verdict


class Verdicts(Sequence[Verdict]):
    """One verdict for each start, in their order; those of starts that go on are not there yet.

    Attributes:
        codes: `Status.code` of each start, -1 where it goes on; shape (starts,).
        steps: At which each start ended.
        row: Of the last block that ended a start: where the last of its endings holds.
        returned: The loss of the point that is returned in place of the one judged, NaN where it is that one; shape
            (starts,), None as long as it is not known.

    Args:
        criteria: Those that judge; they make the sentences.
        number: Of starts.
    """

    def __init__(self, criteria: Sequence[Criterion], number: int = 1) -> None:
        self._criteria = criteria
        self.codes = torch.full((number,), -1)
        self.steps = torch.zeros(number, dtype=torch.int64)
        self.row = 0
        self.returned: Tensor | None = None
        self._source = torch.zeros(number, 2, dtype=torch.int64)
        self._found: list[tuple[int, dict[str, Any]]] = []
        self._going = number
        self._revised: dict[int, Verdict] = {}

    @property
    def complete(self) -> bool:
        """Whether every start has ended."""
        return self._going == 0

    def add(self, block: Block, judgements: Sequence[Judgement | None]) -> Tensor | None:
        """Per start the earliest ending, by precedence of status within a row.

        Args:
            judgements: Of the criteria, in their order.

        Returns:
            A mask over the block's starts of those that have ended just now; None: none has.
        """
        found = [(owner, one) for owner, one in enumerate(judgements) if one is not None]
        if not found:
            return None
        places, codes, rows, owners, entries = (torch.cat(parts) for parts in zip(*_columns(found), strict=True))
        ends = codes >= 0
        if block.starts is not None:
            ends &= block.starts.live[places]
        order = ends.nonzero().flatten()
        if not len(order):
            return None
        rank = rows[order] * len(STATUSES) + codes[order]
        order = order[rank.argsort(stable=True)]
        order = order[places[order].argsort(stable=True)]
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = places[order][1:] != places[order][:-1]
        chosen = order[first]
        return self._keep(block, judgements, chosen, places[chosen], codes, rows, owners, entries)

    def _keep(
        self,
        block: Block,
        judgements: Sequence[Judgement | None],
        chosen: Tensor,
        places: Tensor,
        codes: Tensor,
        rows: Tensor,
        owners: Tensor,
        entries: Tensor,
    ) -> Tensor:
        index = places if block.starts is None else block.starts.index[places]
        self.codes[index] = codes[chosen]
        last = block.steps if block.starts is None else block.steps[places]
        self.steps[index] = last - (len(block) - 1 - rows[chosen])
        self.row = int(rows[chosen].max())
        for owner in owners[chosen].unique().tolist():
            judgement, own = judgements[owner], owners[chosen] == owner
            assert judgement is not None
            these = entries[chosen][own]
            evidence = {name: _rows(value, these) for name, value in judgement.evidence.items()}
            self._source[index[own], 0] = len(self._found)
            self._source[index[own], 1] = torch.arange(len(these))
            self._found.append((owner, evidence))
        self._going -= len(chosen)
        mask = torch.zeros(block["loss"].shape[1], dtype=torch.bool)
        mask[places] = True
        return mask

    def status(self, start: int) -> Status:
        """How one start ended."""
        return STATUSES[int(self.codes[start])]

    def revise(self, start: int, verdict: Verdict) -> None:
        """Put another verdict in the place of one: it says what is returned, if that is known."""
        self._revised[start] = verdict
        if self.returned is not None:
            self.returned[start] = math.nan
        self.codes[start] = verdict.status.code

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, start: int) -> Verdict: ...

    @overload
    def __getitem__(self, start: slice) -> Sequence[Verdict]: ...

    def __getitem__(self, start: int | slice) -> Verdict | Sequence[Verdict]:
        if isinstance(start, slice):
            return [self[one] for one in range(*start.indices(len(self)))]
        start = range(len(self))[start]
        loss = math.nan if self.returned is None else self.returned[start].item()
        return self._told(start) if loss != loss else self._told(start).returning(loss)

    def _told(self, start: int) -> Verdict:
        if start in self._revised:
            return self._revised[start]
        if self.codes[start] < 0:
            raise IndexError(f"start {start} has not ended yet")
        record, entry = self._source[start].tolist()
        owner, kept = self._found[record]
        status = STATUSES[int(self.codes[start])]
        evidence = {name: _one(value, entry) for name, value in kept.items()}
        return Verdict(status, self._criteria[owner].sentence(status, evidence), evidence)

    def __iter__(self) -> Iterator[Verdict]:
        return (self[start] for start in range(len(self)))

    def counts(self) -> dict[Status, int]:
        """How many starts ended how, the most frequent first."""
        codes, counts = self.codes[self.codes >= 0].unique(return_counts=True)
        pairs = zip(codes.tolist(), counts.tolist(), strict=True)
        return {STATUSES[code]: count for code, count in sorted(pairs, key=lambda pair: -pair[1])}

    def state_dict(self) -> State:
        """Of a run that goes on: tensors have the axis (starts)."""
        tensors = {"codes": self.codes, "steps": self.steps, "source": self._source}
        found = [(owner, dict(evidence)) for owner, evidence in self._found]  # nothing changes what is in it
        return {**{name: value.clone() for name, value in tensors.items()}, "row": self.row, "found": found}

    def load_state_dict(self, state: State) -> None:
        """Take it over; the criteria are built the same way before."""
        self.codes, self.steps, self._source = (state[name].clone() for name in ("codes", "steps", "source"))
        self._going = int((self.codes < 0).sum())
        self.row, self._found = state["row"], [(owner, dict(evidence)) for owner, evidence in state["found"]]


def _columns(found: Sequence[tuple[int, Judgement]]) -> Iterator[tuple[Tensor, ...]]:
    """Of each judgement: the starts it speaks of, their codes and rows, whose it is, and where in it they stand."""
    for owner, judgement in found:
        entries = torch.arange(len(judgement.code))
        places = entries if judgement.starts is None else judgement.starts
        yield places, judgement.code, judgement.row, torch.full_like(entries, owner), entries


def _rows(value: Any, entries: Tensor) -> Any:
    if isinstance(value, list):
        return [value[entry] for entry in entries.tolist()]
    return value[entries] if isinstance(value, Tensor) and value.dim() else value


def _one(value: Any, entry: int) -> Any:
    if isinstance(value, list):
        return value[entry]
    if not isinstance(value, Tensor) or not value.dim():
        return value
    value = value[entry]
    return value.item() if not value.dim() else value
