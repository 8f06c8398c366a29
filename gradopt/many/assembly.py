"""The parts of a run of many starts."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt import starts as samplers
from gradopt.assemble import budgets_of, check_engine, check_own, checked, make, scheduled
from gradopt.contracts import Criterion, Objective
from gradopt.criteria.budget import Interrupt, MaxSteps
from gradopt.criteria.convergence import Target
from gradopt.criteria.stacked import (
    StackedConvergence,
    StackedDiverged,
    StackedNonFinite,
    StackedStalled,
    StackedUnbounded,
)
from gradopt.engines.choice import KINDS
from gradopt.engines.compiled_lanes import CompiledLanes
from gradopt.engines.evaluating_starts import evaluating
from gradopt.engines.lane import LanesProgram
from gradopt.engines.lanes import GATE_STARTS, LanesEngine, Parts, prove
from gradopt.engines.loss_graph import explained
from gradopt.engines.masked_lanes import captured_lanes
from gradopt.engines.native.lanes_program import NativeLanes
from gradopt.engines.purity import Refusal
from gradopt.engines.stacked import StackedEngine
from gradopt.engines.tracing import StepGraph, trace
from gradopt.mistakes import Mistake
from gradopt.optimisers.stacked.optimiser import StackedOptimiser, StackedTorchOptimiser
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle
from gradopt.plurals import counted
from gradopt.settings import Starts, Stop
from gradopt.stacked import StackedOracle
from gradopt.stacking import named
from gradopt.stationarity.stacked import StackedPoints
from gradopt.waits import PROGRAM, wait

log = logging.getLogger("gradopt")

PROGRAMS: Mapping[str, Callable[[StepGraph, int], LanesProgram]] = {
    "native": lambda graph, number: NativeLanes(graph),
    "compiled": CompiledLanes,
    "cuda_graph": captured_lanes,
}
"""By name of the engine, of the step of one start and the number of starts."""


@dataclass(frozen=True, slots=True)
class StartsAssembly:
    """The parts of one run of many starts.

    Attributes:
        interrupt: The criterion that takes signals, for whoever runs the loop to enter as a context.
        facts: What the run is made of, for people.
        budget: Steps after which it ends at the latest; infinity without a budget in steps.
    """

    oracle: StackedOracle
    engine: StackedEngine
    criteria: Sequence[Criterion]
    interrupt: Interrupt
    facts: Mapping[str, str]
    budget: float


def drawn(target: Objective, plan: Starts) -> dict[str, Tensor]:
    """Starts by parameter name, drawn round where the objective's parameters stand or inside its bounds.

    Raises:
        Mistake: As `starts.draw`.
    """
    oracle = AutogradOracle(target)
    box = None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper)
    points = samplers.draw(plan.number, plan.sampler, oracle.read(), box, spread=plan.spread, seed=plan.seed)
    return named(target, points)


def assemble_starts(
    target: Objective,
    starts: Mapping[str, Tensor],
    optimiser: str | Mapping[str, Any] | Callable[..., Any],
    optimiser_options: Mapping[str, Any] | None = None,
    *,
    schedule: str | Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    on_saddle: str = "stop",
    engine: str = "auto",
    extra_criteria: Sequence[Criterion] = (),
) -> StartsAssembly:
    """Put the parts of a run of many starts together.

    Args:
        target: On its device and in its dtype.
        starts: By parameter name, each with a leading axis.
        optimiser: As `assemble` takes it.

    Raises:
        Mistake: As `assemble`; or what cannot be done for many starts at once, with the reason.
    """
    _check_request(engine, extra_criteria, on_saddle)
    stop = checked(stop, extra_criteria)
    oracle = StackedOracle(target, starts)
    given = optimiser_options or {}
    interrupt, budgets = Interrupt(oracle), list(budgets_of(stop, target))
    steps = min((float(budget.last_step) for budget in budgets if isinstance(budget, MaxSteps)), default=math.inf)
    built, label = _optimiser(oracle, target, optimiser, given, schedule, steps, engine)
    judges: list[Any] = [
        *([] if stop.target is None else [Target(stop.target)]),
        StackedUnbounded(),
        StackedNonFinite(),
        StackedDiverged(),
        StackedConvergence(StackedPoints(stop.gradient_tolerance)),
        StackedStalled(),
        *budgets,
        *extra_criteria,
        interrupt,
    ]
    facts = {"objective": target.describe(), "optimiser": f"{label}, of {counted(oracle.num_starts, 'start')} at once"}

    if not isinstance(built, StackedTorchOptimiser):
        evaluated = evaluating(engine, oracle, built, label)
        _limit(oracle, stop)
        return StartsAssembly(oracle, evaluated, judges, interrupt, {**facts, "engine": evaluated.label}, steps)

    def few() -> Parts:
        some = StackedOracle(target, {name: points[:GATE_STARTS] for name, points in starts.items()})
        moved = _optimiser(some, target, optimiser, given, schedule, steps, engine)[0]
        assert isinstance(moved, StackedTorchOptimiser), "as of all starts"
        return Parts(some, moved)

    @wait(PROGRAM)
    def program() -> LanesProgram:
        one = AutogradOracle(target)
        with explained("a program", Refusal, "built"):
            graph = trace(one, _of_one(one, target, optimiser, given, schedule, steps))
            made = PROGRAMS[name](graph, oracle.num_starts)
        prove(made, few)
        log.info("engine: %s, as the first starts give the same records as by eager", name)
        return made

    facts["engine"] = "auto, begins eager" if engine == "auto" else engine
    name = engine if engine in PROGRAMS else "native"
    patience = {"eager": math.inf, "auto": KINDS[name].patience}.get(engine, 0.0)
    executed = LanesEngine(Parts(oracle, built), name, program, patience)
    _limit(oracle, stop)
    return StartsAssembly(oracle, executed, judges, interrupt, facts, steps)


def _limit(oracle: StackedOracle, stop: Stop) -> None:
    """Set the budgets; not before there is an engine, as it may have to compile."""
    if stop.max_evaluations is not None:
        oracle.max_evaluations = stop.max_evaluations
    if stop.max_seconds is not None:
        oracle.deadline = time.perf_counter() + stop.max_seconds


def _check_request(engine: str, extra_criteria: Sequence[Criterion], on_saddle: str) -> None:
    """Refuse what is for one start alone."""
    check_engine(engine)
    for criterion in extra_criteria:
        if not callable(getattr(criterion, "keep", None)):
            name = type(criterion).__name__
            raise Mistake(f"the criterion {name} judges one start alone (it has no `keep`): run the starts one by one")
    if on_saddle != "stop":
        raise Mistake("on_saddle=escape is for one start: leave it out, or run the starts one after another")


def _of_one(
    one: AutogradOracle,
    target: Objective,
    optimiser: str | Mapping[str, Any] | Callable[..., Any],
    given: Mapping[str, Any],
    schedule: str | Mapping[str, Any] | None,
    steps: float,
) -> TorchOptimiser:
    """The optimiser of one start, whose step is traced."""
    made = make(one, list(target.parameter_groups()), optimiser, given, "eager")
    scheduler, every, _ = scheduled(made.optimizer, schedule, steps)
    return TorchOptimiser(
        made.optimizer,
        scheduler=scheduler,
        schedule_every=every,
        clip_norm=made.extras["clip_norm"],
        clip_value=made.extras["clip_value"],
    )


def _optimiser(
    oracle: StackedOracle,
    target: Objective,
    optimiser: str | Mapping[str, Any] | Callable[..., Any],
    given: Mapping[str, Any],
    schedule: str | Mapping[str, Any] | None,
    steps: float,
    engine: str,
) -> tuple[StackedOptimiser, str]:
    places = {id(parameter): index for index, parameter in enumerate(target.parameters())}
    own = [parameter for parameter in target.parameters() if parameter.requires_grad]
    stacked = {places[id(one)]: many for one, many in zip(own, oracle.parameters, strict=True)}
    groups = [
        {**group, "params": [stacked[places[id(p)]] for p in group["params"] if places[id(p)] in stacked]}
        for group in target.parameter_groups()
    ]
    made = make(oracle, groups, optimiser, given, engine)
    if not isinstance(made.optimizer, torch.optim.Optimizer):
        check_own(made.optimizer, made.name, oracle, made.groups, made.extras, schedule)
        stacked = getattr(made.optimizer, "stacked", None)
        if stacked is None:
            raise Mistake(
                f"{made.name} finds its steps for one start alone: for many at once use lbfgs, or an elementwise "
                "optimiser such as adam, or run the starts one after another"
            )
        return stacked(oracle), made.own_label()
    scheduler, every, timetable = scheduled(made.optimizer, schedule, steps)
    adapter = TorchOptimiser(
        made.optimizer,
        scheduler=scheduler,
        schedule_every=every,
        clip_value=made.extras["clip_value"],
        may_unfuse=made.fused,
    )
    extras = made.extras
    return (
        StackedTorchOptimiser(adapter, elementwise=extras["elementwise"], clip_norm=extras["clip_norm"]),
        made.label(timetable),
    )
