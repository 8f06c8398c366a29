"""Which engine runs, and why: by name, or the one that pays once a run has lasted."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt import devices
from gradopt.contracts import Band, Block, Optimiser, State
from gradopt.engines.compiled import compiled, compiled_evaluation
from gradopt.engines.cuda_graph import captured
from gradopt.engines.eager import COLUMNS, EagerEngine
from gradopt.engines.evaluating import TOLERANCE, WORTH, EvaluatingEngine, EvaluationKind
from gradopt.engines.graph import GraphEngine, Program
from gradopt.engines.loss_graph import explained, trace_loss
from gradopt.engines.native.evaluation import NativeEvaluation
from gradopt.engines.native.program import NativeProgram
from gradopt.engines.patience import patience
from gradopt.engines.purity import Refusal
from gradopt.engines.rates import Rates
from gradopt.engines.tracing import StepGraph, trace
from gradopt.mistakes import Mistake
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle
from gradopt.waits import PROGRAM, Abandoned, wait

log = logging.getLogger("gradopt")

GATE_ROWS = 10
"""Steps that a program and eager both make, from the same state, before it goes on alone: a chunk and more."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to make a program of a graph.

    Attributes:
        build: Raises `Refusal` where it cannot.
        patience: Seconds of eager steps after which `auto` tries it: about as long as building takes, so that a run
            that ends right then has taken twice as long as it had to, and no run more.
    """

    build: Callable[[StepGraph], Program]
    patience: float


KINDS: Mapping[str, Kind] = {
    "native": Kind(NativeProgram, patience=0.5),
    "compiled": Kind(compiled, patience=10.0),
    "cuda_graph": Kind(captured, patience=math.inf),
}
"""By name of the engine, in the order in which `auto` tries them."""

EVALUATIONS: Mapping[str, EvaluationKind] = {
    "native": EvaluationKind(NativeEvaluation, patience=0.5),
    "compiled": EvaluationKind(compiled_evaluation, patience=10.0),
}
"""Likewise, for optimisers whose steps are no graphs: of losses and gradients alone."""

MATRIX = 1024
"""Entries of an unknown matrix from which on `auto` does not trace for `native`: BLAS multiplies it, unless all is so
small that nothing pays, and the trace would take half a second, and four the first one of a process, to be refused."""


def chosen(name: str, oracle: AutogradOracle, optimiser: Optimiser) -> "SwitchingEngine | EvaluatingEngine":
    """The engine of this name, ready to run.

    Raises:
        Mistake: It cannot run this objective with this optimiser; the reason, and what to take instead.
    """
    whole = isinstance(optimiser, TorchOptimiser) and not optimiser.uses_closure  # the step can be a graph
    if name in ("eager", "auto"):
        if whole:
            return SwitchingEngine(oracle, optimiser, promising(KINDS, oracle) if name == "auto" else {})
        return EvaluatingEngine(oracle, optimiser, promising(EVALUATIONS, oracle) if name == "auto" else {})
    size = sum(parameter.numel() for parameter in oracle.parameters)
    try:
        with devices.threads("auto", size), wait(PROGRAM), explained("a program", Refusal, "built"):
            if whole:
                graph = trace(oracle, optimiser)
                return SwitchingEngine(oracle, optimiser, {}, _Candidate(name, graph, KINDS[name].build(graph)))
            if name not in EVALUATIONS:
                raise Refusal(f"it replays whole steps, and {_title(optimiser)} decides by values in the middle of one")
            return EvaluatingEngine(oracle, optimiser, {}, (name, EVALUATIONS[name].build(trace_loss(oracle))))
    except Refusal as refusal:
        raise Mistake(f"engine={name} cannot run this: {refusal}; use engine=eager, or engine=auto") from refusal


def promising(kinds: Mapping[str, Any], oracle: AutogradOracle) -> Mapping[str, Any]:
    """The kinds that `auto` tries."""
    multiplies = any(parameter.ndim > 1 and parameter.numel() >= MATRIX for parameter in oracle.parameters)
    return {name: kind for name, kind in kinds.items() if not (name == "native" and multiplies)}


def _title(optimiser: Optimiser) -> str:
    return type(optimiser.optimizer if isinstance(optimiser, TorchOptimiser) else optimiser).__name__


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A program that is ready, and not yet proved."""

    name: str
    graph: StepGraph
    program: Program


class SwitchingEngine:
    """An `Engine` that begins eager and goes on with a program, once one gives the same records as eager.

    It switches between two blocks, behind an update, and by the state of a run: whoever sees the blocks sees no seam.

    Attributes:
        stopwatch: That of eager, and what building programs and their steps have taken.

    Args:
        kinds: Ways to make a program that are tried in order, each after its patience.
        asked: A program to take in any case, whether it is faster or not.
    """

    def __init__(
        self,
        oracle: AutogradOracle,
        optimiser: Optimiser,
        kinds: Mapping[str, Kind],
        asked: _Candidate | None = None,
    ) -> None:
        self.oracle, self.optimiser = oracle, optimiser
        self._eager = EagerEngine(oracle, optimiser)
        self.stopwatch = self._eager.stopwatch
        self._current: EagerEngine | GraphEngine = self._eager
        self._waiting = dict(kinds)
        self._asked = self._candidate = asked
        self._proved: _Candidate | None = None
        self._graph: StepGraph | None = None
        self._limit = 0
        self._spent = 0.0

        self.label = asked.name if asked is not None else "auto, begins eager" if kinds else "eager"

    @property
    def name(self) -> str:
        """Of the engine that makes the next step."""
        return "eager" if self._proved is None or self._current is self._eager else self._proved.name

    def advance(self, limit: int, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps; see `Engine.advance`."""
        self._limit = limit
        if self._current is not self._eager:
            with self.stopwatch.during("steps"):
                return self._current.advance(limit, bands, seconds)
        if self._candidate is None or (self._asked is None and limit < GATE_ROWS):
            began = time.perf_counter()
            block = self._eager.advance(limit, bands, seconds)
            self._spent += time.perf_counter() - began
            return block
        if self._eager.step == 0:  # the first update makes the optimiser's state
            return self._eager.advance(1, bands, seconds)
        return self._prove(self._candidate, min(limit, GATE_ROWS), bands, seconds)

    def update(self) -> None:
        """Make the update after the last row; see `Engine.update`."""
        if self._current is not self._eager:
            with self.stopwatch.during("steps"):
                self._current.update()
            return
        self._eager.update()
        if self._proved is not None:
            engine = GraphEngine(self.oracle, self._proved.graph.optimiser, self._proved.program)
            engine.load_state_dict(self._eager.state_dict())
            self._current = engine
        elif self._candidate is None and self._waiting:
            self._consider()

    def rewind(self, row: int) -> None:
        """As the engine that runs now."""
        self._current.rewind(row)

    def state_dict(self) -> State:
        """In the form of every engine."""
        return self._current.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict()` of any engine was taken; eager goes first again."""
        self._eager.load_state_dict(state)
        self._current = self._eager
        self._candidate, self._proved = self._proved or self._candidate or self._asked, None

    def _consider(self) -> None:
        """Build the next program if eager steps have taken long enough, and as long is left; what criteria take, no
        program saves.
        """
        name, kind = next(iter(self._waiting.items()))
        spent = min(self._spent, self.oracle.deadline - time.perf_counter())
        if spent < patience(kind.patience) or self._limit < GATE_ROWS:  # it goes step by step
            return
        del self._waiting[name]
        with self.stopwatch.during("building a program"), suppress(Abandoned), wait(PROGRAM):
            self._candidate = self._built(name, kind)

    def _built(self, name: str, kind: Kind) -> _Candidate | None:
        try:
            if self._graph is None:
                self._graph = trace(self.oracle, self.optimiser)
        except Refusal as refusal:
            self._waiting.clear()
            log.info("engine: eager to the end, as the step is no graph: %s", refusal)
            return None
        try:
            with explained("a program", Refusal, "built"):
                return _Candidate(name, self._graph, kind.build(self._graph))
        except Refusal as refusal:
            log.info("engine: eager, not %s: %s", name, refusal)
            return None

    def _prove(self, candidate: _Candidate, limit: int, bands: Mapping[str, Band], seconds: float) -> Block:
        """Some steps by both from the same state; those of eager count."""
        self._candidate, problem, records, pace = None, None, torch.empty(0, 3), 0.0
        try:
            with self.stopwatch.during("building a program"):
                records, pace = _rehearsed(candidate, limit)
        except Exception as error:  # whatever a program dies of, eager goes on
            problem = f"{type(error).__name__}: {error}"
        began = time.perf_counter()
        block = self._eager.advance(limit, bands, seconds)
        usual = (time.perf_counter() - began) / len(block)
        if block.cut_short is not None:  # nothing is left to run, nor a whole step to compare
            return block
        problem = problem or _difference(block, records, TOLERANCE[self.oracle.parameters[0].dtype])
        figures = f"{1e6 * pace:.3g} us a step, eager {1e6 * usual:.3g}"
        if problem is None and self._asked is None and pace > WORTH * usual:
            problem = f"it is not faster ({figures})"
        if problem is None:
            self._proved = candidate
            log.info("engine: %s from step %d on: same records as eager, %s", candidate.name, block.last_step, figures)
        elif self._asked is not None:
            raise Mistake(f"engine={candidate.name} cannot run this: {problem}; use engine=eager, or engine=auto")
        else:
            log.info("engine: eager, not %s: %s", candidate.name, problem)
        return block


def _rehearsed(candidate: _Candidate, count: int) -> tuple[Tensor, float]:
    """Records of steps by a program, and the seconds of one; everything is put back."""
    graph, program = candidate.graph, candidate.program
    live = [*graph.parameters, *graph.state()]
    kept, gradients = [tensor.detach().clone() for tensor in live], [p.grad for p in graph.parameters]
    schedule = Rates(graph.optimiser)
    rates = schedule.ahead(count)
    schedule.settle(0)
    records, seconds = torch.empty(0, 3), math.inf
    for _ in range(2):  # the first one warms it up
        began = time.perf_counter()
        records = program.run(rates, [], math.inf)
        seconds = (time.perf_counter() - began) / len(records)
        program.best = None
        with torch.no_grad():
            for tensor, value in zip(live, kept, strict=True):
                tensor.copy_(value)
    for parameter, gradient in zip(graph.parameters, gradients, strict=True):
        parameter.grad = gradient
    return records, seconds


def _difference(block: Block, records: Tensor, tolerance: float) -> str | None:
    """Where the records of a program are not those of eager but for rounding; None where they are."""
    for index, name in enumerate(COLUMNS[:3]):
        first = 1 if name == "step_norm" else 0  # the first was measured before
        eager, ours = block[name][first:, 0], records[first : len(block), index]
        scale = eager[eager.isfinite()].abs().max().item() if bool(eager.isfinite().any()) else 0.0
        same = (eager == ours) | (eager.isnan() & ours.isnan()) | ((eager - ours).abs() <= tolerance * scale)
        if not bool(same.all()):
            row = int((~same).nonzero()[0])
            return (
                f"at step {block.first_step + first + row} its {name.replace('_', ' ')} is {ours[row].item():.6g}, and "
                f"that of eager {eager[row].item():.6g}: the loss or the optimiser has state that no trace shows"
            )
    return None
