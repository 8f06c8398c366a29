"""The unknowns as one vector: the parameters of an objective, one after another, in its order."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradopt.torch_internals import flattened

CHUNK = 1 << 17
"""Entries looked at together, where all at once would need a vector as large as the unknowns."""


def joined(parts: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """One vector of tensors shaped like the parameters, shape (n,); None stands for zeros.

    It shares the memory of a part that is alone.
    """
    if len(parts) == 1 and parts[0] is not None and parts[0].layout is torch.strided:  # the plain case
        return flat(parts[0].detach())
    dense = [
        torch.zeros_like(parameter) if part is None else part.to_dense() if part.is_sparse else part
        for part, parameter in zip(parts, parameters, strict=True)
    ]
    return flat(dense[0].detach()) if len(dense) == 1 else flattened(dense)


def split(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Parts of a vector of shape (n,) in the shapes and dtypes of the parameters; they share its memory."""
    pieces = torch.split(vector, [parameter.numel() for parameter in parameters])
    return [piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, parameters, strict=True)]


def joined_rows(parts: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """As `joined` of many starts, shape (starts, n): every part has a leading axis."""
    dense = [torch.zeros_like(p) if part is None else part for part, p in zip(parts, parameters, strict=True)]
    rows = [part.detach().reshape(len(part), math.prod(part.shape[1:])) for part in dense]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def split_rows(vectors: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """As `split` of vectors of shape (starts, n)."""
    pieces = torch.split(vectors, [math.prod(p.shape[1:]) for p in parameters], dim=1)
    return [piece.reshape(len(piece), *p.shape[1:]) for piece, p in zip(pieces, parameters, strict=True)]


def flat(tensor: Tensor) -> Tensor:
    """The tensor as a vector, and itself if it is one."""
    return tensor if tensor.dim() == 1 else tensor.reshape(-1)


def is_near(tensor: Tensor) -> bool:
    """Whether reading a value costs no waiting for a device."""
    return tensor.is_cpu


def largest(tensor: Tensor) -> float:
    """The largest absolute entry; NaN if one is NaN. Written for few entries on the CPU, where each step asks."""
    if not is_near(tensor):
        return peak(tensor).item()
    if tensor.numel() == 1:
        return abs(tensor.item())
    low, high = torch.aminmax(tensor)
    return abs(max(high.item(), -low.item()))


def peak(tensor: Tensor) -> Tensor:
    """`largest` as a tensor of shape (), left on the device."""
    if is_near(tensor):  # twenty times as fast there as the norm
        low, high = torch.aminmax(tensor)
        return torch.maximum(high, -low)
    return torch.linalg.vector_norm(tensor, math.inf)


def numbers(values: Sequence[Tensor]) -> list[float]:
    """The values of tensors of one entry each, by one read from their device: each read waits for all it has to do."""
    if is_near(values[-1]):
        return [value.item() for value in values]
    return torch.stack([value.detach().reshape(()).to(values[-1].device) for value in values]).tolist()


def chunks(vector: Tensor) -> Iterator[slice]:
    """Pieces of a vector, of so many entries that what is made of one stays in the cache, or fills the device."""
    size = CHUNK if vector.is_cpu else 128 * CHUNK
    return (slice(start, start + size) for start in range(0, len(vector), size))
