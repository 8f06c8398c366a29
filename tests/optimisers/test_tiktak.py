"""TikTak: it finds known minima, by the schedule and the stop of its papers, and keeps to the laws of any run."""

import math
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from landscapes import CASES, WELL, bowl, rastrigin, start, wells

import gradopt
from gradopt import Status
from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective
from gradopt.optimisers.tiktak import weight
from gradopt.oracle import AutogradOracle

sys.path.insert(0, str(Path(__file__).parent.parent))

BOX = (-5.12, 5.0)


def search(function, x0, bounds=(-2.0, 2.0), stop=None, **options):
    return gradopt.minimise(function, x0, bounds=bounds, optimiser="tiktak", optimiser_options=options, stop=stop)


SOLVED = [case for case in CASES if case[0].__name__ not in ("griewank", "needle")]
"""The others are narrow in a wide box: more samples find them, and take long."""


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("function", "n", "bounds", "minimum"), SOLVED, ids=[case[0].__name__ for case in SOLVED])
def test_the_lowest_of_many_minima_is_found(function, n, bounds, minimum, seed):
    result = search(function, start(n, bounds, seed), bounds, seed=seed)

    assert result.status is Status.CONVERGED, result
    assert result.fun == pytest.approx(minimum, rel=0, abs=1e-6)
    assert result.minima[0]["fun"] == pytest.approx(result.fun, rel=0, abs=1e-12)


def test_float32_finds_the_lowest_too():
    result = search(rastrigin, start(3, BOX, 0, torch.float32), BOX)

    assert result.success, result
    assert result.x.dtype == torch.float32
    torch.testing.assert_close(result.x, torch.zeros(3), rtol=0, atol=1e-3)


def test_hessian_products_of_the_searches_are_counted():
    single = gradopt.minimise(wells, [-0.9, -0.9], bounds=(-2, 2), optimiser="trust_region")

    result = search(wells, [0.9, 0.9], inner="trust_region", max_evaluations=2000)

    assert result.nhev > 5 * single.nhev


def test_the_weight_of_the_best_point_grows_as_in_the_paper():
    assert [weight(index, 400) for index in (1, 4, 100, 225, 400)] == [0.1, 0.1, 0.5, 0.75, 0.995]
    weights = [weight(index, 37) for index in range(1, 38)]
    assert weights == sorted(weights)


def test_starts_are_the_best_of_the_sample_mixed_with_the_best_point():
    target = FunctionObjective(rastrigin, start(3, BOX), BOX)
    assembly = assemble(target, "tiktak", {"samples": 200, "searches": 20, "batch": 5, "discoveries": 1000})
    optimiser, batches, lowest = assembly.engine.optimiser, [], []
    make = optimiser._search

    def watched(oracle, starts, goal):
        batches.append(starts)
        lowest.append(oracle.best.point)
        return make(oracle, starts, goal)

    optimiser._search = watched
    list(iterate(assembly.engine, assembly.criteria))

    sample = optimiser._sample
    losses = torch.stack([rastrigin(point) for point in sample])
    assert sample.shape == (20, 3)
    assert bool((losses.diff() >= 0).all())
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert torch.equal(batches[0][0], sample[0])  # the best of the sample mixed with itself
    for number, (batch, best) in enumerate(zip(batches, lowest, strict=True)):
        for place, point in enumerate(batch):
            index = 5 * number + place
            theta = min(max(0.1, math.sqrt((index + 1) / 20)), 0.995)
            torch.testing.assert_close(point, theta * best + (1 - theta) * sample[index], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("discoveries", "batch"), [(1, 1), (3, 1), (4, 4), (7, 3)])
def test_the_search_ends_when_the_best_has_been_rediscovered(discoveries, batch):
    result = search(bowl, [1.9, -1.9], samples=200, searches=40, discoveries=discoveries, batch=batch)

    assert result.status is Status.CONVERGED
    assert len(result.minima) == 1
    assert result.minima[0]["visits"] == batch * math.ceil(discoveries / batch)


def test_without_rediscovery_it_ends_with_the_last_search():
    result = search(wells, [0.9, 0.9], samples=100, searches=12, batch=5, discoveries=10**6)

    assert result.status is Status.CONVERGED
    assert sum(one["visits"] for one in result.minima) == 12
    begins = torch.cat([one["x0"] for one in result.minima])
    assert begins.shape == (12, 2) and len(begins.unique(dim=0)) == 12 and bool((begins.abs() <= 2).all())


def test_the_minima_are_listed_with_their_visits():
    result = search(wells, [0.9, 0.9])

    losses = [one["fun"] for one in result.minima]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(result.fun, rel=1e-12)
    torch.testing.assert_close(result.minima[0]["x"], result.x, rtol=0, atol=1e-6)
    assert result.minima[0]["visits"] >= 10
    assert len(result.minima) > 1
    torch.testing.assert_close(result.x, torch.full((2,), WELL, dtype=torch.float64), rtol=0, atol=1e-6)


def test_every_evaluation_is_counted():
    class Counted(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor([0.9, 0.9], dtype=torch.float64))
            self.points = 0

        def bounds(self):
            return {"x": (-2.0, 2.0)}

        def forward(self, batch=None):
            return wells(self.x)

        def losses(self, parameters):
            self.points += len(parameters["x"])
            return torch.func.vmap(wells)(parameters["x"])

    for steps, programs in ((1, 1), (2, 2)):  # the sample, and a first batch
        objective = Counted()
        options = {"samples": 200, "searches": 60, "batch": 60, "discoveries": 10**6}
        result = gradopt.minimise(
            objective, optimiser="tiktak", optimiser_options=options, stop=gradopt.Stop(max_steps=steps)
        )

        assert result.status is Status.MAX_STEPS
        assert objective.points - 2 * programs == result.nfev - (steps + 1)  # two of each are compared with single ones
        assert result.njev == result.nfev


def test_the_budget_leaves_room_to_polish_the_best():
    result = search(rastrigin, start(5, BOX), BOX, gradopt.Stop(max_evaluations=800), discoveries=10**6)

    assert result.nfev <= 800
    assert result.status is Status.CONVERGED


def test_steps_never_climb_and_come_often_enough_to_stop_the_run():
    result = search(rastrigin, start(4, BOX), BOX, samples=200, discoveries=10**6)

    losses, evaluations = result.history["loss"], result.history["evaluations"]
    assert bool((losses.diff() <= 1e-12 * losses[0].abs()).all())
    assert evaluations.diff().max() < 300  # the sample, or a pulse and a step of the batch
    assert len(losses) > 5


def test_the_clock_ends_it_and_the_best_of_what_was_evaluated_is_kept():
    lowest = []

    class Slow(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(start(3, BOX))

        def bounds(self):
            return {"x": BOX}

        def forward(self, batch=None):
            return rastrigin(self.x)

        def losses(self, parameters):
            losses = torch.func.vmap(rastrigin)(parameters["x"])
            if len(losses) > 2:
                time.sleep(0.25)
                lowest.append(losses.min().item())
            return losses

    began = time.perf_counter()
    result = gradopt.minimise(Slow(), optimiser="tiktak", stop=gradopt.Stop(max_seconds=0.2))

    assert result.status is Status.MAX_SECONDS
    assert time.perf_counter() - began < 5
    assert len(lowest) == 1  # the sample came late, and is not lost
    assert result.fun == pytest.approx(lowest[0], rel=1e-12)
    assert result.nfev == 2000


def test_an_interrupt_ends_the_search_at_the_best_point():
    def interrupt(block):
        if block.last_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    x0 = start(4, BOX)
    result = gradopt.minimise(
        rastrigin, x0, bounds=BOX, optimiser="tiktak", optimiser_options={"discoveries": 10**6}, callback=interrupt
    )

    assert result.status is Status.INTERRUPTED
    assert result.fun < rastrigin(x0)
    assert result.fun == pytest.approx(rastrigin(result.x).item(), rel=1e-12)
    assert result.nit <= 5


def test_a_loss_that_branches_on_values_is_refused_in_one_line():
    def branching(x):
        return wells(x) if x[0] > 0 else wells(x) + 1

    with pytest.raises(gradopt.Mistake, match=r"^tiktak evaluates many points at once.*multi_start") as caught:
        search(branching, [0.9, 0.9])

    assert "\n" not in str(caught.value)


def test_constraints_are_refused():
    with pytest.raises(gradopt.Mistake, match="tiktak keeps no constraints"):
        gradopt.minimise(
            wells, [0.9, 0.9], bounds=(-2, 2), optimiser="tiktak",
            constraints=[gradopt.Constraint(lambda x: x.sum(), lower=0.0)],
        )  # fmt: skip


def test_bounds_hold_at_every_evaluation_and_a_fixed_unknown_stays():
    lower, upper = torch.tensor([-2.0, 0.7, -1.0]), torch.tensor([2.0, 0.7, 2.0])

    class Watched(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.x = torch.nn.Parameter(torch.tensor([1.0, 0.7, 1.0]))
            self.seen = []

        def bounds(self):
            return {"x": (lower, upper)}

        def forward(self, batch=None):
            self.seen.append(self.x.detach().clone().unsqueeze(0))
            return wells(self.x)

        def losses(self, parameters):
            self.seen.append(parameters["x"].detach().clone())
            return torch.func.vmap(wells)(parameters["x"])

    objective = Watched()
    result = gradopt.minimise(objective, optimiser="tiktak")

    points = torch.cat(objective.seen)
    assert len(points) > 1000
    assert bool(((points >= lower) & (points <= upper)).all())
    torch.testing.assert_close(result.x, torch.tensor([WELL, 0.7, -1.0]), rtol=0, atol=1e-3)


def test_regions_without_a_value_are_ranked_last():
    def walled(x):
        return wells(x) + 0 * torch.log(x[0] + 1.5)  # NaN left of -1.5

    result = search(walled, [0.9, 0.9], samples=40, searches=40)

    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, torch.full((2,), WELL, dtype=torch.float64), rtol=0, atol=1e-6)
    assert all(math.isfinite(one["fun"]) for one in result.minima)
    assert sum(one["visits"] for one in result.minima) <= 36  # there are no starts where there is no loss


def test_unknowns_of_several_tensors_keep_their_form():
    x0 = {"a": torch.tensor([0.9], dtype=torch.float64), "b": torch.tensor([[0.8]], dtype=torch.float64)}

    result = gradopt.minimise(
        lambda x: wells(torch.cat([x["a"], x["b"][0]])), x0, bounds={"a": (-2, 2), "b": (-2, 2)}, optimiser="tiktak"
    )

    assert result.status is Status.CONVERGED
    assert result.x["b"].shape == (1, 1)
    assert result.x["a"].item() == pytest.approx(WELL)
    assert result.minima[0]["x"]["b"].item() == pytest.approx(WELL)


def test_what_was_evaluated_elsewhere_is_counted_and_the_best_of_it_kept():
    oracle = AutogradOracle(FunctionObjective(bowl, [1.0, 1.0], None))
    here = oracle.evaluate()
    better = gradopt.Evaluation(here.loss - 1, 1.0, torch.zeros(2, dtype=torch.float64), here.gradient)
    worse = gradopt.Evaluation(here.loss + 1, 1.0, torch.ones(2, dtype=torch.float64), here.gradient)
    nowhere = gradopt.Evaluation(math.nan, math.nan, torch.ones(2, dtype=torch.float64), here.gradient)

    oracle.include(worse, 10, 9, 8)
    assert oracle.best is here
    oracle.include(better, 5, 4, 3)
    oracle.include(nowhere, 1, 1, 1)

    assert oracle.best is better
    assert (oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products) == (17, 15, 12)
