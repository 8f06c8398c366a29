"""Global search by TikTak: a sample of the box, and batches of local searches that draw closer to the best point."""

import logging
import math
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, Minimum, Optimiser, Oracle, State
from gradopt.mistakes import Mistake
from gradopt.optimisers.basins import Basins
from gradopt.optimisers.descent import INNER
from gradopt.optimisers.proposals import region
from gradopt.optimisers.searches import Searches
from gradopt.plurals import counted
from gradopt.stacked import MAX_ENTRIES, StackedOracle
from gradopt.stacking import named
from gradopt.starts import MOST_SOBOL, sobol, uniform

log = logging.getLogger("gradopt")

SAMPLED = 0.2
"""The part of the evaluations that goes to the sample, where its size is not given."""

SEARCHED = 0.2
"""The part of the sample, the best of it, from which local searches start."""

BATCHED = 0.1
"""The part of these that run at once."""

LEAST, MOST = 0.1, 0.995
"""The weight of the best point among the two that make a start."""

RESERVE = 0.05
"""The part of the run's evaluations that is kept for the end, when the best minimum is polished."""

PULSE = 100
"""Evaluations after which the search comes back to the best point, so that the run can be watched and stopped there."""

KEPT = ("_lower", "_upper", "_sample", "_begun", "_over")


def weight(index: int, number: int) -> float:
    """Of the best point in the start of search `index` of `number`, counted from 1 (Arnoud, Guvenen and Kleineberg,
    2019, section 2.1): it grows from 0.1 to 0.995.
    """
    return min(max(LEAST, math.sqrt(index / number)), MOST)


class TikTak:
    """Searches the whole box for the lowest minimum by batches of local searches, and ends with the inner optimiser.

    TikTak (Arnoud, Guvenen and Kleineberg, Benchmarking Global Optimizers, 2019): the best points of a Sobol sample are
    starts of local searches, in the order of their losses, each moved towards the best point so far by a weight that
    grows with its number (`weight`). Here the sample is one tensor program, and so is a batch of searches, of which
    each takes the steps it takes alone; "so far" is before the batch. After a batch the search ends if as many of all
    searches as `discoveries` have ended at the best point; else with the last of the searches, or the evaluations.

    A step of the run is the best point so far, evaluated again about every 100 evaluations. No criterion takes it for
    the answer before the search has ended.

    Args:
        inner: The optimiser of the local searches, and of the end.
        samples: Points of the sample, the start among them; None: a fifth of the evaluations.
        searches: Local searches at most; None: a fifth of the sample.
        batch: Of them run at once; None: a tenth.
        discoveries: See above.
        max_evaluations: Of the search; with a smaller `stop.max_evaluations` it leaves a twentieth of that for the end.
        radius: Where a bound is missing the search covers start - radius to start + radius, inside the bounds.
        seed: Of the sample; the global random state is neither used nor changed.
    """

    bounds = True

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        inner: Literal["lbfgs", "trust_region", "levenberg_marquardt"] = "lbfgs",
        samples: Annotated[int, ">= 1"] | None = None,
        searches: Annotated[int, ">= 1"] | None = None,
        batch: Annotated[int, ">= 1"] | None = None,
        discoveries: Annotated[int, ">= 1"] = 10,
        max_evaluations: Annotated[int, ">= 1"] = 10_000,
        radius: Annotated[float, "> 0"] | None = None,
        seed: int = 0,
    ) -> None:
        self._parameters = parameters
        self._build = INNER[inner]
        self.residuals = inner == "levenberg_marquardt"
        self._num_samples, self._num_searches, self._batch = samples, searches, batch
        self._discoveries, self._limit = discoveries, max_evaluations
        self._radius, self._seed = radius, seed
        self._lower = self._upper = torch.empty(0)
        self._sample: Tensor | None = None
        self._begun, self._over = 0, False
        self._basins = Basins(torch.ones(0))
        self._searches: Searches | None = None
        self._saved: State | None = None
        self._inner: Optimiser | None = None

    @property
    def searching(self) -> bool:
        """Whether the run goes on elsewhere, whatever kind of point it stands at."""
        return self._inner is None

    @property
    def minima(self) -> Sequence[Minimum]:
        """The local minima found so far, lowest first."""
        return tuple(self._basins)

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """While it searches the parameters stand at the best point, which is a step; then what the inner optimiser
        says.

        Raises:
            Mistake: An unknown has no interval to search, and there is no `radius`.
        """
        if self._inner is None:
            if not len(self._lower):
                self._lower, self._upper = region("tiktak", evaluation.point, oracle, self._radius)
                self._prepare()
            return True
        if not self._inner.accepts(evaluation, oracle):
            return False
        self._basins.refine(evaluation.point.double().cpu(), evaluation.loss)
        return True

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Sample, or go on with the local searches, and come back to the best point; then a step of the inner
        optimiser.

        Raises:
            Mistake: The objective cannot be evaluated at many points at once.
            Stuck: The inner optimiser finds no better point at the end of the search.
        """
        if self._inner is not None:
            self._inner.update(evaluation, oracle)
            return
        begun = oracle.num_losses
        if self._saved is not None:
            self._searches = self._search(oracle, self._saved["points"], math.inf)
            self._searches.load_state_dict(self._saved)
            self._saved = None
        if self._sample is None:
            self._explore(evaluation, oracle)
        while not self._over and oracle.num_losses - begun < PULSE:
            self._go_on(oracle)
        best = _best(oracle)
        if self._over:
            log.info(
                "tiktak: %d minima, lowest %.10g, found %s, after %s",
                len(self._basins), best.loss, counted(self._basins.visits(best.point.double().cpu()), "time"),
                counted(oracle.num_losses, "evaluation"),
            )  # fmt: skip
            self._inner = self._build(self._parameters)
        oracle.write(best.point)

    def learning_rate(self) -> float:
        """That of the inner optimiser at the end."""
        return math.nan if self._inner is None else self._inner.learning_rate()

    def state_dict(self) -> State:
        """The starts, the minima, and the local searches that are under way."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "basins": self._basins.state_dict(),
            "searches": self._saved if self._searches is None else self._searches.state_dict(),
            "inner": None if self._inner is None else self._inner.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        vars(self).update({name: state[name] for name in KEPT})
        self._prepare()
        self._basins.load_state_dict(state["basins"])
        self._searches, self._saved = None, state["searches"]  # made again when there is an oracle
        self._inner = None
        if state["inner"] is not None:
            self._inner = self._build(self._parameters)
            self._inner.load_state_dict(state["inner"])

    def _prepare(self) -> None:
        width = (self._upper - self._lower).double().cpu()
        self._span = torch.where(width > 0, width, 1.0)
        self._basins = Basins(self._span)

    def _last(self, oracle: Oracle) -> int:
        """The evaluations after which the search ends."""
        return int(min(self._limit, (1 - RESERVE) * oracle.max_evaluations))

    def _explore(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """Keep the best points of a sample, lowest first, for the searches."""
        last = self._last(oracle)
        number = max(1, round(SAMPLED * last)) if self._num_samples is None else self._num_samples
        number = max(0, min(number - 1, last - oracle.num_losses))
        points = evaluation.point.unsqueeze(0)
        if number:
            draw = sobol if len(self._lower) <= MOST_SOBOL else uniform
            points = torch.cat([points, draw(number, self._lower, self._upper, self._seed)])
        losses = torch.full((len(points),), math.nan, dtype=torch.float64)
        losses[0] = evaluation.loss
        try:
            stacked = StackedOracle(oracle.objective, named(oracle.objective, points))
        except Mistake as mistake:
            raise Mistake(f"tiktak evaluates many points at once: {mistake}, as optimiser=multi_start does") from None
        for places in torch.arange(1, len(points)).split(max(1, MAX_ENTRIES // points.shape[1])):
            if not len(places) or time.perf_counter() >= oracle.deadline:
                break
            found = stacked.evaluate_some(places)
            lowest = torch.where(found.loss.isfinite(), found.loss, math.inf).argmin()
            oracle.include(found.of(int(lowest)), len(places), len(places), 0)
            losses[places] = found.loss.double().cpu()
        losses = torch.where(losses.isfinite(), losses, math.inf)
        order = losses.argsort(stable=True)[: int(losses.isfinite().sum())]
        most = math.ceil(SEARCHED * len(points)) if self._num_searches is None else self._num_searches
        self._sample = points[order[:most]]

    def _go_on(self, oracle: Oracle) -> None:
        """Lead the searches of the batch to their next points; begin a batch if there is none."""
        assert self._sample is not None
        if self._searches is None:
            self._searches = self._search(oracle, self._starts(oracle), _best(oracle).loss)
        ends = self._searches.step(self._last(oracle))
        for point, loss, begin in ends or ():
            self._basins.add(point, loss, begin, drawn=False)
        self._over = ends is None
        if ends is None or not len(self._searches):
            self._searches = None
            found = self._basins.visits(_best(oracle).point.double().cpu())
            self._over |= self._begun >= len(self._sample) or found >= self._discoveries

    def _starts(self, oracle: Oracle) -> Tensor:
        """Those of the next batch: mixtures of the best point and points of the sample."""
        assert self._sample is not None
        number, best = len(self._sample), _best(oracle).point
        size = math.ceil(BATCHED * number) if self._batch is None else self._batch
        chosen = self._sample[self._begun : self._begun + size]
        places = range(self._begun + 1, self._begun + len(chosen) + 1)
        weights = best.new_tensor([weight(index, number) for index in places]).unsqueeze(1)
        self._begun += len(chosen)
        return (weights * best + (1 - weights) * chosen).clamp(self._lower, self._upper)

    def _search(self, oracle: Oracle, starts: Tensor, goal: float) -> Searches:
        return Searches(oracle, starts, self._build, self._span, goal)


def _best(oracle: Oracle) -> Evaluation:
    assert oracle.best is not None, "the start has been evaluated"
    return oracle.best
