"""The loss and its gradient as one graph without side effects, traced from the code that eager runs."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.func import functional_call, functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from gradopt.engines.purity import Refusal, python_state, refuse_hooks, refuse_impure
from gradopt.oracle import AutogradOracle
from gradopt.torch_internals import quiet_fakes

READS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What a tensor without a value answers when it is asked for one."""

OURS = tuple(str(Path(file).resolve().parents[depth]) for file, depth in ((torch.__file__, 0), (__file__, 1)))
"""Where code lies that is not the user's."""


@dataclass(frozen=True, slots=True)
class LossGraph:
    """An evaluation as a graph: inputs (*parameters), outputs (loss, *gradients), of parameters that the loss does not
    use zeros.

    Attributes:
        module: Of aten operations without mutation. Tensors of the objective, such as its data, are attributes of it.
        inputs: One fake tensor for each input: its shape, dtype and device.
        parameters: The live ones, in the oracle's order.
    """

    module: GraphModule
    inputs: Sequence[Tensor]
    parameters: Sequence[nn.Parameter]

    @property
    def loss(self) -> Tensor:
        """That output, fake."""
        outputs = next(iter(self.module.graph.find_nodes(op="output"))).args[0]
        return tree_leaves(outputs)[0].meta["val"]


def trace_loss(oracle: AutogradOracle) -> LossGraph:
    """Trace an evaluation. It changes nothing: no value is computed, no state touched, no evaluation counted.

    Raises:
        Refusal: The evaluation cannot be one graph, with the reason.
    """
    refuse_unplain(oracle)
    refuse_hooks(oracle.objective)

    def evaluation(*here: Tensor) -> tuple[Tensor, ...]:
        loss, gradients = loss_and_gradients(oracle, here)
        # Each gradient is memory of its own, as whoever is given it may change it.
        return loss, *[gradient.clone() for gradient in filled(gradients, here)]

    with python_state(oracle.objective), quiet_fakes():
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            inputs = [mode.from_tensor(parameter.detach()) for parameter in oracle.parameters]
        return LossGraph(pure_graph(evaluation, inputs, oracle), inputs, oracle.parameters)


def refuse_unplain(oracle: AutogradOracle) -> None:
    """Refuse what is known without a trace."""
    if oracle.objective.batches is not None:
        raise Refusal("the objective has batches, and each step is another loss")
    if oracle.constraints is not None:
        raise Refusal("the objective has constraints")
    if any(type(parameter) is not nn.Parameter for parameter in oracle.parameters):
        raise Refusal("an unknown is no plain tensor")


def loss_and_gradients(oracle: AutogradOracle, here: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """Those of the objective with `here` in the places of its parameters."""
    leaves = [tensor.detach().requires_grad_() for tensor in here]
    with explained("the loss", Refusal), torch.enable_grad():
        loss = functional_call(oracle.objective, dict(zip(oracle.names, leaves, strict=True)))
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise Refusal("the loss is no differentiable tensor of one number")
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    if any(gradient is not None and gradient.layout != torch.strided for gradient in gradients):
        raise Refusal("its gradients are sparse")
    return loss.detach().reshape(()), list(gradients)


def filled(gradients: Sequence[Tensor | None], here: Sequence[Tensor]) -> list[Tensor]:
    """Zeros where there is no gradient."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, here, strict=True)]


def pure_graph(function: Callable[..., Any], inputs: Sequence[Tensor], oracle: AutogradOracle) -> GraphModule:
    """The graph of a function that evaluates the objective, if two traces of it are the same and nothing in it is
    impure.

    Raises:
        Refusal: With the reason.
    """
    with explained("the loss", Refusal):
        module, again = (_functional(function, inputs, oracle) for _ in range(2))
        if module.code != again.code or not _same_constants(module, again):
            raise Refusal("two calls of the loss do not compute the same")
    return module


@contextmanager
def explained(what: str, kind: type[Refusal], done: str = "traced") -> Iterator[None]:
    """What goes wrong inside becomes a refusal that names the line of the user's code: that it cannot be `done`."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        lines = [
            f" ({Path(frame.filename).name}, line {frame.lineno}: {frame.line})"
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(OURS) and Path(frame.filename).is_file()
        ]
        place = lines[-1] if lines else ""
        if isinstance(error, READS_VALUES):
            raise kind(f"{what} depends on a value it reads in Python{place}") from error
        raise kind(
            f"{what} cannot be {done}{place}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


def _functional(function: Callable[..., Any], inputs: Sequence[Tensor], oracle: AutogradOracle) -> GraphModule:
    raw = _make(function, inputs)
    refuse_impure(raw, {id(tensor): f"its buffer {name!r}" for name, tensor in oracle.objective.named_buffers()})
    named = zip(oracle.names, oracle.parameters, strict=True)
    live = {parameter.untyped_storage().data_ptr(): name for name, parameter in named}
    for name, tensor in _constants(raw).items():
        if isinstance(tensor, FakeTensor):
            raise Refusal("the loss keeps a tensor of its own from one call to the next")
        unknown = live.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        if unknown is not None:
            raise Refusal(f"the loss takes unknown {unknown!r} past its module ({name})")
    pure = _make(functionalize(raw), inputs)
    pure.graph.eliminate_dead_code()
    pure.recompile()
    return pure


def _make(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)


def _constants(module: GraphModule) -> dict[str, Tensor]:
    """The tensors a graph reads that are none of its inputs."""
    names = [str(node.target) for node in module.graph.nodes if node.op == "get_attr"]
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _same_constants(module: GraphModule, again: GraphModule) -> bool:
    ours, theirs = _constants(module), _constants(again)
    return ours.keys() == theirs.keys() and all(
        ours[name] is theirs[name]
        or (ours[name].shape == theirs[name].shape and torch.equal(ours[name].detach(), theirs[name].detach()))
        for name in ours
    )
