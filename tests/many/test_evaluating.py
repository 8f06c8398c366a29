"""Solvers that decide by values, from many starts, on a program of losses and gradients: the run of eager."""

import itertools
import logging
import re
import time

import pytest
import sympy  # noqa: F401  (so that no test is the first to trace)
import torch
from torch import nn

import gradopt
from gradopt import Mistake, Status
from gradopt.engines import compiled_starts, evaluating_starts, patience
from gradopt.engines.compiled_starts import CompiledEvaluations
from gradopt.engines.evaluating import GATE_EVALUATIONS, EvaluationKind
from gradopt.engines.evaluating_starts import StartsGate, evaluating
from gradopt.engines.loss_graph import trace_loss
from gradopt.engines.native.evaluation import NativeEvaluations
from gradopt.engines.purity import Refusal
from gradopt.loop import iterate
from gradopt.many.assembly import assemble_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.objectives.robust import RobustLoss
from gradopt.oracle import AutogradOracle
from gradopt.settings import Stop
from gradopt.stacked import StackedOracle
from gradopt.verdicts import Verdicts
from tests import functions as f
from tests.many.test_law import cusp, log_well, tilted
from tests.many.test_lbfgs import CASES, drawn, wood
from tests.many.test_trust import FITS, LOSSES, SOLVERS

QUICK = ("native", pytest.param("mapped", marks=pytest.mark.slow))
EVERY = (*QUICK, pytest.param("compiled", marks=pytest.mark.slow))
LAWS = (
    pytest.param("native", torch.float64, id="native-float64"),
    pytest.param("native", torch.float32, id="native-float32", marks=pytest.mark.slow),
    pytest.param("mapped", torch.float64, id="mapped-float64", marks=pytest.mark.slow),
)


@pytest.fixture(params=QUICK)
def engine(request, monkeypatch):
    """Programs, and what takes part in the compiled one without a compiler's seconds."""
    if request.param != "mapped":
        return request.param
    monkeypatch.setattr(compiled_starts, "code_of", lambda function, inputs: function)
    return "compiled"


def taken(caplog, engine):
    """Whether losses and gradients were a program's from some evaluation on."""
    return f"engine: losses and gradients by {engine}: the same as by eager" in caplog.text


def both(engine, solve, **options):
    return [solve(engine=one, **options) for one in ("eager", engine)]


def assert_same(ours, eager, close):
    assert ours.status == eager.status
    assert bool(((ours.nit - eager.nit).abs() <= (0.01 * eager.nit).clamp(min=2)).all()), (ours.nit, eager.nit)
    torch.testing.assert_close(ours.x, eager.x, rtol=close, atol=close, equal_nan=True)
    torch.testing.assert_close(ours.fun, eager.fun, rtol=close, atol=close, equal_nan=True)


@pytest.mark.parametrize(("engine", "dtype"), LAWS, indirect=["engine"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_start_of_lbfgs_ends_as_by_eager(engine, case, dtype):
    starts = torch.tensor(case.starts, dtype=dtype)
    # float32 sees no end of a valley: its last steps are rounding's
    stop = Stop(max_steps=300 if dtype is torch.float64 else 12)

    def solve(**options):
        return gradopt.minimise(case.function, starts=starts, optimiser="lbfgs", bounds=case.bounds, **options)

    eager, ours = both(engine, solve, stop=stop)

    assert_same(ours, eager, close=1e-6 if dtype is torch.float64 else 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES[:2], *[one for one in CASES if one.bounds][:1]], ids=lambda case: case.name)
def test_each_start_of_lbfgs_ends_as_by_eager_where_it_is_compiled(case):
    test_each_start_of_lbfgs_ends_as_by_eager("compiled", case, torch.float64)


TRUST = [*[("lm", case) for case in FITS], *[("newton", case) for case in LOSSES]]


@pytest.mark.parametrize(("engine", "dtype"), LAWS, indirect=["engine"])
@pytest.mark.parametrize(("name", "case"), TRUST, ids=lambda one: getattr(one, "name", one))
def test_each_start_of_a_trust_region_ends_as_by_eager(engine, name, case, dtype):
    optimiser, options = SOLVERS[name]
    starts = torch.tensor(case.starts, dtype=dtype)
    if case.fit:
        objective = ResidualObjective(case.function, starts[0], case.bounds, robust=RobustLoss(case.loss, 0.5))
    else:
        objective = FunctionObjective(case.function, starts[0], case.bounds)

    def solve(**which):
        return gradopt.minimise(objective, starts=starts, optimiser=optimiser, optimiser_options=options, **which)

    eager, ours = both(engine, solve, stop=Stop(max_steps=200))

    assert_same(ours, eager, close=1e-6 if dtype is torch.float64 else 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), [("lm", FITS[2]), ("newton", LOSSES[0])], ids=["fit", "loss"])
def test_each_start_of_a_trust_region_ends_as_by_eager_where_it_is_compiled(name, case):
    test_each_start_of_a_trust_region_ends_as_by_eager("compiled", name, case, torch.float64)


class Shapes(gradopt.Objective):
    """Unknowns of several shapes, one that it does not use, and data."""

    def __init__(self, dtype):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros((), dtype=dtype))
        self.matrix = nn.Parameter(torch.zeros(3, 2, dtype=dtype).T)  # not in the order of its rows
        self.unused = nn.Parameter(torch.zeros(2, dtype=dtype))
        self.register_buffer("data", torch.linspace(-1, 1, 3, dtype=dtype))

    def forward(self, batch=None):
        return torch.log(self.scale) + (self.matrix @ self.data).square().sum() + self.data @ self.matrix[0]


@pytest.mark.parametrize("program", EVERY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("number", [1, 2, 16, 17, 100])
def test_losses_and_gradients_are_those_of_autograd(monkeypatch, program, dtype, number):
    if program == "mapped":
        monkeypatch.setattr(compiled_starts, "code_of", lambda function, inputs: function)
    monkeypatch.setattr(compiled_starts, "TILE", 200)  # several tiles, the last of them filled up
    objective, generator = Shapes(dtype), torch.Generator().manual_seed(0)
    graph = trace_loss(AutogradOracle(objective))
    build = NativeEvaluations if program == "native" else lambda graph: CompiledEvaluations(graph, 60)

    def some(*shape):
        return torch.randn(*shape, dtype=dtype, generator=generator)

    parts = [some(number), some(number, 2, 3), some(number, 2)]
    parts[0][:2] = torch.tensor([0.0, -1.0])[:number]  # an infinite derivative; and no number
    kept = [part.clone() for part in parts]
    oracle = StackedOracle(objective, dict(zip(("scale", "matrix", "unused"), (p.abs() for p in kept), strict=True)))

    losses, gradients = build(graph)(parts)
    usual, slopes = oracle.by_autograd(parts)

    assert losses.dtype is dtype and losses.shape == (number,)
    close = {"rtol": 1e-12 if dtype is torch.float64 else 1e-5, "atol": 1e-12 if dtype is torch.float64 else 1e-5}
    torch.testing.assert_close(losses, usual, equal_nan=True, **close)
    assert bool(losses.isnan().any()) == (number > 1) and losses[0] == -torch.inf and gradients[0][0] == torch.inf
    for part, before, gradient, slope in zip(parts, kept, gradients, slopes, strict=True):
        assert torch.equal(part, before) and gradient.shape == part.shape
        torch.testing.assert_close(gradient, torch.zeros_like(part) if slope is None else slope, **close)


def test_the_gradients_of_autograd_are_not_the_data_of_the_loss():
    class Linear(gradopt.Objective):
        """Its gradient is its data, and its loss a view of an unknown."""

        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.zeros(3, dtype=torch.float64))
            self.register_buffer("slope", torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))

        def losses(self, parameters):
            return parameters["x"][:, 0]

        def forward(self, batch=None):
            return self.slope @ self.x

    objective = Linear()
    oracle = StackedOracle(objective, {"x": torch.ones(4, 3, dtype=torch.float64)})

    found = oracle.evaluate_some(torch.arange(4))
    found.put(torch.tensor([1]), oracle.evaluate_some(torch.tensor([2])))
    found.loss[0] = found.gradient[0, 0] = 7.0

    assert torch.equal(found.point, torch.ones(4, 3, dtype=torch.float64))
    assert found.gradient[1:, 0].tolist() == [1.0, 1.0, 1.0] and objective.slope.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("limit", [1, 2, GATE_EVALUATIONS - 1, GATE_EVALUATIONS, GATE_EVALUATIONS + 1, 33])
def test_budgets_are_kept_to_the_last_evaluation_of_each_start(engine, limit):
    starts = torch.tensor(CASES[0].starts, dtype=torch.float64)

    def solve(**options):
        return gradopt.minimise(f.rosenbrock, starts=starts, optimiser="lbfgs", **options)

    eager, ours = both(engine, solve, stop=Stop(max_evaluations=limit))

    assert ours.nfev.tolist() == eager.nfev.tolist() and ours.njev.tolist() == eager.njev.tolist()
    assert ours.nit.tolist() == eager.nit.tolist() and int(ours.nfev.max()) <= limit


@pytest.mark.parametrize("engine", EVERY, indirect=True)
def test_starts_that_end_leave_the_others_to_the_program(caplog, engine):
    caplog.set_level(logging.INFO, "gradopt")
    starts = torch.tensor(drawn(60, 4, -4, 4), dtype=torch.float64)

    def solve(**options):
        return gradopt.minimise(wood, starts=starts, optimiser="lbfgs", **options)

    eager, ours = both(engine, solve)

    assert_same(ours, eager, close=1e-6)
    assert ours.nfev.tolist() == pytest.approx(eager.nfev.tolist(), rel=0.1, abs=4)
    going = ours.history["going"]
    assert taken(caplog, engine) and int((going < 60).sum()) > 5 and len(set(going.tolist())) > 5


def test_a_start_that_turns_nan_harms_no_other(caplog, engine):
    caplog.set_level(logging.INFO, "gradopt")
    starts = torch.tensor([*drawn(6, 2, 0.001, 50), (-1.0, 1.0)], dtype=torch.float64)
    options = {"optimiser": "lbfgs", "engine": engine}

    with_nan = gradopt.minimise(log_well, starts=starts, **options)
    without = gradopt.minimise(log_well, starts=starts[:-1], **options)

    assert with_nan.status == [Status.CONVERGED] * 6 + [Status.NON_FINITE] and taken(caplog, engine)
    torch.testing.assert_close(with_nan.x[:-1], without.x, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
@pytest.mark.parametrize("loss", [cusp, tilted], ids=["infinite derivatives on a bound", "minimum on a bound"])
def test_bounds_pin_unknowns_as_by_eager(engine, loss, optimiser):
    starts = torch.tensor([(1.0, 0.5), (0.0, 0.0), (2.0, 3.0), (0.0, 3.5)], dtype=torch.float64)

    def solve(**options):
        return gradopt.minimise(loss, starts=starts, optimiser=optimiser, bounds=(0.0, 4.0), **options)

    eager, ours = both(engine, solve)

    assert_same(ours, eager, close=1e-7)
    assert bool(ours.success.all()) and ours.nfev.tolist() == eager.nfev.tolist()


def test_a_loss_that_counts_its_calls_is_refused_and_by_auto_runs_eagerly(monkeypatch, caplog, engine):
    caplog.set_level(logging.INFO, "gradopt")
    given = {"starts": torch.tensor(drawn(5, 2, -2, 2), dtype=torch.float64), "optimiser": "lbfgs"}
    calls = []

    def counting(x):
        calls.append(1)
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    with pytest.raises(Mistake, match=f"engine={engine} cannot run this: the loss keeps state of its own: a call"):
        gradopt.minimise(counting, engine=engine, **given)
    use(monkeypatch, NativeEvaluations)
    found = gradopt.minimise(counting, engine="auto", **given)

    assert bool(found.success.all())
    assert "engine: eager to the end, as the loss is no graph: the loss keeps state of its own" in caplog.text


def use(monkeypatch, build, patience=0.0):
    """Let `auto` and `engine=native` know this program alone."""
    monkeypatch.setattr(evaluating_starts, "kinds", lambda number: {"native": EvaluationKind(build, patience)})


class Changing(FunctionObjective):
    """State where no trace shows it: after some calls the loss of every start is 1 % larger."""

    def __init__(self, function, x0, calls):
        super().__init__(function, x0)
        self._factors = itertools.chain([1.0] * calls, itertools.repeat(1.01))

    def losses(self, parameters):
        return next(self._factors) * super().losses(parameters)


@pytest.mark.parametrize("wrong", [3, 7])
def test_the_gate_sees_what_no_trace_shows(engine, wrong):
    objective = Changing(f.rosenbrock, torch.zeros(2, dtype=torch.float64), wrong)
    starts = torch.tensor(drawn(8, 2, -2, 2), dtype=torch.float64)

    with pytest.raises(
        Mistake,
        match=rf"engine={engine} cannot run this: at evaluation \d+ of 10 its loss at a start is .*, and that of eager",
    ):
        gradopt.minimise(objective, starts=starts, optimiser="lbfgs", engine=engine)


def settled(program, objective, parts):
    """What the gate says of a program after ten evaluations of these parts."""
    told, oracle = [], StackedOracle(objective, {"x": parts})
    gate = StartsGate(oracle.by_autograd, program, lambda problem, pace, usual: told.append(problem))
    for _ in range(GATE_EVALUATIONS):
        losses, _ = gate([parts])
        assert torch.equal(losses.nan_to_num(), oracle.by_autograd([parts])[0].nan_to_num())
        if told:
            return told[0]
    raise AssertionError("the gate has said nothing")


def cancelling(x):
    """Large terms cancel near its minimum, 0 at 1."""
    return (x**4 - 4 * x**3 + 6 * x**2 - 4 * x + 1).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_what_rounding_makes_of_starts_at_their_minimum_is_no_difference(dtype):
    """A program rounds otherwise than autograd: here autograd's own numbers a rounding away stand for it."""
    objective = FunctionObjective(cancelling, torch.zeros(3, dtype=dtype))
    oracle = StackedOracle(objective, {"x": torch.ones(1, 3, dtype=dtype)})
    eps = torch.finfo(dtype).eps
    parts = 1 + eps * torch.randn(200, 3, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 1e4

    def program(given):
        return oracle.by_autograd([part * (1 + eps) for part in given])

    ours, usual = program([parts])[0], oracle.by_autograd([parts])[0]
    assert bool(((ours - usual).abs() > 1e-2 * usual).any())  # far off, by their own scale
    assert settled(program, objective, parts) is None


@pytest.mark.parametrize("entry", ["loss", "gradient", "nan", "number"])
def test_one_start_that_is_off_is_enough(entry):
    objective = FunctionObjective(log_well, torch.ones(2, dtype=torch.float64))
    oracle = StackedOracle(objective, {"x": torch.ones(1, 2, dtype=torch.float64)})
    parts = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1.5
    parts[9], parts[31] = 1e6, -1.0  # one of another scale, and one without a number

    def program(given):
        losses, (gradients,) = oracle.by_autograd(given)
        if len(losses) > 1:
            losses[17] *= 1.001 if entry == "loss" else 1.0
            gradients[17, 1] *= 1.001 if entry == "gradient" else 1.0
            losses[17 if entry == "nan" else 31] = 3.0 if entry == "number" else torch.nan
        return losses, [gradients]

    expected = "an entry of its gradient" if entry == "gradient" else "its loss"
    assert re.match(rf"at evaluation 1 of 10 {expected} at a start is", settled(program, objective, parts))


def test_auto_takes_a_program_once_it_pays_and_says_so(monkeypatch, caplog):
    use(monkeypatch, NativeEvaluations)
    caplog.set_level(logging.INFO, "gradopt")
    starts = torch.tensor(drawn(300, 4, -4, 4), dtype=torch.float64)

    eager, ours = (gradopt.minimise(wood, starts=starts, optimiser="lbfgs", engine=name) for name in ("eager", "auto"))

    assert taken(caplog, "native") and re.search(r"as by eager, .* us an evaluation, eager", caplog.text)
    assert_same(ours, eager, close=1e-6)


def test_auto_waits_for_evaluations_alone_to_take_its_patience(monkeypatch):
    built = []
    use(monkeypatch, lambda graph: built.append(1) or NativeEvaluations(graph), patience=0.2)
    monkeypatch.setattr(patience, "FIRST_TRACE", 0.0)

    def slow(x):
        time.sleep(0.02)
        return f.rosenbrock(x)

    starts = torch.tensor(drawn(4, 2, -2, 2), dtype=torch.float64)
    gradopt.minimise(f.rosenbrock, starts=starts, optimiser="lbfgs", callback=lambda block: time.sleep(0.02) or False)
    assert not built

    gradopt.minimise(slow, starts=starts, optimiser="lbfgs")
    assert built


def failing(graph):
    raise Refusal("there is no compiler")


def dying(graph):
    return lambda parts: 1 / 0


def slow(graph):
    program = NativeEvaluations(graph)
    return lambda parts: time.sleep(0.02) or program(parts)


@pytest.mark.parametrize(
    ("build", "reason"),
    [(failing, "there is no compiler"), (dying, "ZeroDivisionError"), (slow, "it is not faster")],
    ids=["no compiler", "a program that dies", "a slow program"],
)
def test_auto_falls_back_to_eager_and_says_why(monkeypatch, caplog, build, reason):
    use(monkeypatch, build)
    caplog.set_level(logging.INFO, "gradopt")
    starts = torch.tensor(drawn(20, 2, -2, 2), dtype=torch.float64)

    eager, ours = (
        gradopt.minimise(f.rosenbrock, starts=starts, optimiser="lbfgs", engine=name) for name in ("eager", "auto")
    )

    assert f"engine: eager, not native: {reason}" in caplog.text
    assert torch.equal(ours.x, eager.x) and ours.nfev.tolist() == eager.nfev.tolist()


def test_building_a_program_takes_nothing_of_the_time_that_a_run_is_given(monkeypatch):
    use(monkeypatch, lambda graph: time.sleep(1.0) or NativeEvaluations(graph))
    starts = torch.tensor(drawn(5, 2, -2, 2), dtype=torch.float64)

    found = gradopt.minimise(
        f.rosenbrock, starts=starts, optimiser="lbfgs", engine="native", stop=Stop(max_seconds=1.0)
    )

    assert int(found.nit.min()) > 1


def test_steps_that_are_replayed_whole_are_refused():
    objective = FunctionObjective(f.rosenbrock, torch.zeros(2, dtype=torch.float64))
    oracle = StackedOracle(objective, {"x": torch.ones(3, 2, dtype=torch.float64)})

    with pytest.raises(Mistake, match="engine=cuda_graph cannot run this: it replays whole steps, and lbfgs decides"):
        evaluating("cuda_graph", oracle, object(), "lbfgs")
    with pytest.raises(Mistake, match="engine=cuda_graph"):
        gradopt.minimise(f.rosenbrock, starts=torch.ones(3, 2), optimiser="lbfgs", engine="cuda_graph")


@pytest.mark.parametrize("names", [("native", "eager"), ("eager", "native"), ("native", "native")], ids="-".join)
@pytest.mark.parametrize("optimiser", ["lbfgs", "trust_region"])
def test_a_state_saved_under_one_engine_goes_on_under_another(tmp_path, names, optimiser):
    starts = {"x": torch.tensor([*drawn(7, 2, -3, 3), (1.0, 1.0)], dtype=torch.float64)}

    def build(engine):
        target = FunctionObjective(f.rosenbrock, torch.zeros(2, dtype=torch.float64))
        assembly = assemble_starts(target, starts, optimiser, engine=engine)
        return assembly, Verdicts(assembly.criteria, 8)

    def walk(assembly, verdicts, until=10_000):
        for block in iterate(assembly.engine, assembly.criteria, max_rows=1, verdicts=verdicts):
            if block.last_step + 1 == until:
                break

    (whole, judged), (head, before), (tail, after) = build("eager"), build(names[0]), build(names[1])
    walk(whole, judged)
    walk(head, before, until=14)
    head.engine.update()
    parts = [head.engine, before, *head.criteria]
    torch.save([part.state_dict() for part in parts], tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=False)
    for part, state in zip([tail.engine, after, *tail.criteria], states, strict=True):
        part.load_state_dict(state)
    walk(tail, after)

    assert (head.engine.name, tail.engine.name) == names and 0 < int((before.codes < 0).sum()) < 8
    assert [one.status for one in after] == [one.status for one in judged]
    assert bool(((after.steps - judged.steps).abs() <= 2).all())
    torch.testing.assert_close(tail.engine.ended().point, whole.engine.ended().point, rtol=1e-7, atol=1e-7)
    counts = tail.engine.ended().counts
    torch.testing.assert_close(counts, whole.engine.ended().counts, rtol=0.1, atol=4)


@pytest.mark.parametrize(
    ("engine", "label"), [("native", "native"), ("auto", "auto, begins eager"), ("eager", "eager")]
)
def test_a_run_says_what_its_engine_is(engine, label):
    target = FunctionObjective(f.rosenbrock, torch.zeros(2, dtype=torch.float64))

    assembly = assemble_starts(target, {"x": torch.ones(3, 2, dtype=torch.float64)}, "lbfgs", engine=engine)

    assert assembly.facts["engine"] == label and assembly.engine.name == "eager"


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs", "trust_region"])
@pytest.mark.parametrize("name", ["eager", "native"])
def test_a_loss_of_another_type_than_its_unknowns_runs_as_alone(name, optimiser):
    def rounded(x):
        return ((x - 1) ** 2).sum().float()

    starts = torch.tensor(drawn(20, 2, -2.0, 2.0), dtype=torch.float64)

    many = gradopt.minimise(rounded, starts=starts, optimiser=optimiser, engine=name)

    alone = gradopt.minimise(rounded, starts[0], optimiser=optimiser, engine=name)
    assert many[0].status is alone.status
    torch.testing.assert_close(many.x[0], alone.x, rtol=1e-6, atol=1e-6)
    assert many[0].status is gradopt.Status.CONVERGED


@pytest.mark.parametrize("where", [{"x0": [-1.2, 1.0]}, {"starts": [[-1.2, 1.0], [2.0, 2.0]]}], ids=["one", "many"])
def test_fits_take_an_engine_too(where):
    def valley(x):
        return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])

    eager, native = (gradopt.least_squares(valley, **where, engine=name) for name in ("eager", "native"))

    assert native.engine == "native" or int(torch.as_tensor(native.nfev).max()) <= GATE_EVALUATIONS
    torch.testing.assert_close(native.x, eager.x, rtol=1e-8, atol=1e-8)
    with pytest.raises(Mistake, match="engine='fast' is not one of"):
        gradopt.least_squares(valley, **where, engine="fast")
