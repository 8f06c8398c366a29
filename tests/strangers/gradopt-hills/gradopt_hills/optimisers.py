"""An optimiser as torch knows it."""

from collections.abc import Callable, Iterable

import torch


class SignDescent(torch.optim.Optimizer):
    """Steps of one size in every direction, shrinking a little each time."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float = 0.1, decay: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())
            group["lr"] *= group["decay"]
