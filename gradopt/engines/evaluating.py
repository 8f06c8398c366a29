"""Eager updates on losses and gradients by a program: for optimisers that decide by values between evaluations."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, Optimiser
from gradopt.engines.eager import EagerEngine
from gradopt.engines.loss_graph import LossGraph, explained, trace_loss
from gradopt.engines.patience import patience
from gradopt.engines.purity import Refusal
from gradopt.mistakes import Mistake
from gradopt.oracle import AutogradOracle
from gradopt.unknowns import joined
from gradopt.waits import PROGRAM, Abandoned, wait

log = logging.getLogger("gradopt")

GATE_EVALUATIONS = 10
"""Evaluations that a program and autograd both make, before it goes on alone."""

TOLERANCE = {torch.float32: 5e-3, torch.float64: 6e-6}
"""The part of the largest loss, and of the largest gradient, by which one may be off: the cube root of the rounding of
the dtype."""

WORTH = 0.8
"""The part of autograd's time that a program must stay below for `auto` to take it."""

Evaluate = Callable[[], Tensor]
"""Returns the loss where the parameters stand, and leaves its gradient in new tensors in their `.grad`."""

Settle = Callable[[str | None, float, float], None]
"""Told what is wrong with a program, None if nothing is, and the seconds of an evaluation by it and by autograd."""


@dataclass(frozen=True, slots=True)
class EvaluationKind:
    """A way to make a program of loss and gradient.

    Attributes:
        build: Returns what may stand in for `differentiate` of the oracle. Raises `Refusal` where it cannot.
        patience: Seconds of eager steps after which `auto` tries it, as `choice.Kind.patience`.
    """

    build: Callable[[LossGraph], Callable[..., Any]]
    patience: float


class Differentiated(Protocol):
    """An oracle whose losses and gradients a program may give."""

    differentiate: Callable[..., Any]
    deadline: float


class EvaluatingEngine(EagerEngine):
    """An `EagerEngine` whose oracle takes losses and gradients from a program, once it gives the same as autograd.

    Args:
        kinds, asked: See `Substitution`.
    """

    def __init__(
        self,
        oracle: AutogradOracle,
        optimiser: Optimiser,
        kinds: Mapping[str, EvaluationKind],
        asked: tuple[str, Evaluate] | None = None,
    ) -> None:
        super().__init__(oracle, optimiser)
        self._spent = 0.0
        self._substitution = Substitution(
            oracle, lambda: trace_loss(oracle), lambda program, settle: Gate(oracle, program, settle), kinds, asked
        )
        self.label = self._substitution.label

    @property
    def name(self) -> str:
        """Of what losses and gradients are made by now."""
        return self._substitution.name

    def advance(self, limit: int, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps; see `Engine.advance`."""
        began = time.perf_counter()
        block = super().advance(limit, bands, seconds)
        self._spent += time.perf_counter() - began
        return block

    def update(self) -> None:
        """Make the update after the last row; see `Engine.update`."""
        super().update()
        if self._substitution.is_due(self._spent):
            with self.stopwatch.during("building a program"):
                self._substitution.build()


class Substitution:
    """What an oracle takes its losses and gradients from: autograd, and a program once it gives the same.

    Attributes:
        name: Of what it is now.
        label: For people, before a run.

    Args:
        trace: Makes the graph; raises `Refusal` where there is none.
        gate: Of a program and whom it tells: stands in for `differentiate` as long as both are made, to be compared.
        kinds: Ways to make a program that are tried in order, each after its patience.
        asked: The name of a program to take in any case, whether it is faster or not, and itself.
    """

    def __init__(
        self,
        oracle: Differentiated,
        trace: Callable[[], LossGraph],
        gate: Callable[[Callable[..., Any], Settle], Callable[..., Any]],
        kinds: Mapping[str, EvaluationKind],
        asked: tuple[str, Callable[..., Any]] | None,
    ) -> None:
        self._oracle, self._usual = oracle, oracle.differentiate
        self._trace, self._gate = trace, gate
        self._waiting = dict(kinds)
        self._graph: LossGraph | None = None
        self.label = asked[0] if asked is not None else "auto, begins eager" if kinds else "eager"
        self.name = "eager"
        if asked is not None:
            self._try(*asked, is_asked=True)

    def is_due(self, spent: float) -> bool:
        """Whether to build the next program: so many seconds have been spent, and as many are left."""
        if not self._waiting or self._oracle.differentiate != self._usual:
            return False
        kind = next(iter(self._waiting.values()))
        return min(spent, self._oracle.deadline - time.perf_counter()) >= patience(kind.patience)

    def build(self) -> None:
        """Build the next program, and let it be compared from here on."""
        name, kind = next(iter(self._waiting.items()))
        del self._waiting[name]
        with suppress(Abandoned), wait(PROGRAM):
            self._build(name, kind)

    def _build(self, name: str, kind: EvaluationKind) -> None:
        try:
            if self._graph is None:
                self._graph = self._trace()
        except Refusal as refusal:
            self._waiting.clear()
            log.info("engine: eager to the end, as the loss is no graph: %s", refusal)
            return
        try:
            with explained("a program", Refusal, "built"):
                program = kind.build(self._graph)
            self._try(name, program, is_asked=False)
        except Refusal as refusal:
            log.info("engine: eager, not %s: %s", name, refusal)

    def _try(self, name: str, program: Callable[..., Any], *, is_asked: bool) -> None:
        def settle(problem: str | None, pace: float, usual: float) -> None:
            figures = f"{1e6 * pace:.3g} us an evaluation, eager {1e6 * usual:.3g}"
            if problem is None and not is_asked and pace > WORTH * usual:
                problem = f"it is not faster ({figures})"
            if problem is None:
                self._oracle.differentiate, self.name = program, name
                log.info("engine: losses and gradients by %s: the same as by eager, %s", name, figures)
                return
            self._oracle.differentiate = self._usual
            if is_asked:
                raise Mistake(f"engine={name} cannot run this: {problem}; use engine=eager, or engine=auto")
            log.info("engine: eager, not %s: %s", name, problem)

        self._oracle.differentiate = self._gate(program, settle)


@dataclass(slots=True)
class Gate:
    """Losses and gradients by autograd, which count, and by a program beside it.

    Args:
        settle: Told after some evaluations, or at once where the program raises.
    """

    oracle: AutogradOracle
    program: Evaluate
    settle: Settle
    _pairs: list[tuple[tuple[float, Tensor], tuple[float, Tensor]]] = field(default_factory=list)  # type: ignore[type-arg]
    _seconds: list[tuple[float, float]] = field(default_factory=list)  # type: ignore[type-arg]

    def __call__(self) -> Tensor:
        """As `AutogradOracle.by_autograd`."""
        parameters, problem, ours = self.oracle.parameters, None, None
        began = time.perf_counter()
        try:
            ours = self.program().item(), joined([p.grad for p in parameters], parameters)
        except Exception as error:  # whatever a program dies of, autograd goes on
            problem = f"{type(error).__name__}: {error}"
        between = time.perf_counter()
        for parameter in parameters:
            parameter.grad = None
        loss = self.oracle.by_autograd()
        if ours is not None:
            theirs = loss.item(), joined([p.grad for p in parameters], parameters).clone()
            self._seconds.append((between - began, time.perf_counter() - between))
            self._pairs.append((ours, theirs))
        if problem is not None:
            self.settle(problem, math.nan, math.nan)
        elif len(self._pairs) == GATE_EVALUATIONS:
            pace, usual = map(statistics.median, zip(*self._seconds, strict=True))
            self.settle(self._difference(), pace, usual)
        return loss

    def _difference(self) -> str | None:
        """Where the program is not autograd but for rounding; None where it is."""
        tolerance = TOLERANCE[self.oracle.parameters[0].dtype]
        ours, theirs = zip(*self._pairs, strict=True)
        for name, index in (("loss", 0), ("gradient", 1)):
            mine, usual = (torch.stack([torch.as_tensor(one[index]) for one in side]) for side in (ours, theirs))
            finite = usual[usual.isfinite()].abs()
            scale = finite.max() if finite.numel() else 0.0
            same = (mine == usual) | (mine.isnan() & usual.isnan()) | ((mine - usual).abs() <= tolerance * scale)
            if not bool(same.all()):
                row = (~same).nonzero()[0]
                return (
                    f"at evaluation {int(row[0]) + 1} of {len(ours)} {'an entry of ' * index}its {name} is "
                    f"{mine[tuple(row)].item():.6g}, and that of eager {usual[tuple(row)].item():.6g}: the loss has "
                    "state that no trace shows"
                )
        return None
