"""Pointwise operations in C, and what torch does to the last bit where that is known.

Torch's kernels for the CPU use fused multiply-adds where the machine has them: `add(a, b, alpha)` is fma(alpha, b, a),
`addcmul(a, b, c, value)` is fma(value * b, c, a), `lerp` is one from the nearer end; `addcdiv` is not fused. (Found by
comparing bits; a test does so again.) Nothing else may be contracted: the compiler is told so.
"""

from math import inf, isnan

import torch

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.bool: "bool",
}

FORMS: dict[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "fma": "fma{f}({0}, {1}, {2})",
    "neg": "-{0}",
    "abs": "fabs{f}({0})",
    "sign": "({0} > 0) - ({0} < 0)",
    "sgn": "({0} > 0) - ({0} < 0)",
    "reciprocal": "1 / {0}",
    "sqrt": "sqrt{f}({0})",
    "rsqrt": "1 / sqrt{f}({0})",
    "pow": "pow{f}({0}, {1})",
    "exp": "exp{f}({0})",
    "exp2": "exp2{f}({0})",
    "expm1": "expm1{f}({0})",
    "log": "log{f}({0})",
    "log2": "log2{f}({0})",
    "log10": "log10{f}({0})",
    "log1p": "log1p{f}({0})",
    "sin": "sin{f}({0})",
    "cos": "cos{f}({0})",
    "tan": "tan{f}({0})",
    "asin": "asin{f}({0})",
    "acos": "acos{f}({0})",
    "atan": "atan{f}({0})",
    "atan2": "atan2{f}({0}, {1})",
    "sinh": "sinh{f}({0})",
    "cosh": "cosh{f}({0})",
    "tanh": "tanh{f}({0})",
    "asinh": "asinh{f}({0})",
    "acosh": "acosh{f}({0})",
    "atanh": "atanh{f}({0})",
    "erf": "erf{f}({0})",
    "erfc": "erfc{f}({0})",
    "lgamma": "lgamma{f}({0})",
    "hypot": "hypot{f}({0}, {1})",
    "fmod": "fmod{f}({0}, {1})",
    "copysign": "copysign{f}({0}, {1})",
    "floor": "floor{f}({0})",
    "ceil": "ceil{f}({0})",
    "trunc": "trunc{f}({0})",
    "round": "nearbyint{f}({0})",
    "sigmoid": "1 / (1 + exp{f}(-{0}))",
    "maximum": "{0} > {1} || {0} != {0} ? {0} : {1}",
    "minimum": "{0} < {1} || {0} != {0} ? {0} : {1}",
    "relu": "{0} > 0 || {0} != {0} ? {0} : 0",
    "where": "{0} ? {1} : {2}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "isnan": "{0} != {0}",
    "isinf": "fabs{f}({0}) == INFINITY",
    "isfinite": "fabs{f}({0}) < INFINITY",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "xor": "{0} != {1}",
    "not": "!{0}",
    "cast": "{0}",
}
"""Of operands {0}, {1}, ... already in the type of computation; {f} is the suffix of C's functions of that type."""

COSTS = {"div": 4, "sqrt": 4, "rsqrt": 8, "reciprocal": 4, "fmod": 12, "hypot": 12}
COST_OF_FUNCTION = 16
"""In additions, roughly: whether a value is worth keeping or is computed again."""


def cost(operation: str) -> int:
    """Of one element."""
    if operation in COSTS:
        return COSTS[operation]
    form = FORMS[operation]
    return COST_OF_FUNCTION if "{f}(" in form and operation not in ("fma", "abs", "floor", "ceil", "trunc") else 1


def expression(operation: str, operands: list[str], computed: torch.dtype) -> str:
    """The operation in C, in parentheses."""
    suffix = "f" if computed is torch.float32 else ""
    return f"({FORMS[operation].format(*operands, f=suffix)})"


def literal(number: float | int | bool, dtype: torch.dtype) -> str:
    """A number in C, rounded to the type as torch does."""
    if dtype is torch.bool:
        return str(int(bool(number)))
    if not dtype.is_floating_point:
        return f"{int(number)}L"
    suffix = "f" if dtype is torch.float32 else ""
    rounded = float(torch.tensor(number, dtype=dtype)) if suffix else float(number)
    if isnan(rounded):
        return f'__builtin_nan{suffix}("")'
    if rounded in (inf, -inf):
        return f"{'-' if rounded < 0 else ''}__builtin_inf{suffix}()"
    text = rounded.hex() + suffix
    return f"({text})" if text.startswith("-") else text


def fused() -> bool:
    """Whether torch's kernels use fused multiply-adds on this machine."""
    return torch.backends.cpu.get_cpu_capability() != "DEFAULT"
