"""Many unknowns: nothing is copied at a step that does not need it, and the laws hold all the same."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradopt
from gradopt import assemble as assembling
from gradopt import evaluations, unknowns
from gradopt.contracts import Evaluation
from gradopt.engines import eager
from gradopt.evaluations import KEEP_EVERY, Copying, Single, Sparing
from gradopt.loop import iterate
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.settings import Stop
from gradopt.verdict import Status


@pytest.fixture
def large(monkeypatch):
    """Every problem counts as one of many unknowns."""
    monkeypatch.setattr(eager, "LARGE", 0)
    monkeypatch.setattr(unknowns, "CHUNK", 3)


class Bowls(gradopt.Objective):
    """A sum of squares of two unknowns of different shape, bounded or not."""

    def __init__(self, box=None):
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-1.0, 1.0, 10, dtype=torch.float64).reshape(2, 5))
        self.b = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self._box = box or {}

    def forward(self, batch=None):
        return (self.a - 0.3).square().sum() + 3.0 * self.b.square()

    def bounds(self):
        return self._box


def table(target, name="adam", steps=50, **options):
    """The columns of a run, and the points at its blocks' ends."""
    assembly = assembling.assemble(
        target, name, {"lr": 0.01, **options}, stop=Stop(max_steps=steps, gradient_tolerance=0.0)
    )
    blocks = [(block, assembly.oracle.read()) for block in iterate(assembly.engine, assembly.criteria)]
    columns = {name: torch.cat([block[name][:, 0] for block, _ in blocks]) for name in blocks[0][0].columns}
    return assembly, columns, blocks[-1][1]


@pytest.mark.parametrize("box", [None, {"a": (-1.0, 1.0), "b": (0.65, None)}], ids=["free", "boxed"])
def test_nothing_but_copies_is_spared(box, monkeypatch):
    _, copied, end = table(Bowls(box))
    monkeypatch.setattr(eager, "LARGE", 0)
    monkeypatch.setattr(unknowns, "CHUNK", 3)

    assembly, spared, point = table(Bowls(box))

    assert assembly.oracle.is_sparing
    assert torch.equal(point, end)
    for name in ("loss", "gradient_norm", "learning_rate", "evaluations"):
        assert torch.equal(spared[name], copied[name]), name
    looked = torch.arange(51) % KEEP_EVERY == 1
    assert torch.equal(spared["step_norm"][looked], copied["step_norm"][looked])
    assert spared["step_norm"][~looked].isnan().all()


def test_the_facts_say_that_the_best_point_is_kept_now_and_then(large):
    assert "best point" in assembling.assemble(Bowls(), "sgd").facts
    assert "best point" not in assembling.assemble(Bowls(), "lbfgs").facts, "it needs each point itself"


@pytest.mark.parametrize("name", ["lbfgs", "trust_region", "torch_lbfgs"])
def test_an_optimiser_that_may_go_back_is_given_each_point(name, large):
    result = gradopt.minimise(Bowls(), optimiser=name, stop=Stop(max_evaluations=7))

    assert result.fun == pytest.approx(0.0, abs=1e-12)


def test_the_result_is_the_best_of_what_was_kept_and_the_last_point(large):
    def climbs(x):  # down until x passes 0, then up
        return x.square().sum()

    result = gradopt.minimise(
        climbs,
        torch.tensor([2.25], dtype=torch.float64),
        optimiser="sgd",
        optimiser_options={"lr": 0.0, "momentum": 0.0},
        stop=Stop(max_steps=3),
    )
    assert result.fun == 2.25**2

    swings = gradopt.minimise(
        climbs,
        torch.tensor([2.25], dtype=torch.float64),
        optimiser=lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.99),
        stop=Stop(max_steps=90, gradient_tolerance=0.0),
    )
    losses = swings.history["loss"]
    kept = torch.cat([losses[::KEEP_EVERY], losses[-1:]])
    assert swings.status is Status.MAX_STEPS
    assert swings.fun == kept.min().item() > losses.min().item()
    assert swings.x.square().sum().item() == swings.fun
    assert swings.verdict.evidence["lower_loss_seen"] == losses.min().item()


def test_the_best_point_survives_a_loss_that_is_not_finite(large):
    result = gradopt.minimise(
        lambda x: (x - 10 * (x < -3).double().log().clamp(min=-1).mul(0) + (x + 3).sqrt()).sum(),
        torch.tensor([2.0], dtype=torch.float64),
        optimiser="sgd",
        optimiser_options={"lr": 0.1},
        stop=Stop(max_steps=500),
    )

    assert result.status is Status.NON_FINITE
    assert math.isfinite(result.fun)
    assert result.fun == result.history["loss"][::KEEP_EVERY].nan_to_num(torch.inf).min().item()


@pytest.mark.parametrize(
    "stop",
    [Stop(max_evaluations=25), Stop(max_seconds=0.05), Stop(max_steps=0), Stop(max_steps=30)],
    ids=["evaluations", "seconds", "none", "steps"],
)
def test_every_budget_ends_at_a_point_with_its_loss(stop, large):
    target = Bowls()

    result = gradopt.minimise(target, optimiser="adam", optimiser_options={"lr": 1e-5}, stop=stop)

    assert result.status.value.startswith("max_")
    assert target().item() == result.fun
    if stop.max_evaluations:
        assert result.nfev == stop.max_evaluations


class Batches:
    steps_per_epoch = 5

    def at(self, step):
        return [step % 5, (step + 1) % 5]


class Mean(Bowls):
    """A mean over batches that shift the bowl, with a full loss."""

    batches = Batches()

    def forward(self, batch=None):
        return (self.a - 0.1 * (batch or 0)).square().sum() + self.b.square()

    def full_loss(self):
        return torch.stack([self(batch) for batch in range(5)]).mean()


@pytest.mark.parametrize("limit", range(12, 20))
def test_a_budget_that_ends_between_the_losses_of_a_step_leaves_a_whole_row(limit, monkeypatch):
    def run():
        return gradopt.minimise(
            Mean(), optimiser="sgd", optimiser_options={"lr": 0.01}, stop=Stop(max_evaluations=limit)
        )

    expected = run()
    monkeypatch.setattr(eager, "LARGE", 0)

    found = run()

    assert (found.status, found.nit, found.nfev, found.fun) == (
        expected.status,
        expected.nit,
        expected.nfev,
        expected.fun,
    )


def test_a_run_that_rests_is_seen_to_rest(large):
    result = gradopt.minimise(
        lambda x: (x - 3).square().sum(),
        torch.tensor([1.0, 2.0]),
        optimiser="sgd",
        optimiser_options={"lr": 1e-12},
        stop=Stop(max_steps=1000),
    )

    assert result.status is Status.STALLED


def test_a_run_goes_on_from_its_state_to_the_last_bit(large):
    def build():
        return assembling.assemble(Rosenbrock(), "adam", {"lr": 1e-3}, stop=Stop(max_steps=60))

    def walk(assembly, stop_before=None):
        points = []
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
            points.append(assembly.oracle.read())
            if block.last_step + 1 == stop_before:
                assembly.engine.update()
                break
        return points

    whole, first, second = build(), build(), build()
    expected = walk(whole)
    head = walk(first, 33)
    second.engine.load_state_dict(first.engine.state_dict())
    for mine, theirs in zip(second.criteria, first.criteria, strict=True):
        if state := theirs.state_dict():
            mine.load_state_dict(state)

    assert torch.equal(torch.stack(head + walk(second)), torch.stack(expected))
    best, theirs = second.oracle.best, whole.oracle.best
    assert best is not None
    assert theirs is not None
    assert (best.loss, best.point.tolist()) == (theirs.loss, theirs.point.tolist())
    assert whole.oracle.lowest_loss == second.oracle.lowest_loss


def sparing(target):
    target().backward()
    parameters = list(target.parameters())
    return parameters, Sparing(parameters, None).of([target().detach()], None)


def test_a_point_asked_for_in_time_is_a_copy_and_too_late_an_error():
    parameters, asked = sparing(Bowls())
    point, gradient = asked.point, asked.gradient
    asked.leave()
    with torch.no_grad():
        parameters[1].add_(1.0)

    assert asked.point is point
    assert point[-1] == 0.7
    assert gradient.shape == point.shape
    with pytest.raises(RuntimeError, match="asked for before the update"):
        _ = asked.gradient
    _, late = sparing(Bowls())
    late.leave()
    with pytest.raises(RuntimeError, match="asked for before the update"):
        _ = late.point


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_seen_in_any_piece(entry, monkeypatch):
    monkeypatch.setattr(unknowns, "CHUNK", 3)
    x = nn.Parameter(torch.zeros(10))
    x.grad = torch.zeros(10)
    x.grad[7] = entry
    box = assembling.Box({"x": x.detach()}, {"x": (-1.0, 1.0)})

    norms = [
        kind([x], side).of([torch.zeros(())], None).gradient_norm for kind in (Copying, Sparing) for side in (None, box)
    ]

    assert norms == pytest.approx([abs(entry)] * 4, nan_ok=True)


def test_no_step_in_between_makes_a_vector_of_all_unknowns(monkeypatch):
    monkeypatch.setattr(unknowns, "CHUNK", 500)
    size = 10_000
    x = nn.Parameter(torch.linspace(0.0, 1.0, size))
    x.grad = torch.ones(size)
    before, makes = x.detach().clone(), Sparing([x], None)
    with torch.no_grad(), Sizes() as sizes:
        makes.of([torch.zeros(())], before)

    assert 0 < max(sizes.made) <= unknowns.CHUNK


@pytest.mark.parametrize("x", [-1.0, 0.25, 2.0])
@pytest.mark.parametrize("slope", [-3.0, 0.0, 3.0, math.nan, math.inf])
@pytest.mark.parametrize("bounds", [None, (-1.0, 2.0), (-1.0, None)])
def test_one_unknown_is_measured_as_many_are(x, slope, bounds):
    unknown = nn.Parameter(torch.tensor(x, dtype=torch.float64))
    unknown.grad = torch.tensor(slope, dtype=torch.float64)
    box = assembling.Box({"x": unknown.detach()}, {"x": bounds}) if bounds else None
    losses, since = [torch.tensor(1.5), torch.tensor(2.0)], torch.tensor([0.5], dtype=torch.float64)

    one, many = (kind([unknown], box).of(losses, since) for kind in (Single, Copying))

    assert type(evaluations.copying([unknown], box)) is Single
    assert one.gradient_norm == pytest.approx(many.gradient_norm, rel=0, nan_ok=True)
    assert (one.loss, one.step_norm) == (many.loss, many.step_norm) == (3.5, abs(x - 0.5))
    assert torch.equal(one.point, many.point)


@pytest.mark.parametrize(
    ("x", "inside"),
    [([0.0, 1.0, 5.0], True), ([-1.0, 1.0, 5.0], False), ([0.0, 2.0, 5.0], False), ([0.0, math.nan, 5.0], False)],
)
def test_a_box_has_inside_what_touches_no_bound(x, inside):
    start = torch.tensor([0.0, 1.0, 5.0])
    box = assembling.Box({"x": start}, {"x": ([-1.0, None, 4.0], [1.0, 2.0, None])})
    fixed = assembling.Box({"x": start}, {"x": ([0.0, None, None], [0.0, None, None])})

    assert box.has_inside(torch.tensor(x)) is inside
    assert not fixed.has_inside(start)


class Sizes(TorchDispatchMode):
    """Notes the entries of every tensor that is made, views left out."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
        if isinstance(output, torch.Tensor) and output.untyped_storage().data_ptr() not in known:
            self.made.append(output.numel())
        return output


class Reads(TorchDispatchMode):
    """Counts the reads of single values, each of which would wait for a device."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_a_row_waits_for_its_device_once(name, many, monkeypatch):
    """On the CPU with everything as on a device: `tolist` alone reads, and only where the numbers are put together."""
    together = []
    monkeypatch.setattr(unknowns, "is_near", lambda tensor: False)
    monkeypatch.setattr(evaluations, "is_near", lambda tensor: False)
    monkeypatch.setattr(evaluations, "numbers", lambda values: together.append(len(values)) or unknowns.numbers(values))
    if many:
        monkeypatch.setattr(eager, "LARGE", 0)
    assembly = assembling.assemble(Bowls({"b": (0.0, 1.0)}), name, {"lr": 1e-3}, engine="eager")

    with Reads() as reads:
        block = assembly.engine.advance(30, {}, 60.0)

    assert len(block) == len(together) == 30
    assert reads.number == 0
    assert set(together) == {4}


def test_reading_together_changes_no_number(monkeypatch):
    _, near, _ = table(Bowls(), "sgd")
    monkeypatch.setattr(unknowns, "is_near", lambda tensor: False)
    monkeypatch.setattr(evaluations, "is_near", lambda tensor: False)

    _, far, _ = table(Bowls(), "sgd")

    for name in ("loss", "gradient_norm", "step_norm"):
        assert torch.equal(near[name].nan_to_num(-1.0), far[name].nan_to_num(-1.0)), name


def test_an_evaluation_keeps_its_place_in_a_state():
    evaluation = Evaluation(1.0, 2.0, torch.zeros(2), torch.ones(2), step_norm=0.5)

    assert evaluation.step_norm == 0.5
    assert math.isnan(Evaluation(1.0, 2.0, torch.zeros(2), torch.ones(2)).step_norm)
