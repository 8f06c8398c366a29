"""What moves many starts at once; and the elementwise optimisers of torch, which do it as they are: what they do to
each unknown does not depend on the others.
"""

from collections import defaultdict
from typing import Any, Protocol

import torch
from torch import Tensor

from gradopt.contracts import Halted, State
from gradopt.mistakes import Mistake
from gradopt.optimisers.torch import COUPLING, TorchOptimiser
from gradopt.stacked import Evaluations, StackedOracle


class StackedOptimiser(Protocol):
    """An `Optimiser` of many starts: each of them moves as it would by itself.

    Starts are named by their places among those the oracle holds, on the CPU, ascending. All that is remembered of a
    start is dropped by `keep` when it has ended.

    An optimiser that makes trials is told which starts have been evaluated, says which of these points are steps, and
    is asked to `retry` the others alone, for as long as there are any; `update` follows when all starts that go on have
    a new point. `.grad` is not filled for it. A start it cannot move it names in `Halted`, with what a run of one would
    raise there, and the engine puts that start back to its last point. Budgets are the engine's.

    Attributes:
        makes_trials: Whether a point may be refused.
    """

    makes_trials: bool

    def accepts(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Tensor | None:
        """Which of the evaluations are new points (steps) of their starts: a mask on the CPU; None: all are.

        Args:
            evaluations: Of the starts at `places`, in their order.
        """
        ...

    def retry(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Move the parameters of these starts, in place, to their next trials; `evaluations` are the refused ones."""
        ...

    def update(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Move the parameters of these starts, in place, onwards from their new points.

        Args:
            evaluations: Of all starts, at their last points; of those not at `places` they are of no account.
        """
        ...

    def learning_rate(self) -> Tensor | float:
        """For the log: of all starts, shape (starts,), or the same for all."""
        ...

    def keep(self, kept: Tensor) -> None:
        """Forget what is remembered of the starts that are not at these places. The parameters are as small already."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class StackedTorchOptimiser:
    """A `torch.optim.Optimizer` over stacked parameters, shape (starts, ...), as one would be over those of each start.

    Args:
        clip_norm: The norm of the gradient is held to it for each start on its own: one that is NaN harms no other.

    Raises:
        Mistake: A class whose step couples the unknowns, needs a closure, or is not known to be elementwise; or a
            schedule that reads the loss.
    """

    makes_trials = False

    def __init__(self, inner: TorchOptimiser, *, elementwise: bool | None, clip_norm: float | None) -> None:
        self.inner = inner
        self._clip_norm = clip_norm
        if reason := refusal(inner, elementwise):
            raise Mistake(reason)

    def accepts(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Tensor | None:
        """Every evaluation is a step."""
        return None

    def retry(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Never asked for."""
        raise AssertionError("an optimiser that makes no trials has none to repeat")

    def update(self, evaluations: Evaluations, oracle: StackedOracle, places: Tensor) -> Halted | None:
        """Move the parameters of all starts, in place, also of those that have ended: the engine puts them back."""
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
    hint = "use lbfgs, or an elementwise optimiser such as adam, or run the starts one after another"
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
