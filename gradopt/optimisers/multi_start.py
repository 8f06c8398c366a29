"""Global search: many local searches, from a sample of the box and from hops off the best minimum."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, Minimum, Optimiser, Oracle, State, Stuck
from gradopt.optimisers.basins import Basins
from gradopt.optimisers.descent import INNER, PATIENCE, PATIENCE_PER_UNKNOWN, Descent
from gradopt.optimisers.proposals import Hops, Sample, region
from gradopt.plurals import counted

log = logging.getLogger("gradopt")

SHARES = {"sample": 1.0, "drawn": 1.0, "hop": 3.0}
"""Of the evaluations: for points of the sample, for local searches from them, for hops."""

KNOWN = 0.1
"""When less of the box than this is expected to lead to unknown minima, hops get less in proportion."""

RESERVE = 0.05
"""The part of the run's evaluations that is kept for the end, when the best minimum is polished."""

PULSE = 100
"""Evaluations after which the search comes back to the best point, so that the run can be watched and stopped there."""

HOP_FROM = 20
"""Hops start from as many of the best minima, from the lowest in half of all cases."""

KEPT = ("_activity", "_best_loss", "_best_point", "_point", "_origin", "_lower", "_width", "_begun", "_last_step")


class MultiStart:
    """Searches the whole box for the lowest minimum by local searches, and ends with the inner optimiser on it.

    After a local search from the start, evaluations go in fixed shares to a Sobol sample, to local searches from its
    best points that are not close to a better one (multi-level single linkage: Rinnooy Kan and Timmer, 1987), and to
    basin hopping from the best minimum (Wales and Doye, 1997) by moves of few or many unknowns and of all lengths.
    The search ends with its evaluations, or when the part of the box that may lead to unknown minima is expected to
    be below `unseen` (Boender and Rinnooy Kan, 1987).

    A step of the run is a point lower than all before; every 100 evaluations without one the best point is evaluated
    again, and is a step too. No criterion takes a point for the answer before the search has ended.

    Args:
        inner: The optimiser of the local searches.
        max_evaluations: Of the search; with a smaller `stop.max_evaluations` it leaves a twentieth of that for the end.
        unseen: See above.
        radius: Where a bound is missing the search covers start - radius to start + radius, inside the bounds.
        seed: Of the sample and the hops; the global random state is neither used nor changed.
    """

    bounds = True

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        inner: Literal["lbfgs", "trust_region", "levenberg_marquardt"] = "lbfgs",
        max_evaluations: Annotated[int, ">= 1"] = 10_000,
        unseen: Annotated[float, ">= 0", "< 1"] = 1e-3,
        radius: Annotated[float, "> 0"] | None = None,
        seed: int = 0,
    ) -> None:
        self._parameters = parameters
        self._build = INNER[inner]
        self.residuals = inner == "levenberg_marquardt"
        self._limit, self._unseen, self._radius, self._seed = max_evaluations, unseen, radius, seed
        self._generator = torch.Generator().manual_seed(seed)
        self._hops = Hops()
        self._basins = Basins(torch.ones(0))
        self._sample: Sample | None = None
        self._lower = self._width = self._span = torch.empty(0)
        self._inner: Optimiser | None = None
        self._activity = "descent"
        self._descent = Descent("start", goal=math.inf)
        self._best_loss = math.inf
        self._best_point = self._point = self._origin = torch.empty(0)
        self._spent = dict.fromkeys(SHARES, 0)
        self._begun = self._last_step = 0

    @property
    def searching(self) -> bool:
        """Whether the run goes on elsewhere, whatever kind of point it stands at."""
        return self._activity != "polish"

    @property
    def minima(self) -> Sequence[Minimum]:
        """The local minima found so far, lowest first."""
        return tuple(self._basins)

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the point is lower than all before, or the best one again; everything else is a trial.

        Raises:
            Mistake: An unknown has no interval to search, and there is no `radius`.
        """
        first = self._sample is None
        if first:
            self._open(evaluation, oracle)
        if self._activity == "sample":
            return self._improves(evaluation, oracle)
        if self._activity == "return":
            self._last_step = oracle.num_losses
            return True
        assert self._inner is not None
        if not self._inner.accepts(evaluation, oracle):
            return False
        moved = ((evaluation.point - self._point).abs().double().cpu() / self._span).max().item()
        eps = torch.finfo(evaluation.point.dtype).eps
        self._descent.record(evaluation.loss, evaluation.gradient_norm, moved, eps)
        self._point = evaluation.point
        improves = self._improves(evaluation, oracle)
        if not self.searching:
            self._basins.refine(evaluation.point.double().cpu(), evaluation.loss)
        return improves or first or not self.searching

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """A step of the local search, or to where the next one begins.

        Raises:
            Stuck: The inner optimiser finds no better point at the end of the search.
        """
        if self._activity == "sample":
            assert self._sample is not None
            self._sample.add(self._unit(evaluation.point), evaluation.loss)
            self._spent["sample"] += 1
        elif self._activity != "return":
            assert self._inner is not None
            if not self.searching:
                self._inner.update(evaluation, oracle)
                return
            if self._goes_on(oracle):
                try:
                    self._inner.update(evaluation, oracle)
                    return
                except Stuck:
                    self._descent.arrived = not self._descent.hopeless
            self._close(oracle)
        self._next(oracle)

    def learning_rate(self) -> float:
        """That of the inner optimiser."""
        return math.nan if self._inner is None else self._inner.learning_rate()

    def state_dict(self) -> State:
        """The minima, the sample, the local search that is under way, and the random generator."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "basins": self._basins.state_dict(),
            "sample": None if self._sample is None else self._sample.state_dict(),
            "descent": asdict(self._descent),
            "inner": None if self._inner is None else self._inner.state_dict(),
            "spent": dict(self._spent),
            "random": self._generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        vars(self).update({name: state[name] for name in KEPT})
        self._descent, self._spent = Descent(**state["descent"]), dict(state["spent"])
        self._generator.set_state(state["random"])
        if state["sample"] is not None:
            self._prepare()
            assert self._sample is not None
            self._sample.load_state_dict(state["sample"])
            self._basins.load_state_dict(state["basins"])
        if state["inner"] is not None:
            self._inner = self._build(self._parameters)
            self._inner.load_state_dict(state["inner"])

    def _open(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Find out which box to search, and begin a local search at the start."""
        start = self._point = self._origin = evaluation.point
        lower, upper = region("multi_start", start, oracle, self._radius)
        self._lower, self._width = lower.double().cpu(), (upper - lower).double().cpu()
        self._prepare()
        self._inner = self._build(self._parameters)

    def _prepare(self) -> None:
        self._sample = Sample(len(self._width), self._seed)
        self._span = torch.where(self._width > 0, self._width, 1.0)
        self._basins = Basins(self._span)

    def _improves(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Whether the point is lower than all before; it is the best one then."""
        if not evaluation.loss < self._best_loss:
            return False
        self._best_loss, self._best_point = evaluation.loss, evaluation.point
        self._last_step = oracle.num_losses
        return True

    def _last(self, oracle: Oracle) -> float:
        """The evaluations after which the search ends."""
        return min(self._limit, (1 - RESERVE) * oracle.max_evaluations)

    def _goes_on(self, oracle: Oracle) -> bool:
        """Whether the local search is worth another evaluation."""
        descent, spent = self._descent, oracle.num_losses - self._begun
        if descent.arrived or descent.hopeless or oracle.num_losses >= self._last(oracle):
            return False
        return descent.leads or spent < PATIENCE + PATIENCE_PER_UNKNOWN * len(self._width)

    def _close(self, oracle: Oracle) -> None:
        """Count a local search that is over."""
        kind = self._descent.kind
        if kind in self._spent:
            self._spent[kind] += oracle.num_losses - self._begun
        if self._descent.arrived:
            point, origin = self._point.double().cpu(), self._origin.double().cpu()
            self._basins.add(point, self._descent.loss, origin, drawn=kind == "drawn")

    def _next(self, oracle: Oracle) -> None:
        """Choose what to do, and move the parameters there."""
        self._inner = None
        self._begun = oracle.num_losses
        if oracle.num_losses >= self._last(oracle) or self._basins.unseen() <= self._unseen:
            log.info(
                "multi_start: %d minima, lowest %.10g, after %s",
                len(self._basins), self._best_loss, counted(oracle.num_losses, "evaluation"),
            )  # fmt: skip
            self._activity = "polish"
            self._inner = self._build(self._parameters)
            oracle.write(self._best_point)
        elif oracle.num_losses - self._last_step >= PULSE:
            self._activity = "return"
            oracle.write(self._best_point)
        else:
            self._propose(oracle)

    def _propose(self, oracle: Oracle) -> None:
        assert self._sample is not None
        shares = SHARES | {"hop": SHARES["hop"] * min(1.0, self._basins.unseen() / KNOWN)}
        kind = min(shares, key=lambda one: self._spent[one] / shares[one])
        if kind == "sample":
            self._activity, place = "sample", self._sample.draw(self._generator)
        else:
            self._activity = "descent"
            if kind == "hop" and len(self._basins):
                place = self._hop()
            else:
                kind, place = "drawn", self._sample.start()
                if place is None:
                    place = self._sample.draw(self._generator)
            self._descent = Descent(kind, self._best_loss)
            self._inner = self._build(self._parameters)
        self._point = self._origin = (self._lower + place * self._width).to(self._best_point)
        oracle.write(self._point)

    def _hop(self) -> Tensor:
        def rank() -> int:
            limit = min(len(self._basins), HOP_FROM)
            return int(limit * torch.rand(1, generator=self._generator, dtype=torch.float64).item() ** 4)

        base, other = (self._unit(self._basins[rank()].point) for _ in range(2))
        return self._hops.propose(base, other, self._generator)

    def _unit(self, point: Tensor) -> Tensor:
        """The point in the unit box."""
        return ((point.double().cpu() - self._lower) / self._span).clamp(0.0, 1.0)
