"""Many starts from Python and from the command line: forms, refusals, results, memory of what has ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gradopt
from gradopt import Mistake, Status
from gradopt.criteria.early_stopping import EarlyStopping
from gradopt.loop import iterate
from gradopt.many import record
from gradopt.many.assembly import assemble_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.settings import Stop
from gradopt.verdicts import Verdicts
from tests import functions as f

ADAM = {"optimiser": "adam", "optimiser_options": {"lr": 0.1}}


def wells(x):
    """Minima at -1 and 1, the lower one at -1."""
    return ((x**2 - 1) ** 2 + 0.3 * x).sum()


def test_every_field_has_an_axis_of_starts():
    starts = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)

    results = gradopt.minimise(wells, starts=starts, **ADAM)

    assert results.x.shape == results.jac.shape == (9, 1)
    assert results.fun.shape == results.nit.shape == results.nfev.shape == results.success.shape == (9,)
    assert len(results) == len(results.status) == sum(results.counts.values()) == 9
    assert bool((results.nfev == results.nit + 1).all())
    assert [one.fun for one in results] == results.fun.tolist()
    assert starts[0].item() == -2.0


def test_the_best_start_is_a_result_of_its_own_and_minima_are_told_apart():
    starts = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)

    results = gradopt.minimise(wells, starts=starts, **ADAM)
    best = results.best_start

    assert best.success and best.fun == results.fun.min().item() and best.x.item() < 0
    assert "first-order optimal" in best.message and best.message in str(results)
    assert len(results.minima) == 2 and results.minima[0]["x"].item() == pytest.approx(best.x.item())
    assert sum(one["visits"] for one in results.minima) == int(results.success.sum())
    assert torch.equal(results.x0, starts)
    for start, basin in enumerate(results.basin.tolist()):
        assert (basin >= 0) == bool(results.success[start])
        assert basin < 0 or results.x[start].item() == pytest.approx(results.minima[basin]["x"].item(), abs=1e-2)


def test_a_sample_stands_for_many_starts_on_disk(tmp_path):
    starts = torch.rand(12_000, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = gradopt.minimise(f.parabola, starts=starts, stop=gradopt.Stop(max_steps=1), **ADAM)

    record.write(results, tmp_path)

    with numpy.load(tmp_path / "starts.npz") as sample:
        chosen = sample["start"]
        assert len(chosen) == 5000 and chosen[0] == 0 and chosen[-1] == 11_999  # 200 000 unknowns
        assert numpy.array_equal(sample["x0"], starts[chosen].numpy())
        assert numpy.array_equal(sample["fun"], results.fun[chosen].numpy())
    assert (tmp_path / "starts.npz").stat().st_size < 4e6


def test_a_start_of_several_tensors_is_one_row_on_disk(tmp_path):
    starts = {"a": torch.rand(4, 2, 3, dtype=torch.float64), "b": torch.rand(4, dtype=torch.float64)}

    results = gradopt.minimise(
        lambda x: x["a"].square().sum() + x["b"] ** 2, starts=starts, stop=gradopt.Stop(max_steps=0), **ADAM
    )
    record.write(results, tmp_path)

    with numpy.load(tmp_path / "starts.npz") as sample:
        assert sample["x0"][:, :6].tolist() == starts["a"].reshape(4, 6).tolist()
        assert sample["x0"][:, 6].tolist() == starts["b"].tolist()


def test_history_tells_medians_the_best_and_how_many_go_on():
    starts = torch.tensor([[3.0], [0.0], [5.0], [-20.0]], dtype=torch.float64)

    results = gradopt.minimise(f.parabola, starts=starts, optimiser="sgd", optimiser_options={"lr": 0.25})
    history = results.history

    assert history["loss"][0] == 6.5 or history["loss"][0] == 4.0  # torch's median is the lower one
    assert history["best_loss"].tolist() == [0.0] * len(history["step"])
    assert history["going"][0] == 4 and history["going"][-1] < 4
    assert len(history["step"]) == int(results.nit.max()) + 1


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_history_counts_the_evaluations_of_all_starts(engine):
    starts = torch.tensor([[3.0], [0.0], [5.0], [-20.0], [1e8]], dtype=torch.float64)

    results = gradopt.minimise(
        f.parabola, starts=starts, optimiser="sgd", optimiser_options={"lr": 0.25}, engine=engine
    )
    total = results.history["all_evaluations"]

    assert len(set(results.nfev.tolist())) > 2
    assert total[-1] == results.nfev.sum() and (engine == "native" or total[0] == 5)
    assert bool((total.diff() > 0).all())


def test_ended_starts_neither_move_nor_cost():
    calls = []

    def watched(x):
        return ((x - 3) ** 2).sum()

    class Watched(FunctionObjective):
        def losses(self, parameters):
            calls.append(len(parameters["x"]))
            return super().losses(parameters)

    starts = {"x": torch.tensor([[3.0], [3.0], [3.0], [900.0]], dtype=torch.float64)}
    assembly = assemble_starts(Watched(watched, [0.0]), starts, "sgd", {"lr": 0.1, "momentum": 0.9})
    for _ in iterate(assembly.engine, assembly.criteria, verdicts=Verdicts(assembly.criteria, 4)):
        pass

    assert calls[-1] == 1, "only the last start is evaluated when the others have ended"
    assert assembly.engine.ended().point[:3].flatten().tolist() == [3.0, 3.0, 3.0]


def test_a_start_frozen_before_half_have_ended_keeps_its_place():
    starts = {"x": torch.tensor([[3.0], [50.0], [70.0]], dtype=torch.float64)}
    assembly = assemble_starts(FunctionObjective(f.parabola, [0.0]), starts, "adam", {"lr": 0.5})
    seen = []
    for block in iterate(assembly.engine, assembly.criteria, verdicts=Verdicts(assembly.criteria, 3)):
        if block.starts is not None and len(block.starts.index) == 3:
            seen.append(assembly.oracle.read()[0].item())

    assert len(seen) > 3 and set(seen) == {3.0}


def test_dicts_and_tuples_of_tensors_keep_their_form():
    starts = {"a": torch.tensor([1.0, 2.0, -4.0]), "b": torch.tensor([[0.0, 1.0], [2.0, 2.0], [5.0, 5.0]])}

    results = gradopt.minimise(lambda p: (p["a"] - 1) ** 2 + (p["b"] ** 2).sum(), starts=starts, **ADAM)

    assert results.x["a"].shape == (3,) and results.x["b"].shape == (3, 2)
    assert bool(results.success.all()) and results[2].x["b"].shape == (2,)
    pairs = gradopt.minimise(lambda p: p[0] ** 2 + p[1] ** 2, starts=(torch.ones(2), torch.zeros(2)), **ADAM)
    assert isinstance(pairs.x, tuple) and pairs.x[0].shape == (2,)


def test_an_objective_ends_at_the_best_point_of_all():
    objective = Rosenbrock(x0=[1.0, 1.0])
    starts = torch.tensor([[-1.2, 1.0], [0.9, 0.8]])

    results = gradopt.minimise(objective, starts=starts, stop=gradopt.Stop(max_steps=50), **ADAM)

    assert torch.equal(objective.x.detach(), results.best_start.x)


def test_starts_are_drawn_in_the_bounds_or_round_x0():
    few = {"stop": gradopt.Stop(max_steps=0), **ADAM}

    boxed = gradopt.minimise(f.rosenbrock, starts=16, bounds=([-2.0, -1.0], [2.0, 3.0]), **few)
    near = gradopt.minimise(f.rosenbrock, [5.0, 5.0], starts=gradopt.Starts(16, spread=0.01), **few)

    assert bool((boxed.x[:, 1] >= -1).all()) and boxed.x[:, 0].unique().numel() == 16
    assert (near.x - 5).abs().max() < 0.3 and near.x[0].tolist() == [5.0, 5.0]
    assert all(status is Status.MAX_STEPS for status in near.status)


def test_maximise_speaks_of_the_function():
    starts = torch.tensor([[0.0], [2.0]], dtype=torch.float64)

    results = gradopt.minimise(lambda x: 7 - ((x - 3) ** 2).sum(), starts=starts, maximise=True, **ADAM)

    assert results.fun.tolist() == pytest.approx([7.0, 7.0]) and results.history["best_loss"][-1] == pytest.approx(7.0)


def test_budgets_are_of_each_start():
    starts = torch.tensor([[3.0], [1e6]], dtype=torch.float64)

    results = gradopt.minimise(f.parabola, starts=starts, stop=gradopt.Stop(max_evaluations=30), **ADAM)

    assert [status.value for status in results.status] == ["converged", "max_evaluations"]
    assert results.nfev[1] == 30 and results.nit[1] == 29


def test_a_target_and_a_callback_end_starts():
    starts = torch.tensor([[3.5], [100.0]], dtype=torch.float64)

    reached = gradopt.minimise(f.parabola, starts=starts, stop=gradopt.Stop(target=1.0, max_steps=20), **ADAM)
    stopped = gradopt.minimise(f.parabola, starts=starts, callback=lambda block: block.last_step >= 5, **ADAM)

    assert [status.value for status in reached.status] == ["target_reached", "max_steps"]
    assert reached.nit[0] == 0 and all(status is Status.STOPPED for status in stopped.status)


def test_a_wrong_gradient_is_no_success():
    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return ((x - 1) ** 2 + x).sum()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, upstream):
            return upstream * 2 * (ctx.saved_tensors[0] - 1)

    starts = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    results = gradopt.minimise(Wrong.apply, starts=starts, **ADAM)

    assert [status.value for status in results.status] == ["stalled", "stalled"]
    assert "gradient" in results.best_start.message


def branchy(x):
    return (x**2).sum() if x[0] > 0 else (x**4).sum()


class Counting(gradopt.Objective):
    """Keeps a state of its own."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([1.0]))
        self.calls = 0

    def forward(self, batch=None):
        self.calls += 1
        return self.calls * (self.x**2).sum()


POINTS = torch.ones(3, 1, dtype=torch.float64)
REFUSED = {
    "cannot be evaluated at many starts at once.*torch.where": (branchy, {}),
    "keeps a state of its own": (Counting(), {}),
    "auto finds its steps for one start alone": (f.parabola, {"optimiser": "auto"}),
    "lbfgs finds its steps itself and takes no clip_norm": (
        f.parabola,
        {"optimiser": "lbfgs", "optimiser_options": {"clip_norm": 1.0}},
    ),
    "lbfgs finds its steps itself and takes no schedule": (
        f.parabola,
        {"optimiser": "lbfgs", "schedule": {"name": "cosine", "T_max": 10}},
    ),
    "LBFGS cannot move many starts at once": (f.parabola, {"optimiser": "torch_lbfgs"}),
    "reads the loss of one start": (f.parabola, {"schedule": {"name": "plateau"}}),
    "keep no constraints": (f.parabola, {"constraints": gradopt.Constraint(lambda x: x, lower=0.0)}),
    "on_saddle=escape is for one start": (f.parabola, {"on_saddle": "escape"}),
    "start 1 lies outside the bounds": (f.parabola, {"bounds": (0.0, 6.0), "x": 6.5}),
    "start 1 is not finite": (f.parabola, {"x": float("inf")}),
    "EarlyStopping judges one start alone": (f.parabola, {"criteria": [EarlyStopping("accuracy")]}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_refused_before_the_run(words):
    function, options = REFUSED[words]
    starts = POINTS.clone().to(torch.float32 if isinstance(function, Counting) else torch.float64)
    if value := options.get("x"):
        starts[1] = value
    options = {"optimiser": "adam", **{name: value for name, value in options.items() if name != "x"}}

    with pytest.raises(Mistake, match=words):
        gradopt.minimise(function, starts=starts, **options)


@pytest.mark.parametrize(
    ("starts", "words"),
    [(1.5, "leading axis"), ("many", "must be tensors"), (0, "1 or more"), (torch.ones(0, 2), "at least one")],
)
def test_starts_that_are_none_are_refused(starts, words):
    with pytest.raises(Mistake, match=words):
        gradopt.minimise(f.parabola, None if not isinstance(starts, int) else [0.0], starts=starts)


def test_a_saved_run_goes_on_to_the_last_bit():
    def build():
        starts = {"x": torch.tensor([[3.0, 3.0], [0.0, 1.0], [-1.2, 5.0], [9.0, -9.0]], dtype=torch.float64)}
        return assemble_starts(
            FunctionObjective(f.parabola, [0.0, 0.0]), starts, "adam", {"lr": 0.2}, stop=Stop(max_steps=300)
        )

    def walk(assembly, verdicts, until=10_000):
        points = {}
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1, verdicts=verdicts):
            points[block.last_step] = assembly.oracle.last.point.clone()
            if block.last_step + 1 == until:
                break
        return points

    def ended(assembly, verdicts):
        return [list(verdicts), verdicts.steps.tolist(), assembly.engine.ended().point.tolist()]

    whole, first, second = build(), build(), build()
    judged = [Verdicts(one.criteria, 4) for one in (whole, first, second)]
    reference = walk(whole, judged[0])
    walk(first, judged[1], until=40)
    first.engine.update()
    second.engine.load_state_dict(first.engine.state_dict())
    judged[2].load_state_dict(judged[1].state_dict())
    for one, other in zip(second.criteria, first.criteria, strict=True):
        one.load_state_dict(other.state_dict())
    rest = walk(second, judged[2])

    assert judged[1].codes.tolist() == [Status.CONVERGED.code, -1, -1, -1]
    assert min(rest) == 40 and max(rest) == max(reference)
    assert all(torch.equal(point, reference[step]) for step, point in rest.items())
    assert ended(second, judged[2]) == ended(whole, judged[0])


def test_from_the_command_line(tmp_path):
    overrides = ["objective=rosenbrock", "optimiser=adam", "optimiser.lr=0.05", "starts=8", "stop.max_steps=20"]
    environment = {**os.environ, "GRADOPT_PLUGIN_AUTOLOAD": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "gradopt", *overrides, f"hydra.run.dir={tmp_path}/run"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert "8 max_steps; the best is start" in done.stdout
    result = json.loads((Path(tmp_path) / "run/result.json").read_text())
    assert result["starts"]["number"] == 8 and result["starts"]["counts"] == {"max_steps": 8}
    kept = torch.load(Path(tmp_path) / "run" / result["starts"]["all"])
    assert kept["x"].shape == (8, 2) and result["fun"] == kept["fun"].min().item()
    sample = numpy.load(Path(tmp_path) / "run" / result["starts"]["sample"])
    assert torch.equal(torch.from_numpy(sample["x"]), kept["x"]) and sample["x0"][0].tolist() == [-1.2, 1.0]
    assert sample["statuses"][sample["status"]].tolist() == ["max_steps"] * 8 and (sample["basin"] == -1).all()
    events = EventAccumulator(f"{tmp_path}/run")
    events.Reload()
    assert [event.value for event in events.Scalars("final/loss")] == [pytest.approx(result["fun"], rel=1e-6)]
    total = result["starts"]["total"]
    assert (total["nit"], total["nfev"], total["njev"]) == (160, 168, 168) and total["nhev"] >= result["nhev"]
    assert [events.Scalars(tag)[-1].value for tag in ("final/evaluations", "time/evaluations")] == [168.0, 168.0]
    assert b"8 max\\_steps" in events.Tensors("run/verdict")[0].tensor_proto.string_val[0]


def test_lbfgs_from_the_command_line(tmp_path):
    overrides = ["objective=rosenbrock", "optimiser=lbfgs", "optimiser.history_size=5", "starts=16"]
    done = subprocess.run(
        [sys.executable, "-m", "gradopt", *overrides, f"hydra.run.dir={tmp_path}/run"],
        capture_output=True, text=True, env={**os.environ, "GRADOPT_PLUGIN_AUTOLOAD": "0"}, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    result = json.loads((Path(tmp_path) / "run/result.json").read_text())
    assert result["starts"]["counts"] == {"converged": 16} and "16 starts at once" in done.stdout


def test_a_sampler_by_name_from_the_command_line(tmp_path):
    overrides = [
        "starts.number=4",
        "starts.sampler=latin_hypercube",
        "stop.max_steps=3",
        f"hydra.run.dir={tmp_path}/run",
    ]
    environment = {**os.environ, "GRADOPT_PLUGIN_AUTOLOAD": "0"}
    command = [sys.executable, "-m", "gradopt"]
    done = subprocess.run([*command, *overrides], capture_output=True, text=True, env=environment, check=False)
    wrong = subprocess.run(
        [*command, "starts.number=4", "starts.sampler=sobel"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert done.returncode == 0 and "4 starts of 1 unknown" in done.stdout
    assert wrong.returncode == 2 and "did you mean 'sobol'" in wrong.stderr.lower()


class Native(Rosenbrock):
    """Evaluates many starts by itself."""

    asked = 0

    def losses(self, parameters):
        Native.asked += 1
        x = parameters["x"]
        return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


class NativeWrong(Rosenbrock):
    def losses(self, parameters):
        return parameters["x"].sum(1)


def test_an_objective_may_evaluate_many_starts_itself():
    starts = torch.tensor([[-1.2, 1.0], [0.5, 0.5], [1.0, 1.0]])
    stop = gradopt.Stop(max_steps=30)

    own = gradopt.minimise(Native(), starts=starts, stop=stop, **ADAM)
    mapped = gradopt.minimise(Rosenbrock(), starts=starts, stop=stop, **ADAM)

    assert Native.asked > 30 and torch.allclose(own.x, mapped.x, rtol=1e-4)
    with pytest.raises(Mistake, match="has other losses at many starts at once"):
        gradopt.minimise(NativeWrong(), starts=starts, **ADAM)


def test_hundreds_of_unknowns_are_judged_too():
    curvature = torch.linspace(1.0, 3.0, 250, dtype=torch.float64)
    starts = torch.stack([torch.ones(250), torch.zeros(250), torch.linspace(-3, 3, 250)]).double()

    results = gradopt.minimise(
        lambda x: (curvature * x**2).sum(), starts=starts, optimiser="sgd", optimiser_options={"lr": 0.25}
    )

    assert bool(results.success.all()) and results.x.abs().max() < 1e-6 and results.nit[1] == 0


def test_without_second_derivatives_the_curvature_stays_unchecked():
    class Square(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return ((x - 1) ** 2).sum()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, upstream):
            return upstream * 2 * (ctx.saved_tensors[0] - 1)

    starts = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    sgd = {"optimiser": "sgd", "optimiser_options": {"lr": 0.2}}

    results = gradopt.minimise(Square.apply, starts=starts, **sgd)
    alone = gradopt.minimise(Square.apply, starts[0], **sgd)

    assert results.status[0] is alone.status and abs(results.nit[0] - alone.nit) <= 2
    assert "unchecked" in results[0].message


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_starts_by_a_program_fit_in_two_gigabytes():
    code = (
        "import resource, torch, gradopt\n"
        "f = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2\n"
        "starts = torch.rand(1_000_000, 2, dtype=torch.float64) * 4 - 2\n"
        "gradopt.minimise(f, starts=starts, optimiser='adam', engine='native', stop=gradopt.Stop(max_steps=45))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(done.stdout) * 1024 < 2e9


def test_a_gradient_that_bounds_hold_is_no_minus_zero():
    starts = torch.linspace(-1.9, 1.9, 33, dtype=torch.float64)[:, None]

    results = gradopt.minimise(lambda x: (5 * x**3 + 4 * x).sum(), starts=starts, bounds=(-2.0, 2.0), optimiser="sgd")

    assert results.success.all()
    assert not any("-0 " in result.message for result in results)
