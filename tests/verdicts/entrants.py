"""Every optimiser there is, as it ships and with sensible options, and a run of one of them on a case."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import gradopt
from gradopt import Result
from gradopt.plugins import torch_optimisers
from tests.verdicts.cases import Case

REFUSES_BOUNDS = {"torch_lbfgs", "muon", "adafactor"}
MAX_STEPS = 150


@dataclass(frozen=True)
class Entrant:
    """An optimiser with options.

    Attributes:
        learning_rate: What a sensible rate is to it: None for those that are left at their defaults, "slope" if it
            multiplies the gradient, otherwise the part of a case's length it may be.
        own: Whether it is one of gradopt's, which must cure more than torch's.
    """

    name: str
    optimiser: str
    options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | str | None = None
    own: bool = False

    def __str__(self) -> str:
        return self.name

    def takes(self, case: Case) -> bool:
        """Whether this pairing is not one that is refused before a run."""
        if case.bounds is not None and (self.name in REFUSES_BOUNDS or self.optimiser in REFUSES_BOUNDS):
            return False
        if self.optimiser == "sparseadam":
            return case.bounds is None and not case.squares and not case.parts
        if self.optimiser == "levenberg_marquardt":
            return case.squares
        return case.rate is None or self.learning_rate is not None

    def options_for(self, case: Case) -> dict[str, Any]:
        """Its options, with the rate that suits the case."""
        if self.learning_rate is None:
            return self.options
        if case.rate is not None:
            return {**self.options, "lr": case.rate}
        if self.learning_rate == "slope":
            return {**self.options, "lr": min(0.5 / steepness(case), 1e6)}
        return {**self.options, "lr": self.learning_rate * case.length}


LENGTHS = {"adadelta": 5.0, "adafactor": 0.05, "rprop": 0.02, "adagrad": 0.3}
CLASSES = sorted(set(torch_optimisers()) - {"torch_lbfgs"})

QUICK = [
    Entrant("sgd", "sgd", learning_rate="slope"),
    Entrant("adam", "adam", learning_rate=0.05),
    Entrant("torch_lbfgs, strong Wolfe", "torch_lbfgs", {"line_search_fn": "strong_wolfe"}),
    Entrant("lbfgs", "lbfgs", own=True),
    Entrant("trust_region", "trust_region", own=True),
    Entrant("levenberg_marquardt", "levenberg_marquardt", own=True),
]
SLOW = [
    *(Entrant(f"{name} as it ships", name) for name in CLASSES),
    *(Entrant(name, name, learning_rate="slope" if name == "asgd" else LENGTHS.get(name, 0.05)) for name in CLASSES if name not in ("sgd", "adam")),
    Entrant("sgd, momentum", "sgd", {"momentum": 0.9}, learning_rate="slope"),
    Entrant("torch_lbfgs, fixed step", "torch_lbfgs"),
    Entrant("auto", "auto", own=True),
    Entrant("trust_region by products", "trust_region", {"hessian": "products"}, own=True),
    Entrant("levenberg_marquardt by products", "levenberg_marquardt", {"jacobian": "products"}, own=True),
]  # fmt: skip


@dataclass
class Watched:
    """The function of a case, that remembers what it has been asked.

    Attributes:
        outside: How often it was asked outside its bounds.
        holes: How often it gave no finite loss.
    """

    case: Case
    dtype: torch.dtype
    sparse: bool
    outside: int = 0
    holes: int = 0

    def __call__(self, unknowns: Any) -> Tensor:
        x = self.flat(unknowns)
        value = self.case.function(x)
        at = x.detach()
        self.holes += not bool(value.detach().isfinite().all())
        if self.case.bounds is not None:
            lower, upper = (torch.tensor(side, dtype=self.dtype) for side in self.case.bounds)
            self.outside += not bool(((at >= lower) & (at <= upper)).all())
        return value

    def flat(self, unknowns: Any) -> Tensor:
        """The unknowns as the vector of the case."""
        if isinstance(unknowns, tuple):
            return torch.cat([part.reshape(-1) for part in unknowns])
        if self.sparse:
            rows = torch.arange(len(unknowns))
            return torch.nn.functional.embedding(rows, unknowns, sparse=unknowns.requires_grad)[:, 0]
        return unknowns.reshape(-1)

    def start(self, entrant: Entrant) -> Any:
        """The start in the form this optimiser needs: Muon and SparseAdam take matrices."""
        x = torch.tensor(self.case.start, dtype=self.dtype)
        if entrant.optimiser in ("muon", "sparseadam"):
            return x[:, None] if not self.case.parts else tuple(p[:, None] for p in x.split(list(self.case.parts)))
        return tuple(x.split(list(self.case.parts))) if self.case.parts else x

    def bounds(self, entrant: Entrant) -> Any:
        """The bounds as tensors, None if there are none."""
        if self.case.bounds is None:
            return None
        return tuple(torch.tensor(side, dtype=self.dtype) for side in self.case.bounds)


def run(case: Case, entrant: Entrant, dtype: torch.dtype) -> tuple[Result, Watched]:
    """Minimise a case."""
    watched = Watched(case, dtype, sparse=entrant.optimiser == "sparseadam")
    minimise = gradopt.least_squares if case.squares else gradopt.minimise
    result = minimise(
        watched,
        watched.start(entrant),
        bounds=watched.bounds(entrant),
        optimiser=entrant.optimiser,
        optimiser_options=entrant.options_for(case),
        stop=gradopt.Stop(max_steps=MAX_STEPS, max_evaluations=20 * MAX_STEPS),
    )
    return result, watched


def steepness(case: Case) -> float:
    """The largest curvature at the start, 10 where there is none: what a rate must be small against."""
    x = torch.tensor(case.start, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(case.loss(x), x, create_graph=True)
    if not slope.requires_grad:
        return 10.0
    rows: Sequence[Tensor] = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in slope]
    largest = torch.stack(list(rows)).abs().sum(1).max().item()
    return largest if math.isfinite(largest) and largest > 0 else 10.0
