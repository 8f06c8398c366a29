"""How far the data of a fit determine its unknowns."""

import torch
from torch import Tensor

MAX_UNKNOWNS = 1000
"""Unknowns up to which a fit comes with its covariance."""


def covariance(jacobian: Tensor, loss: Tensor, free: Tensor, eps: float) -> Tensor:
    """s^2 (J'J)^-1 with s^2 = 2 loss / (m - n), by singular values (Press et al., Numerical Recipes, 2007, eq.
    15.4.20); infinite where the data say nothing, with the sign with which two such unknowns would move together; 0 for
    unknowns that are not free, which count as constants. Of one fit, or of many.

    Args:
        jacobian: Shape (..., m, n), finite, with more rows than there are free unknowns.
        loss: Shape (...).
        free: A mask, (n,).
        eps: Of the dtype in which the Jacobian was computed.
    """
    jacobian = jacobian[..., free]
    rows, columns = jacobian.shape[-2:]
    scale = torch.linalg.vector_norm(jacobian, dim=-2)
    scale = torch.where(scale > 0, scale, 1.0)
    _, singular, right = torch.linalg.svd(jacobian / scale.unsqueeze(-2), full_matrices=False)
    known = singular > rows * eps * singular[..., :1]
    least = torch.where(known, singular, torch.inf).amin(-1)
    rounding = 10 * rows * eps * singular[..., 0] / least
    half = (right.mT * torch.where(known, 1 / singular, 0.0).unsqueeze(-2)) / scale.unsqueeze(-1)
    # The projector on what the data do not determine is no matter of chance, as the vectors that span it are.
    blind = right.mT * ~known.unsqueeze(-2)
    blind = blind @ blind.mT
    found = (2 * loss / (rows - columns))[..., None, None] * (half @ half.mT)
    found = torch.where(blind.abs() > rounding[..., None, None], blind.sign() * torch.inf, found)
    whole = found.new_zeros(*found.shape[:-2], len(free), len(free))
    whole[..., free.unsqueeze(1) & free] = found.flatten(-2)
    return whole
