"""An objective that works."""

from torch import Tensor


def clash(x: Tensor = (1.0,), two: float = 1.0) -> Tensor:
    """One of two of this name."""
    return x.square().sum()
