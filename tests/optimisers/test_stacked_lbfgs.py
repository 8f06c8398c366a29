"""The parts of L-BFGS for many starts, each beside the same part of one."""

import math

import pytest
import torch

from gradopt.contracts import Evaluation
from gradopt.optimisers.line_search import LineSearch
from gradopt.optimisers.loss_unit import LossUnit
from gradopt.optimisers.memory import Memory
from gradopt.optimisers.stacked.line_search import BAD, StackedLineSearch
from gradopt.optimisers.stacked.loss_unit import StackedLossUnit
from gradopt.optimisers.stacked.memory import StackedMemory
from gradopt.stacked import Evaluations


def lines(number):
    """Losses along a line: polynomials, some with noise, some with an edge beyond which they are NaN, inf or -inf."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(number, 6, dtype=torch.float64, generator=generator).tolist()
    kinds = torch.randint(0, 7, (number,), generator=generator).tolist()

    def along(kind, row):
        slope, curvature, quartic, noise, edge, height = row
        edge = max(0.0, 3 * edge - 0.5)  # of some right at the start
        level = {5: 1e8}.get(kind, 0.0) + height

        def at(step):
            loss = level - slope * step + (curvature - 0.3) * step**2 + 0.1 * quartic * step**4
            rate = -slope + 2 * (curvature - 0.3) * step + 0.4 * quartic * step**3
            if kind == 5:
                loss += 1e-7 * noise * math.sin(1e5 * step)
            if kind in (1, 2, 3) and step > edge:
                loss = {1: math.nan, 2: math.inf, 3: -math.inf}[kind]
            if kind == 6:  # the slope is wrong
                loss = level + slope * step
            if kind == 4:  # falls for ever
                loss, rate = level - slope * step, -slope
            return loss, rate

        return at, (at(0.0)[0], min(at(0.0)[1], -1e-9)), level

    return [along(kind, row) for kind, row in zip(kinds, numbers, strict=True)]


def test_searches_make_the_same_trials_as_one():
    many = lines(300)
    singles = [LineSearch(loss, slope, 1.0, 1e-13 * abs(loss)) for _, (loss, slope), _ in many]
    loss, slope = torch.tensor([start for _, start, _ in many], dtype=torch.float64).T
    stacked = StackedLineSearch(len(many))
    places = torch.arange(len(many))
    stacked.begin(places, loss, slope, torch.ones_like(loss), 1e-13 * loss.abs(), loss)
    ended, trials = 0, 0
    while len(places):
        expected_steps = torch.tensor([singles[place].step for place in places], dtype=torch.float64)
        steps = stacked.of("step", places)
        assert torch.allclose(steps, expected_steps, rtol=1e-9)
        seen = [many[place][0](singles[place].step) for place in places.tolist()]
        losses, slopes = torch.tensor(seen, dtype=torch.float64).T
        accepted = stacked.accepts(places, losses, slopes)
        expected = [singles[place].accepts(*one) for place, one in zip(places.tolist(), seen, strict=True)]
        assert accepted.tolist() == expected
        places = places[~accepted]
        found = stacked.advance(places)
        assert found.tolist() == [singles[place].advance() for place in places.tolist()]
        failed = places[~found].tolist()
        assert [int(code) for code in stacked.walls(places[~found])] == [wall(singles[place]) for place in failed]
        ended, trials = ended + len(failed), trials + 1
        places = places[found]

    assert trials > 5 and ended > 20


def wall(search):
    """The code of a search that has failed."""
    if search.not_finite is None or not search.is_walled_in:
        return 0
    return 1 + [math.isnan(bad) for bad in BAD].index(math.isnan(search.not_finite))


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_memories_give_the_same_directions_as_one(held):
    number, n, limit = 7, 5, 4
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    root = normal(number, n, n)
    hessian = root @ root.mT + 0.1 * torch.eye(n)
    singles = [Memory(limit) for _ in range(number)]
    many = StackedMemory(limit, torch.zeros(number, n, dtype=torch.float64))
    for turn in range(11):
        step = normal(number, n)
        change = (hessian @ step.unsqueeze(2)).squeeze(2)
        change[turn % number] *= -1  # without curvature: left out
        if turn == 6:
            for place in (1, 4):
                singles[place].clear()
            many.clear(torch.tensor([1, 4]))
        moved = torch.ones(number, dtype=torch.bool)
        moved[3] = turn < 5  # it has ended
        many.add(step, change, moved)
        gradient, free = normal(number, n), torch.rand(number, n, generator=generator) > 0.3
        gradient = gradient * free if held else gradient
        found = many.inverse(gradient, free if held else None)
        for place, single in enumerate(singles):
            if not moved[place]:
                continue
            single.add(step[place], change[place])
            expected = single.inverse(gradient[place], free[place] if held else None)
            assert int(many.size[place]) == single.size
            assert torch.allclose(found[place], expected, rtol=1e-8, atol=1e-10)

    many.keep(torch.tensor([0, 4, 6]))
    again = many.inverse(gradient[[0, 4, 6]], free[[0, 4, 6]] if held else None)
    assert torch.allclose(again, found[[0, 4, 6]], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_units_are_those_of_one(dtype):
    scales = torch.tensor([1.0, 1e-30, 1e30, 0.0, math.nan, 1e-38, 1e10], dtype=dtype)
    gradient = scales.unsqueeze(1) * torch.tensor([[1.0, -2.0]], dtype=dtype)
    loss = torch.tensor([3.0, 1e-28, 1e33, 1.0, 1.0, 1e-3, 0.0], dtype=dtype)
    places = torch.arange(len(scales))
    stacked = StackedLossUnit(gradient)

    found = stacked.of(Evaluations(loss, scales, gradient, gradient), places)
    later = stacked.of(Evaluations(loss[3:5], scales[:2], gradient[:2], gradient[[0, 1]]), places[3:5])

    for place in places.tolist():
        one = LossUnit().of(Evaluation(loss[place].item(), 0.0, gradient[place], gradient[place]))
        assert found[0][place].item() == one.loss
        assert torch.equal(found[1][place].nan_to_num(7.0), one.gradient.nan_to_num(7.0))
    assert later[0].tolist() == [LossUnit().of(Evaluation(1.0, 0.0, g, g)).loss for g in gradient[:2]]
