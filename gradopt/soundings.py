"""An objective evaluated for those who only watch: nothing is counted, nothing is moved, no random number used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gradopt.oracle import AutogradOracle
from gradopt.stacked import StackedOracle

MAX_KEPT = 100_000
"""Entries of a buffer up to which it is put back: those that a forward changes are few, those that hold data many."""


class Soundings:
    """What a `Run` offers of its objective."""

    def __init__(self, oracle: AutogradOracle | StackedOracle) -> None:
        self._oracle = oracle

    def graph(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `Run.graph`."""
        objective = self._oracle.objective
        named = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        batches = self._oracle.micro_batches if isinstance(self._oracle, AutogradOracle) else None
        with _unchanged(objective), torch.enable_grad():
            return (objective() if batches is None else objective(batches[0])), named

    def losses(self, points: Tensor) -> Tensor:
        """See `Run.losses`."""
        oracle, points = self._oracle, self._inside(points)
        with _unchanged(oracle.objective):
            if isinstance(oracle, StackedOracle):
                return oracle.losses_at(points).double().cpu()
            with oracle.uncounted():
                return torch.tensor([oracle.loss(point) for point in points], dtype=torch.float64)

    def constraint_values(self, points: Tensor) -> Tensor:
        """See `Run.constraint_values`."""
        oracle, points = self._oracle, self._inside(points)
        assert isinstance(oracle, AutogradOracle)  # many starts have no constraints
        with _unchanged(oracle.objective):
            return torch.stack([oracle.constraint_values(point) for point in points]).double().cpu()

    def _inside(self, points: Tensor) -> Tensor:
        """The points in the dtype and on the device of the unknowns."""
        oracle = self._oracle
        points = points.to(oracle.parameters[0])
        if oracle.lower is not None and oracle.upper is not None:
            outside = (points < oracle.lower) | (points > oracle.upper)
            if bool(outside.any()):
                raise ValueError(f"{int(outside.any(1).sum())} of {len(points)} points lie outside the bounds")
        return points


@contextmanager
def _unchanged(objective: nn.Module) -> Iterator[None]:
    """Put back the random state, and buffers that a forward changes, such as the means of a batch normalisation."""
    kept = [(buffer, buffer.clone()) for buffer in objective.buffers() if buffer.numel() <= MAX_KEPT]
    devices = {parameter.device for parameter in objective.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in kept:
                    if not torch.equal(buffer, value):  # their versions do not tell: batch_norm keeps them
                        buffer.copy_(value)
