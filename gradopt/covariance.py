"""How far the data of a fit determine its unknowns."""

import torch
from torch import Tensor

MAX_UNKNOWNS = 1000
"""Unknowns up to which a fit comes with its covariance."""


def covariance(jacobian: Tensor, loss: Tensor, free: Tensor) -> Tensor:
    """s^2 (J'J)^-1 with s^2 = 2 loss / (m - n), by singular values (Press et al., Numerical Recipes, 2007, eq.
    15.4.20); infinite where the data say nothing, 0 for unknowns that are not free, which count as constants. Of one
    fit, or of many.

    Args:
        jacobian: Shape (..., m, n), finite, with more rows than there are free unknowns.
        loss: Shape (...).
        free: A mask, (n,).
    """
    jacobian = jacobian[..., free]
    rows, columns = jacobian.shape[-2:]
    scale = torch.linalg.vector_norm(jacobian, dim=-2)
    scale = torch.where(scale > 0, scale, 1.0)
    _, singular, right = torch.linalg.svd(jacobian / scale.unsqueeze(-2), full_matrices=False)
    known = singular > rows * torch.finfo(singular.dtype).eps * singular[..., :1]
    inverse = torch.where(known, 1 / singular, torch.inf).unsqueeze(-2)
    half = torch.where(right.mT == 0, 0.0, right.mT * inverse) / scale.unsqueeze(-1)
    whole = half.new_zeros(*half.shape[:-2], len(free), half.shape[-1])
    whole[..., free, :] = half
    return (2 * loss / (rows - columns))[..., None, None] * (whole @ whole.mT)
