"""Any function of tensors as a native program, for tests: its value becomes the state behind one update."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from gradopt.engines.native.program import NativeProgram


@dataclass
class Graph:
    """As much of a `StepGraph` as a program needs."""

    module: fx.GraphModule
    parameters: Sequence[Tensor]
    tensors: Sequence[Tensor]
    num_groups: int = 1

    def state(self) -> Sequence[Tensor]:
        return self.tensors


def natively(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """function(*inputs), computed by the program that is printed for it."""
    result = torch.zeros_like(function(*inputs), memory_format=torch.contiguous_format)

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        *given, _, _ = tensors
        nothing = torch.zeros((), dtype=inputs[0].dtype)
        return (nothing, nothing, nothing, *map(torch.zeros_like, given), *given, function(*given))

    module = make_fx(functionalize(step), tracing_mode="fake", _allow_non_fake_inputs=True)(
        *inputs, result, torch.zeros((), dtype=torch.float64)
    )
    module.graph.eliminate_dead_code()
    NativeProgram(Graph(module, list(inputs), [result])).update(torch.zeros(1, 1, dtype=torch.float64))
    return result
