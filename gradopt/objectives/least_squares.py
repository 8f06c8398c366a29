"""Residuals, given as a plain function, as an objective: from Python, and from a user's file or module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from gradopt.contracts import Constraint, Objective
from gradopt.objectives.function import FunctionObjective, constraint, load
from gradopt.objectives.robust import RobustLoss


class ResidualObjective(FunctionObjective):
    """Half the sum of squares of what a function of one start returns, or a robust loss of it.

    Args:
        function: Returns the residuals, a tensor of any shape; called with the unknowns in the form of `x0`.
        x0, bounds, constraints: As for `FunctionObjective`.
        robust: The loss of the residuals.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        x0: Any,
        bounds: Any = None,
        constraints: Constraint | Sequence[Constraint] = (),
        *,
        robust: RobustLoss | None = None,
    ) -> None:
        super().__init__(function, x0, bounds, constraints)
        self.robust = robust

    def forward(self, batch: None = None) -> Tensor:
        """The loss of the residuals at the current unknowns."""
        return Objective.forward(self)

    def residuals(self) -> Tensor:
        """The function at the current unknowns."""
        return self._value()

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The losses of the residuals at many starts."""
        residuals = self.residuals_at(parameters)
        if self.robust is None:
            return 0.5 * residuals.square().flatten(1).sum(1)
        return torch.func.vmap(self.robust.total)(residuals)

    def residuals_at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The function at many starts: it is mapped itself."""
        return self._mapped(parameters)


class LeastSquares(ResidualObjective):
    """Your own residuals, from a file or a module: objective.target=my_fit.py:residuals objective.x0=[1,2].

    Args:
        target: path/to/file.py:name, or package.module:name; a function of the unknowns that returns the residuals.
        x0: A number, a list of numbers, or a dict of these.
        bounds: [lower, upper], each a number, a list or null; for a dict x0: {name: [lower, upper]}.
        constraints: As for objective=function.
        loss: Of the residuals; all but linear give less weight to outliers.
        f_scale: The size of residual from which on outliers begin, in the units of the residuals.
        options: Further keyword arguments of the function.
    """

    def __init__(
        self,
        target: str,
        x0: Any,
        bounds: Any = None,
        constraints: list[dict[str, Any]] | None = None,
        loss: Literal["linear", "soft_l1", "huber", "cauchy", "arctan"] = "linear",
        f_scale: Annotated[float, "> 0"] = 1.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        function, keywords = load(target), dict(options or {})
        super().__init__(
            (lambda x: function(x, **keywords)) if keywords else function,
            x0,
            bounds,
            [constraint(node) for node in constraints or ()],
            robust=RobustLoss(loss, f_scale),
        )
        self._target = target

    def describe(self) -> str:
        """The target and the size."""
        return f"residuals of {self._target}, n = {sum(parameter.numel() for parameter in self.parameters())}"
