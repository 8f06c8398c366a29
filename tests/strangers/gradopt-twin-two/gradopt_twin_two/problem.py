"""An objective that works."""

from torch import Tensor


def twin_two(x: Tensor = (1.0,)) -> Tensor:
    """The objective of twin two."""
    return x.square().sum()
