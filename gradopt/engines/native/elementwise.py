"""Rules of operations element by element, of casts, copies and constants."""

from collections.abc import Sequence
from typing import Any

import torch

from gradopt.engines.native.calls import (
    RULES,
    Call,
    Number,
    Operand,
    Rule,
    Unprintable,
    broadcast,
    constant,
    moved,
    pointwise,
    reshaped,
    rule,
)
from gradopt.engines.native.expressions import fused
from gradopt.engines.native.values import Constant, Pointwise, Value

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
