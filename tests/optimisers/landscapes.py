"""Losses of many minima, whose lowest is known, and starts for them."""

import math

import torch


def rastrigin(x):
    return 10 * len(x) + (x**2 - 10 * torch.cos(2 * math.pi * x)).sum()


def levy(x):
    w = 1 + (x - 1) / 4
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * torch.sin(math.pi * w[:-1] + 1) ** 2)).sum()
    return torch.sin(math.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + torch.sin(2 * math.pi * w[-1]) ** 2)


def griewank(x):
    index = torch.arange(1, len(x) + 1, dtype=x.dtype)
    return 1 + (x**2).sum() / 4000 - torch.cos(x / index.sqrt()).prod()


def schwefel(x):
    return 418.9828872724338 * len(x) - (x * torch.sin(x.abs().sqrt())).sum()


def michalewicz(x):
    index = torch.arange(1, len(x) + 1, dtype=x.dtype)
    return -(torch.sin(x) * torch.sin(index * x**2 / math.pi) ** 20).sum()


def styblinski(x):
    return 0.5 * (x**4 - 16 * x**2 + 5 * x).sum()


def needle(x):
    """Easom: a hole of width 3 in a plain of width 200."""
    return -torch.cos(x).prod() * torch.exp(-((x - math.pi) ** 2).sum())


def wells(x):
    """Four minima, at about (+-1, +-1); the lowest is (-1, -1)."""
    return ((x**2 - 1) ** 2).sum() + 0.1 * x.sum()


def bowl(x):
    return (torch.tensor([1.0, 3.0], dtype=x.dtype) * (x - 0.5) ** 2).sum()


WELL = -1.0122731310
CASES = [
    (rastrigin, 5, (-5.12, 5.0), 0.0),
    (levy, 4, (-10.0, 10.0), 0.0),
    (griewank, 3, (-550.0, 600.0), 0.0),
    (schwefel, 4, (-500.0, 500.0), 0.0),
    (michalewicz, 3, (0.0, math.pi), -2.760394680),
    (styblinski, 6, (-5.0, 5.0), -39.16616570377142 * 6),
    (needle, 2, (-100.0, 90.0), -1.0),
    (wells, 2, (-2.0, 2.0), -0.2012347533),
]


def start(n, bounds, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(n, generator=generator, dtype=dtype)
