"""The law of many starts for trust regions: start i of many ends as a run of its own from there does."""

import functools
import math
from dataclasses import dataclass, field

import pytest
import scipy.optimize
import torch
from torch import Tensor

import gradopt
from gradopt import Mistake
from gradopt.loop import iterate
from gradopt.many.assembly import assemble_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.objectives.robust import RobustLoss
from gradopt.optimisers.stacked_trust_model import StackedKrylov, at, solve
from gradopt.optimisers.trust_model import Box, Krylov, Newton, Spectrum, _solve
from tests import functions as f
from tests.many.test_law import gaussian, log_well, tilted

T = torch.linspace(0.0, 4.0, 15, dtype=torch.float64)
Y = 2.5 * torch.exp(-0.7 * T) + 0.5 + 0.05 * torch.cos(9 * T)


def valley(x: Tensor) -> Tensor:
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def helix(x: Tensor) -> Tensor:
    """The helical valley (Moré, Garbow and Hillstrom, problem 7)."""
    angle = torch.atan2(x[1], x[0]) / (2 * math.pi)
    return torch.stack([10 * (x[2] - 10 * angle), 10 * (torch.hypot(x[0], x[1]) - 1), x[2]])


def decay(x: Tensor) -> Tensor:
    return x[0] * torch.exp(-x[1] * T.to(x)) + x[2] - Y.to(x)


def outliers(x: Tensor) -> Tensor:
    return decay(x) + torch.where(T == T[5], 4.0, 0.0).to(x)


def apart(x: Tensor) -> Tensor:
    """The residuals stay large, and the model has to change."""
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 30 + x[0] ** 2 + x[1]])


def deficient(x: Tensor) -> Tensor:
    """Only the sum of the unknowns matters."""
    total = x.sum()
    return torch.stack([total - 3, 2 * total - 6, (total - 3) ** 2])


def wide(x: Tensor) -> Tensor:
    """More unknowns than residuals."""
    return torch.stack([x[0] * x[1] - 2, x[2] + x[3] ** 2 - 1])


def rooted(x: Tensor) -> Tensor:
    """Not defined below 0."""
    return torch.stack([torch.sqrt(x[0]) - 2, x[0] * x[1] - 4])


def steep(x: Tensor) -> Tensor:
    """A loss whose gradient has no square."""
    return 1e15 * valley(x) if x.dtype == torch.float32 else 2.0**300 * valley(x)


def chain(x: Tensor) -> Tensor:
    """Rosenbrock's, not convex, in more unknowns."""
    return f.rosenbrock(x)


@dataclass(frozen=True)
class Case:
    """Starts of a function, or of residuals, and endings that some of them come to."""

    name: str
    function: object
    starts: tuple[tuple[float, ...], ...]
    bounds: object = None
    fit: bool = False
    loss: str = "linear"
    statuses: frozenset[str] = field(default_factory=frozenset)


CONVERGED = frozenset({"converged"})
FITS = [
    Case("valley", valley, ((-1.2, 1.0), (1.0, 1.0), (0.0, 0.0), (2.0, -2.0), (50.0, -30.0)), fit=True),
    Case("helix", helix, ((-1.0, 0.0, 0.0), (-10.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, -3.0, 5.0)), fit=True),
    Case("decay", decay, ((1.0, 1.0, 0.0), (3.0, 0.1, 1.0), (0.5, 5.0, -1.0), (9.0, 2.0, 2.0)), fit=True),
    Case("outliers", outliers, ((1.0, 1.0, 0.0), (3.0, 0.5, 1.0)), fit=True, loss="soft_l1"),
    Case("apart", apart, ((-1.2, 1.0), (3.0, 3.0), (0.1, -9.0)), fit=True),
    Case("deficient", deficient, ((0.0, 1.0), (5.0, -9.0), (1.5, 1.5)), fit=True),
    Case("wide", wide, ((1.0, 1.0, 1.0, 1.0), (0.1, 3.0, -2.0, 0.5)), fit=True),
    Case("nan", rooted, ((1.0, 1.0), (-1.0, 1.0), (9.0, 0.2)), fit=True, statuses=frozenset({"non_finite"})),
    Case("steep", steep, ((-1.2, 1.0), (1.0, 1.0), (0.5, 0.5)), fit=True),
    Case("box", decay, ((1.0, 1.0, 0.0), (2.0, 0.8, 0.3), (1.2, 2.0, 0.3)), ((0.5, 0.8, 0.0), (2.0, 2.0, 0.3)), True),
    Case("valley in a box", valley, ((-1.2, 1.0), (0.0, 0.0), (0.7, -1.0)), ((-1.5, -1.0), (0.7, 2.0)), True),
]
LOSSES = [
    Case("rosenbrock", f.rosenbrock, ((-1.2, 1.0), (1.0, 1.0), (0.0, 0.0), (2.0, -2.0)), statuses=CONVERGED),
    Case("chain", chain, ((-1.2, 1.0, -1.2, 1.0), (3.0, -1.0, 0.5, 2.0), (-1.0, 1.0, 1.0, 1.0)), statuses=CONVERGED),
    Case("saddle", f.saddle, ((0.0, 0.0), (1.0, 0.5), (1.0, 0.0), (0.3, -0.2)), statuses=frozenset({"saddle_point"})),
    Case("hill", f.hill, ((0.0, 0.0), (0.5, -0.5), (0.0, 1.0), (2.0, 0.1)), statuses=frozenset({"maximum"})),
    Case("log", log_well, ((2.0,), (-1.0,), (0.01,), (40.0,)), statuses=frozenset({"non_finite", "converged"})),
    Case("plateau", gaussian, ((0.5, 0.5), (40.0, 0.0), (1.0, -1.0)), statuses=CONVERGED),
    Case("unbounded", f.cubic_sum, ((2.0,), (-3.0,), (0.0,)), statuses=frozenset({"unbounded"})),
    Case("far floor", f.far_floor, ((1.0, 9.0), (3.0, 3.0))),
    Case("tilted in a box", tilted, ((1.0, 1.0), (0.0, 0.0), (-1.0, 1.5), (2.0, 2.0)), (-1.0, 2.0), statuses=CONVERGED),
    Case("saddle in a box", f.saddle, ((0.5, 0.25), (0.0, 0.1), (-0.4, -0.5)), (-0.5, 0.5), statuses=CONVERGED),
]
SOLVERS = {
    "lm": ("levenberg_marquardt", {}),
    "lm by products": ("levenberg_marquardt", {"jacobian": "products"}),
    "newton": ("trust_region", {}),
    "newton by products": ("trust_region", {"hessian": "products"}),
}


def cases():
    for dtype in (torch.float64, torch.float32):
        for name in SOLVERS:
            for case in FITS + LOSSES:
                wrong = name.startswith("lm") and not case.fit
                unbounded_only = "products" in name and case.bounds is not None
                if not (wrong or unbounded_only):
                    yield pytest.param(case, name, dtype, id=f"{case.name}-{name}-{str(dtype)[6:]}")


def run(case, name, **start):
    optimiser, options = SOLVERS[name]
    common = {"optimiser": optimiser, "optimiser_options": options, "bounds": case.bounds}
    common["stop"] = gradopt.Stop(max_steps=200)
    if case.fit:
        return gradopt.least_squares(case.function, loss=case.loss, f_scale=0.5, **start, **common)
    return gradopt.minimise(case.function, **start, **common)


@functools.cache
def pair(case, name, dtype):
    """The runs of all starts at once, and of each alone."""
    starts = torch.tensor(case.starts, dtype=dtype)
    return run(case, name, starts=starts), [run(case, name, x0=start) for start in starts]


@pytest.mark.parametrize(("case", "name", "dtype"), list(cases()))
def test_each_start_of_many_ends_as_it_does_alone(case, name, dtype):
    many, alone = pair(case, name, dtype)

    for one, single in zip(many, alone, strict=True):
        assert one.status is single.status, (one.message, single.message)
        assert abs(one.nit - single.nit) <= max(2, 0.01 * single.nit), (one, single)
        assert abs(one.nfev - single.nfev) <= max(2, 0.01 * single.nfev), (one, single)
        close = torch.finfo(dtype).eps ** 0.5
        torch.testing.assert_close(one.x, single.x, rtol=close, atol=close, equal_nan=True)
        assert one.fun == pytest.approx(single.fun, rel=close, abs=close**2, nan_ok=True)


@pytest.mark.parametrize("case", [case for case in FITS + LOSSES if case.statuses], ids=lambda case: case.name)
def test_the_table_meets_the_endings_it_is_there_for(case):
    seen = {status.value for status in pair(case, "lm" if case.fit else "newton", torch.float64)[0].status}

    assert case.statuses <= seen
