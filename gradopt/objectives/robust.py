"""Losses of residuals that outliers do not rule, under SciPy's names."""

from collections.abc import Callable

import torch
from torch import Tensor

from gradopt.mistakes import Mistake, did_you_mean

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "soft_l1": lambda z: 2 * ((1 + z).sqrt() - 1),
    "huber": lambda z: torch.where(z <= 1, z, 2 * z.clamp(min=1).sqrt() - 1),
    "cauchy": torch.log1p,
    "arctan": torch.atan,
}
"""rho(z) of the squared residual z, as in `scipy.optimize.least_squares`."""


class RobustLoss:
    """C^2 rho((r / C)^2) / 2, summed over residuals r.

    Args:
        name: One of linear, soft_l1, huber, cauchy, arctan.
        scale: C, the size of residual from which on outliers begin, in the units of the residuals.
    """

    def __init__(self, name: str = "linear", scale: float = 1.0) -> None:
        if not isinstance(name, str):
            raise Mistake(
                f"loss must be one of {', '.join(LOSSES)}, by name, got {name!r}; for one of your own set `robust` of "
                "a gradopt.Objective"
            )
        if name not in LOSSES:
            raise Mistake(f"loss {name!r} is not one of {', '.join(LOSSES)}.{did_you_mean(name, LOSSES)}")
        if not isinstance(scale, int | float):
            raise Mistake(f"f_scale must be a number above 0, got {scale!r}")
        if not scale > 0:
            raise Mistake(f"f_scale must be above 0, got {scale}")
        self.name, self.scale = name, scale

    def total(self, residuals: Tensor) -> Tensor:
        """The loss, of shape ()."""
        if self.name == "linear":
            return 0.5 * residuals.square().sum()
        return 0.5 * self.scale**2 * LOSSES[self.name]((residuals / self.scale).square()).sum()

    def weights(self, residuals: Tensor) -> tuple[Tensor, Tensor]:
        """Factors for residuals and for rows of their Jacobian J, after which J'r is the gradient and J'J models the
        Hessian (Triggs et al., Bundle Adjustment: A Modern Synthesis, 2000, section 4.3; the form of Ceres and SciPy).
        """
        if self.name == "linear":
            return torch.ones_like(residuals), torch.ones_like(residuals)
        with torch.enable_grad():
            z = (residuals / self.scale).square().detach().requires_grad_()
            (first,) = torch.autograd.grad(LOSSES[self.name](z).sum(), z, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), z) if first.requires_grad else (torch.zeros_like(z),)
        first = first.detach()
        curvature = (first + 2 * second * z.detach()).clamp(min=torch.finfo(z.dtype).eps).sqrt()
        return first / curvature, curvature
