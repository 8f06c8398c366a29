"""What the rules of operations are written in: calls, the values made of them, and the table of rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradopt.engines.native.expressions import TYPES
from gradopt.engines.native.indices import Affine, Index
from gradopt.engines.native.values import Constant, Leaf, Moved, Pointwise, Reduction, Reshaped, Shape, Value


class Unprintable(Exception):
    """An operation, a type or a size that is not printed; the message says which."""


Number = float | int | bool
Operand = Value | Number


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation: its name and an example of what it returns, which knows shape and type."""

    name: str
    example: Any

    @property
    def shape(self) -> Shape:
        """Of the result."""
        return tuple(self.example.shape) if isinstance(self.example, Tensor) else ()

    @property
    def dtype(self) -> torch.dtype:
        """Of the result; numbers of Python are doubles."""
        dtype = self.example.dtype if isinstance(self.example, Tensor) else torch.float64
        if dtype not in TYPES:
            raise Unprintable(f"the operation {self.name} on {dtype}")
        return dtype

    def pointwise(self, operation: str, *operands: Operand, computed: torch.dtype | None = None) -> Value:
        """Of the shape and type of the result."""
        return Pointwise(self.shape, self.dtype, operation, tuple(map(constant, operands)), computed or self.dtype)


def leaf(tensor: Tensor, slot: int) -> Leaf:
    """A tensor in memory."""
    if tensor.device.type != "cpu":
        raise Unprintable(f"a tensor is on {tensor.device}, and C runs on the CPU (compiled and cuda_graph run there)")
    if tensor.dtype not in TYPES or tensor.layout is not torch.strided:
        raise Unprintable(f"a tensor of {tensor.dtype if tensor.layout is torch.strided else tensor.layout}")
    return Leaf(tuple(tensor.shape), tensor.dtype, tuple(tensor.stride()), slot)


def constant(operand: Operand) -> Value:
    """A number as a value; its type follows from where it is used."""
    if isinstance(operand, Value):
        return operand
    dtype = torch.bool if isinstance(operand, bool) else torch.int64 if isinstance(operand, int) else torch.float64
    return Constant((), dtype, operand)


def pointwise(operation: str, *operands: Value | Number, dtype: torch.dtype | None = None) -> Value:
    """An operation of our own making: operands broadcast, in the type of the first value."""
    values = [constant(operand) for operand in operands]
    first = next(value for value in values if not isinstance(value, Constant))
    shape = tuple(torch.broadcast_shapes(*[value.shape for value in values]))
    return Pointwise(shape, dtype or first.dtype, operation, tuple(values), first.dtype)


def reduction(kind: str, source: Value, dims: Sequence[int] | int | None = None, keepdim: bool = False) -> Value:
    """Over some dimensions; all of them for None or an empty list."""
    rank = len(source.shape)
    dims = [dims] if isinstance(dims, int) else dims
    chosen = sorted({dim % rank for dim in dims} if dims else range(rank)) if rank else []
    if 0 in source.shape and kind in ("max", "min"):
        raise Unprintable("the largest of no elements")
    if not chosen:
        return source
    shape = tuple(size for dim, size in enumerate(source.shape) if dim not in chosen)
    result = Reduction(shape, source.dtype, kind, source, tuple(chosen))
    if not keepdim:
        return result
    return reshaped(result, tuple(1 if dim in chosen else size for dim, size in enumerate(source.shape)))


def reshaped(source: Value, shape: Shape) -> Value:
    """The same elements in the same order."""
    if shape == source.shape:
        return source
    if isinstance(source, Constant):
        return Constant(shape, source.dtype, source.number)
    return Reshaped(shape, source.dtype, source.source if isinstance(source, Reshaped) else source)


def moved(source: Value, shape: Shape, origin: Callable[[Index], Index]) -> Value:
    """The elements of `source` at origin(index)."""
    if isinstance(source, Constant):
        return Constant(shape, source.dtype, source.number)
    return Moved(shape, source.dtype, source, origin)


def broadcast(index: Index, shape: Shape) -> Index:
    """The index in `shape` of an element of what it is broadcast to."""
    kept = index[len(index) - len(shape) :]
    return tuple(Affine() if size == 1 else one for one, size in zip(kept, shape, strict=True))


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers how operations are lowered; overloads share a rule."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register
