"""gradopt from Python: minimise, step by step or in one call, with no files written unless asked."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from gradopt import devices, hyperparameters
from gradopt.assemble import assemble
from gradopt.conclusion import concluded, form_of
from gradopt.contracts import (
    Band,
    Block,
    Constraint,
    Criterion,
    Judgement,
    Objective,
    Observer,
    Oracle,
    State,
)
from gradopt.execution import Blocks, execute
from gradopt.many.assembly import assemble_starts, drawn
from gradopt.many.execution import execute as execute_starts
from gradopt.mistakes import Mistake
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.objectives.robust import RobustLoss
from gradopt.observers.history import History
from gradopt.preflight import Report, examine
from gradopt.result import Result, Results, entry
from gradopt.settings import Starts, Stop
from gradopt.unknowns import split
from gradopt.verdict import Status, Verdict

log = logging.getLogger("gradopt")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of `gradopt.steps`, before its update.

    Attributes:
        x: A detached copy of the unknowns, in the form of `x0`.
        result: The result, at the last step; None before it.
    """

    step: int
    x: Any
    loss: float
    gradient_norm: float
    result: Result | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The ending, at the last step; None before it."""
        return None if self.result is None else self.result.verdict


@overload
def minimise(
    objective: Callable[..., Tensor] | Objective, x0: Any = None, *, starts: None = None, **options: Any
) -> Result: ...


@overload
def minimise(
    objective: Callable[..., Tensor] | Objective, x0: Any = None, *, starts: Any, **options: Any
) -> Results: ...


def minimise(  # pyright: ignore[reportInconsistentOverload] - the options of both are those below
    objective: Callable[..., Tensor] | Objective,
    x0: Any = None,
    *,
    starts: Any = None,
    optimiser: str | Callable[..., Any] | None = None,
    optimiser_options: Mapping[str, Any] | None = None,
    schedule: str | Mapping[str, Any] | None = None,
    bounds: Any = None,
    constraints: Constraint | Sequence[Constraint] = (),
    stop: Stop | None = None,
    on_saddle: str = "stop",
    criteria: Sequence[Criterion] = (),
    observers: Sequence[Observer] = (),
    callback: Callable[[Block], bool | None] | None = None,
    maximise: bool = False,
    engine: str = "auto",
    directory: str | Path | None = None,
) -> Result | Results:
    """Minimise a function of tensors, or an `Objective`.

    Args:
        objective: A function of one start returning the loss, shape (); or an `Objective`, whose parameters are updated
            in place to the result.
        x0: The start: a tensor (keeps dtype and device), numbers, a list or a NumPy array (become float64), or a
            dict or tuple of tensors. It is never modified. Not given with an `Objective`.
        starts: Many starts, run at once as one tensor program: what x0 may be with a leading axis, one entry a start
            (by parameter name, or one tensor, for an `Objective`); or how many to draw in the bounds or round x0, or
            `gradopt.Starts(64, sampler="sobol")`. Each ends with a verdict of its own, in a `Results`. The function is
            still written for one start; `lbfgs`, `trust_region`, `levenberg_marquardt` and elementwise
            optimisers of torch run them.
        optimiser: A registered name (`gradopt plugins` lists them), or any callable of the parameters that returns a
            `torch.optim.Optimizer`. Left out: `lbfgs`, with constraints inside `augmented_lagrangian`; with groups
            or batches, Adam at lr 0.01.
        optimiser_options: Keyword arguments of the class, and `clip_norm`, `clip_value`, `groups`.
        schedule: A name such as "cosine", or {"name": ..., options}.
        bounds: (lower, upper), each broadcastable to x0 or in its form; None where free.
        constraints: `gradopt.Constraint(g, upper=0.0)` for g <= 0, one or several; g is called as the function is, and
            equal limits make an equality.
        on_saddle: "stop" at a saddle point or maximum, or "escape" from it along the direction in which the loss falls.
        callback: Called with each block of records; returning True stops the run (`stopped`).
        maximise: Maximise instead: minus the function is minimised. `stop.target`, and `fun`, `jac` and `history` of
            the result are of the function itself; the message and its evidence speak of the loss, minus that.
        engine: What executes the steps: "eager" does what plain torch does, to the last bit; "native" and "compiled"
            run a graph of the step in machine code and refuse what they cannot; "auto" takes fused forms where a class
            has them, and changes to a program once that pays.
        directory: Where the observers may write; None: no files.

    Raises:
        Mistake: Arguments that do not fit, with what to do. What the objective raises is passed on.

    Example:
        >>> import gradopt
        >>> result = gradopt.minimise(lambda x: ((x - 3) ** 2).sum(), x0=[0.0, 1.0])
        >>> result.status.value, [round(v, 6) for v in result.x.tolist()]
        ('converged', [3.0, 3.0])
    """
    plan = starts if starts is None or isinstance(starts, Starts) else _plan(starts)
    first = x0 if plan is None else _first(objective, x0, plan, bounds)
    target, form = _target(objective, first, bounds, constraints, maximise=maximise)
    chosen, options = _optimiser(target, optimiser, optimiser_options)
    if maximise and stop is not None and stop.target is not None:
        stop = replace(stop, target=-stop.target)
    if not isinstance(criteria, Sequence):
        raise Mistake(f"criteria must be a list of objects with a judge(), got {criteria!r}")
    if callback is not None and not callable(callback):
        raise Mistake(f"callback must be a function of a block of records, got {callback!r}")
    user = [*criteria, *([_Callback(callback)] if callback else [])]
    if plan is not None:
        named = drawn(target, plan) if isinstance(plan, Starts) else _named(target, plan)
        many = assemble_starts(
            target,
            named,
            chosen,
            options,
            schedule=schedule,
            stop=stop,
            on_saddle=on_saddle,
            engine=engine,
            extra_criteria=user,
        )
        said = _said(objective, chosen, options, schedule, stop)
        results = execute_starts(many, observers, form, directory=directory, chosen=said)
        return _all_negated(results) if maximise else results
    assembly = assemble(
        target,
        chosen,
        options,
        schedule=schedule,
        stop=stop,
        on_saddle=on_saddle,
        engine=engine,
        extra_criteria=user,
    )
    said = _said(objective, chosen, options, schedule, stop)
    result = execute(assembly, observers, form, directory=directory, chosen=said)
    return _negated(result) if maximise else result


@overload
def least_squares(
    residuals: Callable[..., Tensor] | Objective, x0: Any = None, *, starts: None = None, **options: Any
) -> Result: ...


@overload
def least_squares(
    residuals: Callable[..., Tensor] | Objective, x0: Any = None, *, starts: Any, **options: Any
) -> Results: ...


def least_squares(  # pyright: ignore[reportInconsistentOverload] - the options of both are those below
    residuals: Callable[..., Tensor] | Objective,
    x0: Any = None,
    *,
    starts: Any = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    optimiser: str | Callable[..., Any] | None = None,
    optimiser_options: Mapping[str, Any] | None = None,
    bounds: Any = None,
    constraints: Constraint | Sequence[Constraint] = (),
    stop: Stop | None = None,
    on_saddle: str = "stop",
    criteria: Sequence[Criterion] = (),
    observers: Sequence[Observer] = (),
    callback: Callable[[Block], bool | None] | None = None,
    engine: str = "auto",
    directory: str | Path | None = None,
) -> Result | Results:
    """Minimise half the sum of squares of residuals, or a robust loss of them, by Levenberg-Marquardt, with constraints
    inside an augmented Lagrangian.

    The result's `covariance` and `standard_errors` are those of the unknowns.

    Args:
        residuals: A function of one start returning the residuals, of any shape; or an `Objective` that has them.
        starts: Many fits at once, as for `minimise`.
        loss: linear, soft_l1, huber, cauchy or arctan, as in `scipy.optimize.least_squares`.
        f_scale: The size of residual from which on outliers begin, in the units of the residuals.
        optimiser_options: With constraints those of `augmented_lagrangian`; those of the optimiser inside are given as
            {"inner": {"name": "levenberg_marquardt", "jacobian": "products"}}.
        engine: As for `minimise`: of losses and gradients; residuals and their Jacobians stay with autograd.

    Raises:
        Mistake: As `minimise`.

    Example:
        >>> import gradopt, torch
        >>> result = gradopt.least_squares(lambda x: torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]), [-1.2, 1.0])
        >>> result.status.value, result.x.tolist()
        ('converged', [1.0, 1.0])
    """
    target: Callable[..., Tensor] | Objective = residuals
    if not isinstance(residuals, Objective):
        starts = starts if starts is None or isinstance(starts, Starts) else _plan(starts)
        first = x0 if starts is None else _first(residuals, x0, starts, bounds)
        if not callable(residuals) or first is None:
            raise Mistake("least_squares needs a function and a start: least_squares(residuals, x0=[1.0, 2.0])")
        with devices.defaults(torch.device("cpu"), torch.float64):
            target = ResidualObjective(residuals, first, bounds, constraints, robust=RobustLoss(loss, f_scale))
        x0 = bounds = None
    elif loss != "linear":
        raise Mistake("an Objective brings its own loss of the residuals: set its `robust`, and leave out loss")
    elif constraints:
        raise Mistake("an Objective brings its own constraints: return them from constraints(), and leave these out")
    if optimiser is None:
        optimiser = "levenberg_marquardt"
        if isinstance(target, Objective) and target.constraints():
            optimiser, optimiser_options = "augmented_lagrangian", {"inner": optimiser, **(optimiser_options or {})}
    return minimise(
        target,
        x0,
        starts=starts,
        optimiser=optimiser,
        optimiser_options=optimiser_options,
        bounds=bounds,
        stop=stop,
        on_saddle=on_saddle,
        criteria=criteria,
        observers=observers,
        callback=callback,
        engine=engine,
        directory=directory,
    )


def steps(
    objective: Callable[..., Tensor] | Objective,
    x0: Any = None,
    *,
    optimiser: str | Callable[..., Any] | None = None,
    optimiser_options: Mapping[str, Any] | None = None,
    schedule: str | Mapping[str, Any] | None = None,
    bounds: Any = None,
    constraints: Constraint | Sequence[Constraint] = (),
    stop: Stop | None = None,
    on_saddle: str = "stop",
    criteria: Sequence[Criterion] = (),
    engine: str = "auto",
) -> Iterator[Progress]:
    """The same run as `minimise`, handed over step by step; the last step carries the result.

    Between two steps the caller has control: leaving the loop ends the run, with nothing else to clean up. Ctrl-C
    during a step ends the run with its result; between two steps it is the caller's.

    Example:
        >>> import gradopt
        >>> for progress in gradopt.steps(lambda x: (x - 3) ** 2, 0.0, optimiser="sgd", optimiser_options={"lr": 0.25}):
        ...     if progress.step < 3:
        ...         print(progress.step, progress.loss)
        0 9.0
        1 2.25
        2 0.5625
        >>> progress.verdict.status.value
        'converged'
    """
    target, form = _target(objective, x0, bounds, constraints, maximise=False)
    chosen, options = _optimiser(target, optimiser, optimiser_options)
    assembly = assemble(
        target,
        chosen,
        options,
        schedule=schedule,
        stop=stop,
        on_saddle=on_saddle,
        engine=engine,
        extra_criteria=criteria,
    )
    oracle, history = assembly.oracle, History()
    blocks = Blocks(assembly.engine, assembly.criteria, max_rows=1)
    size = sum(parameter.numel() for parameter in oracle.parameters)
    held: Progress | None = None
    while True:
        with assembly.interrupt, devices.threads("auto", size):
            block = next(blocks, None)
        if block is None:
            break
        if held is not None:
            yield held
        if held is None or block.last_step > held.step:
            history.record(block, oracle.metrics)
        held = Progress(
            block.last_step,
            form(split(oracle.read(), oracle.parameters)),
            block["loss"][-1, 0].item(),
            block["gradient_norm"][-1, 0].item(),
        )
    assert held is not None, "a run has at least its start"
    yield replace(held, result=concluded(assembly, blocks.last, blocks.ending, history, form, None))


def check(
    objective: Callable[..., Tensor] | Objective,
    x0: Any = None,
    *,
    optimiser: str | Callable[..., Any] | None = None,
    optimiser_options: Mapping[str, Any] | None = None,
    bounds: Any = None,
    constraints: Constraint | Sequence[Constraint] = (),
) -> Report:
    """Examine an objective at its start, before a run: its gradient against differences of the loss, determinism,
    scale, what the dtype resolves, second derivatives, residuals, bounds, constraints and their gradients, what it can
    prove.

    The arguments are those of `minimise`. The objective's parameters stay where they are.

    Raises:
        Mistake: As `minimise`.

    Example:
        >>> import gradopt, torch
        >>> report = gradopt.check(lambda x: ((x - 3) ** 2).sum() + x[0].detach(), [0.0, 1.0])
        >>> print(report["gradient"].sentence.partition(";")[0])
        the gradient is wrong: in x[0] the loss changes by -5 where the gradient says -6
    """
    target, _ = _target(objective, x0, bounds, constraints, maximise=False)
    chosen, options = _optimiser(target, optimiser, optimiser_options)
    return examine(assemble(target, chosen, options))


class _Callback:
    """The user's function as a criterion: called with each block, True stops."""

    def __init__(self, function: Callable[[Block], bool | None]) -> None:
        self._function = function

    def bands(self) -> Mapping[str, Band]:
        return {}

    def due(self, step: int) -> float:
        return step + 1

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        if not self._function(block):
            return None
        return Judgement.last(Status.STOPPED, block, step=block.steps)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return f"the callback stopped the run at step {evidence['step']}"

    def keep(self, kept: Tensor) -> None:
        """Nothing is remembered of a start."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing is remembered."""


def _target(
    objective: Callable[..., Tensor] | Objective,
    x0: Any,
    bounds: Any,
    constraints: Constraint | Sequence[Constraint],
    *,
    maximise: bool,
) -> tuple[Objective, Callable[[Sequence[Tensor]], Any]]:
    if isinstance(objective, Objective):
        if x0 is not None or bounds is not None or constraints or maximise:
            raise Mistake(
                "an Objective brings its own start, bounds, constraints and sign: leave out x0, bounds, constraints "
                "and maximise"
            )
        return objective, form_of(objective)
    if isinstance(objective, torch.nn.Module):
        raise Mistake(
            f"{type(objective).__name__} is an nn.Module: derive it from gradopt.Objective, or pass a function"
        )
    if not callable(objective):
        raise Mistake(f"the objective must be a function or a gradopt.Objective, got {type(objective).__name__}")
    if x0 is None:
        raise Mistake("a function needs a start: minimise(f, x0=[1.0, 2.0])")
    with devices.defaults(torch.device("cpu"), torch.float64):
        target = FunctionObjective(objective, x0, bounds, constraints, maximise=maximise)
    return target, target.structured


def _plan(starts: Any) -> Any:
    """A number of starts as `Starts`; others as tensors in the form in which they were given."""
    if isinstance(starts, int) and not isinstance(starts, bool):
        return Starts(starts)
    if isinstance(starts, Mapping):
        return {name: _stack(part) for name, part in starts.items()}
    if isinstance(starts, tuple) and any(isinstance(one, Tensor) for one in starts):
        return tuple(_stack(part) for part in starts)
    return _stack(starts)


def _stack(starts: Any) -> Tensor:
    try:
        tensor = starts if isinstance(starts, Tensor) else torch.as_tensor(starts, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mistake(
            f"starts must be tensors with a leading axis, a number, or gradopt.Starts(64), got {starts!r}"
        ) from error
    if not tensor.dim() or not len(tensor):
        raise Mistake(f"starts must have a leading axis with at least one entry, got shape {tuple(tensor.shape)}")
    return tensor


def _first(objective: Any, x0: Any, plan: Any, bounds: Any) -> Any:
    """The start that stands for all, in the form of one: for drawn starts that is x0, or the middle of the bounds."""
    if isinstance(objective, Objective):
        return x0
    if not isinstance(plan, Starts):
        if x0 is not None:
            raise Mistake("starts bring their own x0: leave one of the two out")
        return entry(plan, 0)
    if x0 is not None or bounds is None:
        return x0
    try:
        return sum(torch.as_tensor(side, dtype=torch.float64) for side in bounds) / 2
    except (TypeError, ValueError, RuntimeError):
        raise Mistake("starts drawn in these bounds need an x0 that says the shape of one: x0=[0.0, 0.0]") from None


def _named(target: Objective, starts: Any) -> dict[str, Tensor]:
    """Starts by parameter name."""
    if isinstance(target, FunctionObjective):
        return target.named(starts)
    if isinstance(starts, Mapping):
        return dict(starts)
    names = [name for name, parameter in target.named_parameters() if parameter.requires_grad]
    parts = starts if isinstance(starts, tuple) else (starts,)
    if len(parts) != len(names):
        raise Mistake(f"there are {len(names)} unknowns ({', '.join(names)}): give their starts by name, in a dict")
    return dict(zip(names, parts, strict=True))


def _optimiser(
    target: Objective,
    optimiser: str | Callable[..., Any] | None,
    options: Mapping[str, Any] | None,
) -> tuple[str | Callable[..., Any], Mapping[str, Any]]:
    if options is not None and not isinstance(options, Mapping):
        raise Mistake(f"optimiser_options must be a dict, such as {{'lr': 0.1}}, got {options!r}")
    if optimiser is not None:
        if not (isinstance(optimiser, str) or callable(optimiser)):
            raise Mistake(f"optimiser must be a name or a callable of the parameters, got {optimiser!r}")
        return optimiser, options or {}
    if target.parameter_groups() or target.batches is not None:  # what L-BFGS cannot take
        return "adam", {"lr": 0.01, **(options or {})}
    if target.constraints():
        return "augmented_lagrangian", options or {}
    return "lbfgs", options or {}


def _said(
    objective: Any, optimiser: Any, options: Mapping[str, Any], schedule: Any, stop: Stop | None
) -> dict[str, Any]:
    """What tells the run from others."""
    config = {
        "objective": {"name": _name(objective)},
        "optimiser": {"name": _name(optimiser), **options},
        "schedule": {"name": schedule} if isinstance(schedule, str) else schedule,
        "stop": {} if stop is None else asdict(stop),
    }
    return hyperparameters.chosen(config, [*(f"optimiser.{name}" for name in options), "schedule", "stop"])


def _name(what: Any) -> str:
    return what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)


def _negated(result: Result) -> Result:
    """The result of a maximisation, in terms of the function that was maximised."""
    jac = _minus(result.jac)
    history = {name: -values if name in ("loss", "full_loss") else values for name, values in result.history.items()}
    verdict = replace(result.verdict, reason=f"{result.message} (maximised: the loss is minus the function)")
    minima = [{**one, "fun": -one["fun"]} for one in result.minima]
    found = result.multipliers
    multipliers = None if found is None else {name: -y for name, y in found.items()}
    return replace(
        result, fun=-result.fun, jac=jac, history=history, verdict=verdict, minima=minima, multipliers=multipliers
    )


def _minus(structure: Any) -> Any:
    if isinstance(structure, Mapping):
        return {name: -part for name, part in structure.items()}
    return tuple(-part for part in structure) if isinstance(structure, tuple) else -structure


def _all_negated(results: Results) -> Results:
    """The results of a maximisation of many starts, in terms of the function that was maximised."""
    best = _negated(results.best_start)
    history = {name: -values if name == "best_loss" else values for name, values in best.history.items()}
    jac = _minus(results.jac)
    return replace(results, fun=-results.fun, jac=jac, history=history, minima=best.minima)
