"""The step of an optimiser as one graph without side effects, traced from the code that eager runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule

from gradopt.constraints.box import projected_gradient
from gradopt.contracts import Optimiser
from gradopt.engines.loss_graph import explained, filled, loss_and_gradients, pure_graph, refuse_unplain
from gradopt.engines.purity import Refusal, python_state, refuse_hooks, watched
from gradopt.engines.rates import Rates
from gradopt.engines.scalars import TensorScalars
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle
from gradopt.torch_internals import as_compiled, quiet_fakes, raw_step, stand_in
from gradopt.unknowns import split

Slot = tuple[int, str]
"""The place of a state tensor: the number of its parameter, and its key in the optimiser's state of that."""

NUMBERS = ("step", "eta", "mu")
"""State that capturable forms read as tensors where others read it as numbers: it counts in double precision."""


@dataclass(frozen=True, slots=True)
class StepGraph:
    """One step as a graph: inputs (*parameters, *state, *rates), outputs (loss, gradient_norm, step_norm, *gradients,
    *new parameters, *new state).

    Loss, gradients and their norm are those at the inputs, before clipping; what is new lies behind clipping, the
    optimiser's own step and the projection on bounds. The step norm is the largest change of an unknown by that update.

    Attributes:
        module: Of aten operations without mutation. Tensors of the objective, such as its data, are attributes of it.
        inputs: One fake tensor for each input: its shape, dtype and device.
        parameters: The live ones, in the oracle's order.
        slots: The places of the state tensors, in the order of the inputs.
        num_groups: A rate is a float64 tensor of shape () on the device of the parameters, one a parameter group: the
            number that eager takes.
    """

    module: GraphModule
    inputs: Sequence[Tensor]
    optimiser: TorchOptimiser
    parameters: Sequence[nn.Parameter]
    slots: Sequence[Slot]
    num_groups: int

    def state(self) -> list[Tensor]:
        """The live state tensors. The optimiser has made them at its first update, not before."""
        return [self.optimiser.optimizer.state[self.parameters[index]][key] for index, key in self.slots]


def trace(oracle: AutogradOracle, optimiser: Optimiser) -> StepGraph:
    """Trace the step. It changes nothing: no value is computed, no state touched, no evaluation counted.

    Raises:
        Refusal: The step cannot be one graph, with the reason.
    """
    adapter = _plain(oracle, optimiser)
    refuse_hooks(oracle.objective, adapter.optimizer)
    with python_state(oracle.objective), quiet_fakes():
        return _traced(oracle, adapter)


def _plain(oracle: AutogradOracle, optimiser: Optimiser) -> TorchOptimiser:
    """Refuse what is known without a trace."""
    if not isinstance(optimiser, TorchOptimiser):
        raise Refusal(f"{type(optimiser).__name__} decides by values between its evaluations")
    if optimiser.uses_closure:
        raise Refusal(f"{type(optimiser.optimizer).__name__} evaluates inside its step, by a closure")
    refuse_unplain(oracle)
    if isinstance(optimiser.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise Refusal("the schedule reads the loss")
    Rates(optimiser).check()
    return optimiser


def _traced(oracle: AutogradOracle, adapter: TorchOptimiser) -> StepGraph:
    """The plain form of the step if it can be traced, else its capturable one: the same numbers but for rounding."""
    tracer = _Tracer(oracle, adapter, capturable=False)
    try:
        return tracer.graph()
    except _UpdateRefusal:
        if not any("capturable" in group for group in adapter.optimizer.param_groups):
            raise
        return _Tracer(oracle, adapter, capturable=True).graph()


class _UpdateRefusal(Refusal):
    """It is the optimiser's code that cannot be traced."""


class _Tracer:
    def __init__(self, oracle: AutogradOracle, adapter: TorchOptimiser, *, capturable: bool) -> None:
        self._oracle, self._adapter, self._capturable = oracle, adapter, capturable
        self._groups = adapter.optimizer.param_groups
        self._state: list[dict[str, Any]] = []
        self._slots: list[Slot] = []

    def graph(self) -> StepGraph:
        """The graph, or the reason why there is none."""
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            parameters = [mode.from_tensor(parameter.detach()) for parameter in self._oracle.parameters]
            self._state = self._first_state(parameters, mode)
            self._slots = [
                (index, key) for index, one in enumerate(self._state) for key in one if isinstance(one[key], Tensor)
            ]
            state = [self._state[index][key] for index, key in self._slots]
            rates = [torch.empty((), dtype=torch.float64, device=parameters[0].device) for _ in self._groups]
        inputs = [*parameters, *state, *rates]
        module = pure_graph(self._step, inputs, self._oracle)
        return StepGraph(module, inputs, self._adapter, self._oracle.parameters, self._slots, len(self._groups))

    def _step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        count, slots = len(self._oracle.parameters), len(self._slots)
        here, flat_state, rates = inputs[:count], inputs[count : count + slots], inputs[count + slots :]
        state = [dict(one) for one in self._state]
        for (index, key), tensor in zip(self._slots, flat_state, strict=True):
            state[index][key] = tensor.clone()
        loss, gradients = loss_and_gradients(self._oracle, here)
        gradients = self._settled(gradients, here)
        moved, state = self._update(here, gradients, state, rates)
        for before, after in zip(self._state, state, strict=True):
            for key in before.keys() | after.keys():
                if not isinstance(after.get(key), Tensor) and after.get(key, key) != before.get(key):
                    raise _UpdateRefusal(f"the optimiser keeps {key!r} in Python")
        dense = filled(gradients, here)
        return (
            loss,
            _largest(self._projected(dense, here)),
            _largest([after - before for after, before in zip(moved, here, strict=True)]),
            *dense,
            *moved,
            *[state[index][key] for index, key in self._slots],
        )

    def _update(
        self,
        here: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        state: Sequence[dict[str, Any]],
        rates: Sequence[Tensor] | None,
    ) -> tuple[list[Tensor], list[dict[str, Any]]]:
        """Clipping, the optimiser's own step, and the projection on bounds, on copies. Without rates: at its own."""
        moved = [tensor.detach().clone() for tensor in here]
        for tensor, gradient in zip(moved, gradients, strict=True):
            tensor.grad = None if gradient is None else gradient.clone()
        groups = self._stand_in_groups(moved, rates)
        options = [_options(group) for group in groups]
        dtypes = [{key: one[key].dtype for key in NUMBERS if self._capturable and key in one} for one in state]
        state = [{**one, **{key: one[key].double() for key in kept}} for one, kept in zip(state, dtypes, strict=True)]
        numbers = [one[key] for one, kept in zip(state, dtypes, strict=True) for key in kept]
        optimizer = stand_in(self._adapter.optimizer, groups, defaultdict(dict, zip(moved, state, strict=True)))
        attributes = {key: value for key, value in vars(optimizer).items() if key != "state"}
        put_back = watched({key: value for key, value in attributes.items() if key not in ("param_groups", "defaults")})
        compiled = as_compiled() if self._capturable else nullcontext()
        with explained(f"the step of {type(optimizer).__name__}", _UpdateRefusal), torch.no_grad():
            self._adapter.clip([p for group in groups for p in group["params"]])
            with TensorScalars([*(rates or ()), *numbers]), compiled:
                raw_step(optimizer)
        changed = [key for key, value in attributes.items() if vars(optimizer).get(key) is not value] + put_back()
        if changed or options != [_options(group) for group in groups]:
            raise _UpdateRefusal(f"{type(optimizer).__name__} keeps {(changed or ['options'])[0]} up to date in Python")
        after = [dict(optimizer.state[tensor]) for tensor in moved]
        after = [
            {**one, **{key: one[key].to(kept[key]) for key in kept}} for one, kept in zip(after, dtypes, strict=True)
        ]
        return self._inside(moved), after

    def _stand_in_groups(self, moved: Sequence[Tensor], rates: Sequence[Tensor] | None) -> list[dict[str, Any]]:
        forms = {"foreach": False, "fused": False, "capturable": self._capturable}
        copies = dict(zip(map(id, self._oracle.parameters), moved, strict=True))
        groups = []
        for index, group in enumerate(self._groups):
            own = {**group, "params": [copies[id(parameter)] for parameter in group["params"]]}
            own.update({form: value for form, value in forms.items() if form in group})
            if rates is not None and "lr" in group:
                own["lr"] = rates[index]
            groups.append(own)
        return groups

    def _first_state(self, parameters: Sequence[Tensor], mode: FakeTensorMode) -> list[dict[str, Any]]:
        """The optimiser's state as its next update leaves it; that makes what is missing. Only the forms count."""
        live = self._adapter.optimizer.state
        state: list[dict[str, Any]] = [
            {key: mode.from_tensor(value) if isinstance(value, Tensor) else value for key, value in live[p].items()}
            if p in live
            else {}
            for p in self._oracle.parameters
        ]
        _, gradients = loss_and_gradients(self._oracle, parameters)
        return self._update(parameters, gradients, state, None)[1]

    def _settled(self, gradients: Sequence[Tensor | None], here: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients without the entries of pinned unknowns; see `Evaluation.pinned`."""
        if self._oracle.lower is None or self._oracle.upper is None:
            return list(gradients)
        sides = zip(*(split(side, here) for side in (self._oracle.lower, self._oracle.upper)), strict=True)
        return [
            g if g is None else g.masked_fill(((p <= low) & (g == torch.inf)) | ((p >= high) & (g == -torch.inf)), 0.0)
            for g, p, (low, high) in zip(gradients, here, sides, strict=True)
        ]

    def _projected(self, gradients: Sequence[Tensor], here: Sequence[Tensor]) -> Sequence[Tensor]:
        """What counts of the gradients inside the bounds, as in the oracle."""
        if self._oracle.lower is None or self._oracle.upper is None:
            return gradients
        sides = zip(*(split(side, here) for side in (self._oracle.lower, self._oracle.upper)), strict=True)
        return [projected_gradient(g, p, low, high) for g, p, (low, high) in zip(gradients, here, sides, strict=True)]

    def _inside(self, moved: list[Tensor]) -> list[Tensor]:
        if self._oracle.lower is None or self._oracle.upper is None:
            return moved
        sides = zip(*(split(side, moved) for side in (self._oracle.lower, self._oracle.upper)), strict=True)
        return [p.clamp(low, high) for p, (low, high) in zip(moved, sides, strict=True)]


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    """The largest absolute entry of all, NaN if one is NaN."""
    largest = [tensor.abs().amax() for tensor in tensors if tensor.numel()]
    return largest[0] if len(largest) == 1 else torch.stack([one.to(largest[0].dtype) for one in largest]).amax()


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: id(value) if isinstance(value, Tensor) else value for key, value in group.items() if key != "params"}
