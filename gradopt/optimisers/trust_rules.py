"""The rules of trust regions: which trials are accepted, and how long the steps may be. Of one start or of many."""

import torch
from torch import Tensor

from gradopt.optimisers.trust_model import dot

ACCEPT = 1e-4
"""A trial is accepted if the loss falls by more than this part of what the model predicts."""

NOISE = 10
"""Differences of losses up to this many roundings are noise."""

VAIN = 10
"""Trials in a row that rounding alone refuses, each half as long as the one before: shorter ones tell no more."""

MATRIX_UP_TO = 200
"""Unknowns up to which `hessian=auto` takes the whole matrix."""

GAINS = (0.25, 0.75)
"""Parts of what the model predicts: the radius shrinks if the loss falls by less, and may grow if by more."""

GROWTH = 3.0
"""Of the radius over the last step, where the model predicts the loss well."""

CUTS = (0.1, 0.25, 0.5)
"""Of the last step to the radius, where the trial was not finite, where the loss rose, and where it fell too little."""

NO_STEP = "no step inside the trust region lowers the loss in this dtype"
NOT_FINITE = "the second derivatives are not finite here (lbfgs needs none)"
NO_CURVATURE = "trust_region needs second derivatives, and this objective has none; use lbfgs"

MAX_PRODUCTS = 100


def takes_whole(hessian: str, size: int) -> bool:
    """Whether `hessian=` matrix, products or auto means the whole matrix, for so many unknowns of a start."""
    return hessian == "matrix" or (hessian == "auto" and size <= MATRIX_UP_TO)


def first_radius(point: Tensor, slope: Tensor, curvature: Tensor) -> Tensor:
    """The size of the start; at zero ten times the Cauchy step. All in scaled variables, of one start or of many:
    shapes (..., n), (..., n) and (...); the radius is float64.
    """
    size, square = torch.linalg.vector_norm(point, dim=-1).double(), dot(slope, slope).double()
    away = torch.where(curvature > 0, square / curvature.double(), 1.0)
    return torch.where(size > 0, size, 10 * square.sqrt() * away)


def forcing(norm: Tensor, largest: Tensor) -> Tensor:
    """How far conjugate gradients must reduce the residual: superlinear (Nocedal and Wright, 2006, eq. 7.3), with the
    norm of the gradient relative to the largest so far, so that the units of the loss do not matter.
    """
    return torch.where(largest > 0, (norm / largest).sqrt().clamp(max=0.25), 0.25)
