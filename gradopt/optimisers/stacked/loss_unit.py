"""The units in which an optimiser measures the losses of many starts."""

import torch
from torch import Tensor

from gradopt.contracts import State
from gradopt.optimisers.loss_unit import exponent, reach
from gradopt.stacked import Evaluations

UNKNOWN = 2**62
"""The exponent of a unit that is not chosen yet."""


class StackedLossUnit:
    """`LossUnit` of each of many starts."""

    def __init__(self, like: Tensor) -> None:
        self._exponents = torch.full((len(like),), UNKNOWN)
        self._is_known = self._is_plain = False

    def of(self, evaluations: Evaluations, places: Tensor) -> tuple[Tensor, Tensor]:
        """The losses, float64 on the CPU, and the gradients of the starts at these places in their units; chosen by
        them, where they are the first.
        """
        loss, gradient = evaluations.loss.double().cpu(), evaluations.gradient
        if not self._is_known:
            self._choose(loss, gradient, places)
        if self._is_plain:
            return loss, gradient
        factors = self.factors(places)
        return loss * factors, gradient * factors.to(gradient).unsqueeze(1)

    def factors(self, places: Tensor) -> Tensor:
        """The powers of two of these starts, float64 on the CPU; 1 where none is chosen."""
        return _powers(self._chosen(places))

    def roots(self, places: Tensor) -> Tensor:
        """The units of their residuals."""
        return _powers(torch.div(self._chosen(places), 2, rounding_mode="floor"))

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places from here on."""
        self._exponents = self._exponents[kept]
        self._look()

    def state_dict(self) -> State:
        """The exponents."""
        return {"exponents": self._exponents.clone()}

    def load_state_dict(self, state: State) -> None:
        """Take them over."""
        self._exponents = state["exponents"].clone()
        self._look()

    def _choose(self, loss: Tensor, gradient: Tensor, places: Tensor) -> None:
        largest = gradient.abs().amax(1).double().cpu()
        usual = (largest.frexp().exponent.abs() <= reach(gradient.dtype)) & (largest > 0) & largest.isfinite()
        fresh = self._exponents[places] == UNKNOWN
        self._exponents[places[fresh & usual]] = 0
        for entry in (fresh & ~usual).nonzero().flatten().tolist():
            found = exponent(largest[entry].item(), loss[entry].item(), gradient.dtype)
            self._exponents[places[entry]] = UNKNOWN if found is None else found
        self._look()

    def _chosen(self, places: Tensor) -> Tensor:
        exponents = self._exponents[places]
        return torch.where(exponents == UNKNOWN, 0, exponents)

    def _look(self) -> None:
        self._is_known = bool((self._exponents != UNKNOWN).all())
        self._is_plain = not bool(self._exponents.any())


def _powers(exponents: Tensor) -> Tensor:
    return torch.ldexp(torch.ones(len(exponents), dtype=torch.float64), exponents)
