"""Elementwise optimisers of torch over many starts: what they do to each unknown does not depend on the others."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from gradopt.contracts import State
from gradopt.mistakes import Mistake
from gradopt.optimisers.torch import COUPLING, TorchOptimiser
from gradopt.stacked import Evaluations, StackedOracle


class StackedTorchOptimiser:
    """A `torch.optim.Optimizer` over stacked parameters, shape (starts, ...), as one would be over those of each start.

    Args:
        clip_norm: The norm of the gradient is held to it for each start on its own: one that is NaN harms no other.

    Raises:
        Mistake: A class whose step couples the unknowns, needs a closure, or is not known to be elementwise; or a
            schedule that reads the loss.
    """

    def __init__(self, inner: TorchOptimiser, *, elementwise: bool | None, clip_norm: float | None) -> None:
        self.inner = inner
        self._clip_norm = clip_norm
        if reason := refusal(inner, elementwise):
            raise Mistake(reason)

    def accepts(self, evaluations: Evaluations, oracle: StackedOracle) -> Tensor | None:
        """The starts whose evaluation is a trial, by their places; None: there are none."""
        return None

    def update(self, evaluations: Evaluations, oracle: StackedOracle) -> None:
        """Move the parameters of all starts, in place."""
        if self._clip_norm is not None:
            _clip(oracle, self._clip_norm)
        self.inner.clip(oracle.parameters)  # each value on its own
        self.inner.step()

    def learning_rate(self) -> float:
        """For the log."""
        return self.inner.learning_rate()

    def keep(self, kept: Tensor) -> None:
        """Forget what is remembered of the starts that are not at these places. The parameters are as small already."""
        optimizer = self.inner.optimizer
        states = {
            parameter: {name: _kept(value, parameter, kept) for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }
        # A new object, as when a state is loaded: who holds tensors of the old one sees it.
        optimizer.state = defaultdict(dict, states)

    def state_dict(self) -> State:
        """Everything the next update needs; state tensors have the axes (starts, parameter)."""
        return self.inner.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take it over."""
        self.inner.load_state_dict(state)


def _kept(value: Any, parameter: Tensor, kept: Tensor) -> Any:
    """A state tensor shaped like its parameter, for the starts that go on; anything else as it is."""
    if isinstance(value, Tensor) and value.dim() and value.shape[1:] == parameter.shape[1:]:
        return value[kept]
    return value


def refusal(inner: TorchOptimiser, elementwise: bool | None) -> str | None:
    """Why this optimiser cannot move many starts at once; None if it can."""
    optimizer = inner.optimizer
    name = type(optimizer).__name__
    if elementwise is None and type(optimizer).__module__.startswith("torch.optim"):
        elementwise = name not in COUPLING
    elif elementwise is None:
        elementwise = getattr(optimizer, "elementwise", None)
    hint = "use an elementwise optimiser such as adam, or run the starts one after another"
    if inner.uses_closure or elementwise is False:
        why = COUPLING.get(name, "its step needs a closure" if inner.uses_closure else "it is not elementwise")
        return f"{name} cannot move many starts at once: {why}; {hint}"
    if elementwise is None:
        return (
            f"it is not known whether {name} treats each unknown on its own, which many starts need; if it does, say "
            "optimiser.elementwise=true"
        )
    if isinstance(inner.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return "the schedule reads the loss of one start, and there are many; choose one that depends on the step alone"
    return None


def _clip(oracle: StackedOracle, most: float) -> None:
    """As `torch.nn.utils.clip_grad_norm_` does it for the gradient of each start."""
    gradients = [parameter.grad for parameter in oracle.parameters if parameter.grad is not None]
    if not gradients:
        return
    norms = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients])
    factor = (most / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.reshape(-1, *[1] * (gradient.dim() - 1)))
