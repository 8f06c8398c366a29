"""Eager updates on losses and gradients by a program: for optimisers that decide by values between evaluations."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradopt.contracts import Band, Block, Optimiser
from gradopt.engines.eager import EagerEngine
from gradopt.engines.loss_graph import LossGraph, trace_loss
from gradopt.engines.purity import Refusal
from gradopt.mistakes import Mistake
from gradopt.oracle import AutogradOracle
from gradopt.unknowns import joined
from gradopt.waits import PROGRAM, wait

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


@dataclass(frozen=True, slots=True)
class EvaluationKind:
    """A way to make a program of loss and gradient.

    Attributes:
        build: Raises `Refusal` where it cannot.
        patience: Seconds of eager steps after which `auto` tries it, as `choice.Kind.patience`.
    """

    build: Callable[[LossGraph], Evaluate]
    patience: float


class EvaluatingEngine(EagerEngine):
    """An `EagerEngine` whose oracle takes losses and gradients from a program, once it gives the same as autograd.

    Args:
        kinds: Ways to make a program that are tried in order, each after its patience.
        asked: The name of a program to take in any case, whether it is faster or not, and itself.
    """

    def __init__(
        self,
        oracle: AutogradOracle,
        optimiser: Optimiser,
        kinds: Mapping[str, EvaluationKind],
        asked: tuple[str, Evaluate] | None = None,
    ) -> None:
        super().__init__(oracle, optimiser)
        self._waiting = dict(kinds)
        self._graph: LossGraph | None = None
        self._spent = 0.0
        self.label = asked[0] if asked is not None else "auto, begins eager" if kinds else "eager"
        self.name = "eager"
        if asked is not None:
            self._try(*asked, is_asked=True)

    def advance(self, limit: int, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps; see `Engine.advance`."""
        began = time.perf_counter()
        block = super().advance(limit, bands, seconds)
        self._spent += time.perf_counter() - began
        return block

    def update(self) -> None:
        """Make the update after the last row; see `Engine.update`."""
        super().update()
        if self._waiting and self.oracle.differentiate == self.oracle.by_autograd:
            self._consider()

    def _consider(self) -> None:
        """Build the next program if the run has lasted long enough, and as long is left."""
        name, kind = next(iter(self._waiting.items()))
        if min(self._spent, self.oracle.deadline - time.perf_counter()) < kind.patience:
            return
        del self._waiting[name]
        with self.stopwatch.during("building a program"), wait(PROGRAM):
            self._build(name, kind)

    def _build(self, name: str, kind: EvaluationKind) -> None:
        try:
            if self._graph is None:
                self._graph = trace_loss(self.oracle)
        except Refusal as refusal:
            self._waiting.clear()
            log.info("engine: eager to the end, as the loss is no graph: %s", refusal)
            return
        try:
            self._try(name, kind.build(self._graph), is_asked=False)
        except Refusal as refusal:
            log.info("engine: eager, not %s: %s", name, refusal)

    def _try(self, name: str, program: Evaluate, *, is_asked: bool) -> None:
        def settle(problem: str | None, pace: float, usual: float) -> None:
            figures = f"{1e6 * pace:.3g} us an evaluation, eager {1e6 * usual:.3g}"
            if problem is None and not is_asked and pace > WORTH * usual:
                problem = f"it is not faster ({figures})"
            if problem is None:
                self.oracle.differentiate, self.name = program, name
                log.info("engine: losses and gradients by %s: the same as by eager, %s", name, figures)
                return
            self.oracle.differentiate = self.oracle.by_autograd
            if is_asked:
                raise Mistake(f"engine={name} cannot run this: {problem}; use engine=eager, or engine=auto")
            log.info("engine: eager, not %s: %s", name, problem)

        self.oracle.differentiate = Gate(self.oracle, program, settle)


@dataclass(slots=True)
class Gate:
    """Losses and gradients by autograd, which count, and by a program beside it.

    Args:
        settle: Told what is wrong with the program, None if nothing is, and the seconds of an evaluation by it and by
            autograd; after some evaluations, or at once where the program raises.
    """

    oracle: AutogradOracle
    program: Evaluate
    settle: Callable[[str | None, float, float], None]
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
