"""Rules of operations that move elements: slices, permutations, joints, and what puts parts back."""

from collections.abc import Sequence
from math import prod
from typing import Any

from gradopt.engines.native.calls import (
    Call,
    Number,
    Unprintable,
    broadcast,
    moved,
    reshaped,
    rule,
)
from gradopt.engines.native.indices import Affine
from gradopt.engines.native.values import Choice, Constant, Shape, Value


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
