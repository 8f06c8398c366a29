"""What cannot be a graph is refused before the run, with the reason; what no trace shows, by the gate."""

import collections
import contextvars
import functools
import itertools
import logging
import os
import random
import re
import signal
import time
import types
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import gradopt
from gradopt.contracts import Constraint
from gradopt.engines import choice
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import trace
from gradopt.mistakes import Mistake
from gradopt.settings import Stop
from tests import functions as f
from tests.engines.runs import PROGRAMS, built, told, use


class Bowl(gradopt.Objective):
    """A parabola with something added; what that is, a test says."""

    def __init__(self, extra=None):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([2.0, -1.0]))
        self.register_buffer("mean", torch.zeros(2))
        self.norm, self.dropout = nn.BatchNorm1d(2), nn.Dropout(0.5)
        self.norm.requires_grad_(False)
        self.extra, self.calls, self.seen = extra, 0, []

    def forward(self, batch=None):
        return (self.x**2).sum() + (0.0 if self.extra is None else self.extra(self))


def branches(bowl):
    return bowl.x.sum() if bowl.x[0] > 0 else 0.0


def counts(bowl):
    bowl.calls += 1
    return 0.0


def remembers(bowl):
    bowl.seen.append(1)
    return 0.0


def keeps_its_mean(bowl):
    bowl.mean.mul_(0.9).add_(bowl.x.detach())
    return bowl.mean.sum()


def noisy(bowl):
    return torch.randn(2).sum()


def at_random(bowl):
    return random.random()


SAMPLES = itertools.count()

REFUSED = {
    "a branch": (branches, r"depends on a value it reads in Python \(test_refusals.py, line \d+: .*if bowl.x\[0\] > 0"),
    "item": (lambda bowl: bowl.x[0].item(), "depends on a value it reads in Python"),
    "a counter": (counts, "keeps state of its own: a call changes calls"),
    "a list": (remembers, "keeps state of its own: a call changes seen"),
    "a sampler": (lambda bowl: next(SAMPLES), "two calls of the loss do not compute the same"),
    "random numbers": (noisy, "draws random numbers"),
    "Python's random numbers": (at_random, "a generator of random numbers"),
    "dropout": (lambda bowl: bowl.dropout(bowl.x).sum(), "draws random numbers"),
    "a batch norm": (lambda bowl: bowl.norm(bowl.x.outer(bowl.x)).sum(), "writes into its buffer 'norm.*'"),
    "a buffer": (keeps_its_mean, "writes into its buffer 'mean'"),
    "NumPy": (lambda bowl: float(bowl.x.detach().numpy().sum()), "cannot be traced|reads in Python"),
}


@pytest.mark.parametrize(("extra", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_a_loss_must_not_do_is_named_and_leaves_no_trace(extra, reason):
    bowl = Bowl(extra)
    before = {name: value.clone() for name, value in bowl.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()

    with pytest.raises(Mistake, match=f"engine=native cannot run this: .*({reason})"):
        gradopt.minimise(bowl, optimiser="adam", engine="native")

    assert all(torch.equal(value, before[name]) for name, value in bowl.state_dict().items())
    assert (bowl.calls, bowl.seen) == (0, [])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


class Counter:
    """Counts in an attribute, or in a list that one holds."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, x):
        if isinstance(self.calls, list):
            self.calls.append(1)
        else:
            self.calls += 1
        return (x**2).sum()

    def loss(self, x):
        return self(x)


@dataclass(slots=True)
class Slotted:
    calls: int = 0

    def __call__(self, x):
        self.calls += 1
        return (x**2).sum()


class Tally:
    calls = 0


class Heir(Counter):
    """Inherits its state and its call."""


NAMESPACE, CALLS = types.SimpleNamespace(calls=0), 0


def marked(x):
    marked.calls += 1
    return (x**2).sum()


marked.calls = 0


def defaulted(x, calls=[]):  # noqa: B006
    calls.append(1)
    return (x**2).sum()


def named(x, *, calls={}):  # noqa: B006
    calls[len(calls)] = 1
    return (x**2).sum()


def filled(calls, x):
    calls["calls"] = calls.get("calls", 0) + 1
    return (x**2).sum()


def in_a_namespace(x):
    NAMESPACE.calls += 1
    return (x**2).sum()


def in_a_class(x):
    Tally.calls += 1
    return (x**2).sum()


def called():
    global CALLS
    CALLS += 1
    return 0.0


def helped(x):
    return (x**2).sum() + called()


KEEPING = {
    "an attribute": (lambda: Counter(0), "calls"),
    "a list of an attribute": (lambda: Counter([]), "calls"),
    "a bound method": (lambda: Counter(0).loss, "calls"),
    "an inherited call": (lambda: Heir(0), "calls"),
    "a slot": (Slotted, "calls"),
    "an object in a list": (lambda: functools.partial(lambda those, x: those[0](x), [Counter(0)]), "calls"),
    "an attribute of a function": (lambda: marked, "marked.calls"),
    "a default": (lambda: defaulted, "calls"),
    "a default of a keyword": (lambda: named, "calls"),
    "a partial": (lambda: functools.partial(filled, {}), "a dict inside another object"),
    "a namespace": (lambda: in_a_namespace, "calls"),
    "a class": (lambda: in_a_class, "Tally.calls"),
    "a function that is called": (lambda: helped, "CALLS"),
}


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize(("build", "name"), KEEPING.values(), ids=KEEPING)
def test_state_is_seen_wherever_python_keeps_it_and_put_back(build, name, many):
    loss = build()
    where = {"starts": torch.ones(20, 2)} if many else {"x0": [1.0, 2.0]}

    with pytest.raises(Mistake, match=f"engine=native cannot run this: the loss keeps state .* a call changes {name};"):
        gradopt.minimise(loss, **where, optimiser="adam", engine="native")
    if not many:  # many starts are first compared with some of them alone
        kept = NAMESPACE.calls, CALLS, Tally.calls, marked.calls, len(defaulted.__defaults__[0])
        with pytest.raises(Mistake):
            gradopt.minimise(loss, **where, optimiser="adam", engine="native")
        assert kept == (NAMESPACE.calls, CALLS, Tally.calls, marked.calls, len(defaulted.__defaults__[0]))


class Dictionary(dict):
    """Of a class of the user's."""


HELD = {
    "an array": lambda: np.zeros(1),
    "a deque": lambda: collections.deque([0]),
    "a counter": collections.Counter,
    "an ordered dict": lambda: collections.OrderedDict(calls=0),
    "a dict of a class": Dictionary,
    "bytes": lambda: bytearray(b"a"),
    "a context variable": lambda: contextvars.ContextVar("calls", default=0),
    "a generator of NumPy": lambda: np.random.default_rng(0),
    "a state of NumPy": lambda: np.random.RandomState(0),
    "a generator of Python": lambda: random.Random(0),
    "numbers of a tensor": lambda: torch.zeros(1),
    "the last point": lambda: [None],
}


def changed(held):
    """A loss that changes what is held at each call."""

    def loss(x):
        factor = 1.0
        if isinstance(held, np.ndarray):
            held[0] += 1
        elif isinstance(held, (collections.deque, bytearray)):
            held.append(1)
        elif isinstance(held, dict):
            held["calls"] = held.get("calls", 0) + 1
        elif isinstance(held, contextvars.ContextVar):
            held.set(held.get() + 1)
        elif isinstance(held, torch.Tensor):
            held.data += 1
        elif isinstance(held, list):
            before, held[0] = held[0], x.detach().clone()
            factor = 1.0 if before is None else ((x - before) ** 2).sum()
        else:
            factor = 1.0 + held.random()
        return factor * (x**2).sum()

    return loss


def content(held):
    if isinstance(held, contextvars.ContextVar):
        return held.get()
    if isinstance(held, np.random.Generator):
        return str(held.bit_generator.state)
    return str(held.getstate()) if isinstance(held, random.Random) else str(held)


@pytest.mark.parametrize("build", HELD.values(), ids=HELD)
def test_what_else_may_hold_state_is_seen_and_put_back(build):
    held = build()
    before = content(held)

    with pytest.raises(Mistake, match=r"the loss keeps state .* a call changes held;"):
        gradopt.minimise(changed(held), [1.0, 2.0], optimiser="adam", engine="native")

    assert content(held) == before
    assert not isinstance(held, torch.Tensor) or held.device.type == "cpu"


class Uncopied(dict):
    """Made from an argument, and no copy of itself."""

    def __init__(self, power):
        super().__init__(power=power)

    def __copy__(self):
        raise TypeError("there is one of it")


SPARSE, SETTINGS = torch.eye(2, dtype=torch.float64).to_sparse(), Uncopied(2)


def test_what_cannot_be_copied_or_has_no_memory_of_its_own_ends_no_run():
    def loss(x):
        return torch.mv(SPARSE, x).square().sum() + (x ** SETTINGS["power"]).sum()

    x0, stop = torch.tensor([1.0, 2.0], dtype=torch.float64), Stop(max_steps=200)
    results = [gradopt.minimise(loss, x0, optimiser="adam", engine=name, stop=stop) for name in ("eager", "auto")]

    assert results[0].x.tolist() == results[1].x.tolist()
    with pytest.raises(Mistake, match="engine=native cannot run this: "):
        gradopt.minimise(loss, x0, optimiser="adam", engine="native", stop=stop)


class Late(torch.optim.SGD):
    """Its rate falls at the third step, by a count in an array."""

    def __init__(self, parameters, lr=1e-3):
        super().__init__(parameters, lr=lr)
        self.count = np.zeros(1)

    def step(self, closure=None):
        self.count[0] += 1
        if self.count[0] == 3:
            self.param_groups[0]["lr"] = 1e-5
        return super().step(closure)


def test_state_that_an_optimiser_keeps_in_an_array_is_seen():
    with pytest.raises(Mistake, match="Late keeps count up to date in Python"):
        gradopt.minimise(lambda x: (x**2).sum(), [1.0, 2.0], optimiser=Late, engine="native")


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_an_operation_that_torch_cannot_take_apart_is_refused(optimiser, many, monkeypatch, caplog):
    def loss(x):
        return torch.nn.functional.layer_norm(x, (3,)).pow(3).sum() + (x**2).sum()

    start = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)
    where = {"starts": start.repeat(20, 1)} if many else {"x0": start}
    with pytest.raises(Mistake, match=r"engine=native cannot run this: the operation aten\.var_mean"):
        gradopt.minimise(loss, **where, optimiser=optimiser, engine="native")

    for kinds in (choice.KINDS, choice.EVALUATIONS):
        monkeypatch.setitem(kinds, "native", replace(kinds["native"], patience=1e-9))
    stop = Stop(max_steps=30, gradient_tolerance=0.0)
    with caplog.at_level(logging.INFO, logger="gradopt"):
        result = gradopt.minimise(loss, **where, optimiser=optimiser, stop=stop)

    assert result.engine == "eager"
    assert result.nit.max() == 30 if many else result.nit > 1


def test_a_signal_leaves_a_program_that_is_being_built(monkeypatch):
    began = []

    def endless(graph):
        began.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setitem(choice.KINDS, "native", replace(choice.KINDS["native"], build=endless, patience=0))

    result = gradopt.minimise(f.rosenbrock, [-1.2, 1.0], optimiser="adam", stop=Stop(max_steps=100_000))

    assert result.status is gradopt.Status.INTERRUPTED
    assert time.perf_counter() - began[0] < 5
    assert result.nit < 100_000 and result.engine == "eager"


class Counting(gradopt.Objective):
    """Counts in its class and, by a method of its own, in a variable of the file."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.ones(2))

    def forward(self, batch=None):
        type(self).calls += 1
        return (self.x**2).sum() + self.penalty()

    def penalty(self):
        return called()


def test_state_of_an_objective_is_seen_in_its_class_and_in_all_its_methods():
    with pytest.raises(Mistake, match=r"a call changes CALLS, Counting\.calls;"):
        gradopt.minimise(Counting(), optimiser="adam", engine="native")


def test_an_object_that_keeps_no_state_is_none():
    class Bent:
        def __init__(self):
            self.weights, self.inner = {"a": [1.0, 2.0]}, types.SimpleNamespace(power=2)

        def __call__(self, x):
            return self.weights["a"][0] * (x**self.inner.power).sum()

    result = gradopt.minimise(Bent(), [1.0, 2.0], optimiser="adam", engine="native")

    assert result.engine == "native"


def test_a_variable_of_an_enclosing_function_is_seen():
    count = 0

    def loss(x):
        nonlocal count
        count += 1
        return (x**2).sum()

    with pytest.raises(Mistake, match="a call changes count"):
        gradopt.minimise(loss, [1.0, 2.0], optimiser="adam", engine="native")

    assert count == 0


def test_hooks_are_refused():
    bowl, other, third = Bowl(), Bowl(), built(Bowl)
    bowl.x.register_hook(lambda gradient: 2 * gradient)
    other.norm.register_forward_hook(lambda *_: None)
    third.engine.optimiser.optimizer.register_step_post_hook(lambda *_: None)

    with pytest.raises(Mistake, match="a hook is registered on unknown 'x'"):
        gradopt.minimise(bowl, optimiser="adam", engine="native")
    with pytest.raises(Mistake, match="a hook is registered on module 'norm'"):
        gradopt.minimise(other, optimiser="adam", engine="native")
    with pytest.raises(Refusal, match="a hook is registered on the optimiser"):
        trace(third.oracle, third.engine.optimiser)


class Counted(torch.optim.SGD):
    """Counts its steps in Python."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
                with torch.no_grad():
                    parameter -= group["lr"] / state["count"] * parameter.grad


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"optimiser": Counted, "optimiser_options": {"lr": 0.1}}, "keeps .* in Python"),
        ({"optimiser": "sgd", "schedule": {"name": "plateau"}}, "the schedule reads the loss"),
        (
            {"optimiser": "sgd", "schedule": {"name": "one_cycle", "max_lr": 0.1, "total_steps": 20_000}},
            "the schedule changes more than the learning rate",
        ),
    ],
)
def test_optimisers_and_schedules_that_need_the_host_are_refused(given, reason):
    with pytest.raises(Mistake, match=reason):
        gradopt.minimise(lambda x: (x**2).sum(), [1.0, 2.0], engine="native", **given)


def test_a_schedule_is_as_before_once_it_has_been_looked_at():
    looked, fresh = (built("rosenbrock2", schedule={"name": "cosine", "T_max": 50}) for _ in range(2))

    trace(looked.oracle, looked.engine.optimiser)

    assert looked.engine.optimiser.state_dict() == fresh.engine.optimiser.state_dict()


def test_batches_and_constraints_are_refused():
    class Halves(Bowl):
        class batches:  # noqa: N801
            steps_per_epoch = 1

            @staticmethod
            def at(step):
                return [step]

    with pytest.raises(Mistake, match="the objective has batches"):
        gradopt.minimise(Halves(), optimiser="adam", engine="native")
    with pytest.raises(Mistake, match="the objective has constraints"):
        gradopt.minimise(
            lambda x: (x**2).sum(), [1.0, 2.0], constraints=Constraint(lambda x: x.sum(), lower=1.0), engine="native"
        )


def test_cuda_graphs_need_a_cuda_device():
    with pytest.raises(Mistake, match="CUDA graphs need device=cuda"):
        gradopt.minimise(lambda x: (x**2).sum(), [1.0, 2.0], optimiser="adam", engine="cuda_graph")


def unseen_state():
    """A loss with state in an iterator, where no trace shows it: it changes at its sixth call."""
    factors = itertools.chain([1.0] * 5, itertools.repeat(2.0))

    class Changing(Bowl):
        def forward(self, batch=None):
            return next(factors) * (self.x**2).sum()

    return Changing


@pytest.mark.parametrize("program", ["traced", "native"])
def test_the_gate_sees_what_no_trace_shows(monkeypatch, program):
    use(monkeypatch, program)
    assembly = built(unseen_state(), engine="compiled")

    with pytest.raises(
        Mistake, match=r"at step \d its loss is .*, and that of eager .*: the loss or the optimiser has"
    ):
        told(assembly)


def test_auto_takes_a_program_once_it_pays_and_says_so(monkeypatch, caplog):
    use(monkeypatch, "native", patience=0.0)

    with caplog.at_level(logging.INFO, logger="gradopt"):
        ours = told(built("rosenbrock2", engine="auto", stop=Stop(max_steps=300)))

    eager = told(built("rosenbrock2", stop=Stop(max_steps=300)))
    assert ours.engine == "compiled"
    assert re.search(r"engine: compiled from step \d+ on: same records as eager", caplog.text)
    assert (ours.status, ours.step) == (eager.status, eager.step)
    torch.testing.assert_close(ours.point, eager.point, rtol=1e-10, atol=0.0)


def test_auto_does_not_trace_for_native_where_blas_multiplies(monkeypatch, caplog):
    monkeypatch.setattr(choice, "KINDS", {"native": replace(choice.KINDS["native"], patience=0.0)})
    caplog.set_level(logging.INFO, "gradopt")
    layer = torch.zeros(40, 40, dtype=torch.float64)

    gradopt.minimise(lambda w: ((w @ w - 1) ** 2).sum(), layer, optimiser="adam", stop=gradopt.Stop(max_steps=30))
    assert "engine:" not in caplog.text
    gradopt.minimise(lambda w: ((w - 1) ** 2).sum(), layer.ravel(), optimiser="adam", stop=gradopt.Stop(max_steps=30))
    assert "engine:" in caplog.text


def test_auto_stays_eager_for_a_short_run(monkeypatch):
    def never(graph):
        raise AssertionError("built for nothing")

    use(monkeypatch, never, patience=60.0)

    assert told(built("rosenbrock2", engine="auto", stop=Stop(max_steps=100))).engine == "eager"


def failing(graph):
    raise Refusal("there is no compiler")


def dying(graph):
    program = PROGRAMS["traced"](graph)
    program.run = lambda *_: 1 / 0
    return program


def slow(graph):
    program = PROGRAMS["traced"](graph)
    run = program.run
    program.run = lambda *given: time.sleep(0.2) or run(*given)
    return program


@pytest.mark.parametrize(
    ("problem", "program", "reason"),
    [
        (lambda: Bowl(counts), "traced", "eager to the end, as the step is no graph: the loss keeps state"),
        (Bowl, failing, "eager, not compiled: there is no compiler"),
        (Bowl, dying, "eager, not compiled: ZeroDivisionError"),
        (Bowl, slow, "eager, not compiled: it is not faster"),
    ],
)
def test_auto_falls_back_to_eager_and_says_why(monkeypatch, caplog, problem, program, reason):
    use(monkeypatch, program, patience=0.0)
    given = {"options": {"lr": 0.01}, "stop": Stop(max_steps=40)}

    with caplog.at_level(logging.INFO, logger="gradopt"):
        ours = told(built(problem, engine="auto", **given))

    eager = told(built(problem, **given))
    assert ours.engine == "eager"
    assert f"engine: {reason}" in caplog.text
    assert torch.equal(ours.point, eager.point)
    assert ours.counts == eager.counts
