"""How a run ends: a status, a sentence with its numbers, and the evidence behind it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any


class Status(Enum):
    """Why a run ended. The order is the order of precedence when several hold at the same step."""

    TARGET_REACHED = "target_reached"
    UNBOUNDED = "unbounded"
    NON_FINITE = "non_finite"
    DIVERGED = "diverged"
    CONVERGED = "converged"
    SADDLE_POINT = "saddle_point"
    MAXIMUM = "maximum"
    NOISE_FLOOR = "noise_floor"
    INFEASIBLE = "infeasible"
    STALLED = "stalled"
    MAX_STEPS = "max_steps"
    MAX_EVALUATIONS = "max_evaluations"
    MAX_SECONDS = "max_seconds"
    MAX_EPOCHS = "max_epochs"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"

    @property
    def success(self) -> bool:
        """True only if the answer is what was asked for: a minimum, or the target."""
        return self in SUCCESS

    @property
    def exhausted(self) -> bool:
        """True if a budget is used up or the user's own criterion stopped the run: neither success nor failure."""
        return self in EXHAUSTED

    @property
    def failure(self) -> bool:
        """True if the run cannot be trusted to have come closer to a minimum (an interrupted run is not a failure)."""
        return not (self.success or self.exhausted or self is Status.INTERRUPTED)

    @property
    def code(self) -> int:
        """Place in the order of precedence, from 0; what a `Judgement` carries per start (-1: no ending)."""
        return CODES[self]


SUCCESS = frozenset({Status.CONVERGED, Status.TARGET_REACHED, Status.NOISE_FLOOR})
EXHAUSTED = frozenset({Status.MAX_STEPS, Status.MAX_EVALUATIONS, Status.MAX_SECONDS, Status.MAX_EPOCHS, Status.STOPPED})
CODES = {status: code for code, status in enumerate(Status)}
STATUSES = tuple(Status)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ending of one start.

    Attributes:
        reason: A sentence with the numbers in it, and what to try next if it failed.
        evidence: The numbers alone, by name (floats, ints, strings), as the criterion found them.
    """

    status: Status
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def success(self) -> bool:
        return self.status.success

    def returning(self, loss: float) -> "Verdict":
        """The same, which says that in place of the point it speaks of the best one is returned, of that loss."""
        told = f"{loss:.10g}"
        if "best" in self.evidence or told == f"{self.evidence.get('loss', math.nan):.10g}":  # the sentence says it
            return self
        return replace(self, reason=f"{self.reason}. The best point, of loss {told}, is returned")

    def __str__(self) -> str:
        return f"{self.status.value}: {self.reason}"
