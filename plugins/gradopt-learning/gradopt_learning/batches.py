"""Minibatches as a pure map (seed, epoch, step) -> indices, so that a run goes on at any step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradopt import Mistake

EPOCHS = 1
"""Keeps the random numbers of the epochs apart from those of the split."""


class ShuffledBatches:
    """The `Batches` of gradopt's contracts: indices of training samples, in a new order each epoch.

    All micro-batches are of one size, as the loss of a step is the mean over them. What is left of an epoch when it is
    cut into batches is dropped, so up to `batch_size - 1` samples, other ones each epoch, are not seen in it.

    Attributes:
        steps_per_epoch: Whole batches in an epoch.

    Raises:
        Mistake: The batch is larger than the data, or cannot be cut into `accumulate` equal parts.
    """

    def __init__(self, num_samples: int, batch_size: int, accumulate: int, seed: int) -> None:
        if not 1 <= batch_size <= num_samples:
            raise Mistake(
                f"objective.batch_size={batch_size} must be between 1 and {num_samples}, the number of training "
                "samples; null takes all of them at each step"
            )
        if accumulate < 1 or batch_size % accumulate:
            raise Mistake(
                f"objective.accumulate={accumulate} must divide objective.batch_size={batch_size}: a batch is cut into "
                f"that many equal parts; try {_nearest_divisor(batch_size, accumulate)}"
            )
        self.steps_per_epoch = num_samples // batch_size
        self._num_samples, self._batch_size, self._accumulate, self._seed = num_samples, batch_size, accumulate, seed
        self._latest: tuple[int, Tensor] | None = None

    def at(self, step: int) -> Sequence[Tensor]:
        """The micro-batches of a step: int64 indices on the CPU, each of shape (batch_size / accumulate,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        batch = self._order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        return batch.chunk(self._accumulate)

    def _order(self, epoch: int) -> Tensor:
        # Kept for speed alone: what it holds follows from the epoch, whatever was asked before.
        if self._latest is None or self._latest[0] != epoch:
            order = np.random.default_rng([self._seed, EPOCHS, epoch]).permutation(self._num_samples)
            self._latest = epoch, torch.from_numpy(order)
        return self._latest[1]


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda divisor: abs(divisor - wanted))
