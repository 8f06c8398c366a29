"""The objectives, against scikit-learn and plain torch; and what is refused."""

import numpy as np
import pytest
import torch
from gradopt_learning.classifiers import ACTIVATIONS, MLP, LogisticRegression
from sklearn import linear_model
from torch import nn

import gradopt
from gradopt import Mistake

LBFGS = {"optimiser": "lbfgs"}
"""Without torch's line search, which compares losses and so cannot go below their rounding."""


@pytest.mark.parametrize(("l2", "data_seed"), [(0.01, 1), (0.1, 0)])
def test_logistic_regression_converges_to_the_solution_of_scikit_learn(l2, data_seed):
    objective = LogisticRegression(l2=l2, data_seed=data_seed)
    images, labels = objective.train_images.numpy(), objective.train_labels.numpy()
    reference = linear_model.LogisticRegression(C=1 / (l2 * len(labels)), solver="newton-cg", tol=1e-12, max_iter=500)
    reference.fit(images, labels)

    result = gradopt.minimise(objective, **LBFGS)

    assert result.status.value == "converged", result.message
    np.testing.assert_allclose(result.x["weight"].numpy(), reference.coef_, rtol=0, atol=1e-6)
    # A constant added to every bias changes no probability.
    bias, expected = result.x["bias"].numpy(), reference.intercept_
    np.testing.assert_allclose(bias - bias.mean(), expected - expected.mean(), rtol=0, atol=1e-6)
    test_accuracy = reference.score(objective.test_images.numpy(), objective.test_labels.numpy())
    assert result.metrics["test_accuracy"] == pytest.approx(test_accuracy, abs=1e-12)


def test_the_full_loss_is_the_mean_of_the_batches_of_an_epoch():
    torch.manual_seed(0)
    objective = MLP(hidden=[8], batch_size=419, l2=0.1)  # 3 * 419 = 1257: nothing is dropped

    losses = [objective(batch) for step in range(3) for batch in objective.batches.at(step)]

    assert len(objective.train_labels) == 1257
    torch.testing.assert_close(torch.stack(losses).mean(), objective.full_loss(), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("l2", "last"), [(0.0, "NllLossBackward0"), (0.1, "AddBackward0")])
def test_without_a_penalty_nothing_is_added_to_the_cross_entropy(l2, last):
    objective = MLP(hidden=[8], batch_size=419, l2=l2)

    assert [objective().grad_fn.name(), objective(torch.arange(5)).grad_fn.name()] == [last, last]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_mlp_is_the_sequence_of_layers_of_torch(activation):
    modules = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU, "sigmoid": nn.Sigmoid}
    torch.manual_seed(1)
    objective = MLP(hidden=[20, 15], activation=activation, l2=0.5, batch_size=None)
    torch.manual_seed(1)
    make = modules[activation]
    reference = nn.Sequential(nn.Linear(64, 20), make(), nn.Linear(20, 15), make(), nn.Linear(15, 10))

    loss = nn.functional.cross_entropy(reference(objective.train_images), objective.train_labels)
    loss = loss + 0.25 * sum(layer.weight.square().sum() for layer in reference if isinstance(layer, nn.Linear))

    torch.testing.assert_close(objective(), loss, rtol=1e-14, atol=0)
    torch.testing.assert_close(objective.full_loss(), loss, rtol=1e-14, atol=0)


def test_the_start_follows_from_the_seed_and_the_data_do_not():
    torch.manual_seed(5)
    first = MLP()
    torch.manual_seed(5)
    again = MLP()
    torch.manual_seed(6)
    other = MLP()

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
    assert torch.equal(first.train_images, other.train_images)
    assert torch.equal(first.batches.at(40)[0], other.batches.at(40)[0])


def test_metrics_count_what_is_told_right():
    torch.manual_seed(0)
    objective = MLP(hidden=[])

    metrics = objective.metrics()

    for part in ("train", "validation", "test"):
        images, labels = getattr(objective, f"{part}_images"), getattr(objective, f"{part}_labels")
        right = (objective.predict(images) == labels).double().mean().item()
        assert metrics[f"{part}_accuracy"] == pytest.approx(right, abs=1e-15)
    scores = objective.logits(objective.validation_images)
    expected = -scores.log_softmax(1).gather(1, objective.validation_labels.unsqueeze(1)).mean()
    assert metrics["validation_loss"] == pytest.approx(expected.item(), rel=1e-12)


def test_parts_that_are_empty_have_no_metrics():
    assert set(MLP(validation_fraction=0.0, test_fraction=0.0).metrics()) == {"train_accuracy"}


def test_the_saved_state_holds_the_parameters_and_not_the_data():
    objective = MLP(hidden=[8])

    assert set(objective.state_dict()) == {name for name, _ in objective.named_parameters()}


def test_the_description_says_how_the_data_are_cut():
    text = MLP(hidden=[32], batch_size=60, accumulate=3, activation="tanh").describe()

    assert text == (
        "MLP 64-32-10, tanh; digits: 1257 train, 270 validation, 270 test samples; batches of 60 in 3 parts, "
        "20 steps an epoch"
    )


def test_autocast_rounds_the_steps_and_not_what_is_judged():
    torch.set_default_dtype(torch.float32)
    found = {}
    for autocast in (False, True):
        torch.manual_seed(0)
        objective = MLP(batch_size=64, autocast=autocast)
        loss = objective(objective.batches.at(0)[0])
        loss.backward()
        found[autocast] = (loss.item(), objective.layers[0].weight.grad, objective.full_loss().item())

    assert objective.layers[0].weight.grad.dtype == torch.float32
    assert found[True][0] != found[False][0]
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-2)
    assert not torch.equal(found[True][1], found[False][1])
    assert (found[True][1] - found[False][1]).norm() < 0.05 * found[False][1].norm()
    assert found[True][2] == found[False][2]


MISTAKES = {
    # what is given: what the message must hold
    "fractions": (
        {"validation_fraction": 0.7, "test_fraction": 0.3},
        "objective.validation_fraction=0.7 and objective.test_fraction=0.3 leave none of the 1797 images",
    ),
    "batch size": ({"batch_size": 1258}, "objective.batch_size=1258 must be between 1 and 1257"),
    "accumulate": ({"accumulate": 5}, "objective.accumulate=5 must divide objective.batch_size=64"),
    "accumulate alone": ({"batch_size": None, "accumulate": 2}, "give objective.batch_size, at most 1257"),
    "autocast of float64": ({"autocast": True}, "say dtype=float32"),
    "activation": ({"activation": "rulu"}, "objective.activation=rulu is not one of relu, tanh"),
    "l2": ({"l2": -1.0}, "objective.l2 must be >= 0, got -1.0"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_does_not_fit_together_is_one_sentence(case):
    given, expected = MISTAKES[case]

    with pytest.raises(Mistake) as caught:
        MLP(**given)

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_autocast_without_batches_is_refused_as_it_would_be_judged():
    torch.set_default_dtype(torch.float32)

    with pytest.raises(Mistake, match="would decide whether the run has converged"):
        MLP(batch_size=None, autocast=True)
