"""The unit in which an optimiser measures a loss."""

import math
from dataclasses import replace

import torch

from gradopt.contracts import Evaluation, State


class LossUnit:
    """A power of two by which an optimiser multiplies the loss and its derivatives, for products of them to be finite.

    It is chosen at the first gradient that is not zero, and stays: 1 if the largest entry is, in logarithms, within an
    eighth of the range of the dtype, else what makes that entry about 1 (and the loss no larger than that eighth, lest
    a start on a plateau sets a unit that no other place can be measured in). A power of two changes no bits: in another
    unit of the loss a run takes the same steps.
    """

    def __init__(self) -> None:
        self._exponent: int | None = None

    @property
    def factor(self) -> float:
        """The power of two; 1 until it is chosen."""
        return math.ldexp(1.0, self._exponent or 0)

    @property
    def root(self) -> float:
        """The unit of residuals, of which the loss is a sum of squares: a power of two as well."""
        return math.ldexp(1.0, (self._exponent or 0) // 2)

    def of(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation in this unit; chosen by it, if it is the first."""
        if self._exponent is None:
            self._exponent = self._chosen(evaluation)
        if not self._exponent:
            return evaluation
        factor = self.factor
        return replace(
            evaluation,
            loss=evaluation.loss * factor,
            gradient_norm=evaluation.gradient_norm * factor,
            gradient=evaluation.gradient * factor,
        )

    def state_dict(self) -> State:
        """The exponent."""
        return {"exponent": self._exponent}

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self._exponent = state["exponent"]

    def _chosen(self, evaluation: Evaluation) -> int | None:
        return exponent(evaluation.gradient.abs().max().item(), evaluation.loss, evaluation.gradient.dtype)


def exponent(largest: float, loss: float, dtype: torch.dtype) -> int | None:
    """What `LossUnit` chooses by the largest entry of a gradient and the loss; None: nothing yet."""
    if not (0 < largest < math.inf):
        return None
    limit, size = reach(dtype), math.frexp(largest)[1]
    if abs(size) <= limit:
        return 0
    chosen = -size
    if loss and math.isfinite(loss):
        chosen = min(chosen, max(0, limit - math.frexp(loss)[1]))
    most = 8 * limit - 2  # a normal number in the dtype, and its inverse too
    return 2 * (max(-most, min(chosen, most)) // 2)


def reach(dtype: torch.dtype) -> int:
    """The exponent of a gradient up to which the unit is 1."""
    return math.frexp(torch.finfo(dtype).max)[1] // 8
