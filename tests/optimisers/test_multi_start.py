"""Global search: it finds known minima, keeps its budget, repeats itself to the bit, and says what it found."""

import math
import sys
from pathlib import Path

import pytest
import torch
from landscapes import CASES, WELL, bowl, rastrigin, start, wells

import gradopt
from gradopt import Status
from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective
from gradopt.optimisers.basins import Basins
from gradopt.optimisers.proposals import Hops, Sample

sys.path.insert(0, str(Path(__file__).parent.parent))


def search(function, x0, bounds=(-2.0, 2.0), stop=None, **options):
    return gradopt.minimise(
        function, x0, bounds=bounds, optimiser="multi_start", optimiser_options=options, stop=stop
    )  # fmt: skip


@pytest.mark.parametrize(("function", "n", "bounds", "minimum"), CASES, ids=[case[0].__name__ for case in CASES])
def test_the_lowest_of_many_minima_is_found(function, n, bounds, minimum):
    stop = gradopt.Stop(target=minimum + 1e-7, max_evaluations=4000)

    result = search(function, start(n, bounds), bounds, stop)

    assert result.status is Status.TARGET_REACHED, result
    assert result.fun == pytest.approx(minimum, rel=0, abs=2e-7)


@pytest.mark.parametrize("seed", range(3))
def test_float32_finds_the_lowest_too(seed):
    result = search(
        rastrigin, start(3, (-5.12, 5.0), seed, torch.float32), (-5.12, 5.0), seed=seed, max_evaluations=1500
    )

    assert result.success, result
    assert result.x.dtype == torch.float32
    torch.testing.assert_close(result.x, torch.zeros(3), rtol=0, atol=1e-3)


def test_a_start_in_a_local_minimum_is_not_the_end():
    local = gradopt.minimise(wells, [0.9, 0.9], bounds=(-2, 2)).x

    result = search(wells, local, max_evaluations=300)

    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, torch.full((2,), WELL, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_minima_are_listed_with_their_visits():
    start = torch.tensor([0.9, 0.9], dtype=torch.float64)
    result = search(wells, start, unseen=0.01)

    assert result.status is Status.CONVERGED
    losses = [one["fun"] for one in result.minima]
    assert len(result.minima) == 4
    assert losses == sorted(losses)
    assert losses[0] == result.fun
    assert torch.equal(result.minima[0]["x"], result.x)
    assert all(one["visits"] >= 3 for one in result.minima)
    assert all(one["x0"].shape == (one["visits"], 2) for one in result.minima)
    assert torch.equal(next(one["x0"][0] for one in result.minima if one["x"].sign().tolist() == [1, 1]), start)
    assert {tuple(one["x"].sign().tolist()) for one in result.minima} == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


def test_a_convex_loss_ends_the_search_early():
    result = search(bowl, [1.9, -1.9])

    assert result.status is Status.CONVERGED
    assert result.nfev < 800
    assert len(result.minima) == 1
    assert result.minima[0]["visits"] > 46  # w = 1: 2 / (N (N - 1)) <= 1e-3


def test_a_higher_tolerance_for_the_unseen_ends_earlier():
    assert search(bowl, [1.9, -1.9], unseen=0.05).nfev < search(bowl, [1.9, -1.9]).nfev / 3


def test_most_of_the_budget_is_used_and_the_end_is_polished():
    result = search(rastrigin, start(5, (-5.12, 5.0)), (-5.12, 5.0), gradopt.Stop(max_evaluations=500))

    assert 475 <= result.nfev <= 500
    assert result.status is Status.CONVERGED


def test_steps_never_climb_and_come_often_enough_to_stop_the_run():
    seen = []

    result = gradopt.minimise(
        rastrigin, start(4, (-5.12, 5.0)), bounds=(-5.12, 5.0), optimiser="multi_start",
        optimiser_options={"max_evaluations": 800},
        callback=lambda block: seen.append(block["evaluations"][-1, 0].item()),
    )  # fmt: skip

    losses, evaluations = result.history["loss"], result.history["evaluations"]
    assert bool((losses.diff() <= 0).all())
    assert evaluations.diff().max() < 200
    assert len(seen) > 5


def test_a_saved_state_does_not_alias_the_live_one():
    target = FunctionObjective(rastrigin, start(3, (-5.12, 5.0)), (-5.12, 5.0))
    assembly = assemble(target, "multi_start", {"max_evaluations": 700})
    run = iterate(assembly.engine, assembly.criteria, max_rows=1)
    for _ in range(20):
        next(run)
    state = assembly.engine.optimiser.state_dict()
    used, minima = state["sample"]["tensors"][2].clone(), [one["visits"] for one in state["basins"]["list"]]

    list(run)

    assert torch.equal(state["sample"]["tensors"][2], used)
    assert [one["visits"] for one in state["basins"]["list"]] == minima


def test_bounds_hold_at_every_evaluation_and_a_fixed_unknown_stays():
    lower, upper = torch.tensor([-2.0, 0.7, -1.0]), torch.tensor([2.0, 0.7, 2.0])
    seen = []

    def watched(x):
        seen.append(x.detach().clone())
        return wells(x)

    result = search(watched, torch.tensor([1.0, 0.7, 1.0]), (lower, upper), max_evaluations=400)

    points = torch.stack(seen)
    assert bool(((points >= lower) & (points <= upper)).all())
    torch.testing.assert_close(result.x, torch.tensor([WELL, 0.7, -1.0]), rtol=0, atol=1e-3)


def test_regions_without_a_value_are_left_out():
    def walled(x):
        return wells(x) + 0 * torch.log(x[0] + 1.5)  # NaN left of -1.5

    result = search(walled, [0.9, 0.9], max_evaluations=500)

    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, torch.full((2,), WELL, dtype=torch.float64), rtol=0, atol=1e-6)
    assert all(math.isfinite(one["fun"]) for one in result.minima)


@pytest.mark.parametrize("name", ["multi_start", "tiktak"])
def test_a_constant_has_no_thousand_minima(name):
    result = gradopt.minimise(
        lambda x: 0 * x.sum() + 2.0,
        [0.0, 0.0],
        bounds=(-1.0, 1.0),
        optimiser=name,
        stop=gradopt.Stop(max_evaluations=500),
    )

    assert not result.success
    assert len(result.minima) == 1


def test_the_expected_unseen_part_is_the_formula_of_the_paper():
    basins = Basins(torch.ones(2, dtype=torch.float64))
    ends = torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.1, 0.1001], [0.1, 0.1]], dtype=torch.float64)
    for index, end in enumerate(ends):
        basins.add(end, float(index), end + 0.1, drawn=True)
    end = torch.tensor([0.9, 0.9], dtype=torch.float64)
    basins.add(end, -1.0, end + 0.1, drawn=False)

    assert [basin.visits for basin in basins] == [1, 3, 1]
    assert basins.unseen() == pytest.approx(2 * 3 / (4 * 3))  # w = 2 of N = 4; a hop says nothing of the box


def test_starts_are_the_best_of_the_sample_and_apart_from_better_ones():
    sample, generator = Sample(2, seed=0), torch.Generator().manual_seed(0)
    for _ in range(200):
        point = sample.draw(generator)
        sample.add(point, float((point - 0.3).square().sum()))

    starts = []
    while (found := sample.start()) is not None:
        starts.append(found)

    assert len(starts) == 1  # one valley: every other point has a better one near it
    assert (starts[0] - 0.3).norm() < 0.1


def test_hops_stay_in_the_unit_box_and_move_few_unknowns_as_well_as_all():
    generator, hops = torch.Generator().manual_seed(0), Hops()
    base, other = torch.full((8,), 0.02, dtype=torch.float64), torch.full((8,), 0.9, dtype=torch.float64)

    points = torch.stack([hops.propose(base, other, generator) for _ in range(500)])

    numbers = (points != base).sum(1)
    assert bool(((points >= 0) & (points <= 1)).all())
    assert set(range(1, 9)) <= set(numbers.tolist())
    assert int((numbers == 1).sum()) > 100


def test_an_unknown_inner_optimiser_is_named():
    with pytest.raises(gradopt.Mistake, match="Did you mean 'lbfgs'"):
        search(wells, [0.9, 0.9], inner="lbfg")
