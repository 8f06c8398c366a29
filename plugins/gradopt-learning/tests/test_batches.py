"""Batches: a pure map from steps to indices, and what accumulation of gradients does with them."""

import pytest
import torch
from gradopt_learning.batches import ShuffledBatches
from gradopt_learning.classifiers import MLP
from gradopt_learning.digits import load

from gradopt import Mistake
from gradopt.assemble import assemble


def flat(batches, step):
    return torch.cat(list(batches.at(step)))


def test_what_a_step_sees_does_not_depend_on_what_was_asked_before():
    steps = [0, 1, 2, 3, 7, 8, 9, 31]
    in_order = ShuffledBatches(103, 25, 1, seed=3)
    expected = {step: flat(in_order, step) for step in steps}
    shuffled = ShuffledBatches(103, 25, 1, seed=3)

    for step in (9, 0, 31, 3, 2, 8, 1, 7, 9):
        assert torch.equal(flat(shuffled, step), expected[step])
        assert torch.equal(flat(ShuffledBatches(103, 25, 1, seed=3), step), expected[step])


@pytest.mark.parametrize(("num_samples", "batch_size"), [(100, 25), (103, 25), (7, 7), (5, 1), (10, 6)])
def test_an_epoch_sees_each_sample_once_at_most_and_drops_less_than_a_batch(num_samples, batch_size):
    batches = ShuffledBatches(num_samples, batch_size, 1, seed=0)

    for epoch in range(3):
        first = epoch * batches.steps_per_epoch
        seen = torch.cat([flat(batches, first + place) for place in range(batches.steps_per_epoch)])
        assert len(seen.unique()) == len(seen) == num_samples // batch_size * batch_size
        assert num_samples - len(seen) < batch_size
        assert seen.min() >= 0
        assert seen.max() < num_samples


def test_every_sample_is_seen_over_the_epochs_though_each_drops_some():
    batches = ShuffledBatches(103, 25, 1, seed=0)

    seen = torch.cat([flat(batches, step) for step in range(5 * batches.steps_per_epoch)])

    assert len(seen.unique()) == 103


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(flat(ShuffledBatches(60, 60, 1, seed=seed), epoch).tolist()) for seed in range(4) for epoch in range(4)
    }

    assert len(orders) == 16


@pytest.mark.parametrize("accumulate", [2, 3, 6, 12])
def test_micro_batches_are_equal_parts_of_the_same_batch(accumulate):
    whole, cut = ShuffledBatches(40, 12, 1, seed=0), ShuffledBatches(40, 12, accumulate, seed=0)

    for step in range(7):
        parts = cut.at(step)
        assert [len(part) for part in parts] == [12 // accumulate] * accumulate
        assert torch.equal(torch.cat(list(parts)), flat(whole, step))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "expected"),
    [
        (101, 1, "objective.batch_size=101 must be between 1 and 100, the number of training samples; null takes"),
        (0, 1, "objective.batch_size=0 must be between 1 and 100"),
        (64, 3, "objective.accumulate=3 must divide objective.batch_size=64: a batch is cut into that many"),
        (8, 16, "try 8"),
        (8, 0, "objective.accumulate=0 must divide"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(batch_size, accumulate, expected):
    with pytest.raises(Mistake) as caught:
        ShuffledBatches(100, batch_size, accumulate, seed=0)

    assert expected in str(caught.value)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch_to_rounding(accumulate, l2):
    found = []
    for parts in (1, accumulate):
        torch.manual_seed(0)
        objective = MLP(hidden=[16], batch_size=64, accumulate=parts, l2=l2)
        oracle = assemble(objective, "sgd", {"lr": 0.1}).oracle
        oracle.micro_batches = objective.batches.at(3)
        loss = oracle.evaluate().loss
        found.append((loss, [p.grad.clone() for p in objective.parameters()]))

    (whole_loss, whole), (cut_loss, cut) = found
    assert cut_loss == pytest.approx(whole_loss, rel=1e-14)
    for one, other in zip(cut, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-16)
    assert max(gradient.abs().max() for gradient in whole) > 1e-3


def test_the_split_is_a_partition_that_the_seed_decides():
    parts = load(0.2, 0.1, data_seed=0)
    again, other = load(0.2, 0.1, data_seed=0), load(0.2, 0.1, data_seed=1)

    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [1258, 359, 180]
    everything = torch.cat([parts.train.images, parts.validation.images, parts.test.images])
    # Sums over all images do not depend on the split, unless one is missing or there twice.
    reference = torch.cat([part.images for part in (other.train, other.validation, other.test)])
    torch.testing.assert_close(everything.T @ everything, reference.T @ reference, rtol=1e-12, atol=0)
    assert torch.equal(parts.test.images, again.test.images)
    assert not torch.equal(parts.test.images, other.test.images)
    assert everything.min() == 0.0
    assert everything.max() == 1.0
