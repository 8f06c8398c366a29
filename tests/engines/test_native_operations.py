"""What is printed for an operation computes what torch does: on numbers of all kinds, NaN and infinities among them."""

import math
import shutil
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gradopt.engines.purity import Refusal
from tests.engines.printed import natively

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.7, -3.7, 1e-30, 1e30, -1e30, INF, -INF, NAN, 20.0, -20.0]


def numbers(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs of special numbers, then random ones."""
    special = torch.tensor(SPECIAL, dtype=dtype)
    random = torch.randn(2, 30, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2
    return torch.cat([special, random[0]]), torch.cat([special.flip(0), random[1]])


FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "sigmoid", "lgamma",
)  # fmt: skip

EXACT: dict[str, Callable[..., Tensor]] = {
    "add alpha": lambda x, y: torch.add(x, y, alpha=0.3),
    "sub alpha": lambda x, y: torch.sub(x, y, alpha=0.3),
    "rsub alpha": lambda x, y: torch.rsub(x, y, alpha=0.3),
    "lerp near": lambda x, y: torch.lerp(x, y, 0.1),
    "lerp far": lambda x, y: torch.lerp(x, y, 0.9),
    "lerp tensor": lambda x, y: torch.lerp(x, y, y),
    "addcmul": lambda x, y: torch.addcmul(x, y, x, value=0.3),
    "addcmul one": lambda x, y: torch.addcmul(x, y, x),
    "addcdiv": lambda x, y: torch.addcdiv(x, y, x, value=0.3),
    "arithmetic": lambda x, y: x + y - x * y / (1 - x),
    "powers": lambda x, y: x**0 + x**1 + x**2 + x**3 + x**-1 + x**-2 + x.square(),
    "maximum": lambda x, y: torch.maximum(x, y) + torch.minimum(x, 2 * y),
    "clamp": lambda x, y: x.clamp(-1, 1) + y.clamp(min=0.3) + x.clamp(max=0.2),
    "clamp tensor": lambda x, y: torch.clamp(x, y, y + 1),
    "where": lambda x, y: torch.where((x > 0) & (y < 2) | (x == -1), x, -y),
    "not": lambda x, y: torch.where(~(x >= y), 2 * x, 3.0),
    "classes": lambda x, y: torch.where(x.isnan() | y.isinf(), 0.0, torch.where(x.isfinite(), y, 1.0)),
    "signs": lambda x, y: x.sign() + y.sgn() + x.abs() + (-y).copysign(x),
    "rounding": lambda x, y: x.floor() + y.ceil() + x.trunc() + y.round() + torch.frac(x),
    "fill": lambda x, y: x.masked_fill(y > 0, 7.0) + torch.full_like(x, 2.0) + torch.ones_like(y),
    "relu": lambda x, y: F.relu(x) + F.leaky_relu(y) + F.hardtanh(x) + torch.nan_to_num(y),
}

ROUNDED: dict[str, Callable[..., Tensor]] = {
    **{name: lambda x, y, name=name: getattr(torch, name)(x) for name in FUNCTIONS},
    "roots": lambda x, y: x.sqrt() + y.rsqrt() + x**0.5 + y**-0.5,  # MKL's are not rounded to the last bit everywhere
    "atan2": torch.atan2,
    "hypot": torch.hypot,
    "fmod": torch.fmod,
    "pow": torch.pow,
    "whole powers": lambda x, y: x**4 + y**5 + x**6 + y**7 + x**8,
    "base": lambda x, y: 2.0**x,
    "softplus": lambda x, y: F.softplus(x.clamp(-50, 50)),
    "logsigmoid": lambda x, y: F.logsigmoid(x.clamp(-50, 50)),
    "silu": lambda x, y: F.silu(x),
    "elu": lambda x, y: F.elu(x),
    "huber": lambda x, y: F.huber_loss(x, y, reduction="none"),
    "smooth l1": lambda x, y: F.smooth_l1_loss(x, y, reduction="none"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arithmetic_has_the_bits_of_torch(dtype):
    x, y = numbers(dtype)
    found = natively(lambda *both: torch.stack([f(*both) for f in EXACT.values()]), x, y)
    for name, row in zip(EXACT, found, strict=True):
        expected = EXACT[name](x, y)
        assert torch.equal(row.nan_to_num(nan=1e33), expected.nan_to_num(nan=1e33)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_are_within_some_units_in_the_last_place(dtype):
    x, y = numbers(dtype)
    found = natively(lambda *both: torch.stack([f(*both) for f in ROUNDED.values()]), x, y)
    eps = torch.finfo(dtype).eps
    for name, row in zip(ROUNDED, found, strict=True):
        expected = ROUNDED[name](x, y)
        torch.testing.assert_close(row, expected, rtol=8 * eps, atol=1e-40, equal_nan=True, msg=lambda m, n=name: n + m)


MATRIX = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CUBE = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
LONG = torch.linspace(-1, 1, 41, dtype=torch.float64)

VIEWS: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "slices": (lambda x: x[1:] * x[:-1] + x[2:].sum(), LONG),
    "strides": (lambda x: x[1::2] * x[:-1:2] + x[-3], LONG),
    "scattered": (lambda x: torch.slice_scatter(x, x[::3] * 2, 0, 0, 41, 3) + x.flip(0), LONG),
    "selected": (lambda x: torch.select_scatter(x, x[:, 1] * 2, 1, 3) + x[0], MATRIX),
    "joined": (lambda x: torch.cat([x[30:], x[:10] ** 2, x[5:6]]), LONG),
    "stacked": (lambda x: torch.stack([x, 2 * x, x.exp()], 1), LONG),
    "transposed": (lambda x: x.t() @ x + x.t()[:5, :5], MATRIX),
    "permuted": (lambda x: x.permute(2, 0, 1).reshape(30, 4) * 2 + x.reshape(30, 4), CUBE),
    "reshaped": (lambda x: (2 * x).reshape(5, 6) + x.view(-1)[:6], MATRIX),
    "expanded": (lambda x: x[:, None, :] * x[None, :, :] + x.mean(1)[:, None, None], MATRIX),
    "diagonal": (lambda x: torch.diagonal(x, 1) + x.diagonal(-2), MATRIX),
    "parts": (lambda x: torch.add(*x.split(20)[:2]) * x.unbind()[3], LONG),
    "padded": (lambda x: F.pad(x, (1, 2, 0, 1), value=3.0), MATRIX),
    "rolled": (lambda x: x.roll(3) + x.roll(-1), LONG),
    "triangle": (lambda x: torch.tril(x @ x.t()) + torch.eye(6, dtype=torch.float64), MATRIX),
    "tiny": (lambda x: torch.cat([x[:2] * x[1:3], x.flip(0)[1:3]]), LONG[:5]),
}

REDUCTIONS: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "sum": (lambda x: x.sum() + x.sum(1).prod() + x.sum(0, keepdim=True), MATRIX),
    "mean": (lambda x: x.mean((0, 2)) + x.mean() + x.mean(2).sum(), CUBE),
    "extremes": (lambda x: x.amax(0) - x.amin((0,)) * x.max() + x.min(), CUBE),
    "norms": (lambda x: torch.stack([x.norm(), x.norm(1), x.norm(3), x.norm(torch.inf), x.abs().amax()]), CUBE),
    "spread": (lambda x: x.std(0) + x.var(0, correction=0), MATRIX),
    "softmax": (lambda x: F.softmax(x, 1) + F.log_softmax(x, 0) + torch.logsumexp(x, 1, keepdim=True), MATRIX),
    "products": (lambda x: (x @ x.t()) @ x[:, 0] + torch.dot(x[0], x[1]) + (x.t() @ x[:, 1]).sum(), MATRIX),
    "batches": (lambda x: torch.bmm(x, x.transpose(1, 2)) + torch.einsum("ijk,lk->ijl", x, x[0]), CUBE),
    "layer": (lambda x: F.linear(x, x[:4] * 2, x[:4, 0]).tanh(), MATRIX),
    "loss": (lambda x: F.cross_entropy(x, torch.softmax(x.detach() * 0 + 1, 1)) + F.mse_loss(x, 2 * x), MATRIX),
}


@pytest.mark.parametrize("name", [*VIEWS, *REDUCTIONS])
def test_views_and_reductions_are_those_of_torch(name):
    function, x = {**VIEWS, **REDUCTIONS}[name]
    torch.testing.assert_close(natively(function, x.clone()), function(x), rtol=1e-13, atol=1e-14)


def test_a_large_tensor_is_summed_as_exactly_as_by_torch():
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    exact = x.double().sum().item()
    assert abs(natively(torch.sum, x).item() - exact) <= max(abs(x.sum().item() - exact), 1e-7 * exact)


@pytest.mark.parametrize("kind", ["amax", "amin"])
def test_nan_wins_over_every_number_in_an_extreme(kind):
    for place in (0, 7, 40):
        x = LONG.clone()
        x[place] = NAN
        assert natively(getattr(torch, kind), x).isnan()


def test_what_is_not_printed_is_refused_by_name():
    with pytest.raises(Refusal, match=r"aten\.sort"):
        natively(lambda x: x.sort().values, LONG)
    with pytest.raises(Refusal, match="BLAS"):
        natively(lambda x: x @ x, torch.zeros(100, 100))
    with pytest.raises(Refusal, match=r"aten\._fft"):
        natively(lambda x: torch.fft.fft(x).abs(), LONG)
