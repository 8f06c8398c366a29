"""Local searches that go on together: each ends where, and after as many evaluations as, it would alone."""

import math

import pytest
import torch
from landscapes import levy, rastrigin, wells

from gradopt.contracts import Stuck
from gradopt.objectives.function import FunctionObjective
from gradopt.optimisers.descent import INNER, Descent
from gradopt.optimisers.searches import Searches
from gradopt.oracle import AutogradOracle

EPS = torch.finfo(torch.float64).eps


def points(number, n, bounds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(number, n, generator=generator, dtype=torch.float64)


def alone(function, x0, bounds, inner, span):
    """The end of one search by the optimiser of one start, and its evaluations."""
    oracle = AutogradOracle(FunctionObjective(function, x0, bounds))
    optimiser, descent = INNER[inner](oracle.parameters), Descent("drawn", -math.inf)
    before = None
    while True:
        here = oracle.evaluate()
        if optimiser.accepts(here, oracle):
            moved = math.nan if before is None else ((here.point - before.point).abs() / span).max().item()
            before = here
            descent.record(here.loss, here.gradient_norm, moved, EPS)
            if descent.arrived or descent.hopeless:
                break
        try:
            optimiser.update(here, oracle)
        except Stuck:
            break
        oracle.project()
    return before, oracle.num_losses


@pytest.mark.parametrize("inner", ["lbfgs", "trust_region"])
@pytest.mark.parametrize(
    ("function", "n", "bounds"), [(rastrigin, 3, (-5.12, 5.0)), (levy, 4, (-10.0, 10.0)), (wells, 2, (-2.0, 2.0))]
)
def test_each_search_ends_as_it_would_alone(function, n, bounds, inner):
    starts, span = points(12, n, bounds), torch.full((n,), bounds[1] - bounds[0], dtype=torch.float64)
    oracle = AutogradOracle(FunctionObjective(function, starts[0], bounds))

    searches, ends = Searches(oracle, starts, INNER[inner], span, -math.inf), []
    while len(searches):
        ends += searches.step(math.inf)

    singles = [alone(function, x0, bounds, inner, span) for x0 in starts]
    assert len(ends) == len(starts)
    assert oracle.num_losses == sum(count for _, count in singles)
    left = [end for end, _ in singles]
    for point, loss, _ in ends:
        near = min(left, key=lambda end: (end.point - point).abs().max().item())
        torch.testing.assert_close(point, near.point, rtol=0, atol=1e-6)
        assert loss == pytest.approx(near.loss, rel=1e-9, abs=1e-12)
        left.remove(near)


def test_evaluations_go_to_the_run_and_its_best_is_theirs():
    starts = points(8, 2, (-2.0, 2.0))
    oracle = AutogradOracle(FunctionObjective(wells, starts[0], (-2.0, 2.0)))
    searches = Searches(oracle, starts, INNER["lbfgs"], torch.full((2,), 4.0, dtype=torch.float64), -math.inf)

    assert searches.step(math.inf) == []

    assert (oracle.num_losses, oracle.num_gradients) == (8, 8)
    assert oracle.best.loss == pytest.approx(min(wells(x0).item() for x0 in starts))
    torch.testing.assert_close(wells(oracle.best.point), torch.tensor(oracle.best.loss, dtype=torch.float64))


@pytest.mark.parametrize("limit", [7, 8, 15, 16, 17, 40])
def test_no_evaluation_is_made_that_the_run_has_not_left(limit):
    starts = points(8, 2, (-2.0, 2.0))
    oracle = AutogradOracle(FunctionObjective(wells, starts[0], (-2.0, 2.0)))
    searches = Searches(oracle, starts, INNER["lbfgs"], torch.full((2,), 4.0, dtype=torch.float64), -math.inf)

    while searches.step(limit) is not None:
        assert oracle.num_losses <= limit

    assert limit - 8 < oracle.num_losses <= limit


def test_a_search_that_turns_nan_is_lost_and_harms_no_other():
    def walled(x):
        return wells(x) + 0 * torch.log(x[0] + 1.5)

    starts = torch.tensor([[-1.8, 1.0], [-0.8, 0.7], [0.8, -0.7]], dtype=torch.float64)
    oracle = AutogradOracle(FunctionObjective(walled, starts[1], (-2.0, 2.0)))
    searches = Searches(oracle, starts, INNER["lbfgs"], torch.full((2,), 4.0, dtype=torch.float64), -math.inf)

    ends = searches.step(math.inf)
    assert (ends, len(searches)) == ([], 2)
    while len(searches):
        ends += searches.step(math.inf)

    assert {tuple(begin.tolist()) for *_, begin in ends} == {tuple(start.tolist()) for start in starts[1:]}
    assert sorted(tuple(point.sign().tolist()) for point, *_ in ends) == [(-1, 1), (1, -1)]


def test_one_that_takes_too_long_is_given_up_unless_it_is_the_lowest():
    def creep(x):  # L-BFGS follows this valley for hundreds of evaluations
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum() * 1e3

    starts = points(3, 60, (-2.0, 2.0))
    ended = {}
    for goal in (-1.0, math.inf):
        oracle = AutogradOracle(FunctionObjective(creep, starts[0], (-2.0, 2.0)))
        searches = Searches(oracle, starts, INNER["lbfgs"], torch.full((60,), 4.0, dtype=torch.float64), goal)
        searches._patience = 50
        found = []
        while len(searches):
            found += searches.step(math.inf)
        ended[goal] = len(found), oracle.num_losses

    assert ended[-1.0][0] == 0
    assert ended[-1.0][1] <= 3 * 75
    assert ended[math.inf][0] == 3
