"""What people call autograd's operations."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

NAMES: Mapping[str, str] = {
    "Addbmm": "matmul, +",
    "Addmm": "matmul, +",
    "Addmv": "matmul, +",
    "Bmm": "matmul",
    "Cat": "concatenate",
    "Clone": "copy",
    "Dot": "dot product",
    "LinalgVectorNorm": "norm",
    "Mm": "matmul",
    "Mv": "matmul",
    "NllLoss": "mean of -log p",
    "Neg": "negate",
    "Permute": "permute",
    "Pow": "power",
    "Rsqrt": "1 / sqrt",
    "Reciprocal": "1 /",
    "T": "transpose",
    "ToCopy": "cast",
    "UnsafeView": "reshape",
    "View": "reshape",
}
"""By autograd's name; other operations are called by it in lower case, one word for each capital."""

SIGNS: Mapping[str, str] = {"Add": "+", "Sub": "-", "Mul": "times", "Div": "/"}

SAVED = ("exponent", "alpha", "dim", "index", "start", "end", "step", "keepdim", "min", "max", "p", "beta", "threshold")
"""Attributes of a node that are numbers, and so are cheap to read: a saved tensor may be computed anew for it."""

MAX_TEXT = 60
NO_END = 2**63 - 1
"""The end of a slice that has none."""


def operation(name: str) -> str:
    """Mul for MulBackward0."""
    short = re.sub(r"Backward\d*$", "", name.rsplit("::", 1)[-1])
    return re.sub(r"[^A-Za-z0-9_.]", "_", short) or "Operation"


def label(kind: str, function: Any, numbers: Sequence[Any], inputs: Sequence[int]) -> tuple[str, Mapping[str, str]]:
    """What an operation is called, and the constants in it.

    Args:
        numbers: Those it was called with, where they were noted.
        inputs: The places of its inputs that depend on the unknowns.
    """
    saved = {name: _signed(value) for name in SAVED if (value := _saved(function, name)) is not None}
    constants = {name: _text(value) for name, value in saved.items() if value is not None}
    if kind in ("Add", "Sub", "Rsub", "Mul", "Div") and len(inputs) == 1:
        number = _other(kind, function, numbers)
        if number is not None:
            constants["constant"] = _text(number)
    return _label(kind, constants, inputs), constants


def _label(kind: str, constants: Mapping[str, str], inputs: Sequence[int]) -> str:
    number = constants.get("constant", "constant")
    if kind in SIGNS:
        if len(inputs) == 1:
            return f"{SIGNS[kind]} {number}"
        return "square" if kind == "Mul" and len(set(inputs)) == 1 else SIGNS[kind]
    if kind == "Rsub":
        return f"{number} -" if len(inputs) == 1 else "-"
    if kind == "Pow" and "exponent" in constants:
        return f"^{constants['exponent']}"
    if kind == "Select" and "index" in constants:
        return f"[{constants['index']}]"
    if kind == "Slice":
        start = constants.get("start", "0")
        return f"[{'' if start == '0' else start}:{constants.get('end', '')}]"
    return NAMES.get(kind) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", kind).lower()


def _other(kind: str, function: Any, numbers: Sequence[Any]) -> Any:
    """The one number that an operation of two operands was given."""
    if numbers:
        return numbers[-1]
    if kind in ("Mul", "Div"):  # what the derivative needs is there in any case
        found = _saved(function, "other")
        return found.item() if isinstance(found, Tensor) and found.numel() == 1 else None
    return None


def _saved(function: Any, name: str) -> Any:
    try:
        return getattr(function, f"_saved_{name}", None)
    except RuntimeError:  # it has been freed
        return None


def _signed(value: Any) -> Any:
    """An index that is given without a sign: the last is -1, and the end of a slice that has none is None."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) < NO_END:
        return value
    return None if value == NO_END else value - 2**64


def _text(value: Any) -> str:
    if isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1):
        return f"{float(value):.6g}"
    return str(value)[:MAX_TEXT]
