"""Arguments that cannot become options."""

import torch
from torch import Tensor


def name_taken(x: Tensor = (1.0,), name: str = "x") -> Tensor:
    """The option `name` is gradopt's own."""
    return x.sum()


def odd_default(x: Tensor = (1.0,), members: set[int] = {1, 2}) -> Tensor:  # noqa: B006 - only read
    """A set is nothing a YAML file could say."""
    return x.sum() * len(members)


class OptionTaken(torch.optim.SGD):
    """Its `groups` are not those gradopt adds to every optimiser."""

    def __init__(self, params, lr: float = 0.1, groups: int = 3) -> None:
        super().__init__(params, lr)
        self.groups = groups
