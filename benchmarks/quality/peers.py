"""Other people's solvers: SciPy, torch, pytorch-minimize, optimistix, NLopt, Ceres, Ipopt and fides.

Tolerances are as tight as each allows, so that the budget or round-off ends a run; those called "default" keep theirs.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.quality.cases import Case
from benchmarks.quality.meter import Meter, Vector
from benchmarks.quality.solvers import Budget, Outcome, Solver

PACKAGES = ("scipy", "pytorch-minimize", "optimistix", "nlopt", "pyceres", "casadi", "fides")
"""What pip installs; Ipopt comes inside casadi."""

Answer = tuple[Vector, bool, object]


def peer(name: str, solve: Callable[[Meter, Budget], Answer], *needs: str) -> Solver:
    """A solver of a `Meter`, which returns its point, whether it claims success, and its word for the ending."""

    def run(case: Case, budget: Budget) -> Outcome:
        return Meter(case, budget).outcome(solve)

    return Solver(name, run, needs)


def scipy_minimize(method: str, *, tight: bool = True, second: str = "", **options: Any) -> Solver:
    """`scipy.optimize.minimize`; `second` says which second derivatives it is given."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        from scipy.optimize import Bounds, minimize

        keywords: dict[str, Any] = {"hess": meter.hessian} if second == "hess" else {}
        if second == "hessp":
            keywords["hessp"] = meter.product
        if np.isfinite([meter.lower, meter.upper]).any():
            keywords["bounds"] = Bounds(meter.lower, meter.upper)
        if meter.constraints:
            keywords["constraints"] = _scipy_constraints(meter, method)
        limits = {"maxiter": budget.steps or budget.evaluations, **options} if tight else options
        found = minimize(meter.loss_and_gradient, meter.start, jac=True, method=method, options=limits, **keywords)
        return found.x, found.success, found.status

    return peer(f"SciPy {method}" + ("" if tight else " (default)"), solve, "scipy.optimize")


def _scipy_constraints(meter: Meter, method: str) -> Any:
    from scipy.optimize import NonlinearConstraint

    lower, upper = meter.constraint_limits()
    if method != "SLSQP":
        return NonlinearConstraint(lambda x: meter.constraint(x)[0], lower, upper, jac=lambda x: meter.constraint(x)[1])
    equal = lower == upper
    parts = (("eq", equal, lower, 1.0), ("ineq", np.isfinite(lower) & ~equal, lower, 1.0),
             ("ineq", np.isfinite(upper) & ~equal, upper, -1.0))  # fmt: skip
    return [
        {
            "type": kind,
            "fun": lambda x, rows=rows, side=side, sign=sign: sign * (meter.constraint(x)[0] - side)[rows],
            "jac": lambda x, rows=rows, sign=sign: sign * meter.constraint(x)[1][rows],
        }
        for kind, rows, side, sign in parts
        if rows.any()
    ]


def scipy_least_squares(method: str, *, tight: bool = True) -> Solver:
    """`scipy.optimize.least_squares`."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        from scipy.optimize import least_squares

        options: dict[str, Any] = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "x_scale": "jac"} if tight else {}
        if method != "lm":
            options["bounds"] = (meter.lower, meter.upper)
        found = least_squares(
            meter.residuals, meter.start, jac=meter.jacobian, method=method, max_nfev=budget.evaluations, **options
        )
        return found.x, found.success, found.status

    return peer(f"SciPy {method}" + ("" if tight else " (default)"), solve, "scipy.optimize")


def scipy_global(name: str) -> Solver:
    """`dual_annealing` and `basinhopping`, with L-BFGS-B inside; dual annealing needs a box on every side."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        from scipy import optimize

        box = list(zip(meter.lower, meter.upper, strict=True))
        local = {"method": "L-BFGS-B", "jac": meter.gradient, "bounds": box}
        if name == "dual_annealing":
            found = optimize.dual_annealing(
                meter.loss,
                box,
                x0=meter.start,
                minimizer_kwargs=local,
                maxfun=budget.evaluations,
                maxiter=100_000,
                rng=0,
            )
            return found.x, found.success, found.status
        local = {"method": "L-BFGS-B", "jac": True, "bounds": box}
        found = optimize.basinhopping(
            meter.loss_and_gradient, meter.start, niter=100_000, minimizer_kwargs=local, rng=0
        )
        return found.x, found.lowest_optimization_result.success, "finished"

    return peer(f"SciPy {name}", solve, "scipy.optimize")


def torch_lbfgs(*, tight: bool = True) -> Solver:
    """`torch.optim.LBFGS`, which claims nothing. `max_iter` is raised to the budget in either case."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        x = torch.from_numpy(meter.start.copy()).requires_grad_()
        options = {"tolerance_grad": 0.0, "tolerance_change": 0.0} if tight else {}
        limits = {"max_iter": budget.evaluations, "max_eval": budget.evaluations}
        optimizer = torch.optim.LBFGS([x], line_search_fn="strong_wolfe", **limits, **options)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = meter.of_tensor(x)
            loss.backward()
            return loss

        optimizer.step(closure)
        return x.detach().numpy(), False, "returned"

    return peer("torch LBFGS strong_wolfe" + ("" if tight else " (default)"), solve)


def torchmin(method: str, *, tight: bool = True, **options: Any) -> Solver:
    """`torchmin.minimize` of pytorch-minimize."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        from torchmin import minimize

        limits = {"max_iter": budget.steps or budget.evaluations, "options": dict(options)}
        found = minimize(meter.of_tensor, torch.from_numpy(meter.start.copy()), method, **limits)
        meter.counts_products = "newton" not in method and "trust" not in method  # it makes its own
        return found.x.numpy(), bool(found.success), found.status

    return peer(f"pytorch-minimize {method}" + ("" if tight else " (default)"), solve, "torchmin")


def torchmin_least_squares() -> Solver:
    """`torchmin.least_squares` of pytorch-minimize."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        from torchmin import least_squares

        start = torch.from_numpy(meter.start.copy())
        options = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": budget.evaluations}
        found = least_squares(meter.residuals_of_tensor, start, tr_solver="exact", **options)
        return found.x.detach().numpy(), bool(found.success), found.status

    return peer("pytorch-minimize least_squares", solve, "torchmin")


def nlopt(algorithm: str, *, inner: str = "") -> Solver:
    """One of NLopt's; AUGLAG takes an inner one."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        import nlopt as library

        def made(name: str) -> Any:
            optimizer = library.opt(getattr(library, name), len(meter.start))
            optimizer.set_ftol_rel(1e-15)
            optimizer.set_xtol_rel(1e-15)
            return optimizer

        def loss(x: Vector, gradient: Vector) -> float:
            value, slope = meter.loss_and_gradient(x)
            if gradient.size:
                gradient[:] = slope
            return value

        optimizer = made(algorithm)
        optimizer.set_exceptions_enabled(False)
        optimizer.set_maxeval(budget.evaluations)
        optimizer.set_min_objective(loss)
        optimizer.set_lower_bounds(meter.lower)
        optimizer.set_upper_bounds(meter.upper)
        if inner:
            optimizer.set_local_optimizer(made(inner))
        for kind, function, size in _nlopt_constraints(meter):
            getattr(optimizer, f"add_{kind}_mconstraint")(function, np.full(size, 1e-8))
        x = optimizer.optimize(meter.start)
        code = optimizer.last_optimize_result()
        return x, 1 <= code <= 4, code

    name = algorithm.removeprefix("LD_") + (f" + {inner.removeprefix('LD_')}" if inner else "")
    return peer(f"NLopt {name}", solve, "nlopt")


def _nlopt_constraints(meter: Meter) -> list[tuple[str, Callable[..., None], int]]:
    if not meter.constraints:
        return []
    lower, upper = meter.constraint_limits()
    equal = lower == upper
    made = []
    for kind, rows, side, sign in (
        ("equality", equal, lower, 1.0),
        ("inequality", np.isfinite(lower) & ~equal, lower, -1.0),
        ("inequality", np.isfinite(upper) & ~equal, upper, 1.0),
    ):

        def function(
            out: Vector, x: Vector, gradient: Vector, rows: Vector = rows, side: Vector = side, sign: float = sign
        ) -> None:
            values, jacobian = meter.constraint(x)
            out[:] = sign * (values - side)[rows]
            if gradient.size:
                gradient[:] = sign * jacobian[rows]

        if rows.any():
            made.append((kind, function, int(rows.sum())))
    return made


def ceres() -> Solver:
    """Levenberg-Marquardt of Ceres, with dense QR, through pyceres."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        import pyceres

        class Cost(pyceres.CostFunction):
            def __init__(self, size: int) -> None:
                super().__init__()
                self.set_num_residuals(size)
                self.set_parameter_block_sizes([len(meter.start)])

            def Evaluate(self, parameters: Any, residuals: Vector, jacobians: Any) -> bool:  # noqa: N802
                x = np.array(parameters[0])
                values = meter.residuals(x)
                if not np.isfinite(values).all():
                    return False
                residuals[:] = values
                if jacobians is not None:
                    jacobian = meter.jacobian(x)
                    jacobians[0][:] = jacobian.reshape(jacobians[0].shape)
                return True

        x = meter.start.copy()
        problem = pyceres.Problem()
        cost = Cost(meter.objective.residuals().numel())
        problem.add_residual_block(cost, None, [x])
        for index in range(len(x)):
            if np.isfinite(meter.lower[index]):
                problem.set_parameter_lower_bound(x, index, meter.lower[index])
            if np.isfinite(meter.upper[index]):
                problem.set_parameter_upper_bound(x, index, meter.upper[index])
        options, summary = pyceres.SolverOptions(), pyceres.SolverSummary()
        options.linear_solver_type = pyceres.LinearSolverType.DENSE_QR
        options.max_num_iterations = budget.evaluations
        options.max_num_consecutive_invalid_steps = 50
        options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance = 1e-16
        options.num_threads = 1
        options.logging_type = pyceres.LoggingType.SILENT
        pyceres.solve(options, problem, summary)
        kind = summary.termination_type
        return x, kind == pyceres.TerminationType.CONVERGENCE, kind.name

    return peer("Ceres LM", solve, "pyceres")


def fides() -> Solver:
    """The trust region of fides, with exact Hessians."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        import fides as library

        def function(x: Vector) -> tuple[float, Vector, Vector]:
            return *meter.loss_and_gradient(x), meter.hessian(x)

        names = library.Options
        options = {names.FATOL: 0.0, names.FRTOL: 0.0, names.XTOL: 0.0, names.GATOL: 1e-10, names.GRTOL: 0.0}
        options[names.MAXITER] = budget.steps or budget.evaluations
        optimizer = library.Optimizer(function, meter.upper, meter.lower, verbose=logging.CRITICAL, options=options)
        _, x, _, _ = optimizer.minimize(meter.start)
        return x, optimizer.converged, optimizer.exitflag.name

    return peer("fides", solve, "fides")


def optimistix(name: str, *, residuals: bool = False) -> Solver:
    """One of optimistix's, on a function that calls back to torch."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        import jax
        import optimistix as library

        jax.config.update("jax_enable_x64", True)
        size = meter.objective.residuals().numel() if residuals else None
        shape = () if size is None else (size,)
        value = meter.residuals if residuals else meter.loss
        slope = meter.jacobian if residuals else meter.gradient

        def called(function: Callable[[Vector], Any], shape: tuple[int, ...], x: Any) -> Any:
            form = jax.ShapeDtypeStruct(shape, np.float64)
            return jax.pure_callback(lambda at: np.asarray(function(np.array(at)), dtype=float), form, x)

        @jax.custom_jvp
        def function(x: Any) -> Any:
            return called(value, shape, x)

        @function.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            (x,), (t,) = primals, tangents
            return function(x), called(slope, (*shape, len(meter.start)), x) @ t

        run = library.least_squares if residuals else library.minimise
        found = run(
            lambda x, _: function(x),
            getattr(library, name)(rtol=1e-14, atol=1e-14),
            jax.numpy.asarray(meter.start),
            max_steps=budget.evaluations,
            throw=False,
        )
        return np.asarray(found.value), bool(found.result == library.RESULTS.successful), "returned"

    return peer(f"optimistix {name}", solve, "optimistix", "jax")


def ipopt() -> Solver:
    """Ipopt inside CasADi, with exact second derivatives."""

    def solve(meter: Meter, budget: Budget) -> Answer:
        import casadi

        from benchmarks.quality.casadi_functions import program

        nlp, options = program(meter, casadi)
        options["ipopt"] = {
            "max_iter": budget.evaluations,
            "tol": 1e-12,
            "acceptable_iter": 0,
            "print_level": 0,
            "sb": "yes",
            "bound_relax_factor": 0.0,  # else it ends outside the bounds by more than is allowed
        }
        solver = casadi.nlpsol("solver", "ipopt", nlp, {**options, "print_time": False, "no_nlp_grad": True})
        limits = meter.constraint_limits() if meter.constraints else (np.empty(0), np.empty(0))
        found = solver(x0=meter.start, lbx=meter.lower, ubx=meter.upper, lbg=limits[0], ubg=limits[1])
        stats = solver.stats()
        return np.asarray(found["x"]).ravel(), stats["success"], stats["return_status"]

    return peer("Ipopt", solve, "casadi")


SCIPY_BFGS = scipy_minimize("BFGS", gtol=1e-14)
SCIPY_LBFGSB = scipy_minimize("L-BFGS-B", ftol=0.0, gtol=1e-14, maxfun=1_000_000)
SCIPY_CG = scipy_minimize("CG", gtol=1e-14)
SCIPY_TRUST_EXACT = scipy_minimize("trust-exact", second="hess", gtol=1e-12)
SCIPY_TRUST_NCG = scipy_minimize("trust-ncg", second="hessp", gtol=1e-12)
SCIPY_NEWTON_CG = scipy_minimize("Newton-CG", second="hessp", xtol=1e-14)
SCIPY_SLSQP = scipy_minimize("SLSQP", ftol=1e-15)
SCIPY_TRUST_CONSTR = scipy_minimize("trust-constr", second="hess", gtol=1e-10, xtol=1e-14, barrier_tol=1e-12)
SCIPY_TRF = scipy_least_squares("trf")
SCIPY_DOGBOX = scipy_least_squares("dogbox")
SCIPY_LM = scipy_least_squares("lm")
SCIPY_DUAL_ANNEALING = scipy_global("dual_annealing")
SCIPY_BASINHOPPING = scipy_global("basinhopping")
TORCH_LBFGS = torch_lbfgs()
TORCHMIN_BFGS = torchmin("bfgs", gtol=1e-14, xtol=0.0)
TORCHMIN_LBFGS = torchmin("l-bfgs", gtol=1e-14, xtol=0.0)
TORCHMIN_TRUST_EXACT = torchmin("trust-exact", gtol=1e-12)
TORCHMIN_NEWTON_EXACT = torchmin("newton-exact", xtol=1e-14)
TORCHMIN_LEAST_SQUARES = torchmin_least_squares()
NLOPT_LBFGS = nlopt("LD_LBFGS")
NLOPT_SLSQP = nlopt("LD_SLSQP")
NLOPT_AUGLAG = nlopt("LD_AUGLAG", inner="LD_LBFGS")
CERES = ceres()
FIDES = fides()
IPOPT = ipopt()
OPTIMISTIX_BFGS = optimistix("BFGS")
OPTIMISTIX_LM = optimistix("LevenbergMarquardt", residuals=True)

SCIPY_BFGS_DEFAULT = scipy_minimize("BFGS", tight=False)
SCIPY_LBFGSB_DEFAULT = scipy_minimize("L-BFGS-B", tight=False)
SCIPY_TRUST_EXACT_DEFAULT = scipy_minimize("trust-exact", tight=False, second="hess")
TORCH_LBFGS_DEFAULT = torch_lbfgs(tight=False)
TORCHMIN_BFGS_DEFAULT = torchmin("bfgs", tight=False)
TORCHMIN_LBFGS_DEFAULT = torchmin("l-bfgs", tight=False)
