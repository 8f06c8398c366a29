"""Constraints for an optimiser that knows of none: the safeguarded augmented Lagrangian."""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn

from gradopt.constraints.functions import excess, natural_units
from gradopt.contracts import Evaluation, Optimiser, Oracle, State, Stuck
from gradopt.optimisers.escape import beside
from gradopt.optimisers.merit import Merit

TIGHTER = 0.1
"""A round ends when the gradient of the merit has fallen to this part of what the new multipliers have added to it."""

PROGRESS = 0.5
HEAVIER = 10.0
"""The penalty grows by the second if a round leaves more than the first of the gap."""

KEPT_TO = 0.75
"""Constraints missed by less than eps to this power of the unknowns' size need no larger penalty. (With eps^0.5, which
is enough to count as kept, multipliers of constraints beside each other crept in float32.)
"""

FLATTER = 100.0
"""A constraint that has become flatter than where its unit was taken by more than this gets a smaller one: of exp(x)
from 25 the unit of the start would be a penalty of nothing.
"""

FIRST_PENALTY = (1.0, 100.0)
MAX_PENALTY = 1e16
MAX_MULTIPLIER = 1e12
"""In units in which loss and constraints change by 1 together."""

RUNAWAY = 100.0
"""A step that misses constraints by this much more than the start, or than the unknowns' size, has left for where the
loss falls faster than the penalty grows.
"""

ROUND, ROUND_PER_UNKNOWN = 100, 10
"""Evaluations a round takes at most."""

FRUITLESS = 3
"""Rounds without a step after which nothing better is to be found."""

KEPT = (
    "_multipliers", "_penalty", "_scale", "_units", "_goal", "_gap", "_largest", "_worst", "_accepted", "_again",
    "_runaway", "_fruitless", "_first", "_begun",
)  # fmt: skip


class AugmentedLagrangian:
    """Keeps constraints, by rounds of another optimiser on the augmented Lagrangian; bounds stay with that one.

    After each round the multipliers are those of first order, clipped, and the penalty is ten times larger unless the
    gap in feasibility and complementarity has halved (Birgin and Martínez, Practical Augmented Lagrangian Methods,
    2014, algorithm 4.1). A round ends when the gradient of the merit is a tenth of what the new
    multipliers have added to it; one that runs to where the loss falls faster than the penalty grows is taken back,
    with a larger penalty. Where the optimiser is stuck at a saddle point or maximum of the merit, the round goes on
    from a lower point beside it. A round costs no evaluation of its own.

    Args:
        inner: The optimiser of a round, one of gradopt's own: a name, or {name: ..., options}. Its `renew()`, if it has
            one, is called between rounds of the same penalty.
    """

    bounds = True
    constraints = True
    wraps = "inner"

    def __init__(self, parameters: Sequence[nn.Parameter], *, inner: Any = "lbfgs") -> None:
        self._parameters = parameters
        self._build: Callable[[Sequence[nn.Parameter]], Optimiser] = inner
        self._inner: Optimiser | None = None
        self._merit: Merit | None = None
        self._multipliers = self._units = torch.empty(0)
        self._penalty = self._scale = math.nan
        self._goal = math.inf
        self._gap = math.inf
        self._largest = self._worst = 0.0
        self._here: Evaluation | None = None
        self._last: Evaluation | None = None
        self._begun: Tensor = torch.empty(0)
        self._accepted = True
        self._again = self._runaway = False
        self._fruitless = self._first = 0

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """What the optimiser of the round says of the merit here."""
        if self._inner is None:
            self._prepare(evaluation, oracle)
        if self._merit is None:
            self._merit = Merit(oracle, self._multipliers, self._penalties())
        assert self._inner is not None and evaluation.constraints is not None
        self._here = self._merit.at(evaluation)
        self._accepted = self._inner.accepts(self._here, self._merit)
        self._runaway = self._accepted and not self._again and self._has_run_away(evaluation, oracle)
        if self._again:  # a round begins where the last one ended: no step
            self._again = False
            return False
        return self._accepted and not self._runaway

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """An update of the round's optimiser, or the first of the next round.

        Raises:
            Stuck: Round after round ends where it began.
        """
        assert self._here is not None and self._inner is not None and self._merit is not None
        if self._runaway:
            self._heavier(oracle)
            self._restart(self._begun, oracle)
            return
        if self._accepted:
            if self._last is None or not torch.equal(evaluation.point, self._last.point):
                self._fruitless = 0
            self._last = evaluation
            self._largest = max(self._largest, evaluation.gradient_norm)
            least = 10 * torch.finfo(evaluation.point.dtype).eps * self._largest
            spent = oracle.num_losses - self._first > ROUND + ROUND_PER_UNKNOWN * len(evaluation.point)
            if spent or self._here.gradient_norm <= max(self._goal, least):
                self._next_round(evaluation, oracle, cut=spent)
                self._here = self._merit.at(evaluation)
                self._accepted = self._inner.accepts(self._here, self._merit)
        try:
            self._inner.update(self._here, self._merit)
        except Stuck:
            self._fruitless += 1
            if self._fruitless > FRUITLESS or self._last is None:
                raise
            oracle.write(self._last.point)
            lower = beside(self._merit.at(self._last), self._merit)
            if lower is None:
                self._next_round(self._last, oracle)
            self._restart(self._last.point if lower is None else lower, oracle)

    @property
    def lagrangian_gradient_norm(self) -> float:
        """Of the merit, whose gradient is that of the Lagrangian."""
        return math.nan if self._here is None else self._here.gradient_norm

    def learning_rate(self) -> float:
        """That of the round's optimiser."""
        return math.nan if self._inner is None else self._inner.learning_rate()

    def state_dict(self) -> State:
        """The multipliers, the penalty, the tolerance of the round, and its optimiser's state."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "last": None if self._last is None else astuple(self._last),
            "inner": None if self._inner is None else self._inner.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        vars(self).update({name: state[name] for name in KEPT})
        self._last = None if state["last"] is None else Evaluation(*state["last"])
        if state["inner"] is not None:
            self._inner = self._build(self._parameters)
            self._inner.load_state_dict(state["inner"])

    def _prepare(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Units of loss and constraints from their gradients at the start, and the first penalty."""
        assert evaluation.constraints is not None and oracle.constraints is not None
        values = evaluation.constraints
        self._units = self._natural_units(values, oracle)
        slope = evaluation.gradient.abs().max().item()
        self._scale = slope if slope > 0 else max(abs(evaluation.loss), 1e-300) if evaluation.loss else 1.0
        self._multipliers = torch.zeros_like(values)
        missed = excess(values, oracle.constraints.lower, oracle.constraints.upper) / self._units
        square = float(missed @ missed)
        low, high = FIRST_PENALTY
        self._penalty = min(max(abs(evaluation.loss) / self._scale / square, low), high) if square > 0 else 10.0
        size = evaluation.point.abs().max().item()
        self._worst = max(size if size > 0 else 1.0, missed.abs().max().item())
        self._goal = TIGHTER * slope
        self._inner = self._build(self._parameters)
        self._begun = evaluation.point

    @staticmethod
    def _natural_units(values: Tensor, oracle: Oracle) -> Tensor:
        assert oracle.constraints is not None
        jacobian = oracle.linearised_constraints().jacobian(torch.arange(len(values), device=values.device))
        return natural_units(jacobian, values, oracle.constraints.lower, oracle.constraints.upper)

    def _penalties(self) -> Tensor:
        return self._penalty * self._scale / self._units.square()

    def _has_run_away(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        if evaluation.violation <= oracle.violation_tolerance:
            return False
        assert oracle.constraints is not None and evaluation.constraints is not None
        missed = excess(evaluation.constraints, oracle.constraints.lower, oracle.constraints.upper) / self._units
        return evaluation.loss == -math.inf or not missed.abs().max().item() <= RUNAWAY * self._worst

    def _next_round(self, evaluation: Evaluation, oracle: Oracle, *, cut: bool = False) -> None:
        """New multipliers, perhaps a larger penalty, and a tighter tolerance, from where the last round ended."""
        assert self._merit is not None and evaluation.constraints is not None
        self._units = torch.minimum(self._units, FLATTER * self._natural_units(evaluation.constraints, oracle))
        gap = (self._merit.gap(evaluation.constraints) / self._units).abs().max().item()
        change = self._merit.estimate(evaluation.constraints) - self._multipliers
        added = oracle.linearised_constraints().vjp(change).abs().max().item()
        self._goal = TIGHTER * max(added, self._goal)
        most = MAX_MULTIPLIER * self._scale / self._units
        self._multipliers = self._merit.estimate(evaluation.constraints).clamp(-most, most)
        self._begun, self._first = evaluation.point, oracle.num_losses
        kept = evaluation.violation <= torch.finfo(evaluation.point.dtype).eps ** KEPT_TO
        if gap > PROGRESS * self._gap and not cut and not kept:
            self._heavier(oracle)
        else:
            self._merit = Merit(oracle, self._multipliers, self._penalties())
            self._renew()
        self._gap = gap

    def _renew(self) -> None:
        """Let the optimiser begin anew; one that can keeps what it has learnt, as only the multipliers have changed."""
        renew = getattr(self._inner, "renew", None)
        if renew is None:
            self._inner = self._build(self._parameters)
        else:
            renew()

    def _heavier(self, oracle: Oracle) -> None:
        if self._penalty >= MAX_PENALTY:
            raise Stuck(
                "no penalty keeps the constraints: perhaps they cannot be met, or only at infinity, or their gradients "
                "vanish where they are"
            )
        self._penalty *= HEAVIER
        self._merit = Merit(oracle, self._multipliers, self._penalties())
        self._inner = self._build(self._parameters)

    def _restart(self, point: Tensor, oracle: Oracle) -> None:
        self._inner = self._build(self._parameters)
        self._again = True
        oracle.write(point)
