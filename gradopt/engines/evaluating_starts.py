"""Eager updates of many starts on losses and gradients by a program, as `evaluating` has them for one."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradopt import devices
from gradopt.engines.choice import EVALUATIONS, promising
from gradopt.engines.compiled_starts import CompiledEvaluations
from gradopt.engines.evaluating import GATE_EVALUATIONS, TOLERANCE, EvaluationKind, Settle, Substitution
from gradopt.engines.loss_graph import explained, trace_loss
from gradopt.engines.native.evaluation import NativeEvaluations
from gradopt.engines.purity import Refusal
from gradopt.engines.stacked import StackedEngine
from gradopt.mistakes import Mistake
from gradopt.optimisers.stacked.optimiser import StackedOptimiser
from gradopt.stacked import Differentiate, StackedOracle
from gradopt.waits import PROGRAM, wait

ROUNDINGS = 64
"""How far from a point its loss and gradient are looked at to see what rounding makes of them there."""

LOOKS, SLACK = 8, 8.0
"""Such points, and the part of what they show by which a number may be off."""


def kinds(number: int) -> Mapping[str, EvaluationKind]:
    """Ways to make a program for so many starts, by name of the engine, in the order in which `auto` tries them."""
    builds = {"native": NativeEvaluations, "compiled": lambda graph: CompiledEvaluations(graph, number)}
    return {name: EvaluationKind(build, EVALUATIONS[name].patience) for name, build in builds.items()}


def evaluating(name: str, oracle: StackedOracle, optimiser: StackedOptimiser, title: str) -> "EvaluatingStartsEngine":
    """The engine of this name for an optimiser that decides by values, ready to run.

    Args:
        title: Of the optimiser, for people.

    Raises:
        Mistake: It cannot run this; the reason, and what to take instead.
    """
    one, known = oracle.one, kinds(oracle.num_starts)
    if name in ("eager", "auto"):
        return EvaluatingStartsEngine(oracle, optimiser, promising(known, one) if name == "auto" else {})
    try:
        if name not in known:
            raise Refusal(f"it replays whole steps, and {title} decides by values in the middle of one")
        size = sum(parameter.numel() for parameter in one.parameters)
        with devices.threads("auto", size), wait(PROGRAM), explained("a program", Refusal, "built"):
            program = known[name].build(trace_loss(one))
        return EvaluatingStartsEngine(oracle, optimiser, {}, (name, program))
    except Refusal as refusal:
        raise Mistake(f"engine={name} cannot run this: {refusal}; use engine=eager, or engine=auto") from refusal


class EvaluatingStartsEngine(StackedEngine):
    """A `StackedEngine` whose oracle takes losses and gradients from a program, once it gives the same as autograd.

    The patience of a program is that of the evaluations alone: what the optimiser takes, it does not save.

    Args:
        kinds, asked: See `Substitution`.
    """

    def __init__(
        self,
        oracle: StackedOracle,
        optimiser: StackedOptimiser,
        kinds: Mapping[str, EvaluationKind],
        asked: tuple[str, Differentiate] | None = None,
    ) -> None:
        super().__init__(oracle, optimiser)
        usual = oracle.differentiate = self._usual = Timed(oracle.by_autograd)
        self._substitution = Substitution(
            oracle,
            lambda: trace_loss(oracle.one),
            lambda program, settle: StartsGate(usual, program, settle),
            kinds,
            asked,
        )
        self.label = self._substitution.label

    @property
    def name(self) -> str:
        """Of what losses and gradients are made by now."""
        return self._substitution.name

    def update(self) -> None:
        """Make the update after the last row of the starts that go on; see `Engine.update`."""
        super().update()
        if self._substitution.is_due(self._usual.seconds):
            with self.stopwatch.during("building a program"):
                self._substitution.build()


class Timed:
    """Losses and gradients, and the seconds they have taken."""

    def __init__(self, differentiate: Differentiate) -> None:
        self._differentiate = differentiate
        self.seconds = 0.0

    def __call__(self, parts: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See `StackedOracle.differentiate`."""
        began = time.perf_counter()
        found = self._differentiate(parts)
        self.seconds += time.perf_counter() - began
        return found


@dataclass(slots=True)
class StartsGate:
    """Losses and gradients of many starts by autograd, which count, and by a program beside it.

    Each start is compared by its own scale. Where some are off all the same, the program is asked what rounding makes
    of their numbers: near a minimum at which large terms cancel, they differ as much at the next points.

    Args:
        settle: Told after some evaluations, or at once where they differ or the program raises.
    """

    usual: Differentiate
    program: Differentiate
    settle: Settle
    _seconds: list[tuple[int, float, float]] = field(default_factory=list[tuple[int, float, float]])
    _reach: Tensor | None = None

    def __call__(self, parts: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See `StackedOracle.differentiate`."""
        began = time.perf_counter()
        try:
            ours, problem = self.program(parts), None
        except Exception as error:  # whatever a program dies of, autograd goes on
            ours, problem = None, f"{type(error).__name__}: {error}"
        between = time.perf_counter()
        theirs = self.usual(parts)
        if ours is not None:
            self._seconds.append((len(parts[0]), between - began, time.perf_counter() - between))
            problem = self._difference(parts, _rows(ours, parts), _rows(theirs, parts))
        if problem is not None:
            self.settle(problem, math.nan, math.nan)
        elif len(self._seconds) == GATE_EVALUATIONS:
            numbers, pace, usual = map(sum, zip(*self._seconds[1:], strict=True))  # the first warms it up
            self.settle(None, pace / numbers, usual / numbers)
        return theirs

    def _difference(self, parts: Sequence[Tensor], ours: "_Found", theirs: "_Found") -> str | None:
        """Where the program is not autograd but for rounding; None where it is."""
        points = _joined(parts)
        reach = points.abs().nan_to_num(nan=0.0, posinf=0.0).amax(0)
        self._reach = reach = reach if self._reach is None else torch.maximum(reach, self._reach)
        tolerance = TOLERANCE[points.dtype]
        for index, name in enumerate(("loss", "gradient")):
            mine, usual = ours[index], theirs[index]
            entries = _differences(mine, usual)
            apart = entries.amax(1)
            scale = torch.where(usual.isfinite(), usual, 0.0).abs().amax(1)
            places = (apart > tolerance * scale).nonzero().flatten()
            if not len(places):
                continue
            noise = self._noise([part.detach()[places] for part in parts], index)
            common = torch.where(noise.isfinite(), noise, 0.0).amax()  # of few digits, one start may show none
            places = places[apart[places] > SLACK * torch.maximum(noise, common)]
            if len(places):
                place = int(places[0])
                entry = int(entries[place].argmax())
                return (
                    f"at evaluation {len(self._seconds)} of {GATE_EVALUATIONS} {'an entry of ' * index}its {name} at "
                    f"a start is {mine[place, entry].item():.6g}, and that of eager {usual[place, entry].item():.6g}: "
                    "the loss has state that no trace shows"
                )
        return None

    def _noise(self, parts: Sequence[Tensor], index: int) -> Tensor:
        """How far the program's numbers move as the unknowns move by some roundings, shape (starts,)."""
        assert self._reach is not None
        reach = torch.where(self._reach > 0, self._reach, 1.0) * ROUNDINGS * torch.finfo(self._reach.dtype).eps
        reaches = reach.split([part[0].numel() for part in parts])
        # Anew, as what is wrong may depend on the place among all starts.
        here, generator = _rows(self.program(parts), parts)[index], torch.Generator().manual_seed(0)
        found = torch.zeros_like(here[:, 0])
        for _ in range(LOOKS):
            beside = []
            for part, size in zip(parts, reaches, strict=True):
                share = 2 * torch.rand(part.shape, dtype=torch.float64, generator=generator).to(part) - 1
                beside.append(part + share * size.view(part.shape[1:]))
            found = torch.maximum(found, _differences(_rows(self.program(beside), beside)[index], here).amax(1))
        return found


_Found = tuple[Tensor, Tensor]
"""Losses, shape (starts, 1), and gradients, shape (starts, n)."""


def _rows(found: tuple[Tensor, Sequence[Tensor | None]], parts: Sequence[Tensor]) -> _Found:
    gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found[1], parts, strict=True)]
    return found[0].unsqueeze(1), _joined(gradients)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(len(part), -1) for part in parts], dim=1)


def _differences(one: Tensor, other: Tensor) -> Tensor:
    """By entry; infinite where only one of two is a number."""
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one - other).abs().nan_to_num(nan=torch.inf))
