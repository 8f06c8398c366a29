"""Which solvers meet on which cases, and what they may use."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.quality import peers
from benchmarks.quality import solvers as own
from benchmarks.quality.cases import Case, box, has_residuals, library
from benchmarks.quality.solvers import Budget, Solver

FIRST_ORDER = Budget(evaluations=2000)
SECOND_ORDER = Budget(evaluations=2000, steps=500)
RESIDUALS = Budget(evaluations=1000)
GLOBAL = Budget(evaluations=10_000)


@dataclass(frozen=True)
class Group:
    """One table.

    Attributes:
        title: Of the table.
        takes: Whether a case belongs here.
        entries: Solvers and their budgets, in the order of the table.
        rescaled: Whether the cases are in shifted and rescaled variables.
        borrowed: Solvers whose runs in another group are these too, and its name: nothing runs twice.
    """

    title: str
    takes: Callable[[Case], bool]
    entries: tuple[tuple[Solver, Budget], ...]
    rescaled: bool = False
    borrowed: tuple[str, tuple[Solver, ...]] = ("", ())

    def cases(self) -> list[Case]:
        """The cases, in the order of the library."""
        return [replace(case, rescaled=self.rescaled) for case in library() if self.takes(case)]


def _is_free(case: Case) -> bool:
    return not (_is_bounded(case) or _is_constrained(case)) and case.family != "multimodal"


def _is_bounded(case: Case) -> bool:
    return not all(bool(side.isinf().all()) for side in box(case.original()))


def _is_constrained(case: Case) -> bool:
    return bool(case.original().constraints())


def _is_in_a_box(case: Case) -> bool:
    return _is_bounded(case) and not _is_constrained(case) and case.family != "multimodal"


def _has_residuals(case: Case) -> bool:
    return has_residuals(case.original())


def _all(budget: Budget, *which: Solver) -> tuple[tuple[Solver, Budget], ...]:
    return tuple((solver, budget) for solver in which)


OWN_FREE = _all(FIRST_ORDER, own.LBFGS, own.AUTO) + _all(SECOND_ORDER, own.TRUST_REGION, own.TRUST_REGION_PRODUCTS)

GROUPS = {
    "unconstrained": Group(
        "Unconstrained",
        _is_free,
        OWN_FREE
        + _all(
            FIRST_ORDER,
            peers.SCIPY_BFGS,
            peers.SCIPY_LBFGSB,
            peers.TORCH_LBFGS,
            peers.NLOPT_LBFGS,
            peers.TORCHMIN_BFGS,
            peers.TORCHMIN_LBFGS,
            peers.SCIPY_CG,
        )
        + _all(
            SECOND_ORDER,
            peers.SCIPY_TRUST_EXACT,
            peers.SCIPY_TRUST_NCG,
            peers.SCIPY_NEWTON_CG,
            peers.FIDES,
            peers.IPOPT,
            peers.TORCHMIN_TRUST_EXACT,
            peers.TORCHMIN_NEWTON_EXACT,
        )
        + _all(FIRST_ORDER, peers.OPTIMISTIX_BFGS),
    ),
    "least_squares": Group(
        "Least squares",
        lambda case: _is_free(case) and _has_residuals(case),
        _all(
            RESIDUALS,
            own.LEVENBERG_MARQUARDT,
            peers.SCIPY_TRF,
            peers.SCIPY_DOGBOX,
            peers.SCIPY_LM,
            peers.CERES,
            peers.TORCHMIN_LEAST_SQUARES,
            peers.OPTIMISTIX_LM,
        ),
    ),
    "bounds": Group(
        "Bounds",
        _is_in_a_box,
        _all(FIRST_ORDER, own.LBFGS, own.AUTO)
        + _all(SECOND_ORDER, own.TRUST_REGION)
        + _all(FIRST_ORDER, own.AROUND, peers.SCIPY_LBFGSB, peers.NLOPT_LBFGS, peers.SCIPY_SLSQP)
        + _all(SECOND_ORDER, peers.FIDES, peers.IPOPT, peers.SCIPY_TRUST_CONSTR),
    ),
    "bounds_residuals": Group(
        "Bounds, in residual form",
        lambda case: _is_in_a_box(case) and _has_residuals(case),
        _all(RESIDUALS, own.LEVENBERG_MARQUARDT, own.AROUND_FIT, peers.SCIPY_TRF, peers.SCIPY_DOGBOX, peers.CERES),
    ),
    "constrained": Group(
        "Constrained",
        _is_constrained,
        _all(FIRST_ORDER, own.AUGMENTED_LAGRANGIAN, peers.SCIPY_SLSQP, peers.NLOPT_SLSQP, peers.NLOPT_AUGLAG)
        + _all(SECOND_ORDER, peers.IPOPT, peers.SCIPY_TRUST_CONSTR),
    ),
    "multimodal": Group(
        "Multimodal",
        lambda case: case.family == "multimodal",
        _all(GLOBAL, own.MULTI_START, own.TIKTAK, own.LBFGS, peers.SCIPY_DUAL_ANNEALING, peers.SCIPY_BASINHOPPING),
    ),
    "defaults": Group(
        "Unconstrained, with default options",
        _is_free,
        _all(
            FIRST_ORDER,
            peers.SCIPY_BFGS_DEFAULT,
            peers.SCIPY_LBFGSB_DEFAULT,
            peers.TORCH_LBFGS_DEFAULT,
            peers.TORCHMIN_BFGS_DEFAULT,
            peers.TORCHMIN_LBFGS_DEFAULT,
        )
        + _all(SECOND_ORDER, peers.SCIPY_TRUST_EXACT_DEFAULT),
        borrowed=("unconstrained", (own.LBFGS, own.AUTO, own.TRUST_REGION, own.TRUST_REGION_PRODUCTS)),
    ),
    "rescaled": Group(
        "Unconstrained, in shifted and rescaled variables",
        _is_free,
        OWN_FREE
        + _all(FIRST_ORDER, peers.SCIPY_BFGS, peers.SCIPY_LBFGSB, peers.TORCH_LBFGS)
        + _all(SECOND_ORDER, peers.SCIPY_TRUST_EXACT),
        rescaled=True,
    ),
    "rescaled_least_squares": Group(
        "Least squares, in shifted and rescaled variables",
        lambda case: _is_free(case) and _has_residuals(case),
        _all(RESIDUALS, own.LEVENBERG_MARQUARDT, peers.SCIPY_TRF, peers.SCIPY_DOGBOX, peers.SCIPY_LM, peers.CERES),
        rescaled=True,
    ),
}
