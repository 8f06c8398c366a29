"""A solver behind one signature, and gradopt's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import gradopt
from benchmarks.quality.cases import Case
from benchmarks.quality.referee import Referee


@dataclass(frozen=True)
class Budget:
    """What a run may use.

    Attributes:
        evaluations: Of loss and gradient together (of residuals and Jacobian).
        steps: Iterations; only of methods with second derivatives, and of none where it is None.
    """

    evaluations: int = 2000
    steps: int | None = None


@dataclass
class Outcome:
    """What a solver did.

    Attributes:
        point: What it returned, in the variables it was given.
        status: Its own word for the ending.
        products: None if they cannot be counted.
        to_target, products_to_target: Evaluations, and Hessian products, up to the first point that solves the case;
            None if there was none.
    """

    point: Tensor
    claimed: bool
    status: str
    evaluations: int
    products: int | None
    to_target: int | None
    products_to_target: int | None


@dataclass(frozen=True)
class Solver:
    """Anything that can be run on a case.

    Attributes:
        name: In the tables; gradopt's own begin with "gradopt".
        solve: Called with the case and the budget.
        needs: Modules without which it cannot run.
    """

    name: str
    solve: Callable[[Case, Budget], Outcome]
    needs: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("gradopt")


@dataclass
class Watch:
    """A criterion that ends nothing: it notes the first step at which the case is solved."""

    case: Case
    referee: Referee
    evaluations: int | None = None
    products: int | None = None

    def bands(self) -> Mapping[str, gradopt.Band]:
        return {}

    def due(self, step: int) -> float:
        return step + 1

    def judge(self, block: gradopt.Block, oracle: gradopt.Oracle) -> gradopt.Judgement | None:
        if self.evaluations is None:
            point = self.case.restore(oracle.read())
            loss = self.referee.loss(point) if self.referee.is_constrained else block["loss"][-1, 0].item()
            if self.referee.has_reached(loss, point):
                self.evaluations, self.products = oracle.num_losses, oracle.num_hessian_products
        return None

    def sentence(self, status: gradopt.Status, evidence: Mapping[str, Any]) -> str:
        raise NotImplementedError("it has no verdict")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is remembered from run to run."""


def own(label: str, optimiser: str, **options: Any) -> Solver:
    """One of gradopt's, with its default tolerances: there are no others to set."""

    def solve(case: Case, budget: Budget) -> Outcome:
        watch = Watch(case, Referee(case))
        result = gradopt.minimise(
            case.objective(),
            optimiser=optimiser,
            optimiser_options=options,
            stop=gradopt.Stop(max_evaluations=budget.evaluations, max_steps=budget.steps),
            criteria=[watch],
        )
        counts = (result.nfev, result.nhev, watch.evaluations, watch.products)
        return Outcome(torch.as_tensor(result.x), result.success, result.status.value, *counts)

    return Solver(f"gradopt {label}", solve)


LBFGS = own("lbfgs", "lbfgs")
TRUST_REGION = own("trust_region", "trust_region", hessian="matrix")
TRUST_REGION_PRODUCTS = own("trust_region (products)", "trust_region", hessian="products")
LEVENBERG_MARQUARDT = own("levenberg_marquardt", "levenberg_marquardt")
AUTO = own("auto", "auto")
AUGMENTED_LAGRANGIAN = own("augmented_lagrangian", "augmented_lagrangian")
MULTI_START = own("multi_start", "multi_start")
TIKTAK = own("tiktak", "tiktak")
AROUND = own("multi_start (radius 10)", "multi_start", radius=10.0)
AROUND_FIT = own("multi_start + LM (radius 10)", "multi_start", radius=10.0, inner="levenberg_marquardt")
"""Where a bound is missing they search as far as this round the start: for more than one minimum beside it."""
