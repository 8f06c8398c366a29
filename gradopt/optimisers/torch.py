"""Every `torch.optim.Optimizer` as an `Optimiser`: torch's own, and anybody's subclass."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, NonFiniteTrial, Oracle, State
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.torch_internals import lean_step, untraced_construction

Factory = Callable[..., torch.optim.Optimizer]

COUPLING = {
    "LBFGS": "its step mixes all unknowns",
    "Muon": "it orthogonalises whole matrices",
    "Adafactor": "it factors and clips whole matrices",
}
"""Classes of torch whose step is not elementwise, so that a projection on bounds would spoil their state."""

FUSED: Mapping[Factory, tuple[str, ...]] = {
    torch.optim.SGD: ("cpu", "cuda"),
    torch.optim.Adam: ("cpu", "cuda"),
    torch.optim.AdamW: ("cpu", "cuda"),
    torch.optim.Adagrad: ("cpu",),
}
"""Classes of torch that have a fused form: their update as one kernel, and the kinds of device it is for."""

OWN_TOLERANCES = {"LBFGS": {"tolerance_grad": 0.0, "tolerance_change": 0.0}}
"""Stopping tests inside a class, switched off: whether a run ends is for the criteria alone."""


class TorchOptimiser:
    """Drives a `torch.optim.Optimizer` by `.grad`, or by a closure if its `step` demands one.

    Clipping changes `.grad` between the evaluation and the step, as `torch.nn.utils.clip_grad_*` do; the records hold
    the norm before it.

    Attributes:
        needs_point: Whether an update may fail half-way, so that the point it began at is needed.

    Args:
        may_unfuse: Whether the fused form was nobody's wish: a first gradient that is sparse or missing then ends it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        scheduler: Any = None,
        schedule_every: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        may_unfuse: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self._may_unfuse = may_unfuse
        self.scheduler = scheduler
        self.schedule_every = schedule_every
        self.num_updates = 0
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        _settle(optimizer)
        self.uses_closure = self.needs_point = needs_closure(type(optimizer))
        self._step = optimizer.step if self.uses_closure or scheduler is not None else lean_step(optimizer)

    def accepts(self, evaluation: Evaluation, oracle: Oracle) -> bool:
        """Always: a torch optimiser steps from wherever it is."""
        return True

    def update(self, evaluation: Evaluation, oracle: Oracle) -> None:
        """One `step()`, then one of the schedule where it is due.

        Raises:
            BudgetSpent, NonFiniteTrial: From inside a closure; the parameters are then anywhere on the way.
        """
        self.clip(self._parameters)
        self.step(evaluation.loss, self._closure(evaluation, oracle) if self.uses_closure else None)

    def step(self, loss: float = math.nan, closure: Callable[[], Tensor] | None = None) -> None:
        """One `step()` from `.grad` as it is, then one of the schedule where it is due.

        Args:
            loss: For a schedule that reads it.
            closure: For a class that needs one.
        """
        if self._may_unfuse and self.num_updates == 0:
            self._unfuse_unless_dense()
        if closure is None:
            self._step()
        else:
            self._step(closure)  # type: ignore[call-arg]
        self.advance_schedule(loss)

    def advance_schedule(self, loss: float = math.nan) -> None:
        """Count an update, and let the schedule make its step where it is due; only `plateau` reads the loss."""
        self.num_updates += 1
        if self.scheduler is None or self.num_updates % self.schedule_every:
            return
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

    def learning_rate(self) -> float:
        """Of the first group; NaN if the class has none."""
        return float(self.optimizer.param_groups[0].get("lr", math.nan))

    def state_dict(self) -> State:
        """Everything the next update needs. Tensors are copied: torch's own `state_dict` aliases the live ones."""
        return {
            "optimizer": copied(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else copied(self.scheduler.state_dict()),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: State) -> None:
        """Take over a state of an optimiser built with the same options."""
        kept = copied(state["optimizer"])
        self.optimizer.load_state_dict(kept)
        for index, parameter in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
            live = self.optimizer.state[parameter] if index in kept["state"] else {}
            for key, value in live.items():  # torch gives numbers in a state, such as NAdam's, its parameter's dtype
                if isinstance(value, Tensor):
                    live[key] = value.to(kept["state"][index][key].dtype)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(copied(state["scheduler"]))
        self.num_updates = state["num_updates"]

    def _unfuse_unless_dense(self) -> None:
        """The kernels take no sparse gradients; that of SGD fails where a momentum begins later than the others."""
        if any(p.grad is None or p.grad.is_sparse for p in self._parameters):
            for group in self.optimizer.param_groups:
                group["fused"] = None
            _settle(self.optimizer)
            self._step = self.optimizer.step if self.scheduler is not None else lean_step(self.optimizer)

    def clip(self, parameters: Sequence[Tensor]) -> None:
        """Clip the `.grad` of parameters, in place."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)

    def _closure(self, evaluation: Evaluation, oracle: Oracle) -> Callable[[], Tensor]:
        """The closure of one step. Its first call is given the evaluation that is there already: none is wasted."""
        fresh, gradients = True, [parameter.grad for parameter in self._parameters]

        def closure() -> Tensor:
            nonlocal fresh
            known = evaluation if fresh and torch.equal(oracle.read(), evaluation.point) else None
            fresh = False
            with torch.enable_grad():
                current = known or oracle.evaluate()
            if not math.isfinite(current.loss):
                raise NonFiniteTrial(current.loss)
            if known is None:
                self.clip(self._parameters)
            else:  # a class may have zeroed them before it called
                for parameter, gradient in zip(self._parameters, gradients, strict=True):
                    parameter.grad = gradient
            return evaluation.point.new_tensor(current.loss)

        return closure


def has_fused_form(factory: Factory, named: Mapping[str, nn.Parameter], options: Iterable[str]) -> bool:
    """Whether a class of torch updates by one kernel if it is told to, and nobody has said otherwise.

    Args:
        options: The names of what was asked for, in the groups too.
    """
    return (
        factory in FUSED
        and not {"fused", "foreach", "capturable", "differentiable"}.intersection(options)
        and len({p.device for p in named.values()}) == 1
        and all(p.device.type in FUSED[factory] for p in named.values())
    )


def build(
    factory: Factory,
    named: Mapping[str, nn.Parameter],
    groups: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> tuple[torch.optim.Optimizer, Mapping[str, Any]]:
    """Build an optimiser over trainable parameters, and say which tolerances of its own were switched off.

    Args:
        factory: A class, or any callable of parameters (or groups) and options.
        named: The trainable parameters.
        groups: As `Objective.parameter_groups`; empty for one group. Frozen parameters in them are left out.
        options: Keyword arguments of `factory`; one tuple-valued default given as a list is made a tuple.

    Raises:
        Mistake: The class refuses the parameters or the options, with its reason.
    """
    own = {name: value for name, value in OWN_TOLERANCES.get(_name(factory), {}).items() if name not in options}
    keywords = {name: _tuples(value) for name, value in {**options, **own}.items()}
    parameters: Any = list(named.values())
    if groups:
        trainable = set(map(id, named.values()))
        parameters = [{**group, "params": [p for p in group["params"] if id(p) in trainable]} for group in groups]
        parameters = [group for group in parameters if group["params"]]
        grouped = {id(p) for group in parameters for p in group["params"]}
        if left_out := [name for name, parameter in named.items() if id(parameter) not in grouped]:
            raise Mistake(
                f"unknown {left_out[0]!r} is in no parameter group and would never move: add it to one, or freeze it "
                "with requires_grad_(False)"
            )
    try:
        with untraced_construction():
            optimizer = factory(parameters, **keywords)
        if isinstance(optimizer, torch.optim.Optimizer):
            _check_groups(factory, optimizer, groups, keywords)
        return optimizer, own
    except Mistake:
        raise
    except (TypeError, ValueError, RuntimeError, AssertionError, IndexError) as error:
        raise Mistake(f"{_name(factory)} refuses these parameters or options: {error}") from error


def _check_groups(
    factory: Factory,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Mapping[str, Any]],
    keywords: Mapping[str, Any],
) -> None:
    """Refuse options of a group that the class would take in silence: an unknown name, a rate below 0."""
    for group in groups:
        given = {name: value for name, value in group.items() if name not in ("params", "param_names")}
        for name in given:
            if optimizer.defaults and name not in optimizer.defaults:
                near = did_you_mean(name, optimizer.defaults)
                known = ", ".join(optimizer.defaults)
                raise Mistake(f"a parameter group of {_name(factory)} has no option {name!r}.{near} Available: {known}")
        if given and type(optimizer).__module__.startswith("torch.optim"):
            factory(list(group["params"]), **{**keywords, **given})  # torch checks values in its constructor alone


def group_parameters(
    named: Mapping[str, nn.Parameter], patterns: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Parameter groups from {pattern of a name: options}, first match wins; what matches none keeps the defaults.

    Raises:
        Mistake: A pattern that matches no unknown, or options that are no options.
    """
    for pattern, given in patterns.items():
        if not isinstance(given, Mapping):
            raise Mistake(f"the group {pattern!r} must be {{option: value}}, such as {{lr: 0.1}}, got {given!r}")
    chosen: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in (None, *patterns)}
    for name, parameter in named.items():
        match = next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)
        chosen[match].append(parameter)
    for pattern in patterns:
        if not chosen[pattern]:
            raise Mistake(
                f"the group {pattern!r} matches none of the unknowns ({', '.join(named)})."
                + did_you_mean(pattern, named)
            )
    options: dict[str | None, Mapping[str, Any]] = {None: {}, **patterns}
    return [{"params": members, **options[pattern]} for pattern, members in chosen.items() if members]


def needs_closure(cls: type) -> bool:
    """Whether `step` of this class cannot be called without a closure."""
    step = inspect.signature(inspect.unwrap(cls.step)).parameters  # type: ignore[attr-defined]
    return "closure" in step and step["closure"].default is inspect.Parameter.empty


def refusal(optimizer: torch.optim.Optimizer, *, bounded: bool, elementwise: bool | None) -> str | None:
    """Why this optimiser cannot minimise this objective, after its first gradient; None if it can.

    Args:
        bounded: Whether any unknown has a bound.
        elementwise: What is known about the class from elsewhere; None: nothing.
    """
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        if group.get("maximize"):
            return f"{name} with maximize=True climbs, and gradopt minimises; leave it out, and negate the objective"
        if group.get("differentiable"):
            return f"{name} with differentiable=True cannot step on leaf tensors; leave it out"
        if group.get("capturable") and any(p.device.type == "cpu" for p in group["params"]):
            return f"{name} with capturable=True needs its parameters on an accelerator; leave it out on the CPU"
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    sparse = any(gradient.is_sparse for gradient in gradients)
    if name == "SparseAdam" and not sparse:
        return "SparseAdam takes sparse gradients only, and this objective's are dense; use adam"
    if bounded:
        own = type(optimizer).__module__.startswith("torch.optim")
        if elementwise is None:
            elementwise = name not in COUPLING if own else getattr(optimizer, "elementwise", None)
        if elementwise is False:
            why = COUPLING.get(name, "it is declared as not elementwise")
            return f"{name} cannot keep bounds: {why}; use an elementwise optimiser such as adam, or drop the bounds"
        if elementwise is None:
            return (
                f"it is not known whether {name} treats each unknown on its own, which bounds need; "
                "if it does, say optimiser.elementwise=true"
            )
    return None


def _settle(optimizer: torch.optim.Optimizer) -> None:
    """Say once what torch finds anew at each step: on the CPU it takes the plain implementation, unless told to."""
    for group in optimizer.param_groups:
        if "foreach" in group and group["foreach"] is None and all(p.device.type == "cpu" for p in group["params"]):
            group["foreach"] = False


def _name(factory: Factory) -> str:
    return getattr(factory, "__name__", type(factory).__name__)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def copied(value: Any) -> Any:
    """A state with copies of its tensors, which torch's own `state_dict` lends out alive."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
