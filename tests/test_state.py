"""What remembers anything saves and loads it: a run goes on to the last bit."""

import pytest
import torch

from gradopt.assemble import assemble
from gradopt.loop import iterate
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.plugins import torch_optimisers
from gradopt.settings import Stop

NAMES = sorted(set(torch_optimisers()) - {"muon", "sparseadam"})


def build(name, schedule, dtype=torch.float32):
    torch.manual_seed(0)
    options = {"lr": 1e-4} if name in ("sgd", "asgd") else {}
    return assemble(Rosenbrock().to(dtype), name, options, schedule=schedule, stop=Stop(max_steps=40))


def walk(assembly, stop_before=None):
    """The points of the run, as far as before the given step; the state there is complete."""
    points = []
    for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
        points.append(assembly.oracle.read())
        if block.last_step + 1 == stop_before:
            assembly.engine.update()
            return points
    return points


@pytest.mark.parametrize("schedule", [None, {"name": "exponential", "gamma": 0.9}], ids=["constant", "exponential"])
@pytest.mark.parametrize(("name", "cut"), [(name, 3 if name == "torch_lbfgs" else 15) for name in NAMES])
def test_a_run_that_was_saved_and_loaded_goes_on_to_the_last_bit(name, cut, schedule, tmp_path):
    reference = build(name, schedule)
    whole = walk(reference)
    first = build(name, schedule)
    head = walk(first, stop_before=cut)
    torch.save([first.engine.state_dict(), [c.state_dict() for c in first.criteria]], tmp_path / "state.pt")

    engine_state, criteria_states = torch.load(tmp_path / "state.pt", weights_only=False)
    second = build(name, schedule)
    second.engine.load_state_dict(engine_state)
    for criterion, state in zip(second.criteria, criteria_states, strict=True):
        if state:
            criterion.load_state_dict(state)
    tail = walk(second)

    assert torch.equal(torch.stack(head + tail), torch.stack(whole))
    assert second.oracle.num_losses == reference.oracle.num_losses


def test_a_saved_state_does_not_alias_the_live_one():
    assembly = build("adam", None)
    walk(assembly, stop_before=5)
    state = assembly.engine.state_dict()
    before = state["optimiser"]["optimizer"]["state"][0]["exp_avg"].clone()

    walk(assembly)

    assert torch.equal(state["optimiser"]["optimizer"]["state"][0]["exp_avg"], before)


@pytest.mark.parametrize("name", ["nadam", "asgd", "rprop"])
def test_a_loaded_state_has_the_dtypes_of_the_saved_one(name):
    first, second = build(name, None, torch.float64), build(name, None, torch.float64)
    walk(first, stop_before=5)
    saved = first.engine.state_dict()

    second.engine.load_state_dict(saved)

    theirs = second.engine.state_dict()["optimiser"]["optimizer"]["state"][0]
    ours = saved["optimiser"]["optimizer"]["state"][0]
    assert {key: value.dtype for key, value in theirs.items()} == {key: value.dtype for key, value in ours.items()}
    assert torch.equal(torch.stack(walk(first)), torch.stack(walk(second)))
