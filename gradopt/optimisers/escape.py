"""On from saddle points and maxima, for any optimiser."""

import copy
import logging
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from gradopt.contracts import Evaluation, Optimiser, Oracle, State, Stuck
from gradopt.stationarity.points import Finding, StationaryPoints
from gradopt.verdict import Status

log = logging.getLogger("gradopt")

IN_VAIN = 3
"""Saddle points in a row, none lower than those left before, after which there is no use in leaving another."""

NOISE = 10
"""Differences of losses up to this many roundings are noise."""

REACH = 0.25
"""The first step along the direction is eps to this power of the unknowns' size, as in the test of the curvature."""

FACTOR = 4.0
MAX_CONTRACTIONS = 10
MAX_EXPANSIONS = 40


class Escape:
    """Lets an optimiser go on from points where the gradient vanishes and the loss still falls along a direction.

    At a saddle point or maximum, found by the test that would end the run there, the loss is followed along the
    direction of the smallest curvature, to both sides, until it is lower (a line search along negative curvature:
    Moré and Sorensen, 1979; Goldfarb, 1980). From there the optimiser starts afresh, its schedule too: what it
    remembers is of the way into the saddle point.

    Args:
        inner: The optimiser, as built: its state is kept to start from again.
        points: The test. Shared with the criterion it is made once a point.
    """

    def __init__(self, inner: Optimiser, points: StationaryPoints) -> None:
        self._inner, self._points = inner, points
        self._fresh = copy.deepcopy(inner.state_dict())
        self._step = -1
        self._here: Evaluation | None = None
        self._accepted = True
        self._departure: Departure | None = None
        self._direction = torch.empty(0)
        self._place = ""
        self._lowest = math.inf
        self._num_in_vain = 0

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """What the optimiser says; beside a saddle point, whether this is the point to go on from."""
        if self._departure is not None:
            defined = evaluation.loss == -math.inf or math.isfinite(evaluation.gradient_norm)
            if not self._departure.accepts(evaluation.loss if defined else math.nan):
                return False
            self._leave(self._departure, evaluation)
        self._accepted = self._inner.accepts(evaluation, oracle)
        return self._accepted

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """An update of the optimiser, or the next trial beside a saddle point.

        Raises:
            Stuck: The optimiser is, and not at a saddle point; or no lower loss is found beside one.
        """
        if self._departure is None and self._accepted:
            still = self._here is not None and torch.equal(evaluation.point, self._here.point)
            self._step, self._here = self._step + 1, evaluation
            self._depart(self._points.look(evaluation, oracle, self._step, still=still), evaluation)
        assert self._here is not None, "update() comes after accepts()"
        if self._departure is None:
            try:
                self._inner.update(evaluation, oracle)
                return
            except Stuck:
                oracle.write(self._here.point)
                self._depart(self._points.look(self._here, oracle, self._step, still=True, stuck=True), self._here)
                if self._departure is None:
                    raise
        self._try(self._departure, self._here.point, oracle)

    def learning_rate(self) -> float:
        """That of the optimiser."""
        return self._inner.learning_rate()

    def state_dict(self) -> State:
        """The optimiser's state, the test's, and the search beside a saddle point that is under way."""
        here, departure = self._here, self._departure
        kept = ("_step", "_accepted", "_direction", "_place", "_lowest", "_num_in_vain")
        return {
            "inner": self._inner.state_dict(),
            "points": self._points.state_dict(),
            "here": None if here is None else (here.loss, here.gradient_norm, here.point, here.gradient.clone()),
            "departure": None if departure is None else asdict(departure),
            "rest": {name: getattr(self, name) for name in kept},
        }

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._inner.load_state_dict(state["inner"])
        self._points.load_state_dict(state["points"])
        self._here = None if state["here"] is None else Evaluation(*state["here"])
        self._departure = None if state["departure"] is None else Departure(**state["departure"])
        vars(self).update(state["rest"])

    def _depart(self, found: Finding | None, here: Evaluation) -> None:
        """Begin to follow the direction of a finding, if it has one."""
        if found is None or not found.falls:
            return
        noise = NOISE * torch.finfo(here.point.dtype).eps * abs(here.loss)
        self._num_in_vain = self._num_in_vain + 1 if here.loss >= self._lowest - noise else 0
        self._lowest = min(self._lowest, here.loss)
        if self._num_in_vain == IN_VAIN:
            raise Stuck(f"came back {IN_VAIN} times to saddle points or maxima no lower than those it had left")
        self._direction, curvature = found.evidence["direction"][0], found.evidence["curvature_min"]
        what = "a maximum" if found.status is Status.MAXIMUM else "a saddle point"
        self._place = f"{what} at step {self._step}, loss {here.loss:.10g}, along curvature {curvature:.3g}"
        self._departure = Departure.along(found, here)

    def _try(self, departure: "Departure", start: Tensor, oracle: Oracle) -> None:
        """Move to the next trial that the bounds do not take back to the start."""
        while departure.advance():
            trial = departure.trial(start, self._direction, oracle)
            if not torch.equal(trial, start):
                oracle.write(trial)
                return
            departure.accepts(math.nan)
        self._departure = None
        raise Stuck("no step along the direction of negative curvature lowers the loss in this dtype")

    def _leave(self, departure: "Departure", evaluation: Evaluation) -> None:
        """Start afresh from a lower point."""
        log.info("left %s: loss %.10g, %.3g away", self._place, evaluation.loss, abs(departure.step))
        self._departure = None
        self._points.leave()
        self._inner.load_state_dict(copy.deepcopy(self._fresh))


@dataclass(slots=True)
class Departure:
    """Finds a lower loss on a line along which it falls from the middle to both sides, or to one: a trial at a time.

    A step to either side, then ever shorter ones until the loss is lower. If it is at once, ever longer ones as long as
    it falls faster than the step grows, as it does where the curvature is negative; then back to the last of these.

    Attributes:
        loss: In the middle.
        first: The first step; its sign is the side to begin with.
        eps: Of the dtype.
        step: The trial.
        best, slope: The longest step that serves, 0 if none yet, and how fast the loss falls on the way to it.
    """

    loss: float
    first: float
    eps: float
    step: float = 0.0
    best: float = 0.0
    slope: float = 0.0
    num_trials: int = 0
    num_expansions: int = 0
    returns: bool = False

    @classmethod
    def along(cls, found: Finding, here: Evaluation) -> "Departure":
        """The search along the direction of a finding that falls."""
        eps = torch.finfo(here.point.dtype).eps
        direction, curvature = found.evidence["direction"][0], found.evidence["curvature_min"]
        step = eps**REACH * found.evidence["length"]
        if curvature < 0:  # long enough for the fall to be seen
            step = max(step, math.sqrt(20 * NOISE * eps * abs(here.loss) / -curvature))
        return cls(here.loss, -step if float(here.gradient @ direction) > 0 else step, eps)

    def trial(self, start: Tensor, direction: Tensor, oracle: Oracle) -> Tensor:
        """The point to try, inside the bounds."""
        point = torch.add(start, direction, alpha=self.step)
        return point if oracle.lower is None else point.clamp(oracle.lower, oracle.upper)

    def accepts(self, loss: float) -> bool:
        """Whether the trial at `step` ends the search. NaN: it is no point to go to."""
        if self.returns or loss == -math.inf:
            return True
        slope = (self.loss - loss) / abs(self.step)
        lower = self.loss - loss > NOISE * self.eps * max(abs(self.loss), abs(loss))
        if not (lower and slope > self.slope):
            return False
        self.best, self.slope = self.step, slope
        return self.num_trials > 2 or self.num_expansions == MAX_EXPANSIONS

    def advance(self) -> bool:
        """Set `step` to the next trial. False: the loss is nowhere lower."""
        if self.best == 0.0:
            contraction, side = divmod(self.num_trials, 2)
            self.step = self.first * FACTOR**-contraction * (-1) ** side
            self.num_trials += 1
            return contraction <= MAX_CONTRACTIONS
        if self.step == self.best:
            self.step *= FACTOR
            self.num_expansions += 1
        else:
            self.step, self.returns = self.best, True
        return True


def beside(here: Evaluation, oracle: Oracle) -> Tensor | None:
    """A point of lower loss beside `here`, where the parameters stand, if that is a saddle point or maximum; else None.

    Raises:
        BudgetSpent: While it looks.
    """
    found = StationaryPoints().look(here, oracle, 0, still=True, stuck=True)
    if found is None or not found.falls:
        return None
    departure = Departure.along(found, here)
    while departure.advance():
        trial = departure.trial(here.point, found.evidence["direction"][0], oracle)
        if departure.accepts(math.nan if torch.equal(trial, here.point) else oracle.loss(trial)):
            return trial
    return None
