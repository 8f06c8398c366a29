"""Local searches that go on together: one tensor program, in which each takes the steps it would take alone."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from gradopt.contracts import Halted, Oracle, State, Stuck
from gradopt.optimisers.descent import PATIENCE, PATIENCE_PER_UNKNOWN, Build, Descent
from gradopt.optimisers.stacked.optimiser import StackedOptimiser
from gradopt.stacked import Evaluations, StackedOracle
from gradopt.stacking import named


class Searches:
    """Those of some starts, until each has arrived or is not worth going on.

    Whoever makes them puts the parameters of the objective back where they belong, as its losses at many starts are
    compared with that of one.

    Args:
        oracle: That of the run, which counts what is evaluated and keeps the best of it.
        starts: Shape (starts, n).
        build: Makes the local optimiser from parameters.
        span: Of the box that is searched, shape (n,), float64 on the CPU, positive.
        goal: The lowest loss so far: a search below it is not given up.
    """

    def __init__(
        self,
        oracle: Oracle,
        starts: Tensor,
        build: Build,
        span: Tensor,
        goal: float,
    ) -> None:
        self._run, self._span = oracle, span
        self._oracle = StackedOracle(oracle.objective, named(oracle.objective, starts))
        self._optimiser: StackedOptimiser = build(self._oracle.parameters).stacked(self._oracle)
        self._descents = [Descent("drawn", goal) for _ in range(len(starts))]
        self._patience = PATIENCE + PATIENCE_PER_UNKNOWN * starts.shape[1]
        self._counted = self._totals()
        self._began = False

    def __len__(self) -> int:
        """Those that go on."""
        return len(self._descents)

    def step(self, last: float) -> list[tuple[Tensor, float, Tensor]] | None:
        """Lead each search to its next point; those that are over leave.

        Args:
            last: Evaluations of the run up to which they may go.

        Returns:
            Points, losses and starts of those that have arrived; points and starts float64 on the CPU. None:
            evaluations or time do not suffice for all of them to come to a new point, and they cannot go on.
        """
        stood = self._oracle.last
        found = self._points(last)
        if found is None:
            return None
        here, halted = found
        moved = self._moved(here, stood)
        stuck, lost = self._judge(here, moved, halted)
        going = torch.tensor([place for place in range(len(self)) if place not in stuck | lost], dtype=torch.int64)
        if len(going):
            halted = self._optimiser.update(here, self._oracle, going)
            more = self._told(halted)
            stuck, lost = stuck | more[0], lost | more[1]
        self._began = True
        self._count(here)
        begins = self._oracle.origin
        ends = [
            (here.point[place].double().cpu(), here.loss[place].item(), begins[place].double().cpu())
            for place in sorted(stuck)
        ]
        self._leave(stuck | lost)
        return ends

    def state_dict(self) -> State:
        """All of it between two steps; tensors have the axes (starts, parameter)."""
        last = self._oracle.last
        return {
            "points": self._oracle.read(),
            "oracle": self._oracle.state(),
            "last": (last.loss, last.gradient_norm, last.point, last.gradient, last.pinned),
            "optimiser": self._optimiser.state_dict(),
            "descents": [asdict(descent) for descent in self._descents],
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where it was taken; the searches were made from its `points`."""
        self._oracle.take(state["oracle"])
        self._oracle.last = Evaluations(*state["last"]).clone()
        self._optimiser.load_state_dict(state["optimiser"])
        self._descents = [Descent(**descent) for descent in state["descents"]]
        self._counted, self._began = self._totals(), True

    def _points(self, last: float) -> tuple[Evaluations, Halted | None] | None:
        """A new point of every search, in ever smaller company; or why there is none."""
        oracle, optimiser, stood = self._oracle, self._optimiser, self._oracle.last
        here, halted = stood.clone() if self._began else None, None
        trying = torch.arange(len(self))
        while len(trying):
            late = time.perf_counter() >= self._run.deadline
            if late or self._run.num_losses + len(trying) > last:
                return None
            found = oracle.evaluate_some(trying)
            self._count(found)
            accepted = optimiser.accepts(found, oracle, trying)
            if accepted is None:
                accepted = torch.ones(len(trying), dtype=torch.bool)
            if here is None:
                here = found
            else:
                here.put(trying[accepted], found.at(accepted))
            refused, trying = found.at(~accepted), trying[~accepted]
            if len(trying):
                failed = optimiser.retry(refused, oracle, trying)
                halted = Halted.joined([halted, failed])
                trying = trying if failed is None else trying[~torch.isin(trying, failed.places)]
        assert here is not None, "there are searches"
        oracle.last = here
        return here, halted

    def _judge(self, here: Evaluations, moved: Sequence[float], halted: Halted | None) -> tuple[set[int], set[int]]:
        """The places of the searches that have arrived, and of those that are given up."""
        stuck, lost = self._told(halted)
        eps = torch.finfo(here.point.dtype).eps
        rows = zip(self._descents, here.loss.tolist(), here.gradient_norm.tolist(), moved, strict=True)
        spent = self._oracle.num_losses.tolist()
        for place, (descent, loss, norm, length) in enumerate(rows):
            if place in stuck or place in lost:
                continue
            descent.record(loss, norm, length, eps)
            if descent.arrived and not descent.hopeless:
                stuck.add(place)
            elif descent.hopeless or (spent[place] >= self._patience and not descent.leads):
                lost.add(place)
        return stuck, lost

    def _told(self, halted: Halted | None) -> tuple[set[int], set[int]]:
        """Of searches whose optimiser cannot move them: those that find no lower point, and the others."""
        if halted is None:
            return set(), set()
        stuck = {place for place in halted.by(Stuck).tolist() if not self._descents[place].hopeless}
        return stuck, set(halted.places.tolist()) - stuck

    def _moved(self, here: Evaluations, stood: Evaluations) -> list[float]:
        """The last steps, as parts of the box."""
        if not self._began:
            return [math.nan] * len(self)
        return ((here.point - stood.point).abs().double().cpu() / self._span).amax(1).tolist()

    def _leave(self, over: set[int]) -> None:
        if not over:
            return
        kept = torch.tensor([place for place in range(len(self)) if place not in over], dtype=torch.int64)
        self._descents = [self._descents[place] for place in kept.tolist()]
        if len(kept):
            self._oracle.keep(kept)
            self._optimiser.keep(kept)
            self._counted = self._totals()

    def _count(self, found: Evaluations) -> None:
        """Tell the run what has been evaluated since it was last told."""
        totals = self._totals()
        losses, gradients, products = (totals - self._counted).long().tolist()
        lowest = torch.where(found.loss.isfinite(), found.loss, math.inf).argmin()
        self._run.include(found.of(int(lowest)), losses, gradients, products)
        self._counted = totals

    def _totals(self) -> Tensor:
        oracle = self._oracle
        return torch.stack([oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products]).sum(1)
