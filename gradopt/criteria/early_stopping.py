"""Early stopping on a metric: the user's own criterion, shipped because everyone wants it."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from gradopt.contracts import Band, Block, Judgement, Oracle, State
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.verdict import Status


class EarlyStopping:
    """Stop when a metric of the objective has not improved for a while.

    It is looked at where the full loss is evaluated: once an epoch on batches, else every `every` steps.

    Args:
        metric: A key of `Objective.metrics()`.
        mode: Whether the metric is to become small or large.
        patience: Looks without improvement before the run ends.
        min_delta: What counts as improvement: more than this.
        every: Steps between two looks, at least.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"] = "min",
        patience: int = 5,
        min_delta: float = 0.0,
        every: int = 1,
    ) -> None:
        if mode not in ("min", "max"):
            raise Mistake(f"early_stopping: mode must be 'min' or 'max', got {mode!r}")
        if patience < 1 or every < 1 or min_delta < 0:
            raise Mistake("early_stopping: patience and every must be 1 or more, min_delta 0 or more")
        self._metric, self._sign, self._patience = metric, 1.0 if mode == "min" else -1.0, patience
        self._min_delta, self._every = min_delta, every
        self._best, self._best_step, self._looks, self._last = math.inf, 0, 0, -every

    def bands(self) -> Mapping[str, Band]:
        return {"full_loss": Band(low=math.inf)}  # no value lies inside: every row that measures it ends its block

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        step = block.last_step
        if not bool(block.measured[-1]) or step < self._last + self._every:
            return None
        self._last = step
        metrics = oracle.metrics()
        if self._metric not in metrics:
            known = ", ".join(metrics) or "none"
            raise Mistake(
                f"early_stopping: the objective has no metric {self._metric!r}; it has: {known}."
                + did_you_mean(self._metric, metrics)
            )
        value = metrics[self._metric]
        if self._sign * value < self._best - self._min_delta:
            self._best, self._best_step, self._looks = self._sign * value, step, 0
            return None
        self._looks += 1
        if self._looks < self._patience:
            return None
        best = self._sign * self._best
        return Judgement.one(
            Status.STOPPED,
            len(block) - 1,
            metric=self._metric,
            value=value,
            best=best,
            best_step=self._best_step,
            step=step,
            looks=self._looks,
        )

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return (
            f"{evidence['metric']} has not improved for {evidence['looks']} looks: {evidence['value']:.6g} at step "
            f"{evidence['step']}, best {evidence['best']:.6g} at step {evidence['best_step']}"
        )

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)
