"""Whatever reaches behind torch's public interface. Without it everything works, a little slower.

Each name is looked up once; where a release has no such thing, `FOUND` holds None and the public way is taken. The
tests say which of the names a new release has lost, and that the results are the same without any of them.
"""

import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

RUN_BACKWARD = "torch.autograd:Variable._execution_engine.run_backward"
SET_GRAD_ENABLED = "torch:_C._set_grad_enabled"
FLATTEN = "torch:_C._nn.flatten_dense_tensors"
PRE_HOOKS = "torch.optim.optimizer:_global_optimizer_pre_hooks"
POST_HOOKS = "torch.optim.optimizer:_global_optimizer_post_hooks"
ENABLE_FALLBACK = "torch:_C._functorch._set_vmap_fallback_enabled"
IS_FALLBACK_ENABLED = "torch:_C._functorch._is_vmap_fallback_enabled"
NAMES = (
    RUN_BACKWARD,
    SET_GRAD_ENABLED,
    FLATTEN,
    PRE_HOOKS,
    POST_HOOKS,
    ENABLE_FALLBACK,
    IS_FALLBACK_ENABLED,
    "torch:_foreach_add_",
    "torch:_fused_adam_",
    "torch:_fused_adamw_",
    "torch:_fused_sgd_",
    "torch:_fused_adagrad_",
)


def _find(name: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return None


FOUND: dict[str, Any] = {name: _find(name) for name in NAMES}
"""By name what this release of torch has; None for what it has not."""


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


def backward(output: Tensor, *, retain_graph: bool = False) -> None:
    """`output.backward(retain_graph=...)` on the CPU without what stands before the engine: 5 us.

    Left out are checks for tensor subclasses, a context for the threads of devices, and hooks for debug logs.
    """
    run = FOUND[RUN_BACKWARD]
    if run is None or type(output) is not Tensor or not output.is_cpu or output.numel() != 1 or output.is_complex():
        output.backward(retain_graph=retain_graph)
        return
    # A new one each time: it may become the gradient itself, which clipping changes in place.
    run((output,), (torch.ones_like(output),), retain_graph, False, (), allow_unreachable=True, accumulate_grad=True)


def pulled_back(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> Sequence[Tensor | None]:
    """`torch.autograd.grad(outputs, inputs, vectors, allow_unused=True, ...)`, on the CPU without what stands before
    the engine: checks of the vectors that import SymPy, a third of a second once a process.

    Second derivatives that are known to be 0, as those of `abs`, have memory of their own: arithmetic with autograd's
    tensors of no memory imports Dynamo, a second once a process.
    """
    run, keeps = FOUND[RUN_BACKWARD], retain_graph or create_graph
    if run is None or any(type(tensor) is not Tensor or not tensor.is_cpu for tensor in (*outputs, *vectors)):
        found = torch.autograd.grad(
            outputs, inputs, vectors, retain_graph=keeps, create_graph=create_graph, allow_unused=True
        )
    else:
        inputs = tuple(inputs)
        found = run(
            tuple(outputs), tuple(vectors), keeps, create_graph, inputs, allow_unreachable=True, accumulate_grad=False
        )
    return [one.clone() if one is not None and one._is_zerotensor() else one for one in found]


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """The entries of dense tensors as one new vector, outside any graph: in a third of the time of `torch.cat`."""
    flatten, set_grad_enabled = FOUND[FLATTEN], FOUND[SET_GRAD_ENABLED]
    if flatten is None or set_grad_enabled is None or len(tensors) == 1:
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    enabled = torch.is_grad_enabled()
    set_grad_enabled(False)
    try:
        return flatten(tensors)
    finally:
        set_grad_enabled(enabled)


def lean_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """`optimizer.step`, without the profiler scope and Dynamo graph breaks around it: 20 to 40 us a step.

    The same arithmetic: only wrappers are left out, and only if nobody has registered a hook or replaced `step`.
    """
    step = type(optimizer).step
    body = getattr(step, "__wrapped__", None)
    set_grad_enabled = FOUND[SET_GRAD_ENABLED]
    if (
        "step" in vars(optimizer)  # a learning-rate scheduler counts the calls
        or not getattr(step, "hooked", False)
        or body is None
        or set_grad_enabled is None
        or optimizer.defaults.get("differentiable", False)
        or has_step_hooks(optimizer)
    ):
        return optimizer.step
    if body.__code__.co_name == "_use_grad":  # torch's own elementwise classes: it only sets the gradient mode
        body = getattr(body, "__wrapped__", body)
    run = KernelStep(optimizer, body) if KernelStep.fits(optimizer) else lambda: body(optimizer)

    def lean() -> object:
        set_grad_enabled(False)  # what no_grad() does, without making an object
        try:
            return run()
        finally:
            set_grad_enabled(True)

    return lean


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether anybody is called before or after a step of this optimiser, or of all, or it cannot be told."""
    hooks = (
        FOUND[PRE_HOOKS],
        FOUND[POST_HOOKS],
        getattr(optimizer, "_optimizer_step_pre_hooks", None),
        getattr(optimizer, "_optimizer_step_post_hooks", None),
    )
    return any(found is None or found for found in hooks)


def raw_step(optimizer: torch.optim.Optimizer) -> None:
    """The body of `step` alone, without a profiler scope, hooks or a gradient mode: what can be traced."""
    inspect.unwrap(type(optimizer).step)(optimizer)


def stand_in(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], state: Any) -> torch.optim.Optimizer:
    """An optimiser of the same class and attributes with other groups and state; the original is left alone."""
    other = object.__new__(type(optimizer))
    vars(other).update(vars(optimizer), param_groups=groups, state=state)
    return other


@contextmanager
def strict_vmap() -> Iterator[None]:
    """Inside, an operation that vmap can only make one by one is an error."""
    enable, is_enabled = FOUND[ENABLE_FALLBACK], FOUND[IS_FALLBACK_ENABLED]
    if enable is None or is_enabled is None:
        yield
        return
    before = is_enabled()
    enable(False)
    try:
        yield
    finally:
        enable(before)


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


class KernelStep:
    """The step of a fused class as the kernel it ends in, with its lists of tensors made once: 6 to 8 us.

    The first step, and any at which an unknown has no gradient or a sparse one, is the class's own; it makes the state.
    Options are read at each step, so a schedule may change them; a loaded state is seen.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, body: Callable[[torch.optim.Optimizer], object]) -> None:
        self._optimizer, self._body = optimizer, body
        self._parts: list[tuple[list[Tensor], Callable[[list[Tensor]], None]]] = []
        self._state: object = None

    @staticmethod
    def fits(optimizer: torch.optim.Optimizer) -> bool:
        """Whether the class is one whose kernel is known, fused, on the CPU, of one dtype in each group."""
        needed = _KERNELS.get(type(optimizer))
        return (
            needed is not None
            and all(FOUND[name] is not None for name in ("torch:_foreach_add_", *needed[0]))
            and all(
                group.get("fused") is True
                and all(type(group[name]) in (float, int) for name in ("lr", "weight_decay"))
                and len({p.dtype for p in group["params"]}) == 1
                and all(p.is_cpu for p in group["params"])
                for group in optimizer.param_groups
            )
        )

    def __call__(self) -> object:
        optimizer = self._optimizer
        if self._state is not optimizer.state or len(self._parts) != len(optimizer.param_groups):
            self._body(optimizer)
            self._gather()
            return None
        gradients: list[list[Tensor]] = []
        for parameters, _ in self._parts:
            part: list[Tensor] = []
            for parameter in parameters:
                gradient = parameter.grad
                if gradient is None or gradient.is_sparse:
                    return self._body(optimizer)
                part.append(gradient)
            gradients.append(part)
        for (_, step), part in zip(self._parts, gradients, strict=True):
            step(part)
        return None

    def _gather(self) -> None:
        """List the tensors of each group; not before the class has made the state of every unknown."""
        optimizer = self._optimizer
        prepare = _KERNELS[type(optimizer)][1]
        try:
            self._parts = [
                (group["params"], prepare(group, [optimizer.state.get(p, {}) for p in group["params"]]))
                for group in optimizer.param_groups
            ]
        except KeyError:
            return
        self._state = optimizer.state


def _adam(group: Mapping[str, Any], states: Sequence[Mapping[str, Tensor]]) -> Callable[[list[Tensor]], None]:
    averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
    largest = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
    kernel = FOUND["torch:_fused_adamw_" if group["decoupled_weight_decay"] else "torch:_fused_adam_"]
    parameters, add = group["params"], FOUND["torch:_foreach_add_"]

    def step(gradients: list[Tensor]) -> None:
        add(steps, 1)
        beta1, beta2 = group["betas"]
        kernel(
            parameters,
            gradients,
            averages,
            squares,
            largest,
            steps,
            amsgrad=group["amsgrad"],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    return step


def _sgd(group: Mapping[str, Any], states: Sequence[Mapping[str, Tensor]]) -> Callable[[list[Tensor]], None]:
    buffers = [state["momentum_buffer"] for state in states] if group["momentum"] else []
    parameters, kernel = group["params"], FOUND["torch:_fused_sgd_"]

    def step(gradients: list[Tensor]) -> None:
        kernel(
            parameters,
            gradients,
            buffers,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,
        )

    return step


def _adagrad(group: Mapping[str, Any], states: Sequence[Mapping[str, Tensor]]) -> Callable[[list[Tensor]], None]:
    sums, steps = ([state[name] for state in states] for name in ("sum", "step"))
    parameters, add, kernel = group["params"], FOUND["torch:_foreach_add_"], FOUND["torch:_fused_adagrad_"]

    def step(gradients: list[Tensor]) -> None:
        add(steps, 1)
        kernel(
            parameters,
            gradients,
            sums,
            steps,
            lr=group["lr"],
            lr_decay=group["lr_decay"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    return step


_KERNELS: Mapping[type, tuple[tuple[str, ...], Callable[..., Callable[[list[Tensor]], None]]]] = {
    torch.optim.Adam: (("torch:_fused_adam_", "torch:_fused_adamw_"), _adam),
    torch.optim.AdamW: (("torch:_fused_adam_", "torch:_fused_adamw_"), _adam),
    torch.optim.SGD: (("torch:_fused_sgd_",), _sgd),
    torch.optim.Adagrad: (("torch:_fused_adagrad_",), _adagrad),
}
"""By class the kernels it may end in, and what makes the step of a group from its options and states."""
