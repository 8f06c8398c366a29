"""Blocks are as long as the criteria allow, and where they end changes no verdict."""

import itertools

import pytest
import torch
from torch import nn

import gradopt
from gradopt.criteria.failure import next_look
from gradopt.execution import Blocks
from gradopt.loop import MAX_ROWS, iterate
from gradopt.settings import Stop
from tests.engines.runs import built, told, use


def lengths(assembly):
    return [len(block) for block in iterate(assembly.engine, assembly.criteria)]


def test_looks_are_at_least_16_and_at_most_32_while_the_steps_double():
    looks = list(itertools.takewhile(lambda step: step <= 1 << 20, _looks()))

    assert looks[:7] == [20, 40, 80, 100, 200, 300, 400]
    for start in (1600, 3200, 25_600, 409_600):
        assert 16 <= sum(start < look <= 2 * start for look in looks) <= 32
        assert start in looks
    assert all(next_look(look - 1) == look for look in looks)


def _looks():
    step = 0
    while True:
        yield (step := next_look(step))


def test_a_run_that_moves_and_does_not_fall_ends_blocks_where_the_steps_double(monkeypatch):
    use(monkeypatch, "native")
    assembly = built("rosenbrock2", "sgd", {"lr": 1e-6}, engine="compiled", stop=Stop(max_steps=40_000))

    found = lengths(assembly)

    assert sum(found) == 40_001
    assert max(found) <= MAX_ROWS
    assert len(found) < 25


def test_a_schedule_is_not_asked_for_more_rates_than_blocks_are_long(monkeypatch):
    use(monkeypatch, "chunked")
    options = {"schedule": {"name": "exponential", "gamma": 0.999}, "stop": Stop(max_steps=1500)}
    assembly = built("rosenbrock2", "sgd", {"lr": 1e-6}, engine="compiled", **options)
    scheduler, calls = assembly.engine.optimiser.scheduler, []
    step = scheduler.step
    monkeypatch.setattr(scheduler, "step", lambda: calls.append(1) or step())

    told(assembly)

    assert len(calls) < 2 * 1500 + 1000  # a look ahead before the run, then some more than there are updates


class Slide(gradopt.Objective):
    """Falls without end, and can prove it."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch=None):
        return -self.x

    def unbounded_below(self):
        return "it slides"


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_a_proof_is_asked_for_at_the_same_step_however_long_the_blocks_are(rows):
    assembly = built(Slide, "sgd", {"lr": 0.0099}, stop=Stop(max_steps=5000))

    *_, last = (block.last_step for block in iterate(assembly.engine, assembly.criteria, max_rows=rows))

    assert last == 200  # more than 1 below the start after 102 steps
    assert assembly.oracle.num_losses == 201


class Rest(gradopt.Objective):
    """Stands still from step 130 on, as its steps round to nothing there."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch=None):
        return (self.x - 3) ** 2


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_a_run_at_rest_ends_at_the_same_step_however_long_the_blocks_are(rows):
    schedule = {"name": "step", "step_size": 130, "gamma": 1e-9}
    assembly = built(Rest, "sgd", {"lr": 1e-3}, dtype=torch.float32, schedule=schedule, stop=Stop(max_steps=5000))

    blocks = Blocks(assembly.engine, assembly.criteria, max_rows=rows)
    *_, last = (block.last_step for block in blocks)

    assert blocks.ending.verdicts[0].status.value == "stalled"
    assert last == 200


def test_a_program_refuses_an_unknown_of_another_form(monkeypatch):
    use(monkeypatch, "chunked")
    assembly = built("rosenbrock100", engine="compiled", stop=Stop(max_steps=1000))
    told(assembly, until=40)
    parameter = assembly.oracle.parameters[0]

    parameter.data = torch.zeros(200, dtype=torch.float64)[::2]

    with pytest.raises(RuntimeError, match="another shape, stride or type"):
        assembly.engine.advance(10, {}, 1.0)
