"""The test of `StationaryPoints` for many starts at once: clear cases by tensors, doubtful ones one by one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import State
from gradopt.stacked import Evaluations, StackedOracle
from gradopt.stationarity.curvature import (
    NUM_DENSE,
    Product,
    flatness,
    is_faint,
    is_faint_beside,
    is_long,
    newton_decrease,
    newton_step,
    sizes,
    spectrum,
    ways,
)
from gradopt.stationarity.falls import REACH, is_lower
from gradopt.stationarity.points import (
    RESTING,
    Finding,
    StationaryPoints,
    comparable,
    default_tolerance,
    free_unknowns,
    gradient_scale,
    is_settled,
    is_unscaled,
    ratio,
    vanishing,
)
from gradopt.stationarity.tails import influences, suspects
from gradopt.verdict import Status

MAX_ENTRIES = 500_000
"""Of points, and of Hessians, that are tested together."""

CURVATURES = ("positive", "none", "negative", "held", "unchecked")
"""What `evidence["curvature"]` of a `Finding` may say: the place here is the number in that of `Findings`."""

EVIDENCE = (
    *("loss", "gradient_norm", "relative", "tolerance", "resting", "curvature_min", "newton_decrease"),
    *("fall", "fall_length"),
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the stationary ones among the starts are.

    Attributes:
        places: Of these starts, in no order.
        code: `Status.code` of each.
        evidence: As of a `Finding`, a number each, shape (starts,).
    """

    places: Tensor
    code: Tensor
    evidence: dict[str, Tensor]


class StackedPoints:
    """`StationaryPoints` of many starts, with what each of those would remember.

    By tensors: whether a test is due, whether a point is first-order optimal, and if so whether it is a minimum beyond
    doubt (all curvature clearly positive, a Newton step that gains nothing, no unknown whose influence has vanished) or
    not there yet. Whatever is not so clear is handed to `StationaryPoints`, as it is for a start alone.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        StationaryPoints(tolerance)  # it checks
        self._tolerance = tolerance
        self._state: dict[str, Tensor] = {}
        self._rested = False

    @property
    def needed(self) -> Tensor | float:
        """Per start the gradient norm from which on a test is worth its products."""
        return self._state["needed"] if self._state else 0.0

    def due(self, step: Tensor) -> Tensor | float:
        """The first step of each at which one is made whatever the gradient."""
        return self._state["due"] if self._state else 0.0

    def look(self, oracle: StackedOracle, steps: Tensor, still: Tensor, live: Tensor, stuck: Tensor) -> Findings | None:
        """What the starts are that are live and for which a test is due; None if none of them is stationary.

        Args:
            steps: At which they are, shape (starts,), int64.
            still: Whether the parameters of a start are where they were at the step before; shape (starts,).
            stuck: Whether its optimiser finds no better point: the test is then made in any case, as one at rest.
        """
        here = oracle.last
        self._begin(here)
        state, norm = self._state, here.gradient_norm.double().cpu()
        asked = ~(norm > state["needed"]) | (state["due"] <= steps)
        asked |= self._rests(still & live, steps) | stuck
        places = asked.nonzero().flatten()
        places = places[live[places] & (norm[places].abs() < math.inf) & (here.loss[places].abs() < math.inf).cpu()]
        if not len(places):
            return None
        state["_steepest"][places] = torch.maximum(state["_steepest"][places], norm[places])
        state["due"][places] = torch.maximum(steps[places] + 20, 2 * steps[places])
        resting = (state["_still"] >= RESTING) | stuck
        found = [
            one
            for step in steps[places].unique().tolist()
            for one in self._judged(oracle, step, places[steps[places] == step], resting)
        ]
        if not found:
            return None
        together = {name: torch.cat([one.evidence[name] for one in found]) for name in found[0].evidence}
        return Findings(torch.cat([one.places for one in found]), torch.cat([one.code for one in found]), together)

    def _rests(self, still: Tensor, steps: Tensor) -> Tensor:
        """Count the steps without a change, and say which starts are to be asked about for it."""
        state, rested = self._state, self._rested
        self._rested = bool(still.any())
        if not self._rested:
            if rested:
                state["_still"] = torch.zeros_like(state["_still"])
            return still
        again = torch.where(state["_last_still"] == steps - 1, state["_still"] + 1, 1)
        state["_still"] = torch.where(still, again, 0)
        state["_last_still"] = torch.where(still, steps, state["_last_still"])
        return still & (state["_still"] % RESTING == 0)

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places from here on."""
        self._state = {name: value[kept] for name, value in self._state.items()}

    def state_dict(self) -> State:
        """Per start, what `StationaryPoints` saves."""
        return {"state": {name: value.clone() for name, value in self._state.items()}, "rested": self._rested}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._state = {name: value.clone() for name, value in state["state"].items()}
        self._rested = state["rested"]

    def _begin(self, here: Evaluations) -> None:
        if self._state:
            return
        number = len(here.loss)
        numbers = torch.zeros(number, dtype=torch.float64)
        counts = torch.zeros(number, dtype=torch.int64)
        self._state = {
            "needed": numbers,
            "due": counts,
            "_origin": here.point,
            "_first": here.loss.double().cpu(),
            "_largest": torch.zeros_like(here.point),
            "_steepest": numbers.clone(),
            "_still": counts.clone(),
            "_last_still": counts - 1,
        }

    def _judged(self, oracle: StackedOracle, step: int, places: Tensor, resting: Tensor) -> Iterator[Findings]:
        n, mask = oracle.last.point.shape[1], oracle.last.pinned
        if mask is not None:
            rare = mask[places].any(1).cpu()
            yield from self._one_by_one(oracle, step, places[rare], resting)
            places = places[~rare]
        for part in places.split(max(1, MAX_ENTRIES // n)) if len(places) else ():
            doubtful, hessian = part, oracle.hessian(part)
            if hessian is not None:
                first = self._first_order(oracle, step, part, resting[part], hessian)
                passed = first.optimal.nonzero().flatten()
                known = first.finite & ~first.optimal
                self._remember(part, first, known)
                doubtful = part[passed]
                if n <= NUM_DENSE:
                    doubts = []
                    for few in passed.split(max(1, MAX_ENTRIES // n**2)) if len(passed) else ():
                        is_plain, found = self._second_order(oracle, part, few, first)
                        self._remember(part, first, few[is_plain])
                        doubts.append(part[few[~is_plain]])
                        if len(found.places):
                            yield found
                    doubtful = torch.cat(doubts) if doubts else part[:0]
            yield from self._one_by_one(oracle, step, doubtful, resting)

    def _one_by_one(self, oracle: StackedOracle, step: int, places: Tensor, resting: Tensor) -> Iterator[Findings]:
        for place in places.tolist():
            if (finding := self._alone(oracle, step, place, resting=bool(resting[place]))) is not None:
                yield _as_row(place, finding)

    def _first_order(
        self, oracle: StackedOracle, step: int, places: Tensor, resting: Tensor, hessian: Product
    ) -> "_FirstOrder":
        here, state = oracle.last, self._state
        point, gradient, origin = here.point[places], here.gradient[places], state["_origin"][places]
        norm = here.gradient_norm[places].double().cpu()
        usual = [default_tolerance(point.dtype, resting=rests) for rests in (False, True)]
        tolerance = torch.full_like(norm, usual[0] if self._tolerance is None else self._tolerance)
        if self._tolerance is None:
            tolerance[resting] = usual[1]
        size = torch.maximum(point.abs(), (point - origin).abs())
        size = torch.where((resting.to(size.device) & ~size.any(1)).unsqueeze(1), 1.0, size)
        enough = torch.where(tolerance > 0, norm / (8 * tolerance), 0.0)
        scale = gradient_scale(hessian, size, step, enough.to(point))
        finite = scale.isfinite().all(1).cpu()
        largest = torch.maximum(state["_largest"][places], scale)
        faded, collapsed = vanishing(scale, size, largest)
        vanishes = (faded | collapsed | is_unscaled(gradient, scale) | (largest <= 0)).any(1).cpu()
        scale = comparable(scale, resting.unsqueeze(1))
        projected = gradient
        if oracle.lower is not None and oracle.upper is not None:
            projected = projected_gradient(gradient, point, oracle.lower, oracle.upper)
        relative = ratio(projected.abs(), scale).double().cpu()
        optimal = finite & ~(relative > tolerance.clamp(min=4 * torch.finfo(point.dtype).eps))
        falling = torch.where(norm <= state["needed"][places], norm / 2, math.inf)
        needed = torch.minimum(tolerance * scale.amax(1).double().cpu(), falling)
        return _FirstOrder(scale, largest, vanishes, finite, optimal, relative, tolerance, resting, needed)

    def _remember(self, places: Tensor, first: "_FirstOrder", which: Tensor) -> None:
        """Of starts that are not doubtful what `StationaryPoints` would."""
        self._state["_largest"][places[which]] = first.largest[which]
        self._state["needed"][places[which]] = first.needed[which]

    def _second_order(
        self, oracle: StackedOracle, part: Tensor, few: Tensor, first: "_FirstOrder"
    ) -> tuple[Tensor, Findings]:
        """By the whole Hessian of each: which of few first-order optimal points are plain cases, and the answers."""
        here, state, places = oracle.last, self._state, part[few]
        point, gradient, origin = here.point[places], here.gradient[places], state["_origin"][places]
        loss, n, eps = here.loss[places].double().cpu(), here.point.shape[1], torch.finfo(here.point.dtype).eps
        tolerance, resting = first.tolerance[few], first.resting[few]
        box = None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper)
        free = free_unknowns(point, gradient, first.scale[few] * tolerance.to(point).unsqueeze(1), box, None)
        held = ~free.any(1).cpu()
        hessian = oracle.hessian(places)
        assert hessian is not None
        size = sizes(point, origin)
        matrix = size.unsqueeze(1) * torch.stack([hessian(size * row) for row in torch.eye(n).to(size)], dim=1)
        matrix, units = matrix.double().cpu(), size.double().cpu()
        finite = matrix.isfinite().all(-1).all(-1)
        own, values, vectors, noise = spectrum(torch.where(finite[:, None, None], matrix, 0.0), eps)
        flat = flatness(values, n, eps).unsqueeze(1)
        lengths, curved = (vectors / own.unsqueeze(-1)).abs().amax(1), values.abs() > flat
        slopes = (vectors.mT @ (units / own * gradient.double().cpu()).unsqueeze(-1)).squeeze(-1).abs()
        decrease, step = newton_decrease(slopes, values, lengths, curved), newton_step(slopes, values, lengths, flat)
        influence, fallen = influences(gradient, point - origin, hessian), (state["_first"][places] - loss).abs()
        gone = suspects(point, influence, torch.maximum(loss.abs(), fallen).to(point), origin, oracle).any(1).cpu()
        gone |= is_faint_beside(values, eps).any(1)
        plain = (values[:, 0] > flat[:, 0]) & finite & free.all(1).cpu() & ~(first.vanishes[few] | gone)
        smallest = units / own * vectors[:, :, 0]
        faint = (plain & is_faint(values, eps)).nonzero().flatten()
        if len(faint):
            strength = matrix.abs().sum(-1).amax(-1)
            plain[faint] &= ~self._falls(oracle, places[faint], smallest[faint], size[faint], strength[faint])
        settled = is_settled(
            step,
            decrease,
            is_long(step, slopes, noise, curved, eps),
            loss=loss,
            fallen=fallen,
            tolerance=tolerance,
            resting=resting,
            eps=eps,
        )
        noisy = first.relative[few] > tolerance
        rounding = newton_decrease(noise.masked_fill(~curved, 0.0), values, lengths, curved)
        settled |= noisy & (decrease <= rounding)
        length = smallest.square().sum(1)
        evidence = {
            "loss": loss,
            "gradient_norm": here.gradient_norm[places].double().cpu(),
            "relative": first.relative[few],
            "tolerance": tolerance,
            "resting": resting.double(),
            "curvature_min": torch.where(held, math.nan, values[:, 0] / length),
            "newton_decrease": torch.where(held, math.nan, decrease),
            "fall": torch.zeros_like(decrease),
            "fall_length": torch.zeros_like(decrease),
            "num_flat": torch.zeros_like(decrease),
            "curvature": torch.where(held, CURVATURES.index("held"), CURVATURES.index("positive")).double(),
        }
        chosen = held | (plain & settled)
        code = torch.where(noisy, Status.NOISE_FLOOR.code, Status.CONVERGED.code)
        rows = {name: value[chosen] for name, value in evidence.items()}
        return held | plain, Findings(places[chosen], code[chosen], rows)

    def _falls(
        self, oracle: StackedOracle, places: Tensor, direction: Tensor, size: Tensor, strength: Tensor
    ) -> Tensor:
        """Whether the loss is lower on one side of the point along the direction of the smallest curvature, which is
        positive, but faint: as `fall` asks where no direction is flat.
        """
        point, gradient = oracle.last.point[places], oracle.last.gradient[places]
        eps, loss = torch.finfo(point.dtype).eps, oracle.last.loss[places].double().cpu()
        direction = direction.to(point) / direction.to(point).norm(dim=1, keepdim=True)
        way = (direction.abs() * ways(point, self._state["_origin"][places])).sum(1, keepdim=True) * direction
        found, unsure = torch.zeros(len(places), dtype=torch.bool), torch.arange(len(places))
        for part in (eps**0.25, eps**REACH):
            hidden = torch.zeros(len(unsure), dtype=torch.bool)
            at, here = point[unsure], loss[unsure]
            for sign in (part, -part):
                step = oracle.inside(at + sign * way[unsure]) - at
                beside = oracle.probe(places[unsure], at + step).double().cpu()
                slope = (gradient[unsure] * step).sum(1).double().cpu()
                astray = point.shape[1] * strength[unsure] * (step / size[unsure]).square().sum(1).double().cpu()
                found[unsure] |= is_lower(beside, here, slope, astray, eps)
                hidden |= ~is_lower(here, beside, slope, astray, eps)
            unsure = unsure[hidden & ~found[unsure]]
            if not len(unsure):
                break
        return found

    def _alone(self, oracle: StackedOracle, step: int, place: int, *, resting: bool) -> Finding | None:
        """The test of one start, and what it remembers."""
        points, state, here = StationaryPoints(self._tolerance), self._state, oracle.last
        values: dict[str, Any] = {name: value[place] for name, value in state.items()}
        points.load_state_dict({name: value if value.dim() else value.item() for name, value in values.items()})
        with oracle.alone(place) as one:
            finding = points.judge(here.of(place), one, step, resting=resting)
        after = points.state_dict()
        state["needed"][place], state["_largest"][place] = after["needed"], after["_largest"]
        return finding


class _FirstOrder(NamedTuple):
    """What the first-order test says of some starts: tensors by start, in the order of their places."""

    scale: Tensor
    largest: Tensor
    vanishes: Tensor
    finite: Tensor
    optimal: Tensor
    relative: Tensor
    tolerance: Tensor
    resting: Tensor
    needed: Tensor


def _as_row(place: int, finding: Finding) -> Findings:
    def number(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    evidence = {name: number(finding.evidence.get(name, math.nan)) for name in EVIDENCE}
    evidence["num_flat"] = number(finding.evidence.get("num_flat", 0))
    evidence["curvature"] = number(CURVATURES.index(finding.evidence["curvature"]))
    return Findings(torch.tensor([place]), torch.tensor([finding.status.code]), evidence)
