"""The line searches of many starts: `LineSearch` in tensors, one trial of each at a time."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradopt.contracts import State
from gradopt.optimisers.line_search import (
    BISECT_AFTER,
    CLOSED,
    CLOSED_FLAT,
    CONTRACTION,
    CURVATURE,
    DECREASE,
    EXPANSION,
    LATE_CONTRACTION,
    LEAST_EXPANSION,
    MARGIN,
    MAX_TRIALS,
    NOISE_UP_TO,
    SHORTEST,
    SIMILAR,
    SOON,
)

FIELDS = (
    *("loss", "slope", "step", "noise", "lowest", "num_trials", "forced", "bad"),
    *("low_step", "low_loss", "low_slope", "high_step", "high_loss", "high_slope"),
    *("before_step", "before_slope", "best_step", "best_loss"),
)
"""Of a search; the step of a trial that there is not is NaN, and `bad` is 1 once a loss was NaN, 2 once it was inf."""

PLACE = {name: index for index, name in enumerate(FIELDS)}
BAD = (math.nan, math.inf)


class StackedLineSearch:
    """`LineSearch` of each of many starts: it decides as that does, by the same constants.

    Its numbers are float64 on the CPU, one row a field and one column a start, so that those of some starts are taken
    and put back together. All tensors that go in or out have an entry for each of the starts at `places`, in their
    order.
    """

    def __init__(self, number: int) -> None:
        self._numbers = torch.full((len(FIELDS), number), math.nan, dtype=torch.float64)

    def begin(self, places: Tensor, loss: Tensor, slope: Tensor, step: Tensor, noise: Tensor, lowest: Tensor) -> None:
        """Start the searches of these starts anew; see the attributes of `LineSearch`."""
        zero, none = torch.zeros_like(loss), torch.full_like(loss, math.nan)
        lowest = torch.minimum(lowest, loss)
        head = [loss, slope, step, noise, lowest, zero, zero, zero]
        self._put(places, [*head, zero, loss, slope, *[none] * 7])

    def accepts(self, places: Tensor, loss: Tensor, slope: Tensor) -> Tensor:
        """Which of the trials end their searches; a mask."""
        now = self._taken(places)
        forced, step = now["forced"] > 0, now["step"]
        tried = ~forced
        now["num_trials"] = now["num_trials"] + tried
        bottomless = tried & (loss == -math.inf)
        finite = (loss.abs() < math.inf) & (slope.abs() < math.inf)
        bad, usual = tried & ~bottomless & ~finite, tried & finite
        self._measure_noise(now, usual, loss, slope)
        enough = loss <= now["loss"] + DECREASE * step * now["slope"]
        wolfe = enough & (slope.abs() <= -CURVATURE * now["slope"])
        flat = ((loss - now["loss"]).abs() <= now["noise"]) & (loss <= now["lowest"] + now["noise"])
        approximate = flat & (CURVATURE * now["slope"] <= slope) & (slope <= (2 * DECREASE - 1) * now["slope"])
        content = usual & (wolfe | approximate)
        goes_on = usual & ~content
        least = torch.where(now["best_step"].isnan(), now["loss"] - now["noise"], now["best_loss"])
        better = goes_on & enough & (loss < least)
        over = (slope >= 0) | ~(enough | flat) | (loss > now["low_loss"] + now["noise"])
        high, low = goes_on & over, goes_on & ~over
        _set(now, better, best_step=step, best_loss=loss)
        _set(now, high, high_step=step, high_loss=loss, high_slope=slope)
        _set(now, bad, high_step=step, high_loss=math.inf, high_slope=math.nan)
        _set(now, bad, bad=torch.where(loss == math.inf, 2.0, torch.ones_like(loss)))
        _set(now, low, before_step=now["low_step"], before_slope=now["low_slope"])
        _set(now, low, low_step=step, low_loss=loss, low_slope=slope)
        self._put(places, [now[name] for name in FIELDS])
        return forced | bottomless | content

    def advance(self, places: Tensor) -> Tensor:
        """Set the steps of the next trials. Where nothing better can be found along the direction: False; a mask."""
        now = self._taken(places)
        none = now["best_step"].isnan()
        over = (now["num_trials"] >= MAX_TRIALS) | (now["step"] < SHORTEST) | _is_closed(now)
        inside = torch.where(now["high_step"].isnan(), _expanded(now), _inside(now))
        step = torch.where(over, now["best_step"], inside)
        found = torch.where(over, ~none, inside.abs() < math.inf)
        now["step"] = torch.where(over & none, now["step"], step)
        now["forced"] = (over & ~none).double()
        self._put(places, [now[name] for name in FIELDS])
        return found

    def of(self, name: str, places: Tensor) -> Tensor:
        """A number of some searches."""
        return self._numbers[PLACE[name]][places]

    @property
    def step(self) -> Tensor:
        """The next trial of every start."""
        return self._numbers[PLACE["step"]]

    def walls(self, places: Tensor) -> Tensor:
        """Which losses that are not finite begin right beside the start of the search: 0 none, 1 NaN, 2 inf."""
        walled_in = self.of("best_step", places).isnan() & (self.of("high_loss", places) == math.inf)
        return torch.where(walled_in, self.of("bad", places), 0.0).long()

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places from here on."""
        self._numbers = self._numbers[:, kept]

    def state_dict(self) -> State:
        """All numbers, with the axes (field, starts)."""
        return {"numbers": self._numbers.clone()}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._numbers = state["numbers"].clone()

    def _taken(self, places: Tensor) -> dict[str, Tensor]:
        return dict(zip(FIELDS, self._numbers[:, places].unbind(), strict=True))

    def _put(self, places: Tensor, values: Sequence[Tensor]) -> None:
        self._numbers[:, places] = torch.stack(list(values))

    @staticmethod
    def _measure_noise(now: dict[str, Tensor], usual: Tensor, loss: Tensor, slope: Tensor) -> None:
        similar = ~((slope - now["low_slope"]).abs() > SIMILAR * now["low_slope"].abs())
        width, rise = now["step"] - now["low_step"], loss - now["low_loss"]
        one, other = now["low_slope"] * width, slope * width
        excess = torch.maximum(torch.minimum(one, other) - rise, rise - torch.maximum(one, other))
        measured = usual & similar & (excess <= NOISE_UP_TO * now["loss"].abs())
        _set(now, measured, noise=torch.maximum(now["noise"], excess))


def _set(now: dict[str, Tensor], where: Tensor, **values: Tensor | float) -> None:
    """Change these numbers at the starts of a mask."""
    for name, value in values.items():
        now[name] = torch.where(where, value, now[name])


def _is_closed(now: dict[str, Tensor]) -> Tensor:
    flat = (now["high_loss"] - now["low_loss"]).abs() <= now["noise"]
    low = now["low_step"]
    return now["high_step"] - low <= torch.where(flat, CLOSED_FLAT * low, CLOSED * low)


def _expanded(now: dict[str, Tensor]) -> Tensor:
    low, rise = now["low_step"], now["low_slope"] - now["before_slope"]
    guess = torch.where(rise > 0, low - now["low_slope"] * (low - now["before_step"]) / rise, math.nan)
    least, most = LEAST_EXPANSION * low, EXPANSION * low
    return torch.where(guess.isnan(), most, guess.clamp(least, most))


def _inside(now: dict[str, Tensor]) -> Tensor:
    low, high = now["low_step"], now["high_step"]
    width = high - low
    contracted = low + torch.where(now["num_trials"] < SOON, CONTRACTION * width, LATE_CONTRACTION * width)
    middle = low + 0.5 * width
    rise = now["high_slope"] - now["low_slope"]
    by_slopes = ((now["high_loss"] - now["low_loss"]).abs() <= now["noise"]) & (rise > 0)
    guess = torch.where(by_slopes, low - now["low_slope"] * width / rise, _cubic(now))
    guess = torch.where(guess.isnan(), middle, guess)
    guess = torch.minimum(torch.maximum(guess, low + MARGIN * width), high - MARGIN * width)
    guess = torch.where(now["num_trials"] > BISECT_AFTER, middle, guess)
    return torch.where(now["high_loss"] == math.inf, contracted, guess)


def _cubic(now: dict[str, Tensor]) -> Tensor:
    """As `line_search.cubic`."""
    low, high, end = now["low_step"], now["high_step"], now["high_slope"]
    first = now["low_slope"] + end - 3 * (now["low_loss"] - now["high_loss"]) / (low - high)
    square = first * first - now["low_slope"] * end
    second = square.sqrt()  # NaN below zero
    bottom = end - now["low_slope"] + 2 * second
    return torch.where(bottom == 0, math.nan, high - (high - low) * (end + second - first) / bottom)
