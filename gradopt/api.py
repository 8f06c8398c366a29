"""gradopt from Python: minimise, step by step or in one call, with no files written unless asked."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradopt import devices, postmortem
from gradopt.assemble import Assembly, assemble
from gradopt.contracts import (
    Band,
    Block,
    Constraint,
    Criterion,
    Evaluation,
    Judgement,
    Objective,
    Observer,
    Oracle,
    Run,
    State,
)
from gradopt.criteria.optimality import multipliers
from gradopt.loop import MAX_ROWS, Ending, iterate
from gradopt.mistakes import Mistake
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.objectives.robust import RobustLoss
from gradopt.observers.history import History
from gradopt.oracle import AutogradOracle
from gradopt.preflight import Report, examine
from gradopt.result import Result
from gradopt.settings import Stop
from gradopt.verdict import Status, Verdict

log = logging.getLogger("gradopt")

MAX_COVARIANCE = 1000
"""Unknowns up to which a fit comes with its covariance."""


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


def minimise(
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
    observers: Sequence[Observer] = (),
    callback: Callable[[Block], bool | None] | None = None,
    maximise: bool = False,
    engine: str = "auto",
    directory: str | Path | None = None,
) -> Result:
    """Minimise a function of tensors, or an `Objective`.

    Args:
        objective: A function of one start returning the loss, shape (); or an `Objective`, whose parameters are updated
            in place to the result.
        x0: The start: a tensor (keeps dtype and device), numbers, a list or a NumPy array (become float64), or a
            dict or tuple of tensors. It is never modified. Not given with an `Objective`.
        optimiser: A registered name (`gradopt plugins` lists them), or any callable of the parameters that returns a
            `torch.optim.Optimizer`. Left out: `lbfgs`, with constraints inside `augmented_lagrangian`; with groups or
            batches, Adam at lr 0.01.
        optimiser_options: Keyword arguments of the class, and `clip_norm`, `clip_value`, `groups`.
        schedule: A name such as "cosine", or {"name": ..., options}.
        bounds: (lower, upper), each broadcastable to x0 or in its form; None where free.
        constraints: `gradopt.Constraint(g, lower=0.0, upper=0.0)`, one or several; g is called as the function is.
        on_saddle: "stop" at a saddle point or maximum, or "escape" from it along the direction in which the loss falls.
        callback: Called with each block of records; returning True stops the run (`stopped`).
        maximise: Maximise instead: minus the function is minimised. `stop.target`, and `fun`, `jac` and `history` of
            the result are of the function itself; the message and its evidence speak of the loss, minus that.
        directory: Where the observers may write; None: no files.

    Raises:
        Mistake: Arguments that do not fit, with what to do. What the objective raises is passed on.

    Example:
        >>> import gradopt
        >>> result = gradopt.minimise(lambda x: ((x - 3) ** 2).sum(), x0=[0.0, 1.0])
        >>> result.status.value, [round(v, 6) for v in result.x.tolist()]
        ('converged', [3.0, 3.0])
    """
    target, form = _target(objective, x0, bounds, constraints, maximise=maximise)
    chosen, options = _optimiser(target, optimiser, optimiser_options)
    if maximise and stop is not None and stop.target is not None:
        stop = replace(stop, target=-stop.target)
    if engine not in ("auto", "eager"):
        raise Mistake(f"engine={engine!r} is not one of auto, eager")
    user = [*criteria, *([_Callback(callback)] if callback else [])]
    assembly = assemble(target, chosen, options, schedule=schedule, stop=stop, on_saddle=on_saddle, extra_criteria=user)
    result = execute(assembly, observers, form, directory=directory)
    return _negated(result) if maximise else result


def least_squares(
    residuals: Callable[..., Tensor] | Objective,
    x0: Any = None,
    *,
    loss: str = "linear",
    f_scale: float = 1.0,
    optimiser: str | Callable[..., Any] = "levenberg_marquardt",
    optimiser_options: Mapping[str, Any] | None = None,
    bounds: Any = None,
    stop: Stop | None = None,
    on_saddle: str = "stop",
    criteria: Sequence[Criterion] = (),
    observers: Sequence[Observer] = (),
    callback: Callable[[Block], bool | None] | None = None,
    directory: str | Path | None = None,
) -> Result:
    """Minimise half the sum of squares of residuals, or a robust loss of them, by Levenberg-Marquardt.

    The result's `covariance` and `standard_errors` are those of the unknowns.

    Args:
        residuals: A function of one start returning the residuals, of any shape; or an `Objective` that has them.
        loss: linear, soft_l1, huber, cauchy or arctan, as in `scipy.optimize.least_squares`.
        f_scale: The size of residual from which on outliers begin, in the units of the residuals.

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
        if not callable(residuals) or x0 is None:
            raise Mistake("least_squares needs a function and a start: least_squares(residuals, x0=[1.0, 2.0])")
        with devices.defaults(torch.device("cpu"), torch.float64):
            target = ResidualObjective(residuals, x0, bounds, robust=RobustLoss(loss, f_scale))
        x0 = bounds = None
    elif loss != "linear":
        raise Mistake("an Objective brings its own loss of the residuals: set its `robust`, and leave out loss")
    return minimise(
        target,
        x0,
        optimiser=optimiser,
        optimiser_options=optimiser_options,
        bounds=bounds,
        stop=stop,
        on_saddle=on_saddle,
        criteria=criteria,
        observers=observers,
        callback=callback,
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
        target, chosen, options, schedule=schedule, stop=stop, on_saddle=on_saddle, extra_criteria=criteria
    )
    oracle, history = assembly.oracle, History()
    blocks = _Blocks(assembly, max_rows=1)
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
            form(_parts(oracle, oracle.read())),
            block["loss"][-1, 0].item(),
            block["gradient_norm"][-1, 0].item(),
        )
    assert held is not None, "a run has at least its start"
    yield replace(held, result=_result(assembly, blocks, history, form, None))


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
    scale, what the dtype resolves, second derivatives, residuals, bounds, what it can prove.

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


def execute(
    assembly: Assembly,
    observers: Sequence[Observer],
    form: Callable[[Sequence[Tensor]], Any],
    *,
    directory: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    thread_count: int | str = "auto",
) -> Result:
    """Run the loop with observers to the end, and put the parameters at the result's point.

    Args:
        form: From tensors shaped like the parameters to the form of the start.
    """
    oracle = assembly.oracle
    for observer in observers:
        if not callable(getattr(observer, "record", None)):
            raise Mistake(f"observers must be objects with a record(), such as TensorBoard(), got {observer!r}")
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
    history = History()
    watchers = _Watchers([history, *observers])
    size = sum(parameter.numel() for parameter in oracle.parameters)
    last_recorded = -1
    with ExitStack() as stack:
        stack.enter_context(assembly.interrupt)
        count = stack.enter_context(devices.threads(thread_count, size))
        result: Result | None = None
        error: BaseException | None = None
        try:
            blocks = _Blocks(assembly)
            for block in blocks:
                if last_recorded < 0:
                    watchers.open(_run(assembly, block, directory, config or {}, count))
                if block.last_step > last_recorded:
                    watchers.record(block, oracle.metrics)
                    last_recorded = block.last_step
            result = _result(assembly, blocks, history, form, directory)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            watchers.close(result, error)


def form_of(objective: Objective) -> Callable[[Sequence[Tensor]], Any]:
    """From tensors shaped like the trainable parameters to what a `Result` shows: the form of x0, else one tensor or a
    dict by name.
    """
    if isinstance(objective, FunctionObjective):
        return objective.structured
    names = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    return lambda parts: parts[0] if len(parts) == 1 else dict(zip(names, parts, strict=True))


class _Blocks:
    """The blocks of a run as an iterator that keeps the last one, and how the run ended."""

    def __init__(self, assembly: Assembly, max_rows: int = MAX_ROWS) -> None:
        self._blocks = iterate(assembly.engine, assembly.criteria, max_rows=max_rows)
        self.last: Block
        self.ending: Ending

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        try:
            self.last = next(self._blocks)
        except StopIteration as stopped:
            self.ending = stopped.value
            raise
        return self.last


class _Watchers:
    """Observers, each on its own: one that raises is reported once and dropped."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._alive = list(observers)

    def open(self, run: Run) -> None:
        self._each(lambda observer: observer.open(run))

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        self._each(lambda observer: observer.record(block, metrics))

    def close(self, result: Result | None, error: BaseException | None) -> None:
        self._each(lambda observer: observer.close(result, error))

    def _each(self, call: Callable[[Observer], None]) -> None:
        for observer in list(self._alive):
            try:
                call(observer)
            except Exception as error:  # whatever it is: the run is worth more than its log
                self._alive.remove(observer)
                name = type(observer).__name__
                log.warning(
                    "observer %s failed and is left out from here on: %s: %s", name, type(error).__name__, error
                )


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
        return Judgement.one(Status.STOPPED, len(block) - 1, step=block.last_step)

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        return f"the callback stopped the run at step {evidence['step']}"

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


def _optimiser(
    target: Objective, optimiser: str | Callable[..., Any] | None, options: Mapping[str, Any] | None
) -> tuple[str | Callable[..., Any], Mapping[str, Any]]:
    if optimiser is not None:
        if not (isinstance(optimiser, str) or callable(optimiser)):
            raise Mistake(f"optimiser must be a name or a callable of the parameters, got {optimiser!r}")
        return optimiser, options or {}
    if target.parameter_groups() or target.batches is not None:  # what L-BFGS cannot take
        return "adam", {"lr": 0.01, **(options or {})}
    if target.constraints():
        return "augmented_lagrangian", options or {}
    return "lbfgs", options or {}


def _run(assembly: Assembly, block: Block, directory: str | Path | None, config: Mapping[str, Any], count: int) -> Run:
    oracle = assembly.oracle
    gradient = oracle.full_gradient()
    start = Evaluation(block["loss"][0, 0].item(), block["gradient_norm"][0, 0].item(), oracle.read(), gradient)
    named = dict(zip(oracle.names, (p.detach().clone() for p in oracle.parameters), strict=True))
    facts = dict(assembly.facts)
    facts["start"] = _start(start)
    facts["device"] = f"{start.point.device}, {str(start.point.dtype).removeprefix('torch.')}, {count} thread" + "s" * (
        count > 1
    )
    place = None if directory is None else str(directory)
    return Run(place, config, facts, start, named, assembly.budget)


def _start(start: Evaluation) -> str:
    if start.point.numel() == 1:
        return f"x = {start.point.item():.10g}, y = {start.loss:.10g}, dy/dx = {start.gradient.item():.10g}"
    return f"{start.point.numel()} unknowns, loss {start.loss:.10g}, largest gradient entry {start.gradient_norm:.6g}"


def _result(
    assembly: Assembly,
    blocks: _Blocks,
    history: History,
    form: Callable[[Sequence[Tensor]], Any],
    directory: str | Path | None,
) -> Result:
    """On success the judged point, otherwise the best one; the parameters are put there."""
    oracle, block, verdict = assembly.oracle, blocks.last, blocks.ending.verdicts[0]
    here = oracle.read()
    loss = block["full_loss" if oracle.has_full_loss else "loss"][-1, 0].item()
    seconds = block["seconds"][-1, 0].item()
    patience = postmortem.patience(oracle, seconds, lambda: assembly.interrupt.signal is not None)
    verdict = postmortem.confirmed(oracle, verdict, loss, patience)
    best = oracle.best
    violation = None if oracle.constraints is None else block["violation"][-1, 0].item()
    better = best is not None and (_missed(best.violation, oracle), best.loss) < (_missed(violation, oracle), loss)
    if best is not None and not verdict.success and (better or not math.isfinite(loss)):
        oracle.write(best.point)
        loss, violation = best.loss, None if violation is None else best.violation
    elif best is not None and better:
        verdict = replace(verdict, evidence={**verdict.evidence, "lower_loss_seen": best.loss})
    verdict = postmortem.explained(oracle, verdict, patience)
    counts = (oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products)
    point = oracle.read()
    if torch.equal(here, point) and oracle.micro_batches is None and block.cut_short is None:
        gradient = oracle.full_gradient().clone()
    else:  # one more gradient, for the report only
        with oracle.uncounted():
            gradient = oracle.gradient(point)
    return Result(
        x=form(_parts(oracle, point)),
        fun=loss,
        jac=form(_parts(oracle, gradient)),
        verdict=verdict,
        nit=block.last_step,
        nfev=counts[0],
        njev=counts[1],
        nhev=counts[2],
        seconds=seconds,
        history=history.columns(),
        metrics=dict(oracle.metrics()),
        covariance=_covariance(oracle, loss),
        minima=[
            {"x": form(_parts(oracle, one.point)), "fun": one.loss, "visits": one.visits}
            for one in getattr(assembly.engine.optimiser, "minima", ())
        ],
        multipliers=_multipliers(oracle, gradient),
        violation=violation,
        directory=None if directory is None else str(directory),
    )


def _missed(violation: float | None, oracle: AutogradOracle) -> float:
    """A violation that counts: none within the tolerance."""
    if violation is None or violation <= oracle.violation_tolerance:
        return 0.0
    return violation if violation == violation else float("inf")


def _multipliers(oracle: AutogradOracle, gradient: Tensor) -> Mapping[str, Tensor] | None:
    if oracle.constraints is None or not bool(gradient.isfinite().all()):
        return None
    return oracle.constraints.by_name(multipliers(oracle, gradient).values)


def _covariance(oracle: AutogradOracle, loss: float) -> Tensor | None:
    """s^2 (J'J)^-1 with s^2 = 2 loss / (m - n), by singular values (Press et al., Numerical Recipes, 2007, eq.
    15.4.20); infinite where the data say nothing. None without residuals, or with no more of them than unknowns.
    """
    if not oracle.has_residuals or sum(p.numel() for p in oracle.parameters) > MAX_COVARIANCE:
        return None
    with oracle.uncounted():
        linear = oracle.linearised()
    jacobian = linear.jacobian().double()
    rows, columns = jacobian.shape
    if rows <= columns or not bool(jacobian.isfinite().all()):
        return None
    scale = torch.linalg.vector_norm(jacobian, dim=0)
    scale = torch.where(scale > 0, scale, 1.0)
    _, singular, right = torch.linalg.svd(jacobian / scale, full_matrices=False)
    inverse = torch.where(singular > rows * torch.finfo(torch.float64).eps * singular[0], 1 / singular, torch.inf)
    half = right.T * inverse
    half = torch.where(right.T == 0, 0.0, half) / scale[:, None]
    return 2 * loss / (rows - columns) * (half @ half.T)


def _parts(oracle: Any, vector: Tensor) -> list[Tensor]:
    pieces = torch.split(vector, [parameter.numel() for parameter in oracle.parameters])
    return [piece.reshape(p.shape).to(p.dtype).clone() for piece, p in zip(pieces, oracle.parameters, strict=True)]


def _negated(result: Result) -> Result:
    """The result of a maximisation, in terms of the function that was maximised."""
    jac = result.jac
    if isinstance(jac, Mapping):
        jac = {name: -part for name, part in jac.items()}
    else:
        jac = tuple(-part for part in jac) if isinstance(jac, tuple) else -jac
    history = {name: -values if name in ("loss", "full_loss") else values for name, values in result.history.items()}
    verdict = replace(result.verdict, reason=f"{result.message} (maximised: the loss is minus the function)")
    minima = [{**one, "fun": -one["fun"]} for one in result.minima]
    found = result.multipliers
    multipliers = None if found is None else {name: -y for name, y in found.items()}
    return replace(
        result, fun=-result.fun, jac=jac, history=history, verdict=verdict, minima=minima, multipliers=multipliers
    )
