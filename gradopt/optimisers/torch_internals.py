"""Whatever reaches behind torch's public interface. Without it everything works, a little slower."""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks


@contextmanager
def untraced_construction() -> Iterator[None]:
    """Inside, building an optimiser does not import Dynamo, which takes more than half a second: its `add_param_group`
    is wrapped only to be left out of traces, and nothing is traced here.
    """
    cls = torch.optim.Optimizer
    wrapped = cls.add_param_group
    body = getattr(wrapped, "__wrapped__", wrapped)
    cls.add_param_group = body
    try:
        yield
    finally:
        cls.add_param_group = wrapped


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether anybody is called before or after a step of this optimiser, or of all."""
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(own or _global_optimizer_pre_hooks or _global_optimizer_post_hooks)


def raw_step(optimizer: torch.optim.Optimizer) -> None:
    """The body of `step` alone, without a profiler scope, hooks or a gradient mode: what can be traced."""
    inspect.unwrap(type(optimizer).step)(optimizer)


def stand_in(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], state: Any) -> torch.optim.Optimizer:
    """An optimiser of the same class and attributes with other groups and state; the original is left alone."""
    other = object.__new__(type(optimizer))
    vars(other).update(vars(optimizer), param_groups=groups, state=state)
    return other


@contextmanager
def as_compiled() -> Iterator[None]:
    """Inside, optimisers of torch with capturable=True take tensors on any device, as in a compiled step."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


@contextmanager
def quiet_fakes() -> Iterator[None]:
    """Inside, an operation that a tensor without a value refuses is an exception only, and no page of log."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def lean_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """`optimizer.step`, without the profiler scope and Dynamo graph breaks around it: 20 to 40 us a step.

    The same arithmetic: only wrappers are left out, and only if nobody has registered a hook or replaced `step`.
    """
    step = type(optimizer).step
    body = getattr(step, "__wrapped__", None)
    if (
        "step" in vars(optimizer)  # a learning-rate scheduler counts the calls
        or not getattr(step, "hooked", False)
        or body is None
        or optimizer.defaults.get("differentiable", False)
        or has_step_hooks(optimizer)
    ):
        return optimizer.step
    if body.__code__.co_name == "_use_grad":  # torch's own elementwise classes: it only sets the gradient mode
        body = getattr(body, "__wrapped__", body)

    def lean() -> object:
        torch._C._set_grad_enabled(False)  # what no_grad() does, without making an object
        try:
            return body(optimizer)
        finally:
            torch._C._set_grad_enabled(True)

    return lean
