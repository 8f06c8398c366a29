"""One local search of many: when it has arrived, and when it is not worth going on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from gradopt.optimisers.lbfgs import LBFGS
from gradopt.optimisers.levenberg_marquardt import LevenbergMarquardt
from gradopt.optimisers.trust_region import TrustRegion

Build = Callable[[Sequence[nn.Parameter]], LBFGS | TrustRegion | LevenbergMarquardt]

INNER: dict[str, Build] = {
    "lbfgs": LBFGS,
    "trust_region": TrustRegion,
    "levenberg_marquardt": LevenbergMarquardt,
}
"""The optimisers of local searches, of one start and of many."""

PATIENCE, PATIENCE_PER_UNKNOWN = 200, 20
"""Evaluations a local search takes at most if it has not become the best by then."""


REDUCED, REDUCED_LEADING = 1e-5, 1e-8
"""A local search has arrived when its gradient has fallen by the first; the second if it leads to the best minimum."""

HOPE = 3.0
"""A hop is given up when a further decrease this many times as large as the last would not make it the best."""


@dataclass(slots=True)
class Descent:
    """One local search, judged at the points its optimiser accepts.

    Attributes:
        kind: Where it started: "start" (of the run), "drawn" (from the sample) or "hop".
        goal: The lowest loss of the other local searches.
        largest: Of its gradient norms.
        arrived: At a point it will not leave.
        hopeless: It leads to no minimum that matters.
    """

    kind: str
    goal: float
    loss: float = math.inf
    largest: float = 0.0
    num_steps: int = 0
    arrived: bool = False
    hopeless: bool = False

    @property
    def leads(self) -> bool:
        """Whether it is lower than all others."""
        return self.loss <= self.goal

    def record(self, loss: float, norm: float, moved: float, eps: float) -> None:
        """Take in an accepted point.

        Args:
            norm: Of its gradient.
            moved: The step to it, as a part of the box.
            eps: Of the dtype.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.hopeless = True
            return
        fall, self.loss = self.loss - loss, loss
        self.num_steps += 1
        self.largest = max(self.largest, norm)
        still = self.num_steps > 1 and (moved <= eps**0.6 or fall <= eps * abs(loss))
        self.arrived = still or norm <= (REDUCED_LEADING if self.leads else REDUCED) * self.largest
        self.hopeless = self.kind == "hop" and self.num_steps > 2 and loss - HOPE * fall > self.goal
