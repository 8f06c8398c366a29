"""A line search as a state machine: one trial at a time, in plain numbers."""

import math
from dataclasses import dataclass, field

DECREASE = 1e-4
"""c1: the part of the first-order decrease that must be reached."""

CURVATURE = 0.9
"""c2: the part of the slope that may remain."""

NOISE_UP_TO = 1e-10
"""The part of the loss that can be noise; more is taken for a feature of the loss."""

NOISE = 400
"""Differences of losses up to this many roundings are noise: 1e-13 of the loss in float64."""

SIMILAR = 0.5
"""The part of a slope by which two may differ for the loss between them to be known well enough to measure noise."""

FIRST_STEP = 0.01
"""Of the size of the point, at least 1: the length of the first step along a gradient."""

MAX_TRIALS = 40
BISECT_AFTER = 12
SHORTEST = 1e-300

CLOSED, CLOSED_FLAT = 1e-15, 1e-8
"""The width of a bracket that has shrunk to nothing, as a part of the step; the latter where losses say nothing."""

LEAST_EXPANSION, EXPANSION = 4, 10
"""Times the last step: the least and the greatest next one while the loss goes on falling."""

CONTRACTION, LATE_CONTRACTION, SOON = 0.1, 0.01, 4
"""The part of the bracket that is left where a loss was not finite; the latter from this many trials on."""

MARGIN = 0.05
"""The part of the bracket at either end in which no trial is made."""

NO_STEP = "no step along the gradient lowers the loss in this dtype"
NO_SLOPE = "the gradient is zero, or vanishes when it is squared, in this dtype"
"""What is said where no search can find a step, and where none can begin."""


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

    The rounding is measured on the way: between two trials of nearly the same slope the loss changes by that slope
    times the step, and what is off by no more than 1e-10 of the loss is taken for noise. Steps that noise hides may
    not add up: none is accepted whose loss is above the lowest of the run by more than the noise. Nor is a loss that is
    lower by noise alone worth a step whose slope is not: two points beside a minimum would take turns for ever.

    Attributes:
        loss, slope: At the start of the search; the slope is negative.
        step: The next trial.
        noise: Differences of losses up to this size are rounding; it may grow.
        lowest: The lowest loss accepted so far in the run.
        not_finite: The last loss that was not finite, NaN where it was the slope; None while there was none.
    """

    loss: float
    slope: float
    step: float
    noise: float
    lowest: float = math.inf
    low: Trial = field(init=False)
    high: Trial | None = None
    before: Trial | None = None
    best: Trial | None = None
    num_trials: int = 0
    forced: bool = False
    not_finite: float | None = None

    def __post_init__(self) -> None:
        self.low = Trial(0.0, self.loss, self.slope)
        self.lowest = min(self.lowest, self.loss)

    def accepts(self, loss: float, slope: float) -> bool:
        """Whether the trial at `step` ends the search; if not, `advance` finds the next one."""
        if self.forced:
            return True
        self.num_trials += 1
        if loss == -math.inf:
            return True
        if not (math.isfinite(loss) and math.isfinite(slope)):
            self.high = Trial(self.step, math.inf, math.nan)
            self.not_finite = math.nan if math.isfinite(loss) else loss
            return False
        trial = Trial(self.step, loss, slope)
        self._measure_noise(trial)
        enough = loss <= self.loss + DECREASE * self.step * self.slope
        if enough and abs(slope) <= -CURVATURE * self.slope:
            return True
        flat = abs(loss - self.loss) <= self.noise and loss <= self.lowest + self.noise
        if flat and CURVATURE * self.slope <= slope <= (2 * DECREASE - 1) * self.slope:
            return True
        if enough and loss < (self.loss - self.noise if self.best is None else self.best.loss):
            self.best = trial
        if slope >= 0 or (not enough and not flat) or loss > self.low.loss + self.noise:
            self.high = trial
        else:
            self.before, self.low = self.low, trial
        return False

    def advance(self) -> bool:
        """Set `step` to the next trial. False: nothing better can be found along this direction."""
        if self.num_trials >= MAX_TRIALS or self.step < SHORTEST or self._is_closed():
            if self.best is None:
                return False
            self.step, self.forced = self.best.step, True
            return True
        if self.high is None:
            self.step = self._expanded()
        else:
            self.step = self._inside(self.high)
        return math.isfinite(self.step)

    @property
    def is_walled_in(self) -> bool:
        """Whether losses that are not finite begin right beside the start."""
        return self.best is None and self.high is not None and self.high.loss == math.inf

    def _is_closed(self) -> bool:
        """Whether the bracket has shrunk to nothing; where its losses differ by noise, to what its slopes can tell."""
        if self.high is None:
            return False
        flat = abs(self.high.loss - self.low.loss) <= self.noise
        return self.high.step - self.low.step <= (CLOSED_FLAT if flat else CLOSED) * self.low.step

    def _measure_noise(self, trial: Trial) -> None:
        low = self.low
        if abs(trial.slope - low.slope) > SIMILAR * abs(low.slope):
            return
        width = trial.step - low.step
        expected = sorted((low.slope * width, trial.slope * width))
        excess = max(expected[0] - (trial.loss - low.loss), trial.loss - low.loss - expected[1])
        if excess <= NOISE_UP_TO * abs(self.loss):
            self.noise = max(self.noise, excess)

    def _expanded(self) -> float:
        low, before = self.low, self.before
        guess = math.nan
        if before is not None and low.slope > before.slope:  # where the secant of the slopes vanishes
            guess = low.step - low.slope * (low.step - before.step) / (low.slope - before.slope)
        return (
            min(max(guess, LEAST_EXPANSION * low.step), EXPANSION * low.step)
            if guess == guess
            else EXPANSION * low.step
        )

    def _inside(self, high: Trial) -> float:
        low, width = self.low, high.step - self.low.step
        if not math.isfinite(high.loss):
            return low.step + (CONTRACTION if self.num_trials < SOON else LATE_CONTRACTION) * width
        if self.num_trials > BISECT_AFTER:
            return low.step + 0.5 * width
        if abs(high.loss - low.loss) <= self.noise and high.slope > low.slope:
            guess = low.step - low.slope * width / (high.slope - low.slope)
        else:
            guess = _cubic(low, high)
        if guess != guess:
            guess = low.step + 0.5 * width
        return min(max(guess, low.step + MARGIN * width), high.step - MARGIN * width)


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
