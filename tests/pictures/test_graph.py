"""The graph holds each operation once, behind its inputs, with its numbers and a name that people know."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradopt.pictures.graph import graph, recorded, size
from tests.pictures.objectives import OBJECTIVES, nodes


def labels(function, *unknowns):
    names = {id(one): f"x{index}" for index, one in enumerate(unknowns)}
    return [node.label for node in graph(recorded(lambda: function(*unknowns)), names)]


def unknown(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def test_the_polynomial_reads_as_horner_wrote_it():
    found = nodes("polynomial")

    assert [node.label for node in found] == ["x", "times 5", "+ 2", "times", "+ 4", "times", "+ 8", "loss"]
    assert [node.inputs for node in found] == [(), (0,), (1,), (2, 0), (3,), (4, 0), (5,), (6,)]
    assert [node.name for node in found] == ["x", "Mul", "Add", "Mul_1", "Add_1", "Mul_2", "Add_2", "loss"]


def test_the_powers_of_rosenbrock_are_seen():
    assert [node.label for node in nodes("rosenbrock")] == [
        *("x", "[1:]", "[:-1]", "square", "-", "^2", "times 100", "1 -", "^2", "+", "sum", "loss")
    ]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_inputs_come_first_and_names_are_unique(name):
    found = nodes(name)

    assert len({node.name for node in found}) == len(found)
    assert not any("/" in node.name for node in found)
    assert all(one < place for place, node in enumerate(found) for one in node.inputs)
    assert found[-1].kind == "output"
    unknowns = {name for name, _ in OBJECTIVES[name]().named_parameters()}
    assert {node.name for node in found if node.kind == "unknown"} == unknowns


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: 3 / x, ["1 /", "times 3"]),
        (lambda x: x - 0.25, ["- 0.25"]),
        (lambda x: 0.25 - x, ["0.25 -"]),
        (lambda x: x + torch.tensor(7.0), ["+ 7"]),
        (lambda x: x / 4, ["/ 4"]),
        (lambda x: x**-1.5, ["^-1.5"]),
        (lambda x: torch.sinh(x), ["sinh"]),
        (lambda x: -x, ["negate"]),
    ],
)
def test_numbers_are_part_of_their_operation(function, expected):
    assert labels(function, nn.Parameter(torch.tensor(2.0))) == ["x0", *expected, "loss"]


def test_the_number_of_something_else_is_not_taken_for_an_operand():
    found = labels(lambda x: functional.dropout(x, 0.5).sum(), unknown(1.0, 2.0))

    assert "times 0.5" not in found


def test_without_notes_what_autograd_saved_is_shown():
    x = unknown(1.0, 2.0)

    assert [node.label for node in graph((5 * x + 1).sum(), {id(x): "x"})] == [
        *("x", "times 5", "+ constant", "sum", "loss")
    ]


def test_a_function_of_its_own_has_the_name_it_was_given():
    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(max=1.0)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    assert labels(lambda x: Clipped.apply(x).sum(), unknown(1.0)) == ["x0", "clipped", "sum", "loss"]


def test_a_loss_that_is_an_unknown_is_a_graph_too():
    x = nn.Parameter(torch.tensor(2.0))

    assert labels(lambda x: x, x) == ["x0", "loss"]


def test_unknowns_with_names_of_operations_are_told_apart():
    x = unknown(1.0)

    names = [node.name for node in graph(recorded(lambda: (x + 1).sum()), {id(x): "Add"})]

    assert names == ["Add", "Add_1", "Sum", "loss"]


def test_a_chain_of_ten_thousand_operations_is_walked_quickly():
    x = nn.Parameter(torch.tensor(0.0))

    def chain():
        y = x
        for _ in range(10_000):
            y = torch.sin(y)
        return y

    output = chain()
    began = time.process_time()
    found = graph(output, {id(x): "x"})

    assert time.process_time() - began < 5.0
    assert len(found) == 10_002
    assert size(output, 100_000) == 10_001
    assert size(output, 300) == 300


def test_an_objective_that_cannot_be_looked_at_is_evaluated_all_the_same():
    x = unknown(3.0)

    def suspicious():
        if torch._C._len_torch_function_stack():
            raise RuntimeError("under observation")
        return (x + 2).sum()

    assert recorded(suspicious).item() == 5.0
