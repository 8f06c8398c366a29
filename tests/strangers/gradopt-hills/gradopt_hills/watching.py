"""A criterion and an observer."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradopt import Band, Block, Judgement, Oracle, Result, Run, Status


class Enough:
    """Stop once the loss is below a limit of the user's own."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def bands(self) -> Mapping[str, Band]:
        return {"loss": Band(low=self.limit)}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        loss = block["loss"][-1, 0].item()
        return Judgement.one(Status.STOPPED, len(block) - 1, loss=loss) if loss <= self.limit else None

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return f"enough is enough: the loss {evidence['loss']:.3g} is below {self.limit:.3g}"

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is remembered."""


class Tally:
    """Writes the number of rows to tally.txt in the run's directory."""

    def __init__(self, label: str = "rows") -> None:
        self.label, self.rows, self.directory = label, 0, None

    def open(self, run: Run) -> None:
        self.directory = run.directory

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        self.rows += len(block)

    def close(self, result: Result | None, error: BaseException | None) -> None:
        if self.directory is not None:
            (Path(self.directory) / "tally.txt").write_text(f"{self.label} {self.rows}", encoding="utf-8")
