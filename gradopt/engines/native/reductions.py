"""Rules of sums, means, extremes, norms and matrix products."""

from math import inf, prod
from typing import Any

from gradopt.engines.native.calls import (
    Call,
    Number,
    Unprintable,
    moved,
    pointwise,
    reduction,
    rule,
)
from gradopt.engines.native.values import Constant, Pointwise, Value

MAX_PRODUCT = 1 << 17
"""Multiplications in a matrix product, above which BLAS is better at it."""


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
