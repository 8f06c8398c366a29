"""Budgets: a run always ends. Reaching one is neither success nor failure."""

import math
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from gradopt import waits
from gradopt.constraints.functions import missed_in_words, worst
from gradopt.contracts import Band, Block, BudgetSpent, Judgement, Oracle, State
from gradopt.mistakes import Mistake
from gradopt.verdict import Status


class MaxSteps:
    """Ends after `limit` steps; as an epoch budget if `steps_per_epoch` is given, and `limit` counts epochs."""

    def __init__(self, limit: int, steps_per_epoch: int | None = None) -> None:
        if limit < 0:
            raise Mistake(f"max_{'steps' if steps_per_epoch is None else 'epochs'} must be 0 or more, got {limit}")
        self._limit, self._epoch = limit, steps_per_epoch
        self.last_step = limit * (steps_per_epoch or 1)

    def bands(self) -> Mapping[str, Band]:
        return {}

    def due(self, step: int) -> float:
        return self.last_step

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        spent = torch.as_tensor(block.steps >= self.last_step)
        if not bool(spent.any()):
            return None
        status = Status.MAX_STEPS if self._epoch is None else Status.MAX_EPOCHS
        found = Judgement.last(status, block, **where(block, oracle), limit=self._limit)
        found.code = torch.where(spent, found.code, -1)
        return found

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return f"stopped after {status.value}={evidence['limit']}; {state_of_affairs(evidence)}"

    def keep(self, kept: Tensor) -> None:
        """Nothing is remembered of a start."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


class MaxEvaluations:
    """Ends when the oracle has spent its evaluations: not one more is made."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise Mistake(f"max_evaluations must be 1 or more, got {limit}")
        self.limit = limit

    def bands(self) -> Mapping[str, Band]:
        return {"evaluations": Band(high=self.limit)}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        spent = torch.as_tensor(oracle.num_losses >= self.limit)
        if not bool(spent.any()):
            return None
        found = Judgement.last(Status.MAX_EVALUATIONS, block, **where(block, oracle), limit=self.limit)
        found.code = torch.where(spent, found.code, -1)
        return found

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return f"stopped after max_evaluations={evidence['limit']}; {state_of_affairs(evidence)}"

    def keep(self, kept: Tensor) -> None:
        """Nothing is remembered of a start."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


class MaxSeconds:
    """Ends after `limit` seconds: the oracle's deadline keeps them inside a line search too."""

    def __init__(self, limit: float) -> None:
        if not limit > 0:
            raise Mistake(f"max_seconds must be above 0, got {limit}")
        self.limit = limit

    def bands(self) -> Mapping[str, Band]:
        return {"seconds": Band(high=self.limit)}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        cut = isinstance(block.cut_short, BudgetSpent) or bool(block.halted_by(BudgetSpent).any())
        late = cut and -math.inf < oracle.deadline <= time.perf_counter()
        if block["seconds"][-1, 0].item() < self.limit and not late:
            return None
        return Judgement.last(Status.MAX_SECONDS, block, **where(block, oracle), limit=self.limit)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return f"stopped after max_seconds={evidence['limit']:g}; {state_of_affairs(evidence)}"

    def keep(self, kept: Tensor) -> None:
        """Nothing is remembered of a start."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered: the clock is the engine's."""


class Timed(Protocol):
    """What stops evaluating at a deadline, by `time.perf_counter()`."""

    deadline: float


class Interrupt:
    """Ends the run at the next step after Ctrl-C or SIGTERM; a second Ctrl-C raises `KeyboardInterrupt` at once.

    Use it as a context: inside, the signals are taken; outside, they are as they were. Signals can only be taken in
    the main thread; elsewhere the context changes nothing, and `request` does the same by hand.

    Args:
        oracle: Its deadline is set to now by a signal, so that a line search does not go on to its end.
    """

    def __init__(self, oracle: Timed) -> None:
        self._oracle = oracle
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self.request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """End the run, as if the signal `number` had come."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._oracle.deadline = -math.inf
        if frame is not None:  # in the main thread, where a program may be on its way
            waits.abandon()

    def bands(self) -> Mapping[str, Band]:
        return {}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        if self.signal is None:
            return None
        return Judgement.last(Status.INTERRUPTED, block, **where(block, oracle), signal=self.signal)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        name = "Ctrl-C" if evidence["signal"] == signal.SIGINT else signal.Signals(evidence["signal"]).name
        return f"interrupted by {name}; {state_of_affairs(evidence)}"

    def keep(self, kept: Tensor) -> None:
        """Nothing is remembered of a start."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


def where(block: Block, oracle: Oracle) -> dict[str, Any]:
    """What a person asks first about a run that ended without an answer."""
    if block.starts is not None:
        numbers = {"loss": block["loss"][-1], "gradient_norm": block["gradient_norm"][-1]}
        return {"step": block.steps, **numbers, "batch": False, "judged": True, "proof": None}
    return {
        "step": block.last_step,
        "loss": block["loss"][-1, 0].item(),
        "gradient_norm": block["gradient_norm"][-1, 0].item(),
        "batch": block["full_loss"] is not block["loss"],
        "judged": bool(block.measured[-1]) or (oracle.best is not None and oracle.has_full_loss),
        "proof": oracle.unbounded_below(),
        **_missed(block, oracle),
    }


def _missed(block: Block, oracle: Oracle) -> dict[str, Any]:
    if oracle.constraints is None:
        return {}
    values = oracle.linearised_constraints().residuals
    return {"violation": block["violation"][-1, 0].item(), **worst(oracle.constraints, values)}


def state_of_affairs(evidence: Mapping[str, Any]) -> str:
    """The numbers of `where` as half a sentence."""
    of = "of the last batch " * evidence["batch"]
    text = (
        f"the loss {of}is {evidence['loss']:.10g} and the largest gradient entry {evidence['gradient_norm']:.3g} "
        f"at step {evidence['step']}"
    )
    if "violation" in evidence:
        text += f"; {missed_in_words(evidence)}"
    if evidence["proof"]:
        text += f". Note: {evidence['proof']}"
    if not evidence["judged"]:
        text += ". Convergence was never judged: on batches that takes an objective with full_loss()"
    return text
