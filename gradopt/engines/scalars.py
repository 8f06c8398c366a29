"""Numbers that an optimiser's step computes in Python, such as its bias corrections, as tensors of a graph."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class TensorScalars(TorchFunctionMode):
    """Inside, `.item()` returns a float64 tensor of shape () in place of a Python number, and it acts as one.

    So the step's own code runs as it does in eager, number for number, and can be traced: what comes of such tensors
    alone stays in float64; beside another tensor they take its dtype, as a Python number does.

    Args:
        scalars: Tensors of shape () in float64 that stand for numbers from the beginning, such as learning rates.
    """

    def __init__(self, scalars: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self._scalars = {id(scalar): scalar for scalar in scalars}  # kept alive, so that no id is used again

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func` with its numbers made to fit."""
        kwargs = dict(kwargs or {})
        if func is Tensor.item:
            return self._scalar(args[0].to(torch.float64, copy=True))
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        others = [tensor for tensor in tensors if id(tensor) not in self._scalars]
        if len(others) == len(tensors):
            return func(*args, **kwargs)
        if not others:
            result = func(*args, **kwargs)
            return self._scalar(result) if isinstance(result, Tensor) else result
        dtype = next((tensor.dtype for tensor in others if tensor.is_floating_point()), torch.float64)
        fitted = [self._fitted(value, dtype) for value in args]
        factor = kwargs.pop("value", kwargs.pop("alpha", None))
        kwargs = {name: self._fitted(value, dtype) for name, value in kwargs.items()}
        if factor is None:
            return func(*fitted, **kwargs)
        return _scaled(func, fitted, self._fitted(factor, dtype), kwargs)

    def _scalar(self, tensor: Tensor) -> Tensor:
        self._scalars[id(tensor)] = tensor
        return tensor

    def _fitted(self, value: Any, dtype: torch.dtype) -> Any:
        scalar = isinstance(value, Tensor) and id(value) in self._scalars and value.is_floating_point()
        return value.to(dtype) if scalar else value


def _scaled(func: Callable[..., Any], args: Sequence[Any], factor: Any, kwargs: Mapping[str, Any]) -> Any:
    """`func` with a factor that torch takes as a Python number only, in the order in which its kernels multiply."""
    if not isinstance(factor, Tensor):
        name = "alpha" if func.__name__ in ("add", "add_", "sub", "sub_") else "value"
        return func(*args, **{name: factor}, **kwargs)
    name, (tensor, *rest) = func.__name__.rstrip("_"), args
    if name in ("add", "sub"):
        change = factor * rest[0]
    elif name == "addcdiv":
        change = factor * rest[0] / rest[1]
    elif name == "addcmul":
        change = factor * rest[0] * rest[1]
    else:
        raise TypeError(f"{name} with a factor that is a tensor")
    combine = getattr(Tensor, ("sub" if name == "sub" else "add") + "_" * func.__name__.endswith("_"))
    return combine(tensor, change, **kwargs)
