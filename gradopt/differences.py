"""Slopes of the loss by differences.

A difference is believed only where step sizes over a wide range and both sides agree on it. So rounding, noise, kinks
and domain edges leave a slope unjudged, and a gradient is never called wrong for them.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from gradopt.contracts import Linearised
from gradopt.oracle import AutogradOracle
from gradopt.stationarity.curvature import sizes

TOLERANCE = 1e-3
"""Relative error of a slope from which on the gradient is wrong in any dtype."""

ROUGH = 0.05
"""Relative error up to which a slope that is blurred by rounding can still confirm a gradient."""

WINDOW = 4
"""Consecutive step sizes, each 4 times the one before, that must agree on a discrepancy."""

SPREAD = 0.25
"""How far they may differ, relative to the discrepancy itself."""


MAX_LARGER = 6
"""Larger steps added at most, where the loss hardly changes over the others."""

MAX_STEPS = 60
"""Steps at most where it does not change at all: its terms may cancel to the same number round the point."""

MAX_BEYOND = 4
"""Larger steps added at most, where the last ones no longer show a discrepancy, to see whether it was rounding."""


def tolerance(dtype: torch.dtype) -> float:
    """Relative error of a slope from which on a gradient is wrong, unless the differences are off by as much.

    It is eps^(1/3), which central differences of a smooth loss resolve with room to spare.
    """
    return min(TOLERANCE, torch.finfo(dtype).eps ** (1 / 3))


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of the loss along a direction of length 1.

    Attributes:
        claimed: By the gradient.
        measured: By differences of the loss; NaN where step sizes do not agree on it.
        error: Of `measured`, estimated.
        tolerance: Relative error from which on the gradient is wrong.
    """

    claimed: float
    measured: float = math.nan
    error: float = math.nan
    tolerance: float = TOLERANCE

    @property
    def is_judged(self) -> bool:
        return self.measured == self.measured

    @property
    def is_wrong(self) -> bool:
        return self.is_judged and abs(self.measured - self.claimed) > max(self.tolerance * self.scale, 3 * self.error)

    @property
    def scale(self) -> float:
        return max(abs(self.claimed), abs(self.measured))

    @property
    def factor(self) -> float:
        """How many times the true slope the claimed one is."""
        return self.claimed / self.measured if self.measured else math.inf


class OutOfPatience(Exception):
    """There is no more time, or somebody pressed Ctrl-C."""


class Patience:
    """How long a check may take, from now on.

    Args:
        interrupted: Whether somebody wants it to end at once.
    """

    def __init__(self, seconds: float = math.inf, interrupted: Callable[[], bool] = lambda: False) -> None:
        self._until = time.perf_counter() + seconds
        self._interrupted = interrupted

    @property
    def is_over(self) -> bool:
        return time.perf_counter() > self._until or self._interrupted()


class Probe:
    """Evaluates the loss round one point, each time with the same random numbers. A context: afterwards the parameters,
    `.grad`, buffers, counts, budget and random numbers are what they were.
    """

    def __init__(self, oracle: AutogradOracle, patience: Patience | None = None) -> None:
        self.oracle = oracle
        self._patience = patience or Patience()

    def __enter__(self) -> "Probe":
        oracle = self.oracle
        self._uncounted = oracle.uncounted()
        self._uncounted.__enter__()
        self._point = oracle.read()
        # Running statistics are no larger than the parameters they go with; larger buffers are data, and stay.
        buffers = [buffer for buffer in oracle.objective.buffers() if buffer.numel() <= max(1000, self._point.numel())]
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]
        self._random = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(self._point.device) if self._point.is_cuda else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.oracle.write(self._point)
        self._rewind()
        self._uncounted.__exit__(kind, error, trace)

    def loss(self, point: Tensor) -> float:
        """The full loss at `point`."""
        self._ready()
        return self.oracle.loss(point)

    def gradient(self, point: Tensor) -> Tensor:
        """Its gradient at `point`, shape (n,), float64 on the CPU."""
        self._ready()
        return self.oracle.gradient(point).cpu().double()

    def hessian(self) -> Callable[[Tensor], Tensor] | None:
        """`Oracle.hessian` at the parameters."""
        self._ready()
        return self.oracle.hessian()

    def custom_functions(self) -> list[str]:
        """The names of the custom `autograd.Function`s in its graph, however late it is."""
        return self.oracle.custom_functions()

    def _ready(self) -> None:
        if self._patience.is_over:
            raise OutOfPatience
        self._rewind()

    def _rewind(self) -> None:
        torch.set_rng_state(self._random)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._point.device)
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)


class ConstraintProbe(Probe):
    """The same for a weighed sum of the constraints in place of the loss.

    Args:
        weights: Of each value, shape (m,).
    """

    def __init__(self, oracle: AutogradOracle, weights: Tensor, patience: Patience | None = None) -> None:
        super().__init__(oracle, patience)
        self._weights = weights

    def loss(self, point: Tensor) -> float:
        with self._linearised(point) as linear:
            return (self._weights @ linear.residuals.cpu().double()).item()

    def gradient(self, point: Tensor) -> Tensor:
        with self._linearised(point) as linear:
            return linear.vjp(self._weights.to(linear.residuals)).cpu().double()

    def custom_functions(self) -> list[str]:
        return self.oracle.custom_constraint_functions(self._weights)

    @contextmanager
    def _linearised(self, point: Tensor) -> Iterator[Linearised]:
        """The constraints at `point`, where the parameters stand meanwhile: their graph is for there alone."""
        self._ready()
        here = self.oracle.read()
        self.oracle.write(point)
        try:
            yield self.oracle.linearised_constraints()
        finally:
            self.oracle.write(here)


class Neighbourhood:
    """The loss and its gradient at the parameters, and differences round it. For a point on a bound one a little inside
    stands in: the objective is never evaluated outside.

    Attributes:
        size: Of each unknown, shape (n,): what a relative move of 1 is.
        gradient: Shape (n,), float64 on the CPU.
        unjudged: Why no difference can be judged, if so.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        point = probe.oracle.read()
        self._eps, self._tolerance = torch.finfo(point.dtype).eps, tolerance(point.dtype)
        count = int(math.log(self._eps ** (1 / 8 - 5 / 6), 4)) + 1
        self._steps = [self._eps ** (5 / 6) * 4.0**k for k in range(count)]
        self._point, self.size = _inside(probe.oracle, point, sizes(point, point), self._steps[-1])
        origin = point if probe.oracle.origin is None else probe.oracle.origin
        self._stretch = sizes(point, origin) / self.size  # an unknown near zero has come a longer way than its size
        self.loss = probe.loss(self._point)
        self.gradient = probe.gradient(self._point)
        self.unjudged = ""
        if not (math.isfinite(self.loss) and bool(self.gradient.isfinite().all())):
            self.unjudged = "the loss or its gradient is not finite"
        elif (again := probe.loss(self._point)) != self.loss:
            self.unjudged = f"two losses at the same point differ by {abs(again - self.loss):.3g}"

    def leaves_range(self, slopes: Sequence[Slope]) -> bool:
        """Whether numbers here are so small or so large that autograd, which squares them, may have lost a right
        gradient: that of 1/y is -1/y^2, which underflows long before 1/y does.
        """
        number = torch.finfo(self._point.dtype)
        smallest = min([abs(self.loss) or math.inf, *(abs(one.measured - one.claimed) for one in slopes)])
        return smallest < number.tiny**0.5 or self.size.max().item() > number.max**0.25

    def slope(self, weights: Tensor) -> Slope:
        """The slope along the direction of `weights`, relative moves of the unknowns; float64, shape (n,)."""
        direction = weights * self.size.cpu().double()
        length = torch.linalg.vector_norm(direction).item()
        if not length > 0:
            return Slope(0.0)
        claimed = (self.gradient @ direction).item()
        found = self._measured(direction, claimed)
        if found is None:
            return Slope(claimed / length)
        return Slope(claimed / length, (claimed + found[0]) / length, found[1] / length, self._tolerance)

    def _measured(self, direction: Tensor, claimed: float) -> tuple[float, float] | None:
        """By how much the slope is another than `claimed`, and the error of that; None where it cannot be judged."""
        middle = next(k for k, step in enumerate(self._steps) if step >= self._eps ** (1 / 3))
        noise = 4 * self._eps * abs(self.loss)
        found = _agreement(
            [self._difference(direction, step) for step in self._steps[middle - 1 : middle + 1]],
            claimed,
            noise,
            self._tolerance,
        )
        if found is not None:
            return found
        table = [self._difference(direction, step) for step in self._steps]
        while table[-1] is not None and len(table) < len(self._steps) + MAX_LARGER and table[-1].change < 1e4 * noise:
            table.append(self._difference(direction, 4 * table[-1].step))
        if claimed:
            while table[-1] is not None and len(table) < MAX_STEPS and _is_still(table):
                table.append(self._difference(direction, 4 * table[-1].step))
        # Where steps are smallest, the two sides cancel but for rounding and noise.
        noise = max([noise, *(2 * abs(one.bend) for one in table[:3] if one is not None), 2 * _quantum(table)])
        found = _agreement(table, claimed, noise, self._tolerance)
        if found is not None:
            return found
        reach = self._steps[-1] * self._stretch.cpu()[direction != 0].min().item()
        while table[-1] is not None and len(table) < MAX_STEPS and 4 * table[-1].step <= reach:
            table.append(self._difference(direction, 4 * table[-1].step))
        found = _discrepancy(table, noise)
        for _ in range(MAX_BEYOND):
            if found is None or table[-1] is None or _shows(found[0], table[-1]):
                break
            table.append(self._difference(direction, 4 * table[-1].step))
            found = _discrepancy(table, noise)
        if found is None:
            return _rough_agreement(table, claimed, noise)
        return found[:2] if self._stands(direction, claimed, *found) else None

    def _stands(self, direction: Tensor, claimed: float, discrepancy: float, error: float, step: float) -> bool:
        """Whether the gradient on both sides says the same as here, so that the discrepancy is none of its rounding."""
        moves = (step * direction, -step * direction)
        sides = [(self._probe.gradient(self._moved(move)) @ direction).item() for move in moves]
        return abs(sum(sides) / 2 - claimed) <= SPREAD * abs(discrepancy)

    def _difference(self, direction: Tensor, step: float) -> "_Difference | None":
        moves, changes = [], []
        for move in (step * direction, -step * direction):
            there = self._moved(move)
            # What the move is after rounding, and so what the gradient says of it, is known exactly.
            moves.append((self.gradient @ (there.cpu().double() - self._point.cpu().double())).item())
            changes.append(self._probe.loss(there) - self.loss)
        if not all(map(math.isfinite, changes)):
            return None
        return _Difference(step, moves[0], -moves[1], changes[0], -changes[1])

    def _moved(self, move: Tensor) -> Tensor:
        there = self._point + move.to(self._point)
        lower, upper = self._probe.oracle.lower, self._probe.oracle.upper
        return there if lower is None or upper is None else there.clamp(lower, upper)


@dataclass(frozen=True, slots=True)
class _Difference:
    """Losses on both sides of a point: what they rose by along a direction, and what the gradient says."""

    step: float
    claimed_ahead: float
    claimed_behind: float
    ahead: float
    behind: float

    @property
    def change(self) -> float:
        return max(abs(self.ahead), abs(self.behind))

    @property
    def bend(self) -> float:
        """The difference of the two sides: of second order where the loss is smooth, otherwise kinks and noise."""
        return self.ahead - self.behind

    @property
    def curvature(self) -> float:
        return self.bend / self.step**2

    def sides(self, curvature: float) -> tuple[float, float]:
        """The discrepancy of the slope, seen from either side, with a known curvature taken off."""
        half = curvature * self.step / 2
        return (
            (self.ahead - self.claimed_ahead) / self.step - half,
            (self.behind - self.claimed_behind) / self.step + half,
        )

    @property
    def central(self) -> float:
        ahead, behind = self.sides(0.0)
        return (ahead + behind) / 2


def _agreement(
    table: Sequence[_Difference | None], claimed: float, noise: float, tolerance: float
) -> tuple[float, float] | None:
    """Two neighbouring steps whose central differences are the claimed slope: the discrepancy left by Richardson's
    extrapolation (Press et al., Numerical Recipes, 2007, section 5.7), and its error.
    """
    for small, large in itertools.pairwise(table):
        if small is None or large is None:
            continue
        scale = max(abs(claimed), abs(claimed + small.central))
        rounding = noise / small.step
        if max(abs(small.central), abs(large.central), rounding) <= 0.5 * tolerance * scale:
            best = (16 * small.central - large.central) / 15
            return best, abs(best - small.central) + rounding
    return None


def _rough_agreement(table: Sequence[_Difference | None], claimed: float, noise: float) -> tuple[float, float] | None:
    """The same for a loss that rounding blurs: the discrepancy is no more than that, and that is a few percent."""
    for one in table:
        rounding = math.inf if one is None else noise / one.step
        if one is not None and abs(one.central) <= 2 * rounding <= ROUGH * abs(claimed):
            return one.central, rounding
    return None


def _discrepancy(table: Sequence[_Difference | None], noise: float) -> tuple[float, float, float] | None:
    """The discrepancy on which both sides and a window of steps agree, down to the smallest step that can show it;
    with its error, and the smallest step of the window.
    """
    for first in range(len(table) - WINDOW + 1):
        window = [one for one in table[first : first + WINDOW] if one is not None]
        if len(window) < WINDOW:
            continue
        curvature = window[-1].curvature
        values = [side for one in window for side in one.sides(curvature)]
        centre = sorted(values)[len(values) // 2]
        room = SPREAD * abs(centre)
        if not noise / window[0].step <= room or max(abs(value - centre) for value in values) > room:
            continue
        if all(one.ahead == 0 == one.behind for one in window[:2]) and not _is_still(table):
            continue  # a staircase: at steps this small the loss does not move at all
        for one in table[:first]:
            if (
                one is not None
                and noise / one.step <= room
                and any(abs(side - centre) > room for side in one.sides(curvature))
            ):
                return None
        beyond = [one is not None and abs(one.central) <= room for one in table[first + WINDOW :]]
        if any(one and other for one, other in itertools.pairwise(beyond)):
            return None  # over longer distances the gradient is right: the loss cannot be resolved at these steps
        return *_refined([one for one in table if one is not None], centre, noise), window[0].step
    return None


def _shows(discrepancy: float, one: _Difference) -> bool:
    return abs(one.central - discrepancy) <= SPREAD * abs(discrepancy)


def _refined(table: Sequence[_Difference], centre: float, noise: float) -> tuple[float, float]:
    """The discrepancy where neighbouring steps agree on it best, and how far they do."""
    pairs = [
        (abs(small.central - large.central) + noise / small.step, small.central)
        for small, large in itertools.pairwise(table)
        if abs(small.central - centre) <= SPREAD * abs(centre)
    ]
    error, discrepancy = min(pairs)
    return discrepancy, error


def _quantum(table: Sequence[_Difference | None]) -> float:
    """The smallest change of a loss that the smallest steps leave as it is: the rounding of terms that cancel."""
    first = table[0]
    if first is None or not first.ahead == 0 == first.behind:
        return 0.0
    changes = (abs(side) for one in table if one is not None for side in (one.ahead, one.behind))
    return min((change for change in changes if change), default=0.0)


def _is_still(table: Sequence[_Difference | None]) -> bool:
    return all(one is None or one.ahead == 0 == one.behind for one in table)


def _inside(oracle: AutogradOracle, point: Tensor, size: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """The point and the sizes of the unknowns, changed so that steps up to `largest` sizes stay inside the bounds.
    An unknown that its bounds leave no room gets size 0.
    """
    if oracle.lower is None or oracle.upper is None:
        return point, size
    size = torch.minimum(size, (oracle.upper / 2 - oracle.lower / 2) / largest)
    room = largest * size
    return torch.maximum(torch.minimum(point, oracle.upper - room), oracle.lower + room), size
