"""The laws of engines: whichever runs, the verdict, the step and the records are those of eager."""

import math

import pytest
import torch
from torch import nn

import gradopt
from gradopt.engines import choice, compiled
from gradopt.mistakes import Mistake
from gradopt.settings import Stop
from tests.engines.runs import PROGRAMS, agree, built, told, use

QUICK = ("chunked", "masked", "native")
"""A chunk is made of traced steps."""

ELEMENTWISE = (
    "adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "rprop", "sgd",
)  # fmt: skip
BITWISE = {"adadelta", "adagrad", "adam", "adamax", "adamw", "rmsprop", "rprop"}
RATES = {"sgd": 1e-4, "asgd": 1e-4, "adadelta": 0.1, "rprop": 1e-3}
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}


def both(monkeypatch, program, problem, name, *, options=None, **others):
    use(monkeypatch, program)
    options = {"lr": RATES.get(name, 1e-2)} if options is None else options
    eager = told(built(problem, name, options, **others))
    ours = told(built(problem, name, options, engine="compiled", **others))
    assert ours.engine == "compiled"
    return ours, eager


@pytest.mark.parametrize(
    ("problem", "dtype"),
    [
        ("polynomial", torch.float64),
        ("rosenbrock2", torch.float64),
        ("perceptron", torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_graph_of_every_class_of_torch_optim_is_its_step(monkeypatch, name, problem, dtype):
    ours, eager = both(monkeypatch, "traced", problem, name, dtype=dtype, stop=Stop(max_steps=40))

    agree(ours, eager, tolerance=ROUNDING[dtype])
    if name in BITWISE and problem in ("polynomial", "rosenbrock2"):  # longer sums of torch may take other lanes
        assert torch.equal(ours.point, eager.point)
        assert torch.equal(ours.best[1], eager.best[1])


@pytest.mark.parametrize("program", QUICK)
@pytest.mark.parametrize(
    ("problem", "name"),
    [("polynomial", "sgd"), ("rosenbrock2", "sgd"), ("rosenbrock100", "adam"), ("perceptron", "adam")],
)
def test_programs_give_the_records_of_eager(monkeypatch, name, problem, program):
    ours, eager = both(monkeypatch, program, problem, name, stop=Stop(max_steps=100))

    agree(ours, eager, tolerance=1e-9)
    assert ours.best[0] == pytest.approx(eager.best[0], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"lr": 1e-4, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
        ("sgd", {"lr": 1e-4, "momentum": 0.9, "nesterov": True}),
        ("adam", {"lr": 1e-2, "amsgrad": True, "weight_decay": 0.1}),
        ("rmsprop", {"lr": 1e-2, "centered": True, "momentum": 0.5}),
        ("nadam", {"lr": 1e-2, "decoupled_weight_decay": True, "weight_decay": 0.1}),
        ("adam", {"lr": 1e-2, "clip_norm": 1.0}),
        ("adamw", {"lr": 1e-2, "clip_value": 0.01}),
        ("adam", {"lr": 1e-2, "groups": {"first.*": {"lr": 1e-3}}}),
    ],
)
@pytest.mark.parametrize("program", QUICK)
def test_options_clipping_and_groups_are_in_the_graph(monkeypatch, name, options, program):
    ours, eager = both(monkeypatch, program, "perceptron", name, options=options, stop=Stop(max_steps=30))

    agree(ours, eager, tolerance=1e-10)


@pytest.mark.parametrize("schedule", [{"name": "cosine", "T_max": 60}, {"name": "step", "step_size": 7, "every": 3}])
@pytest.mark.parametrize("program", QUICK)
def test_schedules_are_inputs(monkeypatch, schedule, program):
    ours, eager = both(monkeypatch, program, "rosenbrock2", "adam", schedule=schedule, stop=Stop(max_steps=60))

    agree(ours, eager, tolerance=1e-9)
    assert torch.equal(ours.columns["learning_rate"], eager.columns["learning_rate"])


class Cliff(gradopt.Objective):
    """Descends evenly to a place where the loss is NaN."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([10.0, 3.0]))

    def forward(self, batch=None):
        return (self.x[0] - 1.05).sqrt() * 0 + self.x[0] + self.x[1]


@pytest.mark.parametrize("program", QUICK)
@pytest.mark.parametrize("lr", [0.4, 0.31, 0.05])
def test_a_loss_that_is_no_number_in_the_middle_of_a_call_moves_nothing(monkeypatch, program, lr):
    ours, eager = both(monkeypatch, program, Cliff, "sgd", options={"lr": lr, "momentum": 0.5})

    assert ours.status == eager.status == "non_finite"
    assert ours.step == eager.step
    torch.testing.assert_close(ours.point, eager.point, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(ours.best[1], eager.best[1], rtol=1e-13, atol=0.0)
    assert math.isnan(ours.columns["loss"][-1])


@pytest.mark.parametrize("program", QUICK)
@pytest.mark.parametrize("target", [54.0, -31.9])
def test_a_target_that_is_reached_in_the_middle_of_a_call_ends_there(monkeypatch, program, target):
    ours, eager = both(monkeypatch, program, "polynomial", "adam", options={"lr": 1e-2}, stop=Stop(target=target))

    assert ours.status == eager.status == "target_reached"
    assert ours.step == eager.step
    torch.testing.assert_close(ours.point, eager.point, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("program", QUICK)
@pytest.mark.parametrize("limit", [1, 2, 7, 8, 15, 17, 117])
def test_budgets_are_kept_to_the_last_evaluation(monkeypatch, program, limit):
    use(monkeypatch, program)
    eager = told(built("rosenbrock2", stop=Stop(max_evaluations=limit)))
    ours = told(built("rosenbrock2", engine="compiled", stop=Stop(max_evaluations=limit)))

    assert ours.status == eager.status == "max_evaluations"
    assert ours.counts == eager.counts == (limit, limit)
    assert ours.step == eager.step == limit - 1


@pytest.mark.parametrize("program", QUICK)
def test_a_deadline_between_two_blocks_ends_at_the_row_before(monkeypatch, program):
    use(monkeypatch, program)
    assembly = built("rosenbrock2", engine="compiled", stop=Stop(max_steps=10_000))
    before = told(assembly, until=50)
    rows, eager = before.step + 1, told(built("rosenbrock2", stop=Stop(max_steps=before.step)))

    assembly.oracle.deadline = -math.inf
    block = assembly.engine.advance(100, {}, 1.0)

    assert len(block) == 1
    assert type(block.cut_short).__name__ == "BudgetSpent"
    assert block.first_step == before.step
    torch.testing.assert_close(assembly.oracle.read(), eager.point, rtol=1e-12, atol=0.0)
    assert block["loss"][0, 0] == before.columns["loss"][-1]
    assert assembly.oracle.num_losses == rows


@pytest.mark.parametrize("program", QUICK)
@pytest.mark.parametrize(
    ("first", "second", "schedule"),
    [
        ("eager", "compiled", {"name": "exponential", "gamma": 0.99}),
        ("compiled", "eager", {"name": "exponential", "gamma": 0.99}),
        ("compiled", "compiled", None),
    ],
)
def test_a_state_saved_under_one_engine_goes_on_under_another(monkeypatch, program, first, second, schedule):
    use(monkeypatch, program)
    given = {"schedule": schedule, "stop": Stop(max_steps=90)}
    whole = told(built("rosenbrock2", **given))
    head = built("rosenbrock2", engine=first, **given)
    begun = told(head, until=40)
    state = head.engine.state_dict()
    criteria = [criterion.state_dict() for criterion in head.criteria]

    tail = built("rosenbrock2", engine=second, **given)
    tail.engine.load_state_dict(state)
    for criterion, one in zip(tail.criteria, criteria, strict=True):
        if one:
            criterion.load_state_dict(one)
    rest = told(tail)

    assert rest.status == whole.status
    assert rest.step == whole.step
    assert rest.counts == whole.counts
    torch.testing.assert_close(rest.point, whole.point, rtol=1e-10, atol=0.0)
    for name, column in whole.columns.items():
        joined = torch.cat([begun.columns[name], rest.columns[name]])
        torch.testing.assert_close(joined, column, rtol=1e-9, atol=0.0, equal_nan=True)


def test_a_best_point_has_the_gradient_of_its_place(monkeypatch):
    use(monkeypatch, "chunked")
    assembly = built("rosenbrock2", engine="compiled", options={"lr": 0.5}, stop=Stop(max_steps=60))

    told(assembly)

    best, counts = assembly.oracle.best, (assembly.oracle.num_losses, assembly.oracle.num_gradients)
    assert torch.equal(best.gradient, assembly.oracle.gradient(best.point))
    assert best.gradient.abs().max().item() == best.gradient_norm
    assert assembly.oracle.num_gradients == counts[1] + 1  # of the assertion alone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "dtype"),
    [
        ("polynomial", torch.float64),
        ("rosenbrock2", torch.float32),
        ("rosenbrock100", torch.float64),
        ("perceptron", torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_compiled_steps_are_those_of_eager(monkeypatch, name, problem, dtype):
    ours, eager = both(monkeypatch, "compiled", problem, name, dtype=dtype, stop=Stop(max_steps=60))

    agree(ours, eager, tolerance=ROUNDING[dtype])


@pytest.mark.slow
def test_the_compiler_runs_the_first_problem_in_chunks(monkeypatch):
    calls, lifted = [], []
    lift = compiled._lift
    monkeypatch.setattr(compiled, "_lift", lambda module: lifted.append(lift(module)) or lifted[-1])

    def watched(graph):
        program = PROGRAMS["compiled"](graph)
        for name in ("_step", "_chunk"):
            code = getattr(program, name)
            setattr(program, name, lambda *inputs, name=name, code=code: calls.append(name) or code(*inputs))
        return program

    ours, eager = both(monkeypatch, watched, "polynomial", "adam", stop=Stop(max_steps=100))

    agree(ours, eager, tolerance=1e-12)
    assert 8 * calls.count("_chunk") > calls.count("_step")
    assert [len(constants) for constants in lifted] == [2, 2]  # the bounds, however often a step reads them


def test_python_can_ask_for_an_engine():
    result = gradopt.minimise(
        lambda x: ((x - 3) ** 2).sum(), [0.0, 1.0], optimiser="sgd", optimiser_options={"lr": 0.1}, engine="native"
    )

    assert result.success
    torch.testing.assert_close(result.x, torch.full((2,), 3.0, dtype=torch.float64))


def test_an_engine_that_there_is_not_is_a_mistake():
    with pytest.raises(Mistake, match=r"engine='compile' is not one of.* Did you mean 'compiled'"):
        gradopt.minimise(lambda x: x**2, 1.0, engine="compile")


def test_the_kinds_of_programs_are_the_engines_that_a_config_knows():
    from gradopt.settings import ENGINES

    assert set(ENGINES) == {"auto", "eager", *choice.KINDS}
