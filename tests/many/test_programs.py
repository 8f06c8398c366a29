"""Many starts by programs: what eager does, to the last bits, with each start at a step of its own."""

import itertools
import logging
import sys
from dataclasses import replace

import pytest
import sympy  # noqa: F401  (so that no test is the first to trace)
import torch
from torch.utils._pytree import tree_leaves

import gradopt
from gradopt import Mistake
from gradopt.engines import compiled_lanes, masked_lanes
from gradopt.engines.choice import KINDS, Kind
from gradopt.engines.compiled_lanes import CompiledLanes
from gradopt.engines.lanes import GATE_STARTS, LanesEngine, Parts, prove
from gradopt.engines.masked_lanes import MaskedLanes
from gradopt.engines.native.lanes_program import NativeLanes
from gradopt.engines.patience import FIRST_TRACE, patience
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import trace
from gradopt.loop import iterate
from gradopt.many import assembly as assemblies
from gradopt.many.assembly import assemble_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.polynomial import Polynomial
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.optimisers.stacked.optimiser import StackedTorchOptimiser
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle
from gradopt.settings import Stop
from gradopt.stacked import StackedOracle
from gradopt.verdicts import Verdicts
from tests import functions as f
from tests.many.test_law import CASES, assert_same, log_well, pair

CLASSES = {
    "sgd": {"lr": 1e-3, "momentum": 0.5, "nesterov": True},
    "adam": {"amsgrad": True, "weight_decay": 0.01},
    "adamw": {},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adagrad": {"lr": 0.1, "lr_decay": 0.01},
    "nadam": {},
    "radam": {},
    "adamax": {},
    "adadelta": {},
    "rprop": {},
    "asgd": {"lr": 1e-3},
}


def hollow(x):
    return (x[0] - 1) ** 2 + 10 * (x[1] + x[0] ** 2) ** 2 + 0.1 * torch.cos(3 * x[1])


def drawn(number, n=2, dtype=torch.float64):
    return torch.rand(number, n, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 4 - 2


QUICK = ("native", pytest.param("mapped", marks=pytest.mark.slow), "masked")
EVERY = (*QUICK, pytest.param("compiled", marks=pytest.mark.slow))


@pytest.fixture(params=QUICK)
def engine(request, monkeypatch):
    """Programs, and what takes part in two of them: without a compiler's seconds, and without a GPU's graph."""
    if request.param == "mapped":
        uncompiled(monkeypatch)
        return "compiled"
    if request.param == "masked":
        monkeypatch.setitem(assemblies.PROGRAMS, "cuda_graph", lambda graph, number: MaskedLanes(graph))
        return "cuda_graph"
    return request.param


def uncompiled(monkeypatch):
    monkeypatch.setattr(compiled_lanes, "code_of", lambda function, inputs: function)
    monkeypatch.setattr(compiled_lanes, "held", lambda tensor: tensor)


def both(function, starts, program, **options):
    """The same by eager and by the program."""
    return [gradopt.minimise(function, starts=starts, engine=engine, **options) for engine in ("eager", program)]


def assert_equal(one, other, bits=1e-12):
    assert torch.equal(one.verdicts.codes, other.verdicts.codes)
    assert torch.equal(one.nit, other.nit) and torch.equal(one.nfev, other.nfev)
    torch.testing.assert_close(one.x, other.x, rtol=bits, atol=bits)


@pytest.mark.parametrize("engine", EVERY, indirect=True)
@pytest.mark.parametrize("name", CLASSES)
def test_every_elementwise_class_steps_as_by_eager(engine, name):
    options = {"optimiser": name, "optimiser_options": CLASSES[name], "stop": gradopt.Stop(max_steps=60)}

    assert_equal(*both(hollow, drawn(150), engine, **options))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_start_ends_as_it_does_alone(engine, case):
    if engine == "native" and case.name == "wide":
        pytest.skip("it refuses a step of so many operations")
    starts = torch.tensor(case.starts, dtype=torch.float64)
    options = {"optimiser": "adam", "optimiser_options": {"lr": 0.05}, "stop": gradopt.Stop(max_steps=450)}

    many = gradopt.minimise(case.function, starts=starts, engine=engine, bounds=case.bounds, **options)

    digits = 0.4 if engine == "cuda_graph" else 0.5  # powers in a table round otherwise: a valley makes much of that
    for one, single in zip(many, pair(case, "adam", torch.float64)[1], strict=True):
        assert_same(one, single, digits)


@pytest.mark.parametrize(
    "options",
    [
        {"bounds": (-1.5, 1.8)},
        {"schedule": {"name": "cosine", "T_max": 100}},
        {"optimiser_options": {"clip_norm": 0.3}},
        {"optimiser_options": {"clip_value": 0.3}},
        {"stop": Stop(max_evaluations=77)},
        {"stop": Stop(target=3.0, max_steps=50)},
        {"callback": lambda block: block.last_step >= 30},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_asked_of_a_run_holds_for_each_start(engine, options):
    common = {"optimiser": "adam", "stop": gradopt.Stop(max_steps=130), **options}

    assert_equal(*both(hollow, drawn(40).clamp(-1.4, 1.7), engine, **common))


@pytest.mark.parametrize("engine", EVERY, indirect=True)
def test_starts_that_converge_one_by_one_lag_behind_and_end_where_they_do_by_eager(engine):
    starts = torch.linspace(-60, 60, 121, dtype=torch.float64).unsqueeze(1)

    eager, ours = both(f.parabola, starts, engine, optimiser="adam", optimiser_options={"lr": 0.5})

    assert_equal(eager, ours)
    assert bool(ours.success.all()) and len(ours.nit.unique()) > 30
    steps = ours.history["step"]
    assert bool((steps[1:] > steps[:-1]).all()) and len(steps) < len(eager.history["step"])
    assert ours.history["going"][-1] < 121


@pytest.mark.parametrize("engine", EVERY, indirect=True)
def test_unknowns_of_several_shapes(engine):
    starts = {"a": drawn(30, 1)[:, 0], "b": drawn(30, 6).reshape(30, 2, 3)}

    def loss(p):
        return (p["a"] - 1) ** 2 + ((p["b"] - p["a"]) ** 2 * p["b"].exp()).sum()

    eager, ours = both(loss, starts, engine, optimiser="adam", stop=gradopt.Stop(max_steps=50))

    torch.testing.assert_close(ours.x, eager.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", EVERY, indirect=True)
def test_float32_and_a_start_that_turns_nan(engine):
    starts = torch.tensor([[2.0], [-1.0], [0.5]])

    eager, ours = both(log_well, starts, engine, optimiser="adam", optimiser_options={"lr": 0.05, "clip_norm": 0.1})

    assert [status.value for status in ours.status] == ["converged", "non_finite", "converged"]
    torch.testing.assert_close(ours.x, eager.x, rtol=1e-4, atol=1e-4)


def test_a_saved_run_goes_on_to_the_last_bit(engine):
    def build():
        starts = {"x": torch.linspace(-40, 50, 12, dtype=torch.float64).unsqueeze(1)}
        assembly = assemble_starts(FunctionObjective(f.parabola, [0.0]), starts, "adam", {"lr": 0.2}, engine=engine)
        return assembly, Verdicts(assembly.criteria, 12)

    def walk(assembly, verdicts, until=10_000):
        for number, _ in enumerate(iterate(assembly.engine, assembly.criteria, max_rows=7, verdicts=verdicts)):
            if number == until:
                return

    (whole, judged), (first, before), (second, after) = build(), build(), build()
    walk(whole, judged)
    walk(first, before, until=40)
    first.engine.update()
    second.engine.load_state_dict(first.engine.state_dict())
    after.load_state_dict(before.state_dict())
    for one, other in zip(second.criteria, first.criteria, strict=True):
        one.load_state_dict(other.state_dict())
    walk(second, after)

    assert 0 < int((before.codes < 0).sum()) < 12
    assert list(after) == list(judged) and torch.equal(after.steps, judged.steps)
    assert torch.equal(second.engine.ended().point, whole.engine.ended().point)


def test_auto_goes_on_with_a_program_where_a_run_lasts(monkeypatch, caplog):
    monkeypatch.setattr(assemblies, "KINDS", {"native": Kind(KINDS["native"].build, patience=1e-9)})
    caplog.set_level(logging.INFO, "gradopt")
    options = {"optimiser": "adam", "optimiser_options": {"fused": False}, "stop": gradopt.Stop(max_steps=60)}

    auto = gradopt.minimise(hollow, starts=drawn(40), engine="auto", **options)

    assert_equal(gradopt.minimise(hollow, starts=drawn(40), engine="eager", **options), auto)
    assert "engine: native" in caplog.text and len(auto.history["step"]) < 60


@pytest.mark.parametrize("seconds", [0.02, 0.04, 0.06])
def test_a_program_that_is_ready_within_a_block_waits_for_its_end(monkeypatch, seconds):
    monkeypatch.setattr(assemblies, "KINDS", {"native": Kind(KINDS["native"].build, patience=seconds)})
    options = {"optimiser": "adam", "optimiser_options": {"lr": 1e-3}, "stop": gradopt.Stop(max_steps=2000)}

    switched = gradopt.minimise(hollow, starts=drawn(6), engine="auto", **options)

    assert_equal(switched, gradopt.minimise(hollow, starts=drawn(6), engine="native", **options))


def test_what_is_no_program_is_refused_or_runs_eagerly():
    wide = next(case for case in CASES if case.name == "wide")
    starts = torch.tensor(wide.starts, dtype=torch.float64)
    options = {"optimiser": "adam", "stop": gradopt.Stop(max_steps=3)}

    with pytest.raises(Mistake, match="engine=native cannot run this: a step of more than"):
        gradopt.minimise(wide.function, starts=starts, engine="native", **options)
    with pytest.raises(Mistake, match=r"engine=cuda_graph cannot run this: the unknowns are on cpu, .* device=cuda;"):
        gradopt.minimise(wide.function, starts=starts, engine="cuda_graph", **options)
    with pytest.raises(
        Mistake, match="engine=cuda_graph cannot run this: it replays whole steps, and lbfgs decides by"
    ):
        gradopt.minimise(wide.function, starts=starts, engine="cuda_graph", optimiser="lbfgs")


@pytest.mark.parametrize("engine", ["mapped"], indirect=True)
@pytest.mark.parametrize("chunk", [1, 3])
def test_starts_of_many_tiles_and_the_empty_places_of_the_last_are_on_their_own(monkeypatch, engine, chunk):
    monkeypatch.setattr(compiled_lanes, "TILE", 64)
    monkeypatch.setattr(compiled_lanes, "CHUNK", chunk)
    starts = torch.linspace(-60, 60, 101, dtype=torch.float64).unsqueeze(1)

    assert_equal(*both(f.parabola, starts, engine, optimiser="adam", optimiser_options={"lr": 0.5}))


@pytest.fixture
def rooms(monkeypatch):
    """Those that rows were launched for, in turn; what a row moves must stay where it is, as a graph has it there."""
    rooms = []

    def launch(row):
        rooms.append(row.__self__)
        first = addresses(row.__self__)

        def launched():
            row()
            assert addresses(row.__self__) == first

        return launched

    monkeypatch.setitem(assemblies.PROGRAMS, "cuda_graph", lambda graph, number: MaskedLanes(graph, launch))
    return rooms


def addresses(room):
    return [one.data_ptr() for one in tree_leaves(vars(room)) if isinstance(one, torch.Tensor)]


def test_a_row_is_launched_as_it_was_made_until_half_of_the_starts_have_ended(rooms):
    starts = torch.linspace(-60, 60, 121, dtype=torch.float64).unsqueeze(1)

    assert_equal(*both(f.parabola, starts, "cuda_graph", optimiser="adam", optimiser_options={"lr": 0.5}))

    numbers = [room.number for room in rooms]
    assert numbers[:2] == [GATE_STARTS, 121] and len(numbers) > 3
    assert all(after <= before / 2 for before, after in itertools.pairwise(numbers[1:]))


def test_a_row_that_cannot_be_captured_again_is_made_as_it_is(monkeypatch, caplog):
    rows = []

    def launch(row):
        rows.append(row)
        if len(rows) > 2:
            raise Refusal("it cannot be captured: no memory")
        return row

    monkeypatch.setitem(assemblies.PROGRAMS, "cuda_graph", lambda graph, number: MaskedLanes(graph, launch))
    starts = torch.linspace(-60, 60, 121, dtype=torch.float64).unsqueeze(1)

    assert_equal(*both(f.parabola, starts, "cuda_graph", optimiser="adam", optimiser_options={"lr": 0.5}))

    assert len(rows) > 3
    assert "cuda_graph goes on row by row, as it cannot be captured: no memory" in caplog.text


def test_there_is_room_for_a_table_of_any_length(monkeypatch, rooms):
    monkeypatch.setattr(masked_lanes, "CAPACITY", 16)
    options = {"optimiser": "adam", "schedule": {"name": "cosine", "T_max": 100}, "stop": gradopt.Stop(max_steps=300)}

    assert_equal(*both(hollow, drawn(40), "cuda_graph", **options))

    capacities = [room.capacity for room in rooms]
    assert capacities == sorted(capacities) and capacities[-1] > 16


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("build", [Polynomial, lambda: Rosenbrock(2)], ids=["polynomial", "rosenbrock"])
def test_objectives_of_the_main_job(build, optimiser, rooms):
    options = {"lr": 1e-4, **({"momentum": 0.9} if optimiser == "sgd" else {})}
    common = {"optimiser": optimiser, "optimiser_options": options, "stop": gradopt.Stop(max_steps=200)}

    eager, ours = (
        gradopt.minimise(build().double(), starts=64, engine=engine, **common) for engine in ("eager", "cuda_graph")
    )

    assert_equal(eager, ours)
    assert [room.number for room in rooms][:2] == [GATE_STARTS, 64]


def test_what_no_map_has_a_rule_for_is_refused():
    def counted(x):
        return (x**2).sum() + torch.bincount((x > 0).long(), minlength=2).sum()

    class Own(FunctionObjective):
        def losses(self, parameters):
            return torch.stack([counted(x) for x in parameters["x"]])

    starts = {"x": torch.ones(3, 2, dtype=torch.float64)}
    with pytest.raises(Mistake, match=r"engine=compiled cannot run this: (it does not compile|the loss).*bincount"):
        assemble_starts(Own(counted, [1.0, 2.0]), starts, "adam", engine="compiled")


@pytest.mark.parametrize("build", [NativeLanes, lambda graph: CompiledLanes(graph, 3)], ids=["native", "mapped"])
def test_a_program_that_gives_other_records_is_refused(monkeypatch, build):
    uncompiled(monkeypatch)
    other = AutogradOracle(FunctionObjective(lambda x: (x**2).sum(), torch.zeros(1, dtype=torch.float64)))
    program = build(trace(other, TorchOptimiser(torch.optim.SGD(other.parameters, lr=0.1))))

    def parts():
        starts = {"x": torch.ones(3, 1, dtype=torch.float64)}
        oracle = StackedOracle(FunctionObjective(f.parabola, torch.zeros(1, dtype=torch.float64)), starts)
        adapter = TorchOptimiser(torch.optim.SGD(oracle.parameters, lr=0.1))
        return Parts(oracle, StackedTorchOptimiser(adapter, elementwise=None, clip_norm=None))

    assert LanesEngine(parts(), "native", lambda: program, 0.0).name == "eager"
    with pytest.raises(Refusal, match="its loss is not that of eager"):
        prove(program, parts)


def test_auto_builds_nothing_for_which_no_time_is_left_and_says_what_building_took(monkeypatch):
    monkeypatch.setattr(assemblies, "KINDS", {"native": replace(KINDS["native"], patience=0.2)})
    options = {"optimiser": "adam", "optimiser_options": {"lr": 1e-6}, "starts": drawn(100)}

    short, long = (gradopt.minimise(hollow, **options, stop=gradopt.Stop(max_seconds=s)) for s in (0.3, 3.0))

    assert short.engine == "eager" and "building a program" not in short.seconds_by
    assert long.engine == "native" and long.seconds_by["building a program"] > 0
    assert sum(long.seconds_by.values()) == pytest.approx(long.seconds, rel=0.1)


def test_the_first_trace_of_a_process_is_waited_for_longer(monkeypatch):
    monkeypatch.setitem(sys.modules, "sympy", sys)
    assert [patience(0.5), patience(0.0)] == [0.5, 0.0]

    monkeypatch.delitem(sys.modules, "sympy")
    assert [patience(0.5), patience(0.0)] == [0.5 + FIRST_TRACE, 0.0]
