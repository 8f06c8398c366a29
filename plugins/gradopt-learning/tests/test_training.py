"""Runs on batches: how they end, what groups do, and that they go on from a saved state to the last bit."""

import time

import pytest
import torch
from gradopt_learning.classifiers import MLP, Classifier, LogisticRegression

import gradopt
from gradopt import Mistake, Stop
from gradopt.assemble import assemble, listed
from gradopt.loop import iterate


def test_an_mlp_tells_95_of_100_digits_right():
    torch.manual_seed(0)
    began = time.perf_counter()

    result = gradopt.minimise(MLP(), optimiser="adam", optimiser_options={"lr": 0.01}, stop=Stop(max_epochs=20))

    assert result.metrics["test_accuracy"] >= 0.95
    assert result.status.value == "max_epochs"
    assert not result.success
    assert result.nit == 20 * 19
    assert time.perf_counter() - began < 20


def test_a_zero_gradient_of_a_batch_proves_nothing():
    objective = LogisticRegression(batch_size=1, l2=0.0)
    (first,) = objective.batches.at(0)
    with torch.no_grad():  # so sure of the first label that the softmax is 1 to the last bit
        objective.bias[objective.train_labels[first]] = 1e4

    result = gradopt.minimise(objective, optimiser="sgd", optimiser_options={"lr": 0.1}, stop=Stop(max_steps=3))

    assert result.history["loss"][0] == 0.0
    assert result.history["gradient_norm"][0] == 0.0
    assert result.history["full_loss"][0] > 1e3
    assert result.status.value == "max_steps"
    assert result.nit == 3


def test_on_batches_convergence_is_judged_on_all_data():
    # All samples in each batch: the same minimum, found with batches, and judged by the full loss.
    settings = {"optimiser": "torch_lbfgs"}
    whole = gradopt.minimise(LogisticRegression(l2=1.0), **settings)
    batched = gradopt.minimise(LogisticRegression(l2=1.0, batch_size=1257, accumulate=3), **settings)

    assert whole.status.value == batched.status.value == "converged", batched.message
    torch.testing.assert_close(batched.x["weight"], whole.x["weight"], rtol=0, atol=1e-8)


def test_early_stopping_ends_on_a_validation_metric():
    torch.manual_seed(0)
    (stopping,) = listed(
        "criterion", [{"name": "early_stopping", "metric": "validation_accuracy", "mode": "max", "patience": 3}]
    )

    result = gradopt.minimise(
        MLP(), optimiser="adam", optimiser_options={"lr": 0.01}, stop=Stop(max_epochs=200), criteria=[stopping]
    )

    assert result.status.value == "stopped"
    assert "validation_accuracy has not improved for 3 looks" in result.message
    assert result.nit % 19 == 0
    assert result.nit < 200 * 19


@pytest.mark.parametrize("side", ["objective", "optimiser"])
def test_groups_have_a_rate_and_a_decay_of_their_own(side):
    groups = {"*.bias": {"weight_decay": 0.0}, "layers.1.*": {"lr": 0.0}}
    torch.manual_seed(0)
    objective = MLP(hidden=[8], groups=groups if side == "objective" else None)
    start = {name: p.detach().clone() for name, p in objective.named_parameters()}
    options = {"lr": 0.1, "weight_decay": 0.5, **({"groups": groups} if side == "optimiser" else {})}

    assembly = assemble(objective, "sgd", options)
    assembly.oracle.micro_batches = objective.batches.at(0)
    evaluation = assembly.oracle.evaluate()
    assembly.engine.optimiser.update(evaluation, assembly.oracle)

    decay = {"layers.0.weight": 0.5, "layers.0.bias": 0.0, "layers.1.weight": 0.5, "layers.1.bias": 0.0}
    rate = {"layers.0.weight": 0.1, "layers.0.bias": 0.1, "layers.1.weight": 0.0, "layers.1.bias": 0.1}
    for name, parameter in objective.named_parameters():
        expected = start[name] - rate[name] * (parameter.grad + decay[name] * start[name])
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"*.bais": {"lr": 0.1}}, "matches none of the unknowns"),
        ({"*.bias": {"wieght_decay": 0.1}}, "Did you mean 'weight_decay'?"),
        ({"*.bias": {"lr": -1.0}}, "Invalid learning rate: -1.0"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, expected):
    with pytest.raises(Mistake) as caught:
        assemble(MLP(groups=groups), "sgd", {"lr": 0.1})

    assert expected in str(caught.value)


class Prototypes(Classifier):
    """A model of somebody's own: the nearest of ten images wins."""

    def __init__(self, batch_size=64):
        super().__init__(batch_size=batch_size)
        self.images = torch.nn.Parameter(torch.rand(10, 64))

    def logits(self, images):
        return -torch.cdist(images, self.images)


def test_a_model_of_ones_own_takes_its_logits_alone():
    torch.manual_seed(0)

    result = gradopt.minimise(Prototypes(), optimiser="adam", optimiser_options={"lr": 0.02}, stop=Stop(max_epochs=15))

    assert result.status.value == "max_epochs"
    assert result.metrics["test_accuracy"] >= 0.9


def build(dtype):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    objective = MLP(hidden=[16], batch_size=256, accumulate=2, autocast=dtype == torch.float32, l2=1e-3)
    nodes = [{"name": "early_stopping", "metric": "validation_loss", "patience": 4}]
    return assemble(
        objective,
        "adamw",
        {"lr": 0.05, "groups": {"*.bias": {"weight_decay": 0.0}}},
        schedule={"name": "cosine", "T_max": 30},
        stop=Stop(max_epochs=7),
        extra_criteria=listed("criterion", nodes),
    )


def walk(assembly, stop_before=None):
    """The points and losses of the run, as far as before the given step; the state there is complete."""
    rows = []
    for block in iterate(assembly.engine, assembly.criteria, max_rows=1):
        rows.append(torch.cat([assembly.oracle.read(), block["loss"][0], block["full_loss"][0].nan_to_num(-1.0)]))
        if block.last_step + 1 == stop_before:
            assembly.engine.update()
            break
    return rows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "autocast"])
@pytest.mark.parametrize("cut", [1, 4, 6, 17])  # 4 steps an epoch: inside of epochs, and between two
def test_a_run_on_batches_that_was_saved_goes_on_to_the_last_bit(cut, dtype, tmp_path):
    whole = walk(build(dtype))
    first = build(dtype)
    head = walk(first, stop_before=cut)
    states = [first.engine.state_dict(), [criterion.state_dict() for criterion in first.criteria]]
    torch.save(states, tmp_path / "state.pt")
    torch.manual_seed(99)

    engine_state, criteria_states = torch.load(tmp_path / "state.pt", weights_only=False)
    second = build(dtype)
    second.engine.load_state_dict(engine_state)
    for criterion, state in zip(second.criteria, criteria_states, strict=True):
        criterion.load_state_dict(state)
    tail = walk(second)

    assert len(head) == cut
    assert len(whole) == 7 * 4 + 1
    assert torch.equal(torch.stack(head + tail), torch.stack(whole))


def test_the_order_of_the_batches_decides_the_run_and_the_seeds_decide_it():
    def points(data_seed):
        torch.manual_seed(0)
        objective = MLP(hidden=[8], data_seed=data_seed)
        return gradopt.minimise(objective, optimiser="sgd", optimiser_options={"lr": 0.1}, stop=Stop(max_epochs=2)).x

    first, again, other = points(0), points(0), points(1)

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])
