"""Global search: it finds known minima, keeps its budget, repeats itself to the bit, and says what it found."""

import json
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
import installed


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


@pytest.mark.parametrize("inner", ["lbfgs", "trust_region", "levenberg_marquardt"])
def test_every_inner_optimiser_serves(inner):
    result = gradopt.least_squares(
        lambda x: torch.cat([x**2 - 1, 0.3 * (x + 1)]),
        [0.9, 0.8],
        bounds=(-2, 2),
        optimiser="multi_start",
        optimiser_options={"inner": inner, "max_evaluations": 400},
    )

    assert result.status is Status.CONVERGED, result
    torch.testing.assert_close(result.x, torch.tensor([-1.0, -1.0], dtype=torch.float64), rtol=0, atol=1e-6)


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


def test_maxima_are_listed_with_their_values():
    result = gradopt.minimise(
        lambda x: -wells(x), [0.9, 0.9], bounds=(-2, 2), optimiser="multi_start", maximise=True,
        optimiser_options={"max_evaluations": 500},
    )  # fmt: skip

    assert result.fun == pytest.approx(0.2012347533)
    assert result.minima[0]["fun"] == result.fun


def test_a_convex_loss_ends_the_search_early():
    result = search(bowl, [1.9, -1.9])

    assert result.status is Status.CONVERGED
    assert result.nfev < 800
    assert len(result.minima) == 1
    assert result.minima[0]["visits"] > 46  # w = 1: 2 / (N (N - 1)) <= 1e-3


def test_a_higher_tolerance_for_the_unseen_ends_earlier():
    assert search(bowl, [1.9, -1.9], unseen=0.05).nfev < search(bowl, [1.9, -1.9]).nfev / 3


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 57, 300, 1001])
def test_a_budget_of_evaluations_is_kept_exactly(limit):
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return rastrigin(x)

    x0 = start(3, (-5.12, 5.0))
    result = search(counted, x0, (-5.12, 5.0), gradopt.Stop(max_evaluations=limit))

    assert result.nfev <= limit
    assert result.status is Status.MAX_EVALUATIONS or result.success
    assert result.fun <= rastrigin(x0)
    assert calls >= result.nfev


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


def test_a_target_ends_the_search():
    result = search(rastrigin, start(3, (-5.12, 5.0)), (-5.12, 5.0), gradopt.Stop(target=5.0))

    assert result.status is Status.TARGET_REACHED
    assert result.fun <= 5.0
    assert result.nfev < 1000


def test_the_same_seed_is_the_same_run_whatever_the_global_random_state():
    runs = []
    for other in (1, 2):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        runs.append(search(rastrigin, start(3, (-5.12, 5.0)), (-5.12, 5.0), seed=7, max_evaluations=600))
        assert torch.equal(torch.get_rng_state(), before)
    another = search(rastrigin, start(3, (-5.12, 5.0)), (-5.12, 5.0), seed=8, max_evaluations=600)

    assert torch.equal(runs[0].history["loss"], runs[1].history["loss"])
    assert torch.equal(runs[0].history["evaluations"], runs[1].history["evaluations"])
    assert not torch.equal(runs[0].history["evaluations"], another.history["evaluations"])


@pytest.mark.parametrize(
    ("inner", "cut"), [("lbfgs", 0), ("lbfgs", 2), ("lbfgs", 9), ("lbfgs", 15), ("trust_region", 9)]
)
def test_a_run_that_was_saved_and_loaded_goes_on_to_the_last_bit(inner, cut, tmp_path):
    def build():
        target = FunctionObjective(rastrigin, start(3, (-5.12, 5.0)), (-5.12, 5.0))
        return assemble(target, "multi_start", {"inner": inner, "max_evaluations": 450})

    def walk(assembly, last=10**9):
        rows = []
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
            rows.append(torch.cat([assembly.oracle.read(), block["evaluations"][-1]]))
            if block.last_step == last:
                assembly.engine.update()
                return rows
        return rows

    reference = build()
    whole = walk(reference)
    first = build()
    head = walk(first, last=cut)
    torch.save([first.engine.state_dict(), [c.state_dict() for c in first.criteria]], tmp_path / "state.pt")
    walk(first)  # what was saved does not change with the run it came from
    second = build()

    engine, criteria = torch.load(tmp_path / "state.pt", weights_only=True)
    second.engine.load_state_dict(engine)
    for criterion, state in zip(second.criteria, criteria, strict=True):
        criterion.load_state_dict(state)
    tail = walk(second)

    assert len(whole) > cut + 1
    assert torch.equal(torch.stack(head + tail), torch.stack(whole))
    for one, other in zip(second.engine.optimiser.minima, reference.engine.optimiser.minima, strict=True):
        assert torch.equal(one.point, other.point)
        assert one.visits == other.visits


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


@pytest.mark.parametrize("bounds", [None, ([-1.0, None], 2.0)], ids=str)
def test_a_box_that_is_open_is_refused_in_one_line(bounds):
    with pytest.raises(gradopt.Mistake, match=r"of 2 unknowns have no finite bounds.*optimiser\.radius") as caught:
        gradopt.minimise(wells, [0.9, 0.9], bounds=bounds, optimiser="multi_start")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bounds", [None, ([-1.5, None], 2.0)], ids=str)
def test_a_radius_closes_the_box_round_the_start(bounds):
    result = search(wells, [0.9, 0.9], bounds, radius=2.5, max_evaluations=500)

    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, torch.full((2,), WELL, dtype=torch.float64), rtol=0, atol=1e-6)


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


def test_a_plain_is_no_success():
    result = search(lambda x: 0 * x.sum() + 3, [0.9, 0.9], max_evaluations=300)

    assert result.status is Status.STALLED


def test_the_expected_unseen_part_is_the_formula_of_the_paper():
    basins = Basins(torch.ones(2, dtype=torch.float64))
    ends = torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.1, 0.1001], [0.1, 0.1]], dtype=torch.float64)
    for index, end in enumerate(ends):
        basins.add(end, float(index), end, drawn=True)
    end = torch.tensor([0.9, 0.9], dtype=torch.float64)
    basins.add(end, -1.0, end, drawn=False)

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


def test_it_is_there_on_the_command_line(tmp_path):
    done = installed.gradopt(
        "objective=polynomial", "optimiser=multi_start", "optimiser.inner=lbfgs", "optimiser.unseen=0.02", cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("result.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["fun"] == -32
    assert content["minima"][0] == {"x": {"x": -2.0}, "fun": -32.0, "visits": content["minima"][0]["visits"]}


def test_an_unknown_inner_optimiser_is_named():
    with pytest.raises(gradopt.Mistake, match="Did you mean 'lbfgs'"):
        search(wells, [0.9, 0.9], inner="lbfg")
