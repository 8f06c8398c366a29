"""Objectives with gradients that are wrong, and right ones that differences find hard."""

import torch
from torch import Tensor


def loss(x: Tensor) -> Tensor:
    """A quartic of three unknowns with a cross term; its minimum has loss 15.9308, without the term's gradient 16."""
    return ((x - 3) ** 2).sum() + (x**4).sum() + x[0] * x[1]


def with_gradient(of_gradient):
    """The quartic, with a custom Function whose backward is `of_gradient` of the right gradient and x."""

    class Bent(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return loss(x)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            right = 2 * (x - 3) + 4 * x**3 + torch.stack([x[1], x[0], torch.zeros_like(x[0])])
            return grad * of_gradient(right, x)

    return Bent.apply


def without_cross_term(right, x):
    return right - torch.stack([x[1], x[0], torch.zeros_like(x[0])])


START = [1.0, -1.5, 2.0]

RIGHT = {
    "the quartic": (with_gradient(lambda right, x: right), START),
    "a barrier's edge": (lambda x: -torch.log(1 - x) - torch.log(1 + x), 1 - 1e-6),
    "a pole": (lambda x: -torch.log(x), 1e-12),
    "an offset of 1e8": (lambda x: 1e8 + ((x - 3) ** 2).sum(), [1.0, 2.0]),
    "a kink": (lambda x: x.abs().sum(), [0.0, 1.0]),
    "beside a kink": (lambda x: (x - 1).abs().sum(), [1 + 1e-12, 1 + 1e-6]),
    "relu at 0": (lambda x: torch.relu(x).sum(), [0.0]),
    "a norm at 0": (lambda x: x.norm(), [0.0, 1e-10]),
    "a maximum of equals": (lambda x: x.abs().max(), [1.0, 1.0, 1.0 + 1e-15]),
    "curvature 1e12": (lambda x: 1e12 * ((x - 1) ** 2).sum(), [1.0001, 1 - 1e-7]),
    "a minimum": (lambda x: ((x - 1) ** 2).sum(), [1.0, 1 + 1e-8]),
    "a flat point": (lambda x: (x**3).sum(), [0.0, 0.0]),
    "scale 1e-9": (lambda x: 1e-9 * ((x - 3) ** 2).sum(), [1.0, 2.0]),
    "scale 1e9": (lambda x: 1e9 * ((x - 3) ** 2).sum(), [1.0, 2.0]),
    "unknowns of 1e-9": (lambda x: ((1e9 * x - 3) ** 2).sum(), [1e-9, 2e-9]),
    "unknowns of 1e9": (lambda x: ((1e-9 * x - 3) ** 2).sum(), [1e9, 0.0]),
    "noise from a seed": (lambda x: ((x - 3) ** 2).sum() + 1e-4 * torch.randn(()), [1.0, 2.0]),
    "noise of a computation": (
        lambda x: ((x - 3) ** 2).sum() + 1e-6 * torch.sin(1e9 * x.detach().sum()),
        [1.0, 2.0],
    ),
    "a fast ripple": (lambda x: ((x - 3) ** 2).sum() + 1e-6 * torch.sin(1e9 * x.sum()), [1.0, 2.0]),
    "float32 inside": (lambda x: torch.exp(3 * x.float()).sum().to(x.dtype) + 1000, [1.2, 2.0]),
    "a staircase with a straight-through gradient": (
        lambda x: (((x * 1e4).round() / 1e4 - x).detach() + x - 3).square().sum(),
        [1.23456, 2.0],
    ),
    "rounding inside": (lambda x: (((x * 1e8 - 3e8) / 1e8) ** 2).sum(), [3 - 1e-6]),
    "an oscillation": (lambda x: torch.sin(1e6 * x).sum(), [1.0, 2.0]),
    "a cusp": (lambda x: x.abs().sqrt().sum(), [1e-8, 0.5]),
    "a domain's edge": (lambda x: x.sqrt().sum(), [1e-20, 1.0]),
    "a jump": (lambda x: torch.where(x > 1, x, x + 1).square().sum(), [1.0, 2.0]),
    "cosh - 1 beside its minimum": (lambda x: (torch.cosh(x) - 1).sum(), [1e-9, -3e-6]),
    "1 - cos beside its minimum": (lambda x: (1 - torch.cos(x)).sum(), [1e-10]),
    "log cosh beside its minimum": (lambda x: 1e4 * torch.log(torch.cosh(x)).sum(), [1e-12, 1e-5]),
    "squares that cancel": (lambda x: ((1 + x) ** 2 - 2 * x - 1).sum(), [1e-9, 2e-5]),
    "a dead zone": (lambda x: torch.relu(x.abs() - 1e-5).sum(), [0.0, 0.5]),
}
