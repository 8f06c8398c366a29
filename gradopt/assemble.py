"""Names and values become live objects: objective, oracle, optimiser, engine, criteria."""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gradopt.constraints.box import Box
from gradopt.contracts import Criterion, Objective, Optimiser
from gradopt.criteria.budget import Interrupt, MaxEvaluations, MaxSeconds, MaxSteps
from gradopt.criteria.convergence import Convergence, Target
from gradopt.criteria.failure import Diverged, NonFinite, Stalled, Unbounded
from gradopt.criteria.feasibility import Infeasible
from gradopt.criteria.optimality import ConstrainedConvergence
from gradopt.engines.choice import SwitchingEngine, chosen
from gradopt.engines.evaluating import EvaluatingEngine
from gradopt.evaluations import KEEP_EVERY, LARGE
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.objectives.function import FunctionObjective
from gradopt.optimisers.escape import Escape
from gradopt.optimisers.torch import TorchOptimiser, build, group_parameters, has_fused_form, refusal
from gradopt.oracle import AutogradOracle
from gradopt.plurals import counted
from gradopt.selection import selected
from gradopt.settings import ENGINES, ON_SADDLE, Stop, options
from gradopt.stacked import StackedOracle
from gradopt.stationarity.points import StationaryPoints

EXTRAS = ("clip_norm", "clip_value", "groups", "elementwise")
"""Options of every optimiser that are the adapter's, not the class's."""

KEEPS = (
    "say optimiser=augmented_lagrangian, which wraps lbfgs, trust_region or levenberg_marquardt (inner), or make them "
    "a penalty of the loss"
)


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one run.

    Attributes:
        interrupt: The criterion that takes signals, for whoever runs the loop to enter as a context.
        facts: What the run is made of, for people.
        budget: Steps after which it ends at the latest; infinity without a budget in steps.
    """

    oracle: AutogradOracle
    engine: SwitchingEngine | EvaluatingEngine
    criteria: Sequence[Criterion]
    interrupt: Interrupt
    facts: Mapping[str, str]
    budget: float


def objective(node: Any) -> Objective:
    """Build the objective a config node names, under the current default device and dtype."""
    entry, values = selected("objective", node)
    target = entry.load()
    with _named(str(entry)):
        if inspect.isclass(target):
            found = target(**values)
        else:
            x0, bounds = values.pop("x0"), values.pop("bounds")
            found = FunctionObjective(_bind(target, values), x0, bounds)
    if not isinstance(found, Objective):
        raise Mistake(f"{entry} is a {type(found).__name__}; it must be a gradopt.Objective (an nn.Module with a loss)")
    return found


def listed(kind: Literal["criterion", "observer"], nodes: Iterable[Any]) -> list[Any]:
    """Build the plugins that a config lists, of one kind."""
    built = []
    for node in nodes:
        entry, values = selected(kind, node)
        with _named(str(entry)):
            built.append(entry.load()(**values))
    return built


def assemble(
    target: Objective,
    optimiser: str | Mapping[str, Any] | Callable[..., Any],
    optimiser_options: Mapping[str, Any] | None = None,
    *,
    schedule: str | Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    on_saddle: str = "stop",
    engine: str = "auto",
    extra_criteria: Sequence[Criterion] = (),
    facts: Mapping[str, str] | None = None,
) -> Assembly:
    """Put the parts of one run together.

    Args:
        target: On its device and in its dtype.
        optimiser: A registered name, a config node with `name` and options, or any callable of the parameters.
        on_saddle: "stop", or "escape": the optimiser is wrapped in one that goes on from saddle points and maxima.
        engine: "eager" does what plain torch does, to the last bit; "auto" takes fused forms where a class has them,
            and a program once that pays; native, compiled and cuda_graph are programs.

    Raises:
        Mistake: Options that do not fit, or an optimiser that cannot minimise this objective.
    """
    check_engine(engine)
    stop = checked(stop, extra_criteria)
    oracle = AutogradOracle(target)
    interrupt = Interrupt(oracle)
    budgets = list(budgets_of(stop, target))
    steps = min((float(budget.last_step) for budget in budgets if isinstance(budget, MaxSteps)), default=math.inf)
    built, label = _optimiser(oracle, target, optimiser, optimiser_options or {}, schedule, steps, engine)
    points, escapes = StationaryPoints(stop.gradient_tolerance), on_saddle == "escape"
    if escapes:
        _check_escape(target, built)
        built, label = Escape(built, points), f"{label}, leaves saddle points"
    elif on_saddle != "stop":
        raise Mistake(
            f"on_saddle={on_saddle!r} is not one of {', '.join(ON_SADDLE)}.{did_you_mean(on_saddle, ON_SADDLE)}"
        )
    judges: list[Criterion] = [
        *([] if stop.target is None else [Target(stop.target)]),
        Unbounded(),
        NonFinite(),
        *_judges(stop, oracle, Convergence(points, escapes=escapes)),
        Stalled(),
        *budgets,
        *extra_criteria,
        interrupt,
    ]
    executed = chosen(engine, oracle, built)  # before the clock starts: it may have to compile
    if stop.max_evaluations is not None:
        oracle.max_evaluations = stop.max_evaluations
    if stop.max_seconds is not None:
        oracle.deadline = time.perf_counter() + stop.max_seconds
    if stop.constraint_tolerance is not None:
        oracle.violation_tolerance = stop.constraint_tolerance
    described = (
        target.describe() if oracle.constraints is None else f"{target.describe()}; {oracle.constraints.describe()}"
    )
    found = {"objective": described, "optimiser": label, "engine": executed.label, **_sparing(oracle), **(facts or {})}
    return Assembly(oracle, executed, judges, interrupt, found, steps)


def check_engine(engine: str) -> None:
    """Refuse an engine there is not."""
    if engine not in ENGINES:
        raise Mistake(f"engine={engine!r} is not one of {', '.join(ENGINES)}.{did_you_mean(str(engine), ENGINES)}")


def _sparing(oracle: AutogradOracle) -> dict[str, str]:
    """What is said where not every point can be the result."""
    if not oracle.is_sparing:
        return {}
    return {"best point": f"of every {KEEP_EVERY}th step and the last, as there are {LARGE} unknowns or more"}


def checked(stop: Stop | None, extra_criteria: Sequence[Criterion]) -> Stop:
    """When the run ends, with a budget at least.

    Raises:
        Mistake: `stop` or a criterion is none.
    """
    if stop is not None and not isinstance(stop, Stop):
        raise Mistake(f"stop must be a gradopt.Stop, such as gradopt.Stop(max_steps=100), got {stop!r}")
    for criterion in extra_criteria:
        if not callable(getattr(criterion, "judge", None)):
            raise Mistake(f"criteria must be objects with a judge(), such as EarlyStopping(...), got {criterion!r}")
    return (stop or Stop()).bounded()


def _judges(stop: Stop, oracle: AutogradOracle, convergence: Convergence) -> list[Criterion]:
    """Who says what kind of point the run has come to. Under constraints a loss that climbs says nothing: it may have
    been low for missing them.
    """
    if oracle.constraints is None:
        return [Diverged(), convergence]
    return [ConstrainedConvergence(stop.gradient_tolerance), Infeasible()]


def budgets_of(stop: Stop, target: Objective) -> Iterable[Criterion]:
    """The criteria that end a run when something is used up."""
    if stop.max_steps is not None:
        yield MaxSteps(stop.max_steps)
    if stop.max_epochs is not None:
        if target.batches is None:
            raise Mistake("stop.max_epochs is for objectives with batches, and this one has none; use stop.max_steps")
        yield MaxSteps(stop.max_epochs, target.batches.steps_per_epoch)
    if stop.max_evaluations is not None:
        yield MaxEvaluations(stop.max_evaluations)
    if stop.max_seconds is not None:
        yield MaxSeconds(stop.max_seconds)


@dataclass(frozen=True, slots=True)
class Made:
    """An optimiser as its plugin made it.

    Attributes:
        optimizer: Of torch, or one of ours.
        keywords: What it was given beside the parameters.
        extras: The options that are the adapter's.
        zeroed: Tolerances of its own that were switched off.
        fused: Whether it takes its kernels' fused form, which nobody has asked for.
    """

    optimizer: Any
    name: str
    keywords: Mapping[str, Any]
    extras: Mapping[str, Any]
    zeroed: Mapping[str, Any]
    groups: Sequence[Any]
    fused: bool

    def label(self, timetable: str) -> str:
        """For people: its name, its options, its schedule."""
        given = {**_shown(self.optimizer), **self.keywords, **{k: v for k, v in self.extras.items() if v}}
        text = f"{self.name}{_listed(given)}{timetable}{', fused' * self.fused}"
        if self.zeroed:
            text += f"; its own {', '.join(self.zeroed)} set to 0, as only gradopt's criteria end a run"
        return text

    def own_label(self) -> str:
        """Likewise, of one of ours."""
        return f"{self.name}{_listed(self.keywords)}"


def _optimiser(
    oracle: AutogradOracle,
    target: Objective,
    optimiser: str | Mapping[str, Any] | Callable[..., Any],
    given: Mapping[str, Any],
    schedule: str | Mapping[str, Any] | None,
    steps: float,
    engine: str,
) -> tuple[Optimiser, str]:
    made = make(oracle, list(target.parameter_groups()), optimiser, given, engine)
    optimizer, name, extras = made.optimizer, made.name, made.extras
    if not isinstance(optimizer, torch.optim.Optimizer):
        check_own(optimizer, name, oracle, made.groups, extras, schedule)
        plan = f": {optimizer.plan(residuals=oracle.has_residuals)}" if hasattr(optimizer, "plan") else ""
        return optimizer, f"{made.own_label()}{plan}"
    _refuse(optimizer, oracle, extras["elementwise"])
    scheduler, every, timetable = scheduled(optimizer, schedule, steps)
    adapter = TorchOptimiser(
        optimizer,
        scheduler=scheduler,
        schedule_every=every,
        clip_norm=extras["clip_norm"],
        clip_value=extras["clip_value"],
        may_unfuse=made.fused,
    )
    return adapter, made.label(timetable)


def make(
    oracle: AutogradOracle | StackedOracle,
    groups: Sequence[Any],
    optimiser: str | Mapping[str, Any] | Callable[..., Any],
    given: Mapping[str, Any],
    engine: str = "auto",
) -> Made:
    """Build the optimiser that a name, a config node or a callable stands for, over the oracle's parameters.

    Args:
        groups: As `Objective.parameter_groups`, of these parameters.
        given: Options beside those of the node.
        engine: Of the run: "auto" takes a fused form where there is one.
    """
    named = dict(zip(oracle.names, oracle.parameters, strict=True))
    if callable(optimiser):
        factory, name = optimiser, getattr(optimiser, "__name__", type(optimiser).__name__)
        values = dict(given)
        keywords = values
    else:
        node = {"name": optimiser} if isinstance(optimiser, str) else dict(optimiser)
        entry, values = selected("optimiser", {**node, **given})
        factory, name = entry.load(), entry.name
        # Options at their defaults are left to the class: what the user did not say is not passed on.
        defaults = {argument.name: argument.default for argument in options("optimiser", entry.signature())}
        keywords = {key: value for key, value in values.items() if not _same(value, defaults[key])}
    extras = {name: keywords.pop(name, None) for name in EXTRAS}
    if extras["groups"]:
        groups = group_parameters(named, extras["groups"])
    asked = [*keywords, *(option for group in groups for option in group)]
    fused = engine == "auto" and has_fused_form(factory, named, asked)
    with _named(f"optimiser {name!r}"):
        if inspect.isclass(factory) and not issubclass(factory, torch.optim.Optimizer):
            own: Any = factory
            if wrapped := getattr(own, "wraps", None):
                keywords[wrapped] = _inner(name, values.get(wrapped, "lbfgs"), oracle)
            optimizer, zeroed = own(oracle.parameters, **keywords), {}
        else:
            optimizer, zeroed = build(factory, named, groups, {**keywords, "fused": True} if fused else keywords)
    return Made(optimizer, name, keywords, extras, zeroed, groups, fused)


def check_own(
    optimiser: Any,
    name: str,
    oracle: AutogradOracle | StackedOracle,
    groups: Sequence[Any],
    extras: Mapping[str, Any],
    schedule: Any,
) -> None:
    """Refuse what only the adapter of torch's classes can do, and what the optimiser says it cannot.

    Raises:
        Mistake: Bounds it does not keep, or clipping, groups or a schedule: it has no learning rate to change.
    """
    if not all(callable(getattr(optimiser, method, None)) for method in ("accepts", "update")):
        kind = type(optimiser).__name__
        raise Mistake(f"{name} built a {kind}; it must build a torch.optim.Optimizer or a gradopt optimiser")
    asked = [extra for extra, value in extras.items() if value] + ["groups"] * bool(groups)
    asked += ["schedule"] * bool(schedule.get("name") if isinstance(schedule, Mapping) else schedule)
    if asked:
        raise Mistake(f"{name} finds its steps itself and takes no {asked[0]}; use one such as adam, or leave it out")
    if bool(getattr(optimiser, "constraints", False)) != (oracle.constraints is not None):
        what = "constraints, and this objective has none" if oracle.constraints is None else None
        raise Mistake(f"{name} is for {what}; use lbfgs" if what else f"{name} keeps no constraints: {KEEPS}")
    if oracle.box is not None and not getattr(optimiser, "bounds", False):
        raise Mistake(f"{name} cannot keep bounds; use lbfgs, trust_region or adam, or drop the bounds")
    if oracle.objective.batches is not None:
        raise Mistake(f"{name} compares losses, which differ from batch to batch; use one such as adam")
    if getattr(optimiser, "residuals", False) and not oracle.has_residuals:
        raise Mistake(f"{name} needs residuals, and {oracle.objective.describe()} has none; use lbfgs or trust_region")


def _check_escape(target: Objective, optimiser: Optimiser) -> None:
    if hasattr(optimiser, "searching"):
        raise Mistake("on_saddle=escape would begin the search anew; leave it out: a search leaves saddles itself")
    if target.batches is not None:
        raise Mistake(
            "on_saddle=escape compares losses, which differ from batch to batch; leave it out: noise escapes too"
        )
    if target.constraints():
        raise Mistake(
            "on_saddle=escape follows the loss alone and would leave the constraints; leave it out, and where a run "
            "ends at a saddle point start again beside it, along verdict.evidence['direction'], where the loss falls"
        )


def _inner(title: str, node: Any, oracle: AutogradOracle | StackedOracle) -> Callable[..., Optimiser]:
    """What builds the optimiser that another one wraps: a registered one of gradopt's kind.

    Raises:
        Mistake: One of torch's, which compares no losses; or one that needs or lacks what this objective has.
    """
    if callable(node):
        raise Mistake(
            f"{title} builds its inner optimiser anew again and again: give it by name, such as inner='lbfgs'"
        )
    entry, values = selected("optimiser", node)
    factory: Any = entry.load()
    for extra in EXTRAS:
        values.pop(extra)
    if not callable(getattr(factory, "accepts", None)) or hasattr(factory, "wraps") or hasattr(factory, "searching"):
        raise Mistake(
            f"{title} wraps an optimiser that compares losses: inner=lbfgs, trust_region or auto, not {entry.name}"
        )
    if getattr(factory, "residuals", False) and not oracle.has_residuals:
        raise Mistake(
            f"{entry.name} needs residuals, and {oracle.objective.describe()} has none; use inner=lbfgs or trust_region"
        )
    if oracle.box is not None and not getattr(factory, "bounds", False):
        raise Mistake(f"{entry.name} cannot keep bounds; use inner=lbfgs or trust_region, or drop the bounds")

    def build(parameters: Sequence[torch.nn.Parameter]) -> Optimiser:
        made = factory(parameters, **values)
        if hasattr(made, "plan"):
            made.plan(residuals=oracle.has_residuals)
        return made

    build.__name__ = entry.name
    return build


def _refuse(optimizer: torch.optim.Optimizer, oracle: AutogradOracle, elementwise: bool | None) -> None:
    if oracle.constraints is not None:
        raise Mistake(f"{type(optimizer).__name__} keeps no constraints: {KEEPS}")
    sparse_only = type(optimizer).__name__ == "SparseAdam"
    if sparse_only:  # whether gradients are sparse is known only from one; it is not counted
        oracle.micro_batches = None if oracle.objective.batches is None else oracle.objective.batches.at(0)
        with torch.random.fork_rng(devices=[]), oracle.uncounted():
            oracle.evaluate()
    reason = refusal(optimizer, bounded=isinstance(oracle.box, Box), elementwise=elementwise)
    if reason:
        raise Mistake(reason)


def scheduled(
    optimizer: torch.optim.Optimizer, schedule: str | Mapping[str, Any] | None, steps: float
) -> tuple[Any, int, str]:
    """The schedule that a name or node stands for, every how many steps it moves on, and words for it.

    Raises:
        Mistake: It ends before the run may.
    """
    if not schedule or (isinstance(schedule, Mapping) and not schedule.get("name")):
        return None, 1, ""
    entry, values = selected("schedule", schedule)
    every = values.pop("every")
    with _named(str(entry)):
        scheduler = entry.load()(optimizer, **values)
    _check_horizon(scheduler, every, steps)
    return scheduler, every, f", schedule {entry.name}{_listed(values)}"


def _check_horizon(scheduler: Any, every: int, steps: float) -> None:
    """Refuse a schedule that raises an error when it is asked beyond its end."""
    horizon = getattr(scheduler, "total_steps", None)
    if horizon is not None and steps / every > horizon:
        asked = f"up to {counted(int(steps), 'step')}" if math.isfinite(steps) else "any number of steps"
        raise Mistake(
            f"the schedule ends after {counted(horizon, 'update')}, and the run may make {asked}: raise "
            f"schedule.total_steps, or say stop.max_steps={horizon * every}"
        )


def _shown(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"lr": optimizer.param_groups[0]["lr"]} if "lr" in optimizer.param_groups[0] else {}


def _listed(values: Mapping[str, Any]) -> str:
    shown = {
        name: getattr(value, "__name__", value) if callable(value) else value
        for name, value in values.items()
        if value is not None
    }
    return f" ({', '.join(f'{name} {value}' for name, value in shown.items())})" if shown else ""


def _same(value: Any, default: Any) -> bool:
    return (type(value) is not bool and value == (list(default) if isinstance(default, tuple) else default)) or (
        isinstance(value, bool) and value is default
    )


def _bind(function: Callable[..., Any], values: Mapping[str, Any]) -> Callable[..., Any]:
    def bound(x: Any) -> Any:
        return function(x, **values)

    bound.__qualname__ = getattr(function, "__qualname__", "function")
    bound.__module__ = getattr(function, "__module__", "")
    return bound


@contextmanager
def _named(title: str) -> Iterator[None]:
    """Say which part a constructor's complaint comes from."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        raise Mistake(message if message.startswith(title) else f"{title}: {message}") from error
