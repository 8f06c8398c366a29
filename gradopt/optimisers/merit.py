"""The augmented Lagrangian of a constrained objective as an oracle: to an optimiser it is one without constraints."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.constraints.functions import excess
from gradopt.contracts import Constraints, Evaluation, Linearised, Objective, Oracle


class Merit:
    """The `Oracle` of L(x) = f(x) + sum_i [p_i d_i^2 - y_i^2 / p_i] / 2, with d = c + y/p minus its projection on
    the limits.

    That is the augmented Lagrangian of Powell, Hestenes and Rockafellar for constraints with two sides, of which an
    equality is the case of no room. Its gradient is that of the Lagrangian at the multipliers p d. Bounds stay bounds.

    Attributes:
        multipliers: y, shape (m,); positive where the upper limit holds.
        penalties: p, shape (m,), positive.
    """

    objective: Objective
    origin: Tensor | None
    num_losses: int
    num_gradients: int
    num_hessian_products: int
    num_refused: int
    max_evaluations: float
    deadline: float
    best: Evaluation | None
    pinned: Tensor | None

    def __init__(self, oracle: Oracle, multipliers: Tensor, penalties: Tensor) -> None:
        assert oracle.constraints is not None
        self._oracle, self._limits = oracle, oracle.constraints
        self.constraints: Constraints | None = None
        self.violation_tolerance, self.has_full_loss = 0.0, True
        self.parameters, self.lower, self.upper = oracle.parameters, oracle.lower, oracle.upper
        self.read, self.write, self.include = oracle.read, oracle.write, oracle.include
        self.linearised_constraints = oracle.linearised_constraints
        self.metrics, self.unbounded_below = oracle.metrics, oracle.unbounded_below
        self.multipliers, self.penalties = multipliers, penalties
        self._values = torch.empty(0)

    def at(self, evaluation: Evaluation) -> Evaluation:
        """What the merit is where the objective and its constraints have just been evaluated."""
        assert evaluation.constraints is not None
        self._values = evaluation.constraints
        shifted = self._shifted(self._values)
        terms = 0.5 * (self.penalties * shifted.square() - self.multipliers.square() / self.penalties)
        gradient = evaluation.gradient + self._oracle.linearised_constraints().vjp(self.penalties * shifted)
        if evaluation.pinned is not None:  # an infinite derivative is one with any penalty
            gradient = gradient.masked_fill(evaluation.pinned, 0.0)
        projected = gradient
        if self.lower is not None and self.upper is not None:
            projected = projected_gradient(gradient, evaluation.point, self.lower, self.upper)
        norm = torch.linalg.vector_norm(projected, torch.inf).item()
        loss = evaluation.loss + terms.sum().item()
        return Evaluation(loss, norm, evaluation.point, gradient, pinned=evaluation.pinned)

    def estimate(self, values: Tensor) -> Tensor:
        """The multipliers to first order, where the constraints have these values: p d."""
        return self.penalties * self._shifted(values)

    def gap(self, values: Tensor) -> Tensor:
        """By how much feasibility and complementarity are missed: d - y/p, shape (m,)."""
        return self._shifted(values) - self.multipliers / self.penalties

    def hessian(self, multipliers: Tensor | None = None, *, loss: float = 1.0) -> Callable[[Tensor], Tensor] | None:
        """The map v -> H v of the merit at the current parameters."""
        shifted = self._shifted(self._values)
        curved = self._oracle.hessian(self.penalties * shifted)
        if curved is None:
            return None
        linear, weights = self._oracle.linearised_constraints(), self.penalties * (shifted != 0)
        return lambda v: curved(v) + linear.vjp(weights * linear.jvp(v))

    def hessian_matrix(self) -> Tensor | None:
        """H, shape (n, n)."""
        shifted = self._shifted(self._values)
        product = self._oracle.hessian(self.penalties * shifted)
        if product is None:
            return None
        size = sum(parameter.numel() for parameter in self.parameters)
        matrix = torch.stack([product(row) for row in torch.eye(size).to(self._values)])
        rows = shifted.nonzero().flatten()
        if not len(rows):
            return matrix
        jacobian = self._oracle.linearised_constraints().jacobian(rows)
        return matrix + jacobian.T @ (self.penalties[rows, None] * jacobian)

    def _shifted(self, values: Tensor) -> Tensor:
        return excess(values + self.multipliers / self.penalties, self._limits.lower, self._limits.upper)

    def evaluate(self) -> Evaluation:
        """The merit at the current parameters."""
        return self.at(self._oracle.evaluate())

    def evaluate_full(self) -> Evaluation | None:
        """The same."""
        return self.evaluate()

    def loss(self, point: Tensor) -> float:
        """The merit at another point."""
        return self._elsewhere(point).loss

    def gradient(self, point: Tensor) -> Tensor:
        """The merit's gradient at another point."""
        return self._elsewhere(point).gradient

    def full_gradient(self) -> Tensor:
        """The merit's gradient where the objective was last evaluated."""
        gradient = self._oracle.full_gradient() + self.linearised_constraints().vjp(self.estimate(self._values))
        return gradient if self._oracle.pinned is None else gradient.masked_fill(self._oracle.pinned, 0.0)

    def linearised(self) -> Linearised:
        """The objective's residuals, and sqrt(p) d: half the sum of their squares is the merit, but for a constant.

        Raises:
            Mistake: The objective has no residuals.
        """
        shifted, roots = self._shifted(self._values), self.penalties.sqrt()
        return Extended(
            self._oracle.linearised(), self.linearised_constraints(), roots * shifted, roots * (shifted != 0)
        )

    def __getattr__(self, name: str) -> Any:
        """What is not the merit's own is the oracle's: counts and budgets, at the time of asking."""
        return getattr(self._oracle, name)

    def _elsewhere(self, point: Tensor) -> Evaluation:
        here, values = self.read(), self._values
        self.write(point)
        try:
            return self.evaluate()
        finally:
            self.write(here)
            self._values = values


class Extended:
    """Residuals, with as many more as there are constraints, and the Jacobian of both.

    Args:
        more: The additional residuals, shape (m,).
        weights: What a change of each constraint changes its residual by, shape (m,).
    """

    def __init__(self, own: Linearised, constraints: Linearised, more: Tensor, weights: Tensor) -> None:
        self._own, self._constraints, self._weights = own, constraints, weights
        self.residuals = torch.cat([own.residuals, more])

    def jvp(self, vector: Tensor) -> Tensor:
        """J v; only until the parameters move."""
        return torch.cat([self._own.jvp(vector), self._weights * self._constraints.jvp(vector)])

    def vjp(self, vector: Tensor) -> Tensor:
        """J' v; only until the parameters move."""
        own, more = vector.tensor_split([len(vector) - len(self._weights)])
        return self._own.vjp(own) + self._constraints.vjp(self._weights * more)

    def jacobian(self, rows: Tensor | None = None) -> Tensor:
        """J, or some rows of it."""
        every = torch.arange(len(self._weights), device=self._weights.device)
        more = self._weights[:, None] * self._constraints.jacobian(every)
        whole = torch.cat([self._own.jacobian(), more])
        return whole if rows is None else whole[rows]
