"""engine=auto takes the fused form of a class, says so, and does what the class does within rounding."""

import pytest
import torch
from torch import nn

import gradopt
from gradopt.assemble import assemble
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.settings import Stop
from tests import functions as f

FUSED = ("sgd", "adam", "adamw", "adagrad")
X0 = torch.linspace(-1.2, 1.1, 101, dtype=torch.float64)


def last(name, engine, options=None, steps=200):
    return gradopt.minimise(
        f.rosenbrock,
        X0,
        optimiser=name,
        optimiser_options={"lr": 1e-4, **(options or {})},
        stop=Stop(max_steps=steps, gradient_tolerance=0.0),
        engine=engine,
    )


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.01}], ids=["plain", "decay"])
@pytest.mark.parametrize("name", FUSED)
def test_the_fused_form_moves_as_the_class_does_within_rounding(name, options):
    fused, plain = last(name, "auto", options), last(name, "eager", options)

    assert torch.allclose(fused.x, plain.x, rtol=0, atol=1e-13)
    assert (fused.status, fused.nit) == (plain.status, plain.nit)


@pytest.mark.parametrize(
    ("name", "options", "engine", "fused"),
    [
        *((name, {}, "auto", True) for name in FUSED),
        *((name, {}, "eager", False) for name in FUSED),
        ("adam", {"foreach": True}, "auto", False),
        ("adam", {"fused": False}, "auto", False),
        ("rmsprop", {}, "auto", False),
        ("lbfgs", {}, "auto", False),
    ],
)
def test_the_facts_say_which_form_was_taken(name, options, engine, fused):
    facts = assemble(Rosenbrock(), name, options, engine=engine).facts

    assert facts["optimiser"].endswith(", fused") == fused


def test_a_subclass_has_a_step_of_its_own():
    class Mine(torch.optim.Adam):
        pass

    assert not assemble(Rosenbrock(), Mine).facts["optimiser"].endswith(", fused")


class Lookup(gradopt.Objective):
    """Two rows of a table that is looked up in, with sparse gradients."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.arange(8.0).reshape(4, 2))

    def forward(self, batch=None):
        return nn.functional.embedding(torch.tensor([0, 2]), self.table, sparse=True).square().sum()


class Late(gradopt.Objective):
    """Its second unknown takes part only once the first is small."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))

    def forward(self, batch=None):
        loss = self.first.square()
        return loss + self.second.square() if self.first.detach() < 0.9 else loss


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("make", "name", "options"),
    [(Lookup, "sgd", {}), (Lookup, "adagrad", {}), (Late, "sgd", {"momentum": 0.5}), (Late, "adam", {})],
)
def test_a_gradient_the_kernel_cannot_take_is_left_to_the_class(make, name, options):
    results = [
        gradopt.minimise(
            make(),
            optimiser=name,
            optimiser_options={"lr": 0.01, **options},
            stop=Stop(max_steps=30, gradient_tolerance=0.0),
            engine=engine,
        )
        for engine in ("auto", "eager")
    ]

    assert results[0].nit == results[1].nit > 10
    assert results[0].fun == results[1].fun


def test_a_word_that_is_no_engine_is_refused():
    with pytest.raises(gradopt.Mistake, match=r"not one of auto, eager, .*cuda_graph. Did you mean .eager"):
        assemble(Rosenbrock(), "sgd", engine="eeger")
