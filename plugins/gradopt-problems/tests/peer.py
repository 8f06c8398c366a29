"""A problem as SciPy sees it: functions of arrays."""

import numpy as np
import scipy.optimize
import torch


class Peer:
    """The loss, bounds and constraints of a problem of this package, and what SciPy finds."""

    def __init__(self, problem):
        self.problem = problem
        self.start = problem.x.detach().numpy().copy()
        limits = problem.bounds().get("x", (None, None))
        self.lower, self.upper = (
            np.broadcast_to(side if limit is None else np.asarray(limit, dtype=float), self.start.shape)
            for limit, side in zip(limits, (-np.inf, np.inf), strict=True)
        )
        self.constraints = list(problem.constraints())

    def loss(self, x):
        self._move(x)
        with torch.no_grad():
            return self.problem().item()

    def gradient(self, x):
        self._move(x)
        return torch.autograd.grad(self.problem(), self.problem.x)[0].numpy()

    def residuals(self, x):
        self._move(x)
        with torch.no_grad():
            return self.problem.residuals().numpy().copy()

    def residual_jacobian(self, x):
        self._move(x)
        return _jacobian(self.problem.residuals(), self.problem.x)

    def equalities(self, x):
        return np.concatenate([np.zeros(0), *(values for values, equal in self._values(x) if equal)])

    def inequalities(self, x):
        return np.concatenate([np.zeros(0), *(values for values, equal in self._values(x) if not equal)])

    def violation(self, x):
        """The largest amount by which a bound or constraint is broken."""
        sides = [np.zeros(1), np.abs(self.equalities(x)), -self.inequalities(x), self.lower - x, x - self.upper]
        return max(side.max(initial=0.0) for side in sides)

    def values(self, x, constraint):
        """Of a constraint's function, as a vector."""
        self._move(x)
        with torch.no_grad():
            return constraint.function().numpy().reshape(-1).copy()

    def jacobian(self, x, constraint):
        """Of a constraint's function, one row an entry."""
        self._move(x)
        return _jacobian(constraint.function().reshape(-1), self.problem.x)

    def minimise(self, start=None):
        """From a start, by SLSQP where there are constraints, else by L-BFGS-B."""
        start = self.start if start is None else np.asarray(start, dtype=float)
        bounds = list(zip(self.lower, self.upper, strict=True))
        if not self.constraints:
            options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 20000, "maxfun": 50000, "maxcor": 30}
            return scipy.optimize.minimize(
                self.loss, start, jac=self.gradient, bounds=bounds, method="L-BFGS-B", options=options
            )
        constraints = [
            {"type": kind, "fun": values, "jac": lambda x, kind=kind: self._rows(x, kind == "eq")}
            for kind, values in (("eq", self.equalities), ("ineq", self.inequalities))
            if len(values(start))
        ]
        scale = max(1.0, abs(self.loss(start)))
        for _ in range(4):  # its line search gives up at round-off, often too early: it is started again from there
            found = scipy.optimize.minimize(
                lambda x: self.loss(x) / scale, start, jac=lambda x: self.gradient(x) / scale, bounds=bounds,
                constraints=constraints, method="SLSQP", options={"ftol": 1e-15, "maxiter": 150},
            )  # fmt: skip
            found.fun *= scale
            if np.array_equal(start, found.x):
                break
            start = found.x
        return found

    def trust_region(self, start=None):
        """From a start, by Newton's method in a trust region, which takes a loss that is not finite for a bad step."""

        def loss(x):
            return np.nan_to_num(self.loss(x), nan=np.inf)

        def hessian(x):
            self._move(x)
            gradient = torch.autograd.grad(self.problem(), self.problem.x, create_graph=True)[0]
            return _jacobian(gradient, self.problem.x)

        start = self.start if start is None else np.asarray(start, dtype=float)
        return scipy.optimize.minimize(
            loss, start, jac=self.gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-8}
        )

    def stationarity(self, x, near=1e-7):
        """The largest entry of the gradient that no combination of active bounds and constraints with multipliers of
        the right sign balances, relative to the gradient.
        """
        gradient, eye = self.gradient(x), np.eye(len(x))
        normals = [*eye[x <= self.lower + near], *-eye[x >= self.upper - near]]
        rows = self._rows(x, equal=True)
        normals += [*rows, *-rows, *self._rows(x, equal=False)[self.inequalities(x) <= near]]
        if not normals:
            return np.abs(gradient).max()
        matrix = np.array(normals).T
        scale = max(1.0, np.abs(gradient).max())
        lengths = np.linalg.norm(matrix, axis=0)
        multipliers, _ = scipy.optimize.nnls(matrix / lengths, gradient / scale)
        return np.abs(matrix / lengths @ multipliers - gradient / scale).max()

    def _values(self, x):
        """(what must be zero or not negative, whether zero) for each side of each constraint."""
        for constraint in self.constraints:
            values = self.values(x, constraint)
            if constraint.lower == constraint.upper:
                yield values - constraint.lower, True
                continue
            for side, sign in ((constraint.lower, 1), (constraint.upper, -1)):
                if side is not None:  # which may be one number, or one for each entry of the last axis
                    limits = np.resize(np.asarray(side, dtype=float), values.shape)
                    yield sign * (values - limits), False

    def _rows(self, x, equal):
        rows = [np.zeros((0, len(x)))]
        for constraint in self.constraints:
            if (constraint.lower == constraint.upper) is equal:
                jacobian = self.jacobian(x, constraint)
                rows += [
                    sign * jacobian
                    for side, sign in ((constraint.lower, 1), (constraint.upper, -1))
                    if side is not None
                ][: 1 if equal else 2]
        return np.concatenate(rows)

    def _move(self, x):
        with torch.no_grad():
            self.problem.x.copy_(torch.as_tensor(np.asarray(x, dtype=float)))


def _jacobian(values, x):
    return torch.autograd.grad(values, x, torch.eye(len(values)), is_grads_batched=True)[0].numpy()


def differences(function, x, step=1e-6):
    """Central differences of a function with values in R^m, steps relative to each unknown: shape (m, n)."""
    columns = []
    for index in range(len(x)):
        moved = np.repeat(x[None], 2, 0)
        size = step * max(abs(x[index]), 1e-2)
        moved[:, index] += [size, -size]
        width = moved[0, index] - moved[1, index]
        columns.append((np.atleast_1d(function(moved[0])) - np.atleast_1d(function(moved[1]))) / width)
    return np.stack(columns, 1)
