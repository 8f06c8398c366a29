"""The unknowns as one vector: the parameters of an objective, one after another, in its order."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def joined(parts: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """One vector of tensors shaped like the parameters, shape (n,); None stands for zeros.

    It shares the memory of a part that is alone.
    """
    flat_parts = []
    for part, parameter in zip(parts, parameters, strict=True):
        dense = torch.zeros_like(parameter) if part is None else part.to_dense() if part.is_sparse else part
        flat_parts.append(dense.detach().reshape(-1))
    return flat_parts[0] if len(flat_parts) == 1 else torch.cat(flat_parts)


def split(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Parts of a vector of shape (n,) in the shapes and dtypes of the parameters; they share its memory."""
    pieces = torch.split(vector, [parameter.numel() for parameter in parameters])
    return [piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, parameters, strict=True)]


def flat(tensor: Tensor) -> Tensor:
    """The tensor as a vector, and itself if it is one."""
    return tensor if tensor.dim() == 1 else tensor.reshape(-1)


def largest(tensor: Tensor) -> float:
    """The largest absolute entry; NaN if one is NaN. Written for few entries on the CPU, where each step asks."""
    if not tensor.is_cpu:  # one read from the device, not two
        return torch.linalg.vector_norm(tensor, math.inf).item()
    low, high = torch.aminmax(tensor)
    return abs(max(high.item(), -low.item()))
