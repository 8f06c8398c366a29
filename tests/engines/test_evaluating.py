"""Optimisers that decide by values, on a program of loss and gradient: the same run as on autograd."""

import logging
import math
import re
import time

import pytest
import torch
from torch import nn

import gradopt
from gradopt.engines import choice
from gradopt.engines.evaluating import GATE_EVALUATIONS, EvaluationKind
from gradopt.engines.loss_graph import trace_loss
from gradopt.engines.native.evaluation import NativeEvaluation
from gradopt.engines.purity import Refusal
from gradopt.mistakes import Mistake
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.oracle import AutogradOracle
from gradopt.settings import Stop
from tests.engines.runs import PROBLEMS, built, told
from tests.engines.test_refusals import Bowl, at_random, branches, counts, remembers, unseen_state


def traced(graph):
    """What takes part in a compiled evaluation without a compiler's seconds."""

    def evaluation():
        loss, *gradients = graph.module(*[parameter.detach() for parameter in graph.parameters])
        for parameter, gradient in zip(graph.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss

    return evaluation


PROGRAMS = {"traced": traced, "native": NativeEvaluation, "compiled": choice.EVALUATIONS["compiled"].build}
QUICK = ("traced", "native")


def use(monkeypatch, program, patience=math.inf):
    """Let `engine=compiled` and `auto` know this program of evaluations alone."""
    kind = EvaluationKind(PROGRAMS.get(program, program), patience)
    monkeypatch.setattr(choice, "EVALUATIONS", {"compiled": kind})


class Decay(gradopt.Objective):
    """A fit of two exponentials' sum, on a grid."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, 0.3, 2.0]))
        self.register_buffer("times", torch.linspace(0.0, 4.0, 25))
        self.register_buffer("heights", 2.0 * torch.exp(-0.7 * self.times) + 0.5)

    def residuals(self):
        height, rate, floor = self.x
        return height * torch.exp(-rate * self.times) + floor - self.heights


class Boxed(Rosenbrock):
    """Its minimum lies outside the box."""

    def bounds(self):
        return {"x": (None, 0.7)}

    def __init__(self):
        super().__init__(4, x0=[-1.2, 0.5, -1.2, 0.5])


FIRST = {"rosenbrock2": PROBLEMS["rosenbrock2"], "perceptron": PROBLEMS["perceptron"], "fit": Decay, "box": Boxed}
PAIRS = [
    ("lbfgs", "rosenbrock2"),
    ("lbfgs", "perceptron"),
    ("lbfgs", "fit"),
    ("lbfgs", "box"),
    ("trust_region", "rosenbrock2"),
    ("trust_region", "box"),
    ("levenberg_marquardt", "fit"),
    ("torch_lbfgs", "rosenbrock2"),
]


def both(monkeypatch, program, problem, name, **others):
    use(monkeypatch, program)
    given = {"stop": Stop(max_steps=200), **others}
    eager, assembly = told(built(problem, name, {}, **given)), built(problem, name, {}, engine="compiled", **given)
    return told(assembly), eager


def same(ours, eager, *, tolerance):
    assert ours.status == eager.status
    assert abs(ours.step - eager.step) <= max(2, 0.01 * eager.step)
    torch.testing.assert_close(ours.point, eager.point, rtol=tolerance, atol=tolerance)
    for name in ("loss", "gradient_norm", "step_norm"):  # rounding grows from step to step
        mine, theirs = ours.columns[name][:5], eager.columns[name][:5]
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "problem"), PAIRS, ids=lambda one: one)
@pytest.mark.parametrize("program", QUICK)
def test_a_run_on_a_program_is_the_run_of_eager(monkeypatch, program, name, problem, dtype):
    # float32 sees no end of the perceptron's valley, and the last steps there are rounding's
    budget = Stop(max_steps=12) if problem == "perceptron" else Stop(max_steps=200)

    ours, eager = both(monkeypatch, program, FIRST[problem], name, dtype=dtype, stop=budget)

    same(ours, eager, tolerance=1e-6 if dtype is torch.float64 else 2e-2)
    assert ours.engine == ("compiled" if ours.counts[0] >= GATE_EVALUATIONS else "eager")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "problem"), PAIRS, ids=lambda one: one)
def test_a_run_on_a_compiled_evaluation_is_the_run_of_eager(monkeypatch, name, problem):
    budget = Stop(max_steps=12) if problem == "perceptron" else Stop(max_steps=200)

    same(*both(monkeypatch, "compiled", FIRST[problem], name, stop=budget), tolerance=1e-6)


@pytest.mark.parametrize("limit", [1, 2, GATE_EVALUATIONS - 1, GATE_EVALUATIONS, GATE_EVALUATIONS + 1, 23])
@pytest.mark.parametrize("program", QUICK)
def test_budgets_are_kept_to_the_last_evaluation(monkeypatch, program, limit):
    ours, eager = both(monkeypatch, program, "rosenbrock2", "lbfgs", stop=Stop(max_evaluations=limit))

    assert ours.status == eager.status == "max_evaluations"
    assert ours.counts == eager.counts == (limit, limit)
    assert ours.step == eager.step


def wall(x):
    """A slope that leads to where the loss is no number."""
    return torch.where(x[0] > -50.0, x[0], torch.nan) + x[1] ** 2


@pytest.mark.parametrize("program", QUICK)
def test_a_loss_that_is_no_number_leaves_the_parameters_at_the_last_accepted_point(monkeypatch, program):
    class Walled(Bowl):
        def forward(self, batch=None):
            return wall(self.x)

    stop = Stop(max_evaluations=37)
    ours, eager = both(monkeypatch, program, Walled, "lbfgs", stop=stop)

    assert ours.engine == "compiled"
    assert (ours.status, ours.step, ours.counts) == (eager.status, eager.step, eager.counts)
    assert ours.step < 37 - 1  # some trials met the wall
    assert wall(ours.point).item() == ours.columns["loss"][-1]
    torch.testing.assert_close(ours.point, eager.point, rtol=1e-9, atol=1e-9)


REFUSED = {
    "a branch": (branches, "depends on a value it reads in Python"),
    "a counter": (counts, "keeps state of its own: a call changes calls"),
    "a list": (remembers, "keeps state of its own: a call changes seen"),
    "Python's random numbers": (at_random, "a generator of random numbers"),
    "dropout": (lambda bowl: bowl.dropout(bowl.x).sum(), "draws random numbers"),
}


@pytest.mark.parametrize(("extra", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_no_graph_shows_is_refused_with_its_reason(extra, reason):
    bowl = Bowl(extra)

    with pytest.raises(Mistake, match=f"engine=native cannot run this: .*{reason}"):
        gradopt.minimise(bowl, optimiser="lbfgs", engine="native")

    assert (bowl.calls, bowl.seen) == (0, [])


def test_steps_that_are_replayed_whole_are_refused():
    with pytest.raises(Mistake, match="replays whole steps, and LBFGS decides by values in the middle of one"):
        gradopt.minimise(lambda x: (x**2).sum(), [1.0, 2.0], optimiser="lbfgs", engine="cuda_graph")


@pytest.mark.parametrize("program", QUICK)
def test_the_gate_sees_what_no_trace_shows(monkeypatch, program):
    changing = unseen_state()

    class Valley(changing):
        def forward(self, batch=None):
            return super().forward() + 100 * (self.x[1] - self.x[0] ** 2) ** 2

    use(monkeypatch, program)
    with pytest.raises(
        Mistake, match=r"at evaluation \d+ of 10 its loss is .*, and that of eager .*: the loss has state"
    ):
        told(built(Valley, "lbfgs", {}, engine="compiled"))


def test_auto_takes_a_program_once_it_pays_and_says_so(monkeypatch, caplog):
    use(monkeypatch, "native", patience=0.0)

    with caplog.at_level(logging.INFO, logger="gradopt"):
        ours = told(built("rosenbrock100", "lbfgs", {}, engine="auto", stop=Stop(max_steps=40)))

    eager = told(built("rosenbrock100", "lbfgs", {}, stop=Stop(max_steps=40)))
    assert ours.engine == "compiled"
    assert re.search(r"losses and gradients by compiled: the same as by eager, .* us an evaluation", caplog.text)
    assert ours.status == eager.status == "max_steps"
    torch.testing.assert_close(ours.columns["loss"][-1], eager.columns["loss"][-1], rtol=1e-2, atol=0.0)


def failing(graph):
    raise Refusal("there is no compiler")


def dying(graph):
    return lambda: 1 / 0


def slow(graph):
    evaluation = traced(graph)
    return lambda: time.sleep(0.02) or evaluation()


@pytest.mark.parametrize(
    ("extra", "program", "reason"),
    [
        (counts, "traced", "eager to the end, as the loss is no graph: the loss keeps state"),
        (None, failing, "eager, not compiled: there is no compiler"),
        (None, dying, "eager, not compiled: ZeroDivisionError"),
        (None, slow, "eager, not compiled: it is not faster"),
    ],
)
def test_auto_falls_back_to_eager_and_says_why(monkeypatch, caplog, extra, program, reason):
    class Valley(Bowl):
        def forward(self, batch=None):
            return super().forward() + 100 * (self.x[1] - self.x[0] ** 2) ** 2

    use(monkeypatch, program, patience=0.0)

    with caplog.at_level(logging.INFO, logger="gradopt"):
        ours = told(built(lambda: Valley(extra), "lbfgs", {}, engine="auto"))

    eager = told(built(lambda: Valley(extra), "lbfgs", {}))
    assert ours.engine == "eager"
    assert f"engine: {reason}" in caplog.text
    assert torch.equal(ours.point, eager.point)
    assert ours.counts == eager.counts


@pytest.mark.parametrize("program", [*QUICK, pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_gradient_is_memory_of_its_own(program):
    class Linear(gradopt.Objective):
        """Its gradient is its data, twice."""

        def __init__(self):
            super().__init__()
            self.x, self.y = (nn.Parameter(torch.ones(3)) for _ in range(2))
            self.register_buffer("slope", torch.tensor([1.0, 2.0, 3.0]))

        def forward(self, batch=None):
            return self.slope @ self.x + self.slope @ self.y

    objective = Linear()
    evaluation = PROGRAMS[program](trace_loss(AutogradOracle(objective)))

    assert evaluation().item() == 12.0
    first = objective.x.grad
    evaluation()
    tensors = [first, objective.x.grad, objective.y.grad, objective.slope]
    assert len({tensor.data_ptr() for tensor in tensors}) == 4
    assert all(torch.equal(tensor, objective.slope) for tensor in tensors)


def test_a_state_saved_under_one_engine_goes_on_under_another(monkeypatch):
    use(monkeypatch, "native")
    whole = told(built("rosenbrock2", "lbfgs", {}))
    head = built("rosenbrock2", "lbfgs", {}, engine="compiled")
    told(head, until=12)
    state, criteria = head.engine.state_dict(), [criterion.state_dict() for criterion in head.criteria]

    tail = built("rosenbrock2", "lbfgs", {})
    tail.engine.load_state_dict(state)
    for criterion, one in zip(tail.criteria, criteria, strict=True):
        if one:
            criterion.load_state_dict(one)
    rest = told(tail)

    assert (head.engine.name, rest.engine, rest.status) == ("compiled", "eager", whole.status)
    assert abs(rest.step - whole.step) <= 2
    torch.testing.assert_close(rest.point, whole.point, rtol=1e-7, atol=1e-7)
