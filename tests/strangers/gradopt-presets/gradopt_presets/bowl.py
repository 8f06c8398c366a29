"""One objective."""

import torch
from torch import Tensor, nn

from gradopt import Objective


class Bowl(Objective):
    """A bowl, as deep as one likes."""

    def __init__(self, depth: float, centre: list[float] = [0.0, 0.0]) -> None:  # noqa: B006 - only read
        super().__init__()
        self.depth = depth
        self.register_buffer("centre", torch.tensor(centre))
        self.x = nn.Parameter(torch.ones(len(centre)))

    def forward(self) -> Tensor:
        return (self.x - self.centre).square().sum() - self.depth
