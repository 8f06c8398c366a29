"""A case as functions of NumPy vectors, for solvers of other people: counted, and ended at the budget."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.quality.cases import Case, box
from benchmarks.quality.referee import Referee, row_of
from benchmarks.quality.solvers import Budget, Outcome
from gradopt.oracle import AutogradOracle

Vector = np.ndarray


class Spent(Exception):
    """The budget is used up: it leaves the solver from inside."""


class Meter:
    """Loss, derivatives, bounds and constraints of a case. Loss and gradient at one point count as one evaluation.

    Attributes:
        start, lower, upper: In the variables the solver is given.
        evaluations: So far.
        spent: Whether more were asked for than there are, whatever the solver made of it.
        counts_products: False for a solver that makes its own Hessian products.
    """

    def __init__(self, case: Case, budget: Budget) -> None:
        self._case, self._budget = case, budget
        self._referee = Referee(case)
        self.objective = case.objective()
        self._oracle = AutogradOracle(self.objective)
        self.start = self._oracle.read().numpy()
        self.lower, self.upper = (side.numpy().copy() for side in box(self.objective))
        self.constraints = list(self.objective.constraints())
        self.evaluations = 0
        self.spent = False
        self.counts_products = True
        self._to_target: tuple[int, int] | tuple[None, None] = (None, None)
        self._best = (False, -np.inf, self._oracle.read())
        self._last: tuple[bytes, float, Vector] = (b"", np.nan, self.start)

    def loss_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """Both; asked again at the same point it costs nothing."""
        key = x.tobytes()
        if key != self._last[0]:
            point = self._move(x)
            evaluation = self._oracle.evaluate()
            self._note(point, evaluation.loss)
            self._last = (key, evaluation.loss, evaluation.gradient.numpy().copy())
        return self._last[1], self._last[2].copy()

    def loss(self, x: Vector) -> float:
        """The loss alone; it counts as an evaluation."""
        if x.tobytes() == self._last[0]:
            return self._last[1]
        point = self._move(x)
        with torch.no_grad():
            loss = self.objective().item()
        self._note(point, loss)
        return loss

    def gradient(self, x: Vector) -> Vector:
        return self.loss_and_gradient(x)[1]

    def hessian(self, x: Vector) -> Vector:
        """The matrix, at the cost of n products."""
        self._move(x)
        return self._oracle.hessian_matrix().numpy()

    def product(self, x: Vector, vector: Vector) -> Vector:
        """Hessian times vector."""
        self._move(x)
        return self._oracle.hessian()(torch.from_numpy(np.array(vector, dtype=float))).numpy()

    def residuals(self, x: Vector) -> Vector:
        """They count as an evaluation."""
        point = self._move(x)
        with torch.no_grad():
            residuals = self.objective.residuals().reshape(-1)
        self._note(point, 0.5 * residuals.square().sum().item())
        return residuals.numpy()

    def jacobian(self, x: Vector) -> Vector:
        """Of the residuals; it counts with them."""
        self._move(x)
        return self._oracle.linearised().jacobian().numpy()

    def constraint(self, x: Vector) -> tuple[Vector, Vector]:
        """The values of all constraints one after another, and their Jacobian."""
        self._move(x)
        values = torch.cat([one.function().reshape(-1) for one in self.constraints])
        return values.detach().numpy(), torch.stack([row_of(value, self.objective.x) for value in values]).numpy()

    def lagrangian_hessian(self, x: Vector, factor: float, multipliers: Vector) -> Vector:
        """Of factor * loss + multipliers' * constraints."""
        if not self.constraints:
            return factor * self.hessian(x)
        self._move(x)
        values = torch.cat([one.function().reshape(-1) for one in self.constraints])
        lagrangian = factor * self.objective() + torch.from_numpy(multipliers.copy()) @ values
        (gradient,) = torch.autograd.grad(lagrangian, self.objective.x, create_graph=True)
        self._oracle.num_hessian_products += len(x)
        return torch.stack([row_of(entry, self.objective.x) for entry in gradient]).numpy()

    def constraint_limits(self) -> tuple[Vector, Vector]:
        """Lower and upper limits of those values."""
        sides = []
        for name, free in (("lower", -torch.inf), ("upper", torch.inf)):
            parts = []
            for one in self.constraints:
                like = one.function().detach().reshape(-1)
                side = getattr(one, name)
                parts.append(torch.as_tensor(free if side is None else side, dtype=like.dtype).expand_as(like))
            sides.append(torch.cat(parts).numpy())
        return sides[0], sides[1]

    def of_tensor(self, x: Tensor) -> Tensor:
        """The loss of a tensor, differentiable twice; it counts as an evaluation."""
        loss = torch.func.functional_call(self.objective, {"x": x}, ())
        self._note(x.detach().clone(), loss.item())
        return loss

    def residuals_of_tensor(self, x: Tensor) -> Tensor:
        """The residuals of a tensor, differentiable; they count as an evaluation."""
        residuals = torch.func.functional_call(_Residuals(self.objective), {"objective.x": x}, ()).reshape(-1)
        if not torch._C._functorch.is_functorch_wrapped_tensor(residuals):  # inside a transform there are no numbers
            self._note(x.detach().clone(), 0.5 * residuals.detach().square().sum().item())
        return residuals

    def outcome(self, solve: Callable[["Meter", Budget], tuple[Vector, bool, object]]) -> Outcome:
        """Run a solver. What it had found best when the budget ended counts as its answer; what it raises is raised."""
        try:
            x, claimed, status = solve(self, self._budget)
            point = torch.from_numpy(np.array(x, dtype=float))
        except Exception:  # solvers make other errors of Spent
            if not self.spent:
                raise
            point, claimed, status = self._best[2], False, "budget"
        evaluations, products = self._to_target
        return Outcome(
            point,
            bool(claimed),
            str(status),
            self.evaluations,
            self._oracle.num_hessian_products if self.counts_products else None,
            evaluations,
            products if self.counts_products else None,
        )

    def _move(self, x: Vector) -> Tensor:
        point = torch.from_numpy(np.array(x, dtype=float))
        self._oracle.write(point)
        return point

    def _note(self, point: Tensor, loss: float) -> None:
        if self.evaluations >= self._budget.evaluations:
            self.spent = True
            raise Spent
        self.evaluations += 1
        original = self._case.restore(point)
        if self._to_target[0] is None and self._referee.has_reached(loss, original):
            self._to_target = (self.evaluations, self._oracle.num_hessian_products)
        if -loss > self._best[1] or not self._best[0]:
            rank = (self._referee.is_feasible(original), -loss)
            if rank > self._best[:2]:
                self._best = (*rank, point)


class _Residuals(nn.Module):
    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self) -> Tensor:
        return self.objective.residuals()
