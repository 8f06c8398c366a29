"""The unit in which an optimiser measures a loss."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from gradopt.contracts import Evaluation, State
from gradopt.optimisers.rows import Rows
from gradopt.stacked import Evaluations


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
        largest = evaluation.gradient.abs().max().double()
        if not (0 < largest.item() < math.inf):
            return None
        return int(exponents(largest, torch.tensor(evaluation.loss, dtype=torch.float64), evaluation.gradient.dtype))


class StackedLossUnit:
    """The `LossUnit` of each of many starts."""

    def __init__(self, number: int) -> None:
        self._rows = Rows(number)

    def choose(self, places: Tensor, evaluations: Evaluations) -> None:
        """Choose those of the starts at these places that have none yet."""
        exponent = torch.zeros(len(places), dtype=torch.int64, device=evaluations.loss.device)
        if "exponent" not in self._rows:
            self._rows.put(places, exponent=exponent, known=exponent > 0)
        if bool(self._rows["known"][places].all()):
            return
        row = self._rows.at(places)
        largest = evaluations.gradient.abs().amax(1).double()
        new = ~row["known"] & (largest > 0) & (largest < math.inf)
        found = exponents(largest[new], evaluations.loss[new].double(), evaluations.gradient.dtype)
        row["exponent"][new] = found
        self._rows.put(places, exponent=row["exponent"], known=row["known"] | new)

    def of(self, evaluations: Evaluations, places: Tensor) -> Evaluations:
        """The evaluations of some starts in their units, losses and norms in float64."""
        factor = self.factor(places)
        gradient = evaluations.gradient * factor.to(evaluations.gradient).unsqueeze(1)
        norm = evaluations.gradient_norm.double() * factor
        return replace(evaluations, loss=evaluations.loss.double() * factor, gradient_norm=norm, gradient=gradient)

    def factor(self, places: Tensor) -> Tensor:
        """The powers of two of some starts, float64."""
        return _powers(self._rows["exponent"][places])

    def root(self, places: Tensor) -> Tensor:
        """Those of their residuals."""
        return _powers(torch.div(self._rows["exponent"][places], 2, rounding_mode="floor"))

    def keep(self, kept: Tensor) -> None:
        """Forget the starts that are not at these places."""
        self._rows.keep(kept)

    def state_dict(self) -> State:
        """The exponents."""
        return self._rows.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take them over."""
        self._rows.load_state_dict(state)


def exponents(largest: Tensor, loss: Tensor, dtype: torch.dtype) -> Tensor:
    """The exponents of units, of one loss or of many.

    Args:
        largest: The largest entry of each gradient, above 0 and finite, float64.
        loss: float64.
        dtype: Of the gradients.
    """
    limit = math.frexp(torch.finfo(dtype).max)[1] // 8
    size = torch.frexp(largest).exponent
    highest = (limit - torch.frexp(loss).exponent).clamp(min=0)
    exponent = torch.where((loss != 0) & loss.isfinite(), torch.minimum(-size, highest), -size)
    most = 8 * limit - 2  # a normal number in the dtype, and its inverse too
    exponent = 2 * torch.div(exponent.clamp(-most, most), 2, rounding_mode="floor")
    return torch.where(size.abs() <= limit, 0, exponent).long()


def _powers(exponent: Tensor) -> Tensor:
    """Of two, to the last bit: written into the bits of a float64."""
    return ((exponent + 1023) << 52).view(torch.float64)
