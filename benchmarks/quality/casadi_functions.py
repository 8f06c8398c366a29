"""A `Meter` as the functions that CasADi's solvers call."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.quality.meter import Meter

Array = np.ndarray


def program(meter: Meter, casadi: Any) -> tuple[Any, dict[str, Any]]:
    """The program for `nlpsol`, and its options: the derivatives are ours."""
    n = len(meter.start)
    m = len(meter.constraint_limits()[0]) if meter.constraints else 0
    dense = casadi.Sparsity.dense
    Function = _function(casadi)  # noqa: N806 - a class
    x, p, multipliers = {"x": dense(n, 1)}, {"p": casadi.Sparsity(0, 0)}, {"lam_f": dense(1, 1), "lam_g": dense(m, 1)}

    def constraint(x: Array) -> tuple[Array, Array]:
        values, jacobian = meter.constraint(x) if m else (np.empty(0), np.empty((0, n)))
        return values.reshape(m, 1), jacobian

    def hessian(x: Array, p: Array, factor: Array, multipliers: Array) -> list[Array]:
        return [np.triu(meter.lagrangian_hessian(x, float(factor[0]), multipliers))]

    nlp = Function(
        "nlp",
        lambda x, p: [meter.loss_and_gradient(x)[0], constraint(x)[0]],
        {**x, **p},
        {"f": dense(1, 1), "g": dense(m, 1)},
    )
    derivatives = {
        "grad_f": Function(
            "nlp_grad_f",
            lambda x, p: meter.loss_and_gradient(x),
            {**x, **p},
            {"f": dense(1, 1), "grad_f_x": dense(n, 1)},
        ),
        "jac_g": Function(
            "nlp_jac_g", lambda x, p: constraint(x), {**x, **p}, {"g": dense(m, 1), "jac_g_x": dense(m, n)}
        ),
        "hess_lag": Function(
            "nlp_hess_l", hessian, {**x, **p, **multipliers}, {"hess_gamma_x_x": casadi.Sparsity.upper(n)}
        ),
    }
    return nlp, derivatives


@cache
def _function(casadi: Any) -> type:
    """A class, which cannot be made before CasADi is imported."""

    class Function(casadi.Callback):
        """A function of dense arrays, by the names and shapes CasADi expects."""

        def __init__(
            self, name: str, call: Callable[..., Sequence[Any]], takes: Mapping[str, Any], gives: Mapping[str, Any]
        ) -> None:
            super().__init__()
            self._call, self._takes, self._gives = call, list(takes.items()), list(gives.items())
            self.construct(name, {})

        def get_n_in(self) -> int:
            return len(self._takes)

        def get_n_out(self) -> int:
            return len(self._gives)

        def get_name_in(self, index: int) -> str:
            return self._takes[index][0]

        def get_name_out(self, index: int) -> str:
            return self._gives[index][0]

        def get_sparsity_in(self, index: int) -> Any:
            return self._takes[index][1]

        def get_sparsity_out(self, index: int) -> Any:
            return self._gives[index][1]

        def eval(self, arguments: list[Any]) -> list[Any]:
            made = self._call(*(np.array(argument).ravel() for argument in arguments))
            return [casadi.project(casadi.DM(part), form) for part, (_, form) in zip(made, self._gives, strict=True)]

    return Function
