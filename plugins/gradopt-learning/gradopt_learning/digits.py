"""The data: scikit-learn's 1797 images of handwritten digits, cut into training, validation and test samples."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from gradopt import Mistake

NUM_PIXELS = 64
NUM_CLASSES = 10
LARGEST_PIXEL = 16.0

SPLIT = 0
"""Keeps the random numbers of the split apart from those of the epochs."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of shape (samples, 64), from 0 to 1, and their labels, shape (samples,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Digits:
    """The three parts; validation and test may be empty."""

    train: Samples
    validation: Samples
    test: Samples


def load(validation_fraction: float, test_fraction: float, data_seed: int) -> Digits:
    """Read the digits that scikit-learn comes with, in torch's default dtype, on the CPU.

    Raises:
        Mistake: The fractions leave no training samples.
    """
    images, labels = load_digits(return_X_y=True)
    total = len(labels)
    num_validation, num_test = round(validation_fraction * total), round(test_fraction * total)
    num_train = total - num_validation - num_test
    if min(validation_fraction, test_fraction) < 0 or num_train < 1:
        raise Mistake(
            f"objective.validation_fraction={validation_fraction:g} and objective.test_fraction={test_fraction:g} "
            f"leave none of the {total} images for training; they must be 0 or more and their sum below 1"
        )
    order = np.random.default_rng([data_seed, SPLIT]).permutation(total)
    parts = np.split(order, [num_train, num_train + num_validation])
    return Digits(*(_samples(images[part] / LARGEST_PIXEL, labels[part]) for part in parts))


def _samples(images: np.ndarray, labels: np.ndarray) -> Samples:
    return Samples(
        torch.tensor(images, dtype=torch.get_default_dtype(), device="cpu"),
        torch.tensor(labels, dtype=torch.int64, device="cpu"),
    )
