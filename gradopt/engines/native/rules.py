"""How operations of aten become values. What has no rule here is decomposed by torch, or not printed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from gradopt.engines.native.expressions import TYPES, fused
from gradopt.engines.native.indices import Affine, Index
from gradopt.engines.native.values import Choice, Constant, Leaf, Moved, Pointwise, Reduction, Reshaped, Shape, Value

MAX_PRODUCT = 1 << 17
"""Multiplications in a matrix product, above which BLAS is better at it."""


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
    if tensor.dtype not in TYPES or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise Unprintable(f"a tensor of {tensor.dtype} on {tensor.device}")
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


UNARY = (
    "neg abs sign sgn reciprocal sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh "
    "tanh asinh acosh atanh erf erfc lgamma floor ceil trunc round sigmoid relu"
)
BINARY = "div maximum minimum atan2 hypot fmod copysign"
COMPARISONS = "lt le gt ge eq ne"


def _unary(operation: str) -> Rule:
    return lambda call, x: call.pointwise(operation, x)


def _binary(operation: str) -> Rule:
    return lambda call, x, y: call.pointwise(operation, x, y)


def _compared(operation: str) -> Rule:
    return lambda call, x, y: call.pointwise(operation, x, y, computed=common_type(x, y))


def _classified(operation: str) -> Rule:
    return lambda call, x: call.pointwise(operation, x, computed=x.dtype)


def _logical(operation: str) -> Rule:
    return lambda call, *operands: call.pointwise(operation, *operands, computed=torch.bool)


RULES |= {f"aten.{name}": _unary(name) for name in UNARY.split()}
RULES |= {f"aten.{name}": _binary(name) for name in BINARY.split()}
RULES |= {f"aten.{name}": _compared(name) for name in COMPARISONS.split()}
RULES |= {f"aten.{name}": _classified(name) for name in ("isnan", "isinf", "isfinite")}
RULES |= {f"aten.logical_{name}": _logical(name) for name in ("and", "or", "xor", "not")}
RULES |= {f"operator.{name}": _binary(name) for name in ("add", "sub", "mul")}
RULES |= {"operator.truediv": _binary("div"), "operator.neg": _unary("neg"), "operator.pow": _binary("pow")}
RULES |= {f"math.{name}": _unary(name) for name in ("sqrt", "exp", "log", "sin", "cos", "tanh")}


def common_type(one: Operand, other: Operand) -> torch.dtype:
    """The type in which torch compares them."""
    return torch.result_type(_example(one), _example(other))  # type: ignore[arg-type]


def _example(operand: Operand) -> Any:
    if isinstance(operand, Value):
        return torch.empty(operand.shape, dtype=operand.dtype, device="meta")
    return operand


def _is(operand: Operand, number: float) -> bool:
    if isinstance(operand, Constant):
        operand = operand.number
    return not isinstance(operand, Value) and operand == number


def _fma(call: Call, factor: Operand, other: Operand, summand: Operand) -> Value:
    """Factor * other + summand, rounded as torch does it."""
    if fused() and call.dtype.is_floating_point:
        return call.pointwise("fma", factor, other, summand)
    return call.pointwise("add", summand, call.pointwise("mul", factor, other))


@rule("aten.mul")
def _mul(call: Call, x: Operand, y: Operand) -> Value:
    """A factor of 2 or 4 before a constant one is part of it: not a bit is other, and a product less to wait for."""
    for factor, other in ((x, y), (y, x)):
        number = _number(factor)
        if number is None or not isinstance(other, Pointwise) or other.operation != "mul":
            continue
        for inner, source in (other.operands, other.operands[::-1]):
            power = _number(inner)
            if power in (1, 2, 4) and abs(number) >= 1 and other.computed is call.dtype and other.shape == call.shape:
                return call.pointwise("mul", source, number * power)
    return call.pointwise("mul", x, y)


def _number(operand: Operand) -> Number | None:
    if isinstance(operand, Constant):
        return operand.number
    return None if isinstance(operand, Value) else operand


@rule("aten.add")
def _add(call: Call, x: Operand, y: Operand, alpha: Operand = 1) -> Value:
    return call.pointwise("add", x, y) if _is(alpha, 1) else _fma(call, alpha, y, x)


@rule("aten.sub")
def _sub(call: Call, x: Operand, y: Operand, alpha: Operand = 1) -> Value:
    if _is(alpha, 1):
        return call.pointwise("sub", x, y)
    negative = pointwise("neg", alpha) if isinstance(alpha, Value) else -alpha
    return _fma(call, negative, y, x)


@rule("aten.rsub")
def _rsub(call: Call, x: Operand, y: Operand, alpha: Operand = 1) -> Value:
    return _sub(call, y, x, alpha)


@rule("aten.pow")
def _pow(call: Call, base: Operand, exponent: Operand) -> Value:
    """By multiplication where torch does so, and for small whole exponents."""
    if isinstance(exponent, Constant):
        exponent = exponent.number
    if isinstance(exponent, Value) or not isinstance(base, Value):
        return call.pointwise("pow", base, exponent)
    if exponent == 0:
        return Constant(call.shape, call.dtype, 1)
    if exponent in ROOTS:
        return call.pointwise(ROOTS[exponent], base)
    if exponent == -2:
        return call.pointwise("reciprocal", call.pointwise("mul", base, base))
    if exponent == 3:
        return call.pointwise("mul", call.pointwise("mul", base, base), base)
    if exponent in range(1, 9):
        return _cast(call, _whole_power(call, base, int(exponent)))
    return call.pointwise("pow", base, exponent)


ROOTS = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}


def _whole_power(call: Call, base: Value, exponent: int) -> Value:
    """By squares; within three roundings of what torch makes of it, at a fraction of the cost."""
    if exponent == 1:
        return base
    half = _whole_power(call, base, exponent // 2)
    square = call.pointwise("mul", half, half)
    return call.pointwise("mul", square, base) if exponent % 2 else square


@rule("aten.lerp")
def _lerp(call: Call, start: Value, end: Value, weight: Operand) -> Value:
    span = call.pointwise("sub", end, start)
    if isinstance(weight, Constant):
        weight = weight.number
    if not isinstance(weight, Value):
        if abs(weight) < 0.5:
            return _fma(call, weight, span, start)
        one = torch.tensor(1, dtype=call.dtype)
        return _fma(call, -(one - torch.tensor(weight, dtype=call.dtype)).item(), span, end)
    near = _fma(call, weight, span, start)
    far = _fma(call, call.pointwise("neg", call.pointwise("sub", 1, weight)), span, end)
    small = pointwise("lt", pointwise("abs", weight), 0.5, dtype=torch.bool)
    return call.pointwise("where", small, near, far)


@rule("aten.addcmul")
def _addcmul(call: Call, x: Value, y: Value, z: Value, value: Operand = 1) -> Value:
    return _fma(call, y if _is(value, 1) else call.pointwise("mul", value, y), z, x)


@rule("aten.addcdiv")
def _addcdiv(call: Call, x: Value, y: Value, z: Value, value: Operand = 1) -> Value:
    scaled = y if _is(value, 1) else call.pointwise("mul", value, y)
    return call.pointwise("add", x, call.pointwise("div", scaled, z))


@rule("aten.clamp", "aten.clamp_min", "aten.clamp_max")
def _clamp(call: Call, x: Value, low: Operand | None = None, high: Operand | None = None) -> Value:
    """NaN stays NaN."""
    if call.name == "aten.clamp_max":
        low, high = high, low
    if low is not None:
        x = call.pointwise("maximum", x, low)
    return x if high is None else call.pointwise("minimum", x, high)


@rule("aten.where")
def _where(call: Call, condition: Value, x: Operand, y: Operand) -> Value:
    return call.pointwise("where", condition, x, y)


@rule("aten.index_put")
def _index_put(call: Call, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False) -> Value:
    """One number where a mask is set."""
    mask = indices[0]
    if len(indices) != 1 or mask is None or mask.dtype is not torch.bool or mask.shape != x.shape or not values.uniform:
        raise Unprintable("the operation aten.index_put, but with a mask and one number")
    return call.pointwise("where", mask, call.pointwise("add", x, values) if accumulate else reshaped(values, ()), x)


@rule("aten.bitwise_and", "aten.bitwise_or", "aten.bitwise_xor", "aten.bitwise_not")
def _bitwise(call: Call, *operands: Operand) -> Value:
    if call.dtype is not torch.bool:
        raise Unprintable(f"the operation {call.name} on {call.dtype}")
    return call.pointwise(call.name.removeprefix("aten.bitwise_"), *operands)


@rule("operator.getitem")
def _getitem(call: Call, values: Sequence[Value], index: int) -> Value:
    return values[index]


@rule("aten._to_copy", "aten.to", "aten.convert_element_type", "torch.sym_float")
def _cast(call: Call, x: Operand, dtype: Any = None) -> Value:
    x = constant(x)
    if x.dtype is call.dtype:
        return x
    if isinstance(x, Constant):
        return Constant(call.shape, call.dtype, x.number)
    if not call.dtype.is_floating_point and x.dtype.is_floating_point and call.dtype is not torch.bool:
        raise Unprintable(f"the conversion of {x.dtype} to {call.dtype}")
    return call.pointwise("cast", x)


@rule("aten._local_scalar_dense", "aten.item")
def _item(call: Call, x: Value) -> Value:
    return Pointwise((), torch.float64, "cast", (x,), torch.float64)


@rule(
    "aten.clone", "aten.detach", "aten.alias", "aten.detach_copy", "aten.alias_copy", "aten.contiguous",
    "aten.lift_fresh_copy", "aten.lift_fresh", "aten.positive",
)  # fmt: skip
def _same(call: Call, x: Value) -> Value:
    return x


@rule("aten.copy")
def _copy(call: Call, into: Value, source: Value) -> Value:
    shape = source.shape
    value = moved(source, call.shape, lambda index: broadcast(index, shape)) if shape != call.shape else source
    return value if value.dtype is call.dtype else call.pointwise("cast", value)


@rule("aten.full_like", "aten.fill")
def _filled(call: Call, x: Value, number: Operand, dtype: Any = None) -> Value:
    if not isinstance(number, Value):
        return Constant(call.shape, call.dtype, number)
    return _copy(call, x, number)


@rule("aten.zeros_like", "aten.new_zeros", "aten.zero", "aten.empty_like", "aten.new_empty")
def _zeros(call: Call, x: Value, *sizes: Any, dtype: Any = None) -> Value:
    return Constant(call.shape, call.dtype, 0)


@rule("aten.ones_like", "aten.new_ones")
def _ones(call: Call, x: Value, *sizes: Any, dtype: Any = None) -> Value:
    return Constant(call.shape, call.dtype, 1)


@rule("aten.new_full")
def _new_full(call: Call, x: Value, size: Any, number: Number, dtype: Any = None) -> Value:
    return Constant(call.shape, call.dtype, number)


# --- views


@rule(
    "aten.view", "aten._unsafe_view", "aten.reshape", "aten.view_copy", "aten.squeeze", "aten.squeeze_copy",
    "aten.unsqueeze", "aten.unsqueeze_copy", "aten.flatten", "aten._reshape_copy",
)  # fmt: skip
def _reshape(call: Call, x: Value, *shape: Any) -> Value:
    return reshaped(x, call.shape)


@rule("aten.expand", "aten.expand_copy")
def _expand(call: Call, x: Value, sizes: Any, implicit: bool = False) -> Value:
    shape = x.shape
    return x if shape == call.shape else moved(x, call.shape, lambda index: broadcast(index, shape))


@rule("aten.permute", "aten.permute_copy")
def _permute(call: Call, x: Value, dims: Sequence[int]) -> Value:
    places = [list(d % len(dims) for d in dims).index(dim) for dim in range(len(dims))]
    return moved(x, call.shape, lambda index: tuple(index[place] for place in places))


@rule("aten.transpose", "aten.transpose_copy")
def _transpose(call: Call, x: Value, one: int, other: int) -> Value:
    dims = list(range(len(x.shape)))
    if dims:
        dims[one], dims[other] = dims[other], dims[one]
    return _permute(call, x, dims)


@rule("aten.t", "aten.t_copy")
def _t(call: Call, x: Value) -> Value:
    return x if len(x.shape) < 2 else _permute(call, x, (1, 0))


@rule("aten.slice", "aten.slice_copy")
def _slice(
    call: Call, x: Value, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    dim %= len(x.shape)
    first, last = _limits(x.shape[dim], start, stop)
    if (first, last, step) == (0, x.shape[dim], 1):
        return x
    return moved(x, call.shape, lambda index: (*index[:dim], index[dim] * step + first, *index[dim + 1 :]))


@rule("aten.select", "aten.select_copy")
def _select(call: Call, x: Value, dim: int, place: int) -> Value:
    dim %= len(x.shape)
    place %= x.shape[dim]
    return moved(x, call.shape, lambda index: (*index[:dim], Affine(place), *index[dim:]))


@rule("aten.unbind", "aten.unbind_copy")
def _unbind(call: Call, x: Value, dim: int = 0) -> list[Value]:
    return [_select(Call(call.name, example), x, dim, place) for place, example in enumerate(call.example)]


@rule("aten.split", "aten.split_copy", "aten.split_with_sizes", "aten.split_with_sizes_copy")
def _split(call: Call, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    parts: list[Value] = []
    start = 0
    for example in call.example:
        stop = start + example.shape[dim]
        parts.append(_slice(Call(call.name, example), x, dim, start, stop))
        start = stop
    return parts


@rule("aten.flip")
def _flip(call: Call, x: Value, dims: Sequence[int]) -> Value:
    flipped = {dim % len(x.shape) for dim in dims}
    ends = [size - 1 for size in x.shape]
    return moved(
        x,
        call.shape,
        lambda index: tuple(one * -1 + ends[dim] if dim in flipped else one for dim, one in enumerate(index)),
    )


@rule("aten.roll")
def _roll(call: Call, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    if not dims:
        flat = (prod(x.shape),)
        return reshaped(_rolled(reshaped(x, flat), 0, shifts[0]), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        x = _rolled(x, dim % len(x.shape), shift)
    return x


def _rolled(x: Value, dim: int, shift: int) -> Value:
    size = x.shape[dim]
    shift %= size
    if not shift:
        return x
    tail = _shifted(x, (*x.shape[:dim], shift, *x.shape[dim + 1 :]), dim, shift - size)
    return Choice(x.shape, x.dtype, dim, 0, shift, 1, tail, _shifted(x, x.shape, dim, shift))


@rule("aten.diagonal", "aten.diagonal_copy")
def _diagonal(call: Call, x: Value, offset: int = 0, one: int = 0, other: int = 1) -> Value:
    if len(x.shape) != 2 or (one % 2, other % 2) != (0, 1):
        raise Unprintable(f"the operation {call.name} of more than a matrix")
    down, right = max(-offset, 0), max(offset, 0)
    return moved(x, call.shape, lambda index: (index[0] + down, index[0] + right))


@rule("aten.cat")
def _cat(call: Call, parts: Sequence[Value], dim: int = 0) -> Value:
    dim %= len(call.shape)
    parts = [part for part in parts if prod(part.shape)]
    return joined(call, [(part, part.shape[dim]) for part in parts], dim)


@rule("aten.stack")
def _stack(call: Call, parts: Sequence[Value], dim: int = 0) -> Value:
    dim %= len(call.shape)
    shape = (*call.shape[:dim], 1, *call.shape[dim + 1 :])
    return joined(call, [(reshaped(part, shape), 1) for part in parts], dim)


def joined(call: Call, parts: Sequence[tuple[Value, int]], dim: int) -> Value:
    """One behind the other along a dimension."""
    stop = call.shape[dim]
    last, size = parts[-1]
    start = stop - size
    result = last if len(parts) == 1 else _shifted(last, call.shape, dim, start)
    for part, size in reversed(parts[:-1]):
        start -= size
        result = Choice(call.shape, call.dtype, dim, start, start + size, 1, part, result)
    return result


def _shifted(x: Value, shape: Shape, dim: int, by: int) -> Value:
    return moved(x, shape, lambda index: (*index[:dim], index[dim] + -by, *index[dim + 1 :]))


@rule("aten.slice_scatter")
def _slice_scatter(
    call: Call, x: Value, part: Value, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    dim %= len(x.shape)
    first, last = _limits(x.shape[dim], start, stop)
    return Choice(call.shape, call.dtype, dim, first, max(first, last), step, part, x)


@rule("aten.slice_backward")
def _slice_backward(call: Call, part: Value, sizes: Any, dim: int, start: int, stop: int, step: int) -> Value:
    return _slice_scatter(call, Constant(call.shape, call.dtype, 0), part, dim, start, stop, step)


@rule("aten.select_scatter")
def _select_scatter(call: Call, x: Value, part: Value, dim: int, place: int) -> Value:
    dim %= len(x.shape)
    place %= x.shape[dim]
    shape = (*x.shape[:dim], 1, *x.shape[dim + 1 :])
    return Choice(call.shape, call.dtype, dim, place, place + 1, 1, reshaped(part, shape), x)


@rule("aten.select_backward")
def _select_backward(call: Call, part: Value, sizes: Any, dim: int, place: int) -> Value:
    return _select_scatter(call, Constant(call.shape, call.dtype, 0), part, dim, place)


@rule("aten.constant_pad_nd")
def _padded(call: Call, x: Value, pads: Sequence[int], number: Number = 0) -> Value:
    for place in range(len(pads) // 2):
        dim = len(x.shape) - 1 - place
        before, behind = pads[2 * place : 2 * place + 2]
        start, stop = max(-before, 0), x.shape[dim] + min(behind, 0)
        shape = (*x.shape[:dim], x.shape[dim] + before + behind, *x.shape[dim + 1 :])
        kept = _shifted(x, (*x.shape[:dim], stop - start, *x.shape[dim + 1 :]), dim, -start)
        first = max(before, 0)
        x = Choice(shape, x.dtype, dim, first, first + stop - start, 1, kept, Constant(shape, x.dtype, number))
    return x


def _limits(size: int, start: int | None, stop: int | None) -> tuple[int, int]:
    return slice(start, stop).indices(size)[:2]


# --- reductions


@rule("aten.sum")
def _sum(call: Call, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    if isinstance(x, Constant) or x.dtype is not call.dtype:
        x = Pointwise(x.shape, call.dtype, "cast", (x,), call.dtype)
    return reduction("sum", x, dims, keepdim)


@rule("aten.mean")
def _mean(call: Call, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    total = _sum(call, x, dims, keepdim)
    return call.pointwise("div", total, float(prod(x.shape) / max(1, prod(call.shape))))


@rule("aten.prod")
def _prod(call: Call, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return reduction("prod", x, dims, keepdim)


@rule("aten.amax", "aten.max")
def _amax(call: Call, x: Value, dims: Any = None, keepdim: bool = False) -> Value:
    if call.name == "aten.max" and dims is not None:
        raise Unprintable("the operation aten.max with a dimension")
    return reduction("max", x, dims, keepdim)


@rule("aten.amin", "aten.min")
def _amin(call: Call, x: Value, dims: Any = None, keepdim: bool = False) -> Value:
    if call.name == "aten.min" and dims is not None:
        raise Unprintable("the operation aten.min with a dimension")
    return reduction("min", x, dims, keepdim)


@rule("aten.linalg_vector_norm")
def _norm(call: Call, x: Value, order: Number = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    if order == 2:
        return call.pointwise("sqrt", reduction("sum", pointwise("mul", x, x), dims, keepdim))
    size = pointwise("abs", x)
    if order in (inf, -inf):
        return reduction("max" if order > 0 else "min", size, dims, keepdim)
    if order == 1:
        return reduction("sum", size, dims, keepdim)
    if order == 0:
        raise Unprintable("the operation linalg_vector_norm of order 0")
    return call.pointwise("pow", reduction("sum", pointwise("pow", size, order), dims, keepdim), 1 / order)


@rule("aten.var")
def _var(call: Call, x: Value, dims: Any = None, correction: Any = 1, keepdim: bool = False) -> Value:
    count = prod(x.shape) / max(1, prod(call.shape))
    mean = pointwise("div", reduction("sum", x, dims, keepdim=True), float(count))
    centred = pointwise("sub", x, mean)
    total = reduction("sum", pointwise("mul", centred, centred), dims, keepdim)
    return call.pointwise("div", total, float(max(0.0, count - (1 if correction is None else correction))))


# --- products


@rule("aten.mm", "aten.mv", "aten.dot", "aten.vdot", "aten.bmm")
def _product(call: Call, x: Value, y: Value) -> Value:
    """Sums over the last dimension of the first and the last but one (or only one) of the second."""
    if isinstance(x, Constant) or isinstance(y, Constant):
        raise Unprintable(f"the operation {call.name} with a constant matrix")
    batch = x.shape[:-2] if call.name == "aten.bmm" else ()
    rows = x.shape[len(batch) : -1]
    columns = y.shape[len(batch) + 1 :]
    inner = x.shape[-1]
    shape = (*batch, *rows, *columns, inner)
    if columns and rows and prod(shape) > MAX_PRODUCT:
        sizes = " by ".join(map(str, shape))
        raise Unprintable(f"the operation {call.name} of {sizes}: BLAS is faster at that size")
    depth, height, last = len(batch), len(rows), len(shape) - 1
    left = moved(x, shape, lambda index: (*index[: depth + height], index[last]))
    right = moved(y, shape, lambda index: (*index[:depth], index[last], *index[depth + height : last]))
    return reduction("sum", Pointwise(shape, call.dtype, "mul", (left, right), call.dtype), last)
