"""The contracts between the parts, in the order in which a run meets them: the manual for plugin authors.

Every tensor a contract speaks of may carry a leading `starts` axis; one start is the plain case. What remembers
anything has `state_dict()` and `load_state_dict()`; between `Engine.update()` and `Engine.advance()` the states of all
parts together are the whole run, to the last bit.
"""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradopt.mistakes import Mistake
from gradopt.result import Result, Results
from gradopt.verdict import Status

VERSION = 1
"""Version of these contracts; it changes when a plugin written for the old one could break."""

MAX_FOLLOWED = 16
"""Unknowns up to which the points of a run come with its blocks."""

Bound = Tensor | float | Sequence[float] | None
"""One side of a box: broadcastable to the parameter, None or an infinity where it is free."""

State = dict[str, Any]
"""What `torch.save` can write and `load_state_dict` takes back: tensors, numbers, strings, containers of them."""


class Batches(Protocol):
    """The data of an objective, cut into steps: a pure map, so that a run resumes at any step.

    Attributes:
        steps_per_epoch: Steps after which every sample has been seen once.
    """

    steps_per_epoch: int

    def at(self, step: int) -> Sequence[Any]:
        """The micro-batches of step `step`, counted from 0. Their mean loss is the step's loss (gradient
        accumulation).
        """
        ...


class Robust(Protocol):
    """A loss of residuals."""

    def total(self, residuals: Tensor) -> Tensor:
        """The loss, of shape ()."""
        ...

    def weights(self, residuals: Tensor) -> tuple[Tensor, Tensor]:
        """Factors for residuals and for rows of their Jacobian J, after which J'r is the gradient and J'J models the
        Hessian.
        """
        ...


class Objective(nn.Module):
    """What is minimised: a module whose trainable parameters are the unknowns.

    Only `forward` must be written, or `residuals` in its place. It is called once for each evaluation, on the device
    and in the dtype of the run, and returns the loss: a tensor of shape () that depends on the parameters. Parameters
    that do not require a gradient are constants. The parameters are never moved outside their bounds.

    Attributes:
        batches: Set it when the loss is a mean over data; `forward` is then given a micro-batch, and whether the run
            has converged is judged only on `full_loss()`, once an epoch.
        robust: The loss of the residuals, where it is not half their sum of squares.
    """

    batches: Batches | None = None
    robust: "Robust | None" = None

    def forward(self, batch: Any = None) -> Tensor:
        """Return the loss, of shape (). Left out: half the sum of squares of `residuals()`."""
        residuals = self.residuals()
        if residuals is None and type(self).residuals is Objective.residuals:
            raise TypeError(f"{type(self).__name__} has no forward(): return the loss, a tensor of shape (), from it.")
        if not isinstance(residuals, Tensor):
            raise Mistake(
                f"the residuals of {self.describe()} must be one tensor, they are a {type(residuals).__name__}: make "
                "them one by torch.stack([...]) or torch.cat([...])"
            )
        if residuals.numel() == 0:
            raise Mistake(f"{self.describe()} returns no residuals, an empty tensor: there is nothing to fit")
        return 0.5 * residuals.square().sum() if self.robust is None else self.robust.total(residuals)

    def residuals(self) -> Tensor | None:
        """The residuals of a least-squares problem, any shape, or None if it is none.

        The loss must then be half their sum of squares (or what `robust` makes of them): leave `forward` as it is.
        """
        return None

    def full_loss(self) -> Tensor | None:
        """The loss over all data, or None if there is no such thing. Without it a run on batches ends on its
        budgets.
        """
        return None if self.batches is not None else self()

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The losses of many starts at once, shape (starts,): each of `parameters` has a leading axis, one entry a
        start. Left out: `forward` by `torch.func.vmap`, one after another as it were.
        """

        def loss(one: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(self, one)

        return torch.func.vmap(loss, randomness="error")(dict(parameters))

    def residuals_at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The residuals of many starts at once, shape (starts, ...), as `losses`. Left out: `residuals` by
        `torch.func.vmap`.
        """
        own = _Residuals(self)

        def residuals(one: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(own, {f"objective.{name}": value for name, value in one.items()})

        return torch.func.vmap(residuals, randomness="error")(dict(parameters))

    def bounds(self) -> Mapping[str, tuple[Bound, Bound]]:
        """(lower, upper) by parameter name; parameters that are left out are free. Asked once, before the run."""
        return {}

    def constraints(self) -> Sequence["Constraint"]:
        """Constraints on functions of the parameters: `Constraint(self.volume, lower=1.0)`, with a method that takes
        no argument. It may go on from the graph of a `forward` at the same parameters, but must work without one.
        Asked before the run. They are kept at its result, not on the way.
        """
        return ()

    def parameter_groups(self) -> Sequence[Mapping[str, Any]]:
        """Groups for `torch.optim`, each {"params": [...], option: value}; empty: one group with everything in it."""
        return ()

    def metrics(self) -> Mapping[str, float]:
        """Numbers for people, such as an accuracy, at the current parameters. Asked at logged steps, without
        gradients.
        """
        return {}

    def minimum(self) -> float | None:
        """The lowest loss there is, if it is known: shown beside the result, never used to stop."""
        return None

    def unbounded_below(self) -> str | None:
        """A sentence that proves that descent from the current parameters never ends, or None where there is no
        proof.
        """
        return None

    def describe(self) -> str:
        """One line for people: the formula, the size."""
        return type(self).__name__


class _Residuals(nn.Module):
    """The residuals of an objective as what a module is called for."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self) -> Tensor | None:
        return self.objective.residuals()


@dataclass(frozen=True, slots=True)
class Constraint:
    """lower <= function <= upper, entry by entry; with lower = upper an equality.

    Attributes:
        function: Of the unknowns (of nothing, for a method of an `Objective`), differentiable; returns a tensor.
        lower, upper: Broadcastable to what it returns; infinite where there is no limit.
        name: For messages; the function's own by default.
    """

    function: Callable[..., Tensor]
    lower: Bound = None
    upper: Bound = None
    name: str = ""


@dataclass(slots=True)
class Evaluation:
    """One forward and backward. `.grad` of the parameters holds the gradient until the next evaluation.

    Attributes:
        loss: What `forward` returned; the mean over the step's micro-batches.
        gradient_norm: Largest absolute entry of the gradient; with bounds, of the part that can move inside them.
        point: The unknowns as one vector, shape (..., n): a copy that whoever is given it may keep. From a million
            unknowns on it is made when it is first asked for, which must be before the update.
        gradient: The gradient as such a vector. It may share memory with `.grad`, so it holds until the update.
        constraints: The values of all constraints, shape (m,); None without any.
        violation: By how much the worst constraint is missed, free of units: the part of their own size (the larger of
            |x| and the distance from the start) by which the unknowns would have to move inside
            their bounds, to first order. 0 where all are kept.
        pinned: The unknowns that an infinite derivative presses against the bound they lie on, as sqrt(x) does at 0: a
            mask of shape (n,), None without any. Their entries of the gradient, and of `.grad`, are 0.
        step_norm: Largest absolute change of an unknown since the point the engine measures from; NaN without one.
    """

    loss: float
    gradient_norm: float
    point: Tensor
    gradient: Tensor
    constraints: Tensor | None = None
    violation: float = 0.0
    pinned: Tensor | None = None
    step_norm: float = math.nan


class Constraints(Protocol):
    """All constraints of an objective as one: lower <= c(x) <= upper.

    Attributes:
        lower, upper: Shape (m,); infinite where there is no limit, the same for an equality.
        names: Of the constraints, in their order.
    """

    lower: Tensor
    upper: Tensor
    names: Sequence[str]

    def by_name(self, vector: Tensor) -> Mapping[str, Tensor]:
        """The parts of a vector (m,) by constraint, each in the shape of its function's value."""
        ...

    def describe(self) -> str:
        """How many there are of each kind."""
        ...


class Linearised(Protocol):
    """A vector of functions and its Jacobian J, of shape (m, n), at one point: constraints, or residuals, these weighed
    so that J'r is the gradient of the loss.
    """

    residuals: Tensor

    def jvp(self, vector: Tensor) -> Tensor:
        """J v; only until the parameters move."""
        ...

    def vjp(self, vector: Tensor) -> Tensor:
        """J' v; only until the parameters move."""
        ...

    def jacobian(self, rows: Tensor | None = None) -> Tensor:
        """J, of shape (m, n); with indices `rows`, these rows of it."""
        ...


class BudgetSpent(Exception):
    """The evaluations or the time the oracle was allowed are used up. Leaves a line search from inside."""


class Oracle(Protocol):
    """Gives loss and derivatives at the current parameters: the only caller of autograd. Optimisers and criteria are
    given this, never the module.

    Attributes:
        objective: What it evaluates, for who evaluates many points of it at once by an oracle of many starts.
        parameters: The unknowns, in the objective's order.
        lower, upper: Bounds as vectors like `Evaluation.point`, None when nothing is bounded.
        constraints: The objective's, None without any.
        violation_tolerance: `Evaluation.violation` up to this is none.
        pinned: As `Evaluation.pinned`, where the full loss was last evaluated. In Hessians, too, these unknowns do not
            count.
        origin: The point of the first evaluation, from which distances count; None before it.
        num_losses, num_gradients, num_hessian_products: What has been evaluated so far.
        num_refused: Calls that have raised `BudgetSpent`: what was looked at in between has not been seen to the end.
        max_evaluations: A call of `evaluate` or `loss` beyond this many losses raises `BudgetSpent` instead.
        deadline: So does one after the first that comes later than this, by `time.perf_counter()`.
        has_full_loss: Whether there is a loss over all data: without it nothing can be judged.
        best: The best evaluation so far, whoever asked for it: with a finite full loss, then feasible (or nearest to
            it), then lowest, then of the smaller gradient. From a million unknowns on, where an optimiser of torch
            moves them, the best of every twentieth, and without its gradient.
    """

    objective: Objective
    parameters: Sequence[nn.Parameter]
    lower: Tensor | None
    upper: Tensor | None
    pinned: Tensor | None
    constraints: Constraints | None
    violation_tolerance: float
    origin: Tensor | None
    num_losses: int
    num_gradients: int
    num_hessian_products: int
    num_refused: int
    max_evaluations: float
    deadline: float
    best: Evaluation | None
    has_full_loss: bool

    def evaluate(self) -> Evaluation:
        """Forward and backward on the batch of the current step."""
        ...

    def evaluate_full(self) -> Evaluation | None:
        """As `evaluate`, on all data; None if the objective has no `full_loss()`."""
        ...

    def loss(self, point: Tensor) -> float:
        """The full loss at another point, which the parameters leave again; it is not counted towards
        `num_gradients`.
        """
        ...

    def gradient(self, point: Tensor) -> Tensor:
        """The gradient of the full loss at another point, as a vector; the parameters and their `.grad` are left
        alone.
        """
        ...

    def include(self, evaluation: Evaluation, losses: int, gradients: int, hessian_products: int) -> None:
        """Count what an oracle of many starts has evaluated; `evaluation` is the best of it. Whoever asks that oracle
        keeps the budgets, and puts the parameters, which it may have moved, where they belong.
        """
        ...

    def full_gradient(self) -> Tensor:
        """The gradient of the full loss where it was last evaluated, as a vector; it costs nothing."""
        ...

    def hessian(self, multipliers: Tensor | None = None, *, loss: float = 1.0) -> Callable[[Tensor], Tensor] | None:
        """The map v -> H v of the full loss at the current parameters, None where second derivatives do not exist.

        With multipliers y, shape (m,), it is that of loss f(x) + y'c(x), the Lagrangian.
        """
        ...

    def hessian_matrix(self) -> Tensor | None:
        """The Hessian of the full loss at the current parameters, shape (n, n), at the cost of n products."""
        ...

    def linearised_constraints(self) -> Linearised:
        """The constraints at the current parameters and their Jacobian; where they were last evaluated, for nothing.

        Raises:
            Mistake: The objective has no constraints.
        """
        ...

    def linearised(self) -> Linearised:
        """The residuals at the current parameters and their Jacobian; it counts as a gradient.

        Raises:
            Mistake: The objective has no residuals.
        """
        ...

    def read(self) -> Tensor:
        """The unknowns as one vector (a copy)."""
        ...

    def write(self, point: Tensor) -> None:
        """Set the parameters, in place."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """`Objective.metrics` at the current parameters."""
        ...

    def unbounded_below(self) -> str | None:
        """`Objective.unbounded_below` at the current parameters."""
        ...


class Optimiser(Protocol):
    """Moves the parameters. Also anything that builds a `torch.optim.Optimizer` from parameters is accepted as a
    plugin.

    The engine calls `accepts` with each evaluation, then `update` with the same one. Between the two the run may end or
    be rewound: so a loss that is not wanted never moves the parameters. (A line search returns False from `accepts` for
    a point it will leave again, and its `update` then makes the next trial.)

    One of ours says by attributes that are true what it can: `bounds`, `constraints`; an objective with others is
    refused. `wraps` names an argument that is an optimiser itself: it is given as what builds one from parameters.

    One that has an attribute `searching` which is true goes on elsewhere from the point it stands at, whatever kind of
    point that is: no criterion then takes it for the answer. One that has `minima`, a sequence of `Minimum`, is asked
    for them at the end, for the result.

    One that keeps constraints and has an attribute `lagrangian_gradient_norm` tells by it, of the evaluation it was
    last asked about, the largest entry of the gradient of the Lagrangian at its multipliers (with bounds, of the part
    that can move): runs show it in place of the gradient of the loss, which does not vanish at a minimum on a
    constraint.

    One that has a method `stacked(oracle)` can move many starts at once: it returns the `StackedOptimiser` that does.
    """

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether this evaluation is a new point of the run (a step), or a trial on the way to one."""
        ...

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Move the parameters, in place, given `evaluation` at the current ones and its gradient in `.grad`.

        Raises:
            BudgetSpent: The evaluations ran out inside; the engine restores the last accepted point.
            NonFiniteTrial: The loss inside was not finite and the optimiser has no cure; likewise.
            Stuck: The optimiser finds no better point, and says why; likewise.
        """
        ...

    def learning_rate(self) -> float:
        """For the log: of the first group; NaN if there is no such thing."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None:
        """Take over a state. That of a new optimiser makes this one forget all it has learnt."""
        ...


class NonFiniteTrial(Exception):
    """An optimiser met a loss that is not finite inside its update and cannot go on; `loss` is that value.

    Attributes:
        however_short: It has shortened its step to nothing and met one all the same: no learning rate is to blame.
    """

    def __init__(self, loss: float, *, however_short: bool = False) -> None:
        super().__init__(loss)
        self.loss, self.however_short = loss, however_short


class Stuck(Exception):
    """An optimiser finds no better point from the last accepted one; the message says what it has tried."""


@dataclass(slots=True)
class Minimum:
    """Where a local search has ended: a local minimum, or whatever else its optimiser does not leave.

    Attributes:
        point: As a vector of all unknowns, float64 on the CPU.
        visits: Local searches that ended there.
        begins: Where these began, points like it; of many the first ones.
    """

    point: Tensor
    loss: float
    visits: int = 0
    begins: list[Tensor] = field(default_factory=list[Tensor])


CutShort = BudgetSpent | NonFiniteTrial | Stuck
"""Why an update could not be made."""


@dataclass(frozen=True, slots=True)
class Halted:
    """Starts among many whose update could not be made, and why: what a run of one would have raised.

    Attributes:
        places: Of these starts, int64, none twice.
        code: Of each the place of its cause among `causes`; int64.
    """

    places: Tensor
    code: Tensor
    causes: Sequence[CutShort]

    @classmethod
    def joined(cls, several: Iterable["Halted | None"]) -> "Halted | None":
        """Those of all of them, which speak of different starts; None where nothing is halted."""
        found = [one for one in several if one is not None and len(one.places)]
        if len(found) <= 1:
            return found[0] if found else None
        causes: list[CutShort] = []
        codes: list[Tensor] = []
        for one in found:
            codes.append(one.code + len(causes))
            causes += one.causes
        return cls(torch.cat([one.places for one in found]), torch.cat(codes), causes)

    def by(self, kind: type[Exception]) -> Tensor:
        """The places of those whose cause is of a kind."""
        wanted = [index for index, cause in enumerate(self.causes) if isinstance(cause, kind)]
        return self.places[torch.isin(self.code, torch.tensor(wanted, dtype=torch.int64))]

    def cause(self, place: int) -> CutShort | None:
        """Of one start; None if it is not halted."""
        entry = (self.places == place).nonzero().flatten()
        return self.causes[int(self.code[entry[0]])] if len(entry) else None


@dataclass(frozen=True, slots=True)
class Starts:
    """Which of many starts a tensor with a leading `starts` axis holds: those that have ended are left out in time.

    Attributes:
        index: Of each, among all starts of the run; shape (starts,), int64, ascending.
        live: Which of them have not ended yet; shape (starts,). What is said of the others is of no account.
        steps: Of each, the step of its last row in the block: a start may lag behind others. Shape (starts,), int64.
    """

    index: Tensor
    live: Tensor
    steps: Tensor


@dataclass(slots=True)
class Block:
    """The records of consecutive accepted evaluations. Row r is step `first_step + r`; the parameters stand at the
    last row.

    Attributes:
        columns: float64 tensors on the CPU, shape (rows, starts), by name. Always there: `loss`, `gradient_norm` (of
            the evaluation that moved the parameters), `step_norm` (largest absolute change of an unknown since the row
            before, NaN at the first row and where it was not measured), `learning_rate`, `evaluations`
            (losses evaluated so far), `seconds`, and `full_loss`, `full_gradient_norm`: the same as the first two,
            but over all data, so NaN at rows where these were not evaluated. With constraints also `violation`, and
            `lagrangian_gradient_norm` where the optimiser tells it.
        measured: Shape (rows,): the rows at which `full_loss` was evaluated.
        cut_short: Why the update after the last row could not be made, None if it has not been tried.
        searching: Whether the optimiser leaves the last row whatever kind of point it is.
        starts: Which starts the columns hold; None in a run of one.
        halted: `cut_short` of many starts: those that show in the last row the row before once more, and are a step
            behind the others.
        points: (step, unknowns as one vector) of steps at which the point was at hand, in order: with up to
            `MAX_FOLLOWED` unknowns every row of the eager engine, and the last one of a program; never of many starts.
    """

    first_step: int
    columns: dict[str, Tensor]
    measured: Tensor
    cut_short: CutShort | None = None
    searching: bool = False
    starts: Starts | None = None
    halted: Halted | None = None
    points: Sequence[tuple[int, Tensor]] = ()

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def last_step(self) -> int:
        """Of a run of many starts, that of the last of those that are live."""
        return self.first_step + len(self) - 1

    def halted_by(self, kind: type[Exception]) -> Tensor:
        """A mask of the starts that a cause of this kind has halted."""
        mask = torch.zeros(self["loss"].shape[1], dtype=torch.bool)
        if self.halted is not None:
            mask[self.halted.by(kind)] = True
        return mask

    @property
    def steps(self) -> Any:
        """The step of the last row: a number, with many starts a tensor of shape (starts,)."""
        return self.last_step if self.starts is None else self.starts.steps

    def upto(self, row: int) -> "Block":
        """The block without the rows behind `row`."""
        if row == len(self) - 1:
            return self
        columns = {name: column[: row + 1] for name, column in self.columns.items()}
        points = [one for one in self.points if one[0] <= self.first_step + row]
        return Block(self.first_step, columns, self.measured[: row + 1], starts=self.starts, points=points)

    def of(self, start: int) -> "Block":
        """The block of one of its starts, by its place in the columns."""
        assert self.starts is not None
        columns = {name: column[:, start : start + 1] for name, column in self.columns.items()}
        cause = None if self.halted is None else self.halted.cause(start)
        # Of a halted one without the row that shows the one before once more.
        own = slice(len(self) if cause is None else max(1, len(self) - 1))
        measured = self.measured[own]
        first = int(self.starts.steps[start]) - len(measured) + 1
        return Block(first, {name: column[own] for name, column in columns.items()}, measured, cause)


def tested_gradient(columns: Container[str]) -> str:
    """The column of the gradient that vanishes at a minimum, as far as a run knows it: with constraints it is that of
    the Lagrangian.
    """
    return "lagrangian_gradient_norm" if "lagrangian_gradient_norm" in columns else "gradient_norm"


@dataclass(frozen=True, slots=True)
class Band:
    """The values of a column that need nobody's attention: low < value < high. NaN lies outside, but for a step whose
    length was not measured.

    A limit is a number; with many starts it may be a tensor of shape (starts,), float64.
    """

    low: Any = -torch.inf
    high: Any = torch.inf

    def __and__(self, other: "Band") -> "Band":
        """What lies in both."""
        return Band(_larger(self.low, other.low), -_larger(-self.high, -other.high))


def _larger(one: Any, other: Any) -> Any:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return torch.maximum(torch.as_tensor(one, dtype=torch.float64), torch.as_tensor(other, dtype=torch.float64))
    return max(one, other)


@dataclass(slots=True)
class Judgement:
    """What a criterion found in a block: per start, or on some of the starts.

    Attributes:
        code: `Status.code` per start, -1 where it goes on; shape (starts,), int64.
        row: The row of the block at which that holds; shape (starts,), int64.
        evidence: By name a tensor of shape (starts, ...), a list with an entry a start, or one object for all starts.
        starts: The places in the block of the starts it speaks of, int64; None: of all.
    """

    code: Tensor
    row: Tensor
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])
    starts: Tensor | None = None

    @classmethod
    def one(cls, status: Status, row: int, **evidence: Any) -> "Judgement":
        """The judgement of a run of one start."""
        return cls(torch.tensor([status.code]), torch.tensor([row]), evidence)

    @classmethod
    def last(cls, status: Status, block: Block, starts: Tensor | None = None, **evidence: Any) -> "Judgement":
        """The same ending, at the last row of a block, of all its starts or of those at the places `starts`."""
        number = block["loss"].shape[1] if starts is None else len(starts)
        return cls(torch.full((number,), status.code), torch.full((number,), len(block) - 1), evidence, starts)


class Criterion(Protocol):
    """Decides whether a run ends. It is asked after each block, and a block ends where a criterion wants to be asked.

    Results are as if every row were judged before its update: a row outside a criterion's bands, and a step for which
    it is `due`, always ends its block, whichever engine runs.

    One that can judge many starts at once says so by a method `keep(kept)`: from here on blocks hold only the starts at
    the places `kept`, shape (starts,), and what it remembers of the others is to be dropped.
    """

    def bands(self) -> Mapping[str, Band]:
        """The bands of the columns it watches. Read anew before each block, so they may move."""
        ...

    def due(self, step: Any) -> Any:
        """The first step after `step` at which it must be asked; infinity if its bands say enough. With many starts
        `step` is a tensor, of shape (starts,), and the answer may be one.
        """
        ...

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        """Judge a block whose last row is where the parameters stand. None: go on."""
        ...

    def sentence(self, status: Status, evidence: Mapping[str, Any]) -> str:
        """The reason for people: the numbers, and what to try if it failed. Asked only for an ending that is shown."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class Engine(Protocol):
    """Executes steps."""

    @property
    def oracle(self) -> Oracle:
        """What gives it losses and derivatives."""
        ...

    def advance(self, limit: Any, bands: Mapping[str, Band], seconds: float) -> Block:
        """Evaluate up to `limit` steps, each but the first after an update; end at the first row outside `bands`.

        The block ends on a row that has been evaluated and not updated. It ends early once `seconds` have gone by,
        so that the clock and Ctrl-C are seen.
        """
        ...

    def rewind(self, row: int) -> None:
        """Set parameters, optimiser and counts to the exact state of a row of the last block, before its update."""
        ...

    def update(self) -> None:
        """Make the update after the last row. The state behind it is complete: here a run can be saved."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class StartsEngine(Engine, Protocol):
    """Executes the steps of many starts at once. They may be at different steps: `limit` is then one for each start."""

    def retire(self, ended: Tensor) -> Tensor | None:
        """These starts have ended at the last row, a mask over those of the block: nothing moves them any more.

        Returns:
            The places in the block of the starts that later blocks hold; None: of all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """What an observer is told before the first step.

    Attributes:
        directory: Where files may be written; None: write none.
        config: The resolved configuration, plain containers.
        facts: What the run is made of, for people: objective, optimiser, device, engine, ... in this order.
        start: The evaluation at the start.
        parameters: The unknowns by name, at the start; a copy.
        budget: The number of steps after which the run ends at the latest, infinity if steps are not limited.
        max_evaluations, max_seconds: The other budgets, likewise; seconds count as those of the blocks.
        step: Of the first row: 0, or where a saved run goes on.
        minimum: `Objective.minimum`, None where that fails.
        sweep: The directory of the sweep that the run is part of: one of many that were asked for together; None: of
            none.
        chosen: What tells the run from others, by dotted name: its objective and optimiser, and what was said of it in
            place of a default; in a sweep what this varies, without the seed.
        point, gradient: The unknowns, and the gradient of the full loss where that was last evaluated, as vectors (n,):
            copies, at the last row of the block that is being recorded. None of many starts.
        bounds: (lower, upper) as vectors of shape (n,), infinite where an unknown is free; None where all are.
        starts: The points of many starts, shape (starts, n); None in a run of one.
        graph: Evaluates the loss where the parameters stand, and returns it with autograd's graph, and the unknowns of
            that graph by name. With batches it is the loss of one micro-batch.
        losses: Evaluates the full loss at points of shape (points, n), which must lie inside the bounds (else
            ValueError), and returns float64 on the CPU, shape (points,); it may not be finite. None with batches: an
            evaluation is then a pass over all data.
        constraints: The objective's, None without any.
        constraint_values: Evaluates them at such points, and returns shape (points, m). None without any.
        violation_tolerance: `Evaluation.violation` up to this is none.

    `graph`, `losses` and `constraint_values` may be called until `close` returns, by the thread that runs the observer.
    They are not counted and leave parameters, gradients, buffers and random numbers as they are. Many points are
    evaluated at once where the objective can be; else, and where it is slow, each takes the time of an evaluation.
    """

    directory: str | None
    config: Mapping[str, Any]
    facts: Mapping[str, str]
    start: Evaluation
    parameters: Mapping[str, Tensor]
    budget: float
    max_evaluations: float = math.inf
    max_seconds: float = math.inf
    step: int = 0
    minimum: float | None = None
    sweep: str | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict[str, Any])
    point: Callable[[], Tensor] | None = None
    gradient: Callable[[], Tensor] | None = None
    bounds: tuple[Tensor, Tensor] | None = None
    starts: Tensor | None = None
    graph: Callable[[], tuple[Tensor, Mapping[str, Tensor]]] | None = None
    losses: Callable[[Tensor], Tensor] | None = None
    constraints: Constraints | None = None
    constraint_values: Callable[[Tensor], Tensor] | None = None
    violation_tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of a run before its objective is evaluated: see `Run`."""

    directory: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    chosen: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sweep: str | None = None


class Observer(Protocol):
    """Watches a run and writes about it. One that raises is reported once and dropped; it never harms the run.

    A run that raises before its first step, as where the objective cannot be evaluated at all, is never opened. One
    that wants to know of it has a method `fail(attempt, error)`, called with an `Attempt` and what was raised.

    One that shows what a run of the command line waits for, such as a program that is being built, has a method
    `wait(what)`, called with a few words, and with "" when that is over.

    Of many starts it is told as of one: columns hold the median of the starts that go on, and there are three more, the
    lowest loss of all so far in `best_loss`, the number of starts that go on in `going`, and in `losses`, of shape
    (rows, some starts), those of up to 1001 starts, evenly chosen of all: of one that has ended its last.
    """

    def open(self, run: Run) -> None:
        """Called once, before the first step."""
        ...

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Called with each block in order. `metrics()` evaluates the objective's metrics at the block's last row; it
        costs time, so call it only when they are due.
        """
        ...

    def close(self, result: Result | Results | None, error: BaseException | None) -> None:
        """Called once at every kind of ending of a run that was opened: with the result, or what was raised instead."""
        ...
