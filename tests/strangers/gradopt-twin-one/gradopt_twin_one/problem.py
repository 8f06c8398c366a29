"""An objective that works."""

from torch import Tensor


def twin_one(x: Tensor = (1.0,)) -> Tensor:
    """The objective of twin one."""
    return x.square().sum()
