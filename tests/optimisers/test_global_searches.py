"""What every global search keeps to: the box, its budgets, its seed, and a state to go on from."""

import json
import sys
from pathlib import Path

import pytest
import torch
from landscapes import WELL, rastrigin, start, wells

import gradopt
from gradopt import Status
from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.function import FunctionObjective

sys.path.insert(0, str(Path(__file__).parent.parent))
import installed

BOX = (-5.12, 5.0)
SHORT = {
    "multi_start": {"max_evaluations": 450},
    "tiktak": {"samples": 500, "batch": 12, "discoveries": 10**6},
}
"""Options with which a search is long enough to have a middle, and soon over."""

optimisers = pytest.mark.parametrize("optimiser", SHORT)


def search(optimiser, function, x0, bounds=(-2.0, 2.0), stop=None, **options):
    return gradopt.minimise(function, x0, bounds=bounds, optimiser=optimiser, optimiser_options=options, stop=stop)


@optimisers
@pytest.mark.parametrize("inner", ["lbfgs", "trust_region", "levenberg_marquardt"])
def test_every_inner_optimiser_serves(inner, optimiser):
    result = gradopt.least_squares(
        lambda x: torch.cat([x**2 - 1, 0.3 * (x + 1)]),
        [0.9, 0.8],
        bounds=(-2, 2),
        optimiser=optimiser,
        optimiser_options={"inner": inner, "max_evaluations": 2000 if optimiser == "tiktak" else 400},
    )

    assert result.status is Status.CONVERGED, result
    assert len(result.minima) > 1
    torch.testing.assert_close(result.x, torch.tensor([-1.0, -1.0], dtype=torch.float64), rtol=0, atol=1e-6)


@optimisers
def test_maxima_are_listed_with_their_values(optimiser):
    result = gradopt.minimise(
        lambda x: -wells(x), [0.9, 0.9], bounds=(-2, 2), optimiser=optimiser, maximise=True,
        optimiser_options={"max_evaluations": 1000},
    )  # fmt: skip

    assert result.fun == pytest.approx(0.2012347533)
    assert result.minima[0]["fun"] == pytest.approx(result.fun, rel=1e-12)


@optimisers
@pytest.mark.parametrize("limit", [1, 2, 3, 10, 19, 57, 300, 1001])
def test_a_budget_of_evaluations_is_kept_exactly(limit, optimiser):
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return rastrigin(x)

    x0 = start(3, BOX)
    endless = {"unseen": 0.0} if optimiser == "multi_start" else {"discoveries": 10**6}
    result = search(optimiser, counted, x0, BOX, gradopt.Stop(max_evaluations=limit), **endless)

    assert result.nfev <= limit
    assert result.status is Status.MAX_EVALUATIONS or result.success
    assert result.fun <= rastrigin(x0)
    if optimiser == "multi_start":  # one point a call
        assert calls >= result.nfev


@optimisers
def test_a_target_ends_the_search(optimiser):
    result = search(optimiser, rastrigin, start(3, BOX), BOX, gradopt.Stop(target=5.0))

    assert result.status is Status.TARGET_REACHED
    assert result.fun <= 5.0
    assert result.nfev < 3000


@optimisers
def test_the_same_seed_is_the_same_run_whatever_the_global_random_state(optimiser):
    runs = []
    for other in (1, 2):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        runs.append(search(optimiser, rastrigin, start(3, BOX), BOX, seed=7, **SHORT[optimiser]))
        assert torch.equal(torch.get_rng_state(), before)
    another = search(optimiser, rastrigin, start(3, BOX), BOX, seed=8, **SHORT[optimiser])

    for name in ("loss", "evaluations"):
        assert torch.equal(runs[0].history[name], runs[1].history[name])
    assert not torch.equal(runs[0].history["loss"], another.history["loss"])


@pytest.mark.parametrize(
    ("optimiser", "inner", "cut"),
    [("multi_start", "lbfgs", cut) for cut in (0, 2, 9, 15)]
    + [("tiktak", "lbfgs", cut) for cut in (0, 1, 2, 5, 8)]
    + [("multi_start", "trust_region", 9), ("tiktak", "trust_region", 4)],
)
def test_a_run_that_was_saved_and_loaded_goes_on_to_the_last_bit(optimiser, inner, cut, tmp_path):
    def build():
        target = FunctionObjective(rastrigin, start(3, BOX), BOX)
        return assemble(target, optimiser, {"inner": inner, **SHORT[optimiser]})

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
    again = second.engine.optimiser.state_dict()
    assert [name for name in again if again[name] is None] == [
        name for name, value in engine["optimiser"].items() if value is None
    ]
    tail = walk(second)

    assert len(whole) > cut + 1
    assert torch.equal(torch.stack(head + tail), torch.stack(whole))
    for one, other in zip(second.engine.optimiser.minima, reference.engine.optimiser.minima, strict=True):
        assert torch.equal(one.point, other.point)
        assert one.visits == other.visits


@optimisers
@pytest.mark.parametrize("bounds", [None, ([-1.0, None], 2.0)], ids=str)
def test_a_box_that_is_open_is_refused_in_one_line(bounds, optimiser):
    said = rf"^{optimiser} .* of 2 unknowns have no finite bounds.*optimiser\.radius"
    with pytest.raises(gradopt.Mistake, match=said) as caught:
        gradopt.minimise(wells, [0.9, 0.9], bounds=bounds, optimiser=optimiser)

    assert "\n" not in str(caught.value)


@optimisers
@pytest.mark.parametrize("bounds", [None, ([-1.5, None], 2.0)], ids=str)
def test_a_radius_closes_the_box_round_the_start(bounds, optimiser):
    result = search(optimiser, wells, [0.9, 0.9], bounds, radius=2.5, max_evaluations=3000)

    assert result.status is Status.CONVERGED
    torch.testing.assert_close(result.x, torch.full((2,), WELL, dtype=torch.float64), rtol=0, atol=1e-6)


@optimisers
def test_a_plain_is_no_success(optimiser):
    result = search(optimiser, lambda x: 0 * x.sum() + 3, [0.9, 0.9], max_evaluations=300)

    assert result.status is Status.STALLED


@pytest.mark.parametrize("option", ["optimiser=multi_start optimiser.unseen=0.02", "optimiser=tiktak"])
def test_it_is_there_on_the_command_line(option, tmp_path):
    done = installed.gradopt("objective=polynomial", "optimiser.inner=lbfgs", *option.split(), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("result.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["fun"] == -32
    assert content["minima"][0] == {"x": {"x": -2.0}, "fun": -32.0, "visits": content["minima"][0]["visits"]}
