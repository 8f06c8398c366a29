"""Where the time of a run goes."""

import shutil
import time

import pytest
import torch

from gradopt import api
from gradopt.settings import Stop
from gradopt.stopwatch import EVERY, FIRST, Stopwatch, split, weight
from tests import functions as f


def test_sections_exclude_each_other_and_add_up():
    watch, began = Stopwatch(), time.perf_counter()
    watch.turn("outer")
    time.sleep(0.02)
    before = watch.turn("inner")
    time.sleep(0.05)
    watch.turn(before)
    time.sleep(0.02)
    assert watch.turn(None) == "outer"
    whole = time.perf_counter() - began
    time.sleep(0.02)
    watch.turn(None)

    assert before == "outer" and set(watch.seconds) == {"inner", "outer"}
    assert watch.seconds["inner"] >= 0.05 and watch.seconds["outer"] >= 0.04
    assert 0.09 <= sum(watch.seconds.values()) <= whole


def test_what_stands_for_others_counts_as_often():
    watch = Stopwatch()
    watch.weight = 10
    watch.turn("one")
    time.sleep(0.01)
    watch.turn(None)

    assert watch.seconds["one"] >= 0.1


def test_timed_steps_stand_for_all_steps():
    steps = 10 * EVERY + FIRST
    assert sum(weight(step) for step in range(steps)) == steps
    assert [weight(step) for step in range(FIRST)] == [1] * FIRST


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ({}, {"steps": 8.0, "judging": 1.0}),
        ({"forward": 2.0, "update": 4.0}, {"forward": 2.0, "update": 4.0, "records": 2.0, "judging": 1.0}),
        ({"forward": 4.0, "update": 12.0}, {"forward": 2.0, "update": 6.0, "records": 0.0, "judging": 1.0}),
    ],
    ids=["as one", "with a rest", "too many"],
)
def test_steps_are_divided_among_their_parts(parts, found):
    assert split({"steps": 8.0, "judging": 1.0}, parts) == found


class Slow(torch.autograd.Function):
    """The sum of x, forward in 1 ms and backward in 3."""

    @staticmethod
    def forward(ctx, x):
        time.sleep(0.001)
        ctx.shape = x.shape
        return x.sum()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(0.003)
        return grad.expand(ctx.shape)


def test_the_time_of_a_run_is_where_it_was_spent():
    began = time.perf_counter()
    result = api.minimise(
        lambda x: Slow.apply(x), [0.0, 1.0], optimiser="sgd", engine="eager", stop=Stop(max_steps=100)
    )
    wall = time.perf_counter() - began

    seconds = result.seconds_by
    assert list(seconds)[:3] == ["forward", "backward", "update"]
    assert {"records", "judging", "logging"} == set(list(seconds)[3:])
    assert 0.1 <= seconds["forward"] < seconds["backward"] and seconds["backward"] >= 0.3
    assert 0.404 <= sum(seconds.values()) <= wall


def test_a_line_search_inside_an_update_is_forward_and_backward():
    def slow(x):
        return f.rosenbrock(x) + 0 * Slow.apply(x)

    seconds = api.minimise(slow, [-1.2, 1.0], optimiser="torch_lbfgs", stop=Stop(max_steps=2)).seconds_by

    assert seconds["forward"] > 0.01 and seconds["backward"] > 0.03


def test_many_starts_and_programs_make_steps_of_one_piece():
    many = api.minimise(f.rosenbrock, starts=torch.rand(4, 2, dtype=torch.float64), stop=Stop(max_steps=5))
    assert set(many.seconds_by) == {"steps", "judging", "logging"}
    assert many.best_start.seconds_by == many.seconds_by


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_the_steps_of_a_program_are_told_beside_those_of_eager():
    options = {"optimiser": "sgd", "optimiser_options": {"lr": 1e-5}, "engine": "native"}
    seconds = api.minimise(f.rosenbrock, [-1.2, 1.0], stop=Stop(max_steps=300), **options).seconds_by

    assert {"forward", "backward", "update", "building a program", "steps"} <= set(seconds)
    assert seconds["steps"] > 0
