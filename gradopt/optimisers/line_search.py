"""A line search as a state machine: one trial at a time, in plain numbers."""

import math
from dataclasses import dataclass, field

DECREASE = 1e-4
"""c1: the part of the first-order decrease that must be reached."""

CURVATURE = 0.9
"""c2: the part of the slope that may remain."""

MAX_TRIALS = 40
BISECT_AFTER = 12


@dataclass(slots=True)
class Trial:
    """A step along the direction with its loss and slope; the slope is NaN where it was not finite."""

    step: float
    loss: float
    slope: float


@dataclass(slots=True)
class LineSearch:
    """Finds a step that satisfies the strong Wolfe conditions, or the approximate ones at the rounding of the loss.

    Bracketing, then safeguarded cubic interpolation (Nocedal and Wright, Numerical Optimization, 2006, algorithms 3.5
    and 3.6). Where two losses differ by no more than rounding, slopes decide in their place: the approximate Wolfe
    conditions of Hager and Zhang (2005), eq. 4.1, see a decrease of eps where losses see sqrt(eps). A trial that is not
    finite counts as infinitely bad and is contracted.

    Attributes:
        loss, slope: At the start of the search; the slope is negative.
        step: The next trial.
        noise: Differences of losses up to this size are rounding.
    """

    loss: float
    slope: float
    step: float
    noise: float
    low: Trial = field(init=False)
    high: Trial | None = None
    before: Trial | None = None
    best: Trial | None = None
    num_trials: int = 0
    forced: bool = False

    def __post_init__(self) -> None:
        self.low = Trial(0.0, self.loss, self.slope)

    def accepts(self, loss: float, slope: float) -> bool:
        """Whether the trial at `step` ends the search; if not, `advance` finds the next one."""
        if self.forced:
            return True
        self.num_trials += 1
        if loss == -math.inf:
            return True
        if not (math.isfinite(loss) and math.isfinite(slope)):
            self.high = Trial(self.step, math.inf, math.nan)
            return False
        enough = loss <= self.loss + DECREASE * self.step * self.slope
        if enough and abs(slope) <= -CURVATURE * self.slope:
            return True
        flat = abs(loss - self.loss) <= self.noise
        if flat and CURVATURE * self.slope <= slope <= (2 * DECREASE - 1) * self.slope:
            return True
        trial = Trial(self.step, loss, slope)
        if enough and (self.best is None or loss < self.best.loss):
            self.best = trial
        if slope >= 0 or (not enough and not flat) or loss > self.low.loss + self.noise:
            self.high = trial
        else:
            self.before, self.low = self.low, trial
        return False

    def advance(self) -> bool:
        """Set `step` to the next trial. False: nothing better can be found along this direction."""
        width = None if self.high is None else self.high.step - self.low.step
        spent = self.num_trials >= MAX_TRIALS
        if spent or (width is not None and width <= 1e-15 * self.low.step) or self.step < 1e-300:
            if self.best is None:
                return False
            self.step, self.forced = self.best.step, True
            return True
        if self.high is None:
            self.step = self._expanded()
        else:
            self.step = self._inside(self.high)
        return math.isfinite(self.step)

    def _expanded(self) -> float:
        low, before = self.low, self.before
        guess = math.nan
        if before is not None and low.slope > before.slope:  # where the secant of the slopes vanishes
            guess = low.step - low.slope * (low.step - before.step) / (low.slope - before.slope)
        return min(max(guess, 4 * low.step), 10 * low.step) if guess == guess else 10 * low.step

    def _inside(self, high: Trial) -> float:
        low, width = self.low, high.step - self.low.step
        if not math.isfinite(high.loss):
            return low.step + (0.1 if self.num_trials < 4 else 0.01) * width
        if self.num_trials > BISECT_AFTER:
            return low.step + 0.5 * width
        if abs(high.loss - low.loss) <= self.noise and high.slope > low.slope:
            guess = low.step - low.slope * width / (high.slope - low.slope)
        else:
            guess = _cubic(low, high)
        if guess != guess:
            guess = low.step + 0.5 * width
        return min(max(guess, low.step + 0.05 * width), high.step - 0.05 * width)


def _cubic(low: Trial, high: Trial) -> float:
    """The minimiser of the cubic through two losses and slopes (Nocedal and Wright, eq. 3.59)."""
    first = low.slope + high.slope - 3 * (low.loss - high.loss) / (low.step - high.step)
    square = first * first - low.slope * high.slope
    if not square >= 0:
        return math.nan
    second = math.sqrt(square)
    bottom = high.slope - low.slope + 2 * second
    if bottom == 0:
        return math.nan
    return high.step - (high.step - low.step) * (high.slope + second - first) / bottom
