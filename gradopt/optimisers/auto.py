"""Several optimisers one after another, where one alone may end in a worse place."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gradopt.contracts import Evaluation, NonFiniteTrial, Optimiser, Oracle, State, Stuck
from gradopt.optimisers.lbfgs import LBFGS
from gradopt.optimisers.levenberg_marquardt import LevenbergMarquardt
from gradopt.optimisers.trust_region import TrustRegion
from gradopt.optimisers.trust_rules import MATRIX_UP_TO

log = logging.getLogger("gradopt")

REDUCED = 1e-6
SLOW = 1e-4
"""A stage is done when the gradient has fallen by the first, and the last step has lowered the loss by no more than the
second of itself: enough to tell where it leads.
"""

WINDOW = 10
CRAWL = 1e-3
"""A stage crawls when its last `WINDOW` steps together have lowered the loss by no more than this part of itself."""

SOLVED = 1e-20
"""A sum of squares that has fallen by this much needs no second opinion."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One optimiser, and where it starts: at the start of the run, or at the best point so far."""

    name: str
    build: Callable[[Sequence[nn.Parameter]], Optimiser]
    from_best: bool = False


class Auto:
    """Runs several optimisers in turn and goes on with the best point: the choice of an expert without a clue.

    With residuals: `levenberg_marquardt`, then `lbfgs` and `trust_region` from the start (a sum of squares has other
    minima than the one that Gauss-Newton steps lead to, and large residuals make them crawl), then `trust_region` from
    the best point of all. Without: `lbfgs`, then `trust_region` from its best point if it has not converged.
    `trust_region` needs at most 200 unknowns. A stage is left when its gradient has fallen by 1e-6 and its steps gain
    little, when ten steps gain little, when it finds no better point, or after 300 + 20 n evaluations; the last stage
    goes on to the end. A sum of squares that vanishes needs no other stage.
    """

    bounds = True

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._size = sum(parameter.numel() for parameter in parameters)
        self._stages: list[Stage] = []
        self._index = 0
        self._inner: Optimiser | None = None
        self._start = self._best_point = torch.empty(0)
        self._first_loss = self._best_loss = math.inf
        self._losses: list[float] = []
        self._largest = 0.0
        self._begun = 0
        self._leave = False

    def plan(self, *, residuals: bool) -> str:
        """Choose the stages, and say which and why."""
        newton = self._size <= MATRIX_UP_TO
        self._stages = [Stage("lbfgs", LBFGS)]
        if residuals:
            own = [Stage("trust_region", TrustRegion)] if newton else []
            self._stages = [Stage("levenberg_marquardt", LevenbergMarquardt), *self._stages, *own]
        if newton:
            self._stages.append(Stage("trust_region", TrustRegion, from_best=True))
        elif residuals:
            self._stages.append(Stage("lbfgs", LBFGS, from_best=True))
        why = "the objective has residuals" if residuals else "the objective has no residuals"
        names = (f"{stage.name}{' from the best point' * stage.from_best}" for stage in self._stages)
        return f"{', then '.join(names)}: {why}, n = {self._size}"

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """What the optimiser of the stage says; the point at which a stage is left is a trial."""
        if self._inner is None:
            self._start, self._first_loss = evaluation.point, evaluation.loss
            self._inner = self._stages[0].build(self._parameters)
        accepted = self._inner.accepts(evaluation, oracle)
        if not accepted:
            return False
        self._largest = max(self._largest, evaluation.gradient_norm)
        self._losses = [*self._losses[-WINDOW:], evaluation.loss]
        if evaluation.loss < self._best_loss:
            self._best_loss, self._best_point = evaluation.loss, evaluation.point
        self._leave = self._index + 1 < len(self._stages) and self._is_done(evaluation, oracle)
        return not self._leave

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """An update of the stage, or the first of the next one.

        Raises:
            Stuck, NonFiniteTrial: The last stage finds no better point.
        """
        assert self._inner is not None, "update() comes after accepts()"
        if not self._leave:
            try:
                self._inner.update(evaluation, oracle)
                return
            except (Stuck, NonFiniteTrial):
                if self._index + 1 == len(self._stages):
                    raise
        self._leave = False
        self._index += 1
        stage = self._stages[self._index]
        log.info("auto: %s reached %.10g; %s goes on", self._stages[self._index - 1].name, self._best_loss, stage.name)
        self._inner = stage.build(self._parameters)
        self._begun, self._largest, self._losses = oracle.num_losses, 0.0, []
        oracle.write(self._best_point if stage.from_best else self._start)

    def learning_rate(self) -> float:
        """That of the stage."""
        return math.nan if self._inner is None else self._inner.learning_rate()

    def state_dict(self) -> State:
        """The stage, its optimiser's state, and the points to go on from."""
        kept = (
            "_index",
            "_start",
            "_best_point",
            "_first_loss",
            "_best_loss",
            "_losses",
            "_largest",
            "_begun",
            "_leave",
        )
        inner = None if self._inner is None else self._inner.state_dict()
        return {"inner": inner, **{name: getattr(self, name) for name in kept}}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        vars(self).update({name: value for name, value in state.items() if name != "inner"})
        self._inner = None
        if state["inner"] is not None:
            self._inner = self._stages[self._index].build(self._parameters)
            self._inner.load_state_dict(state["inner"])

    def _is_done(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        if oracle.num_losses - self._begun > 300 + 20 * self._size:
            return True
        loss, losses = evaluation.loss, self._losses
        if self._stages[0].name != "levenberg_marquardt" or loss <= SOLVED * self._first_loss or len(losses) < 2:
            return False
        arrived = evaluation.gradient_norm <= REDUCED * self._largest and losses[-2] - loss <= SLOW * loss
        crawls = len(losses) > WINDOW and losses[0] - loss <= CRAWL * loss
        return arrived or crawls
