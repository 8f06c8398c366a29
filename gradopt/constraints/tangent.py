"""The directions along which constraints do not change, to first order."""

import torch
from torch import Tensor


class Tangent:
    """The null space of k normals, shape (k, n), with orthonormal coordinates. Normals may depend on each other.

    The coordinates are held as Householder reflections, so that n may be large.

    Attributes:
        dimension: n - rank.
    """

    def __init__(self, normals: Tensor) -> None:
        self._length = normals.shape[1]
        lengths = normals.norm(dim=1, keepdim=True)
        normals = (normals / torch.where(lengths > 0, lengths, 1.0)).double().cpu()
        _, singular, right = torch.linalg.svd(normals, full_matrices=False)
        noise = max(normals.shape) * torch.finfo(torch.float64).eps ** 0.75
        self._rank = int((singular > noise * singular.max()).sum()) if len(singular) else 0
        self.dimension = self._length - self._rank
        if self._rank:
            self._reflections, self._factors = torch.geqrf(right[: self._rank].T.contiguous())

    def into(self, coordinates: Tensor) -> Tensor:
        """The directions (n, ...) with these coordinates (dimension, ...), in float64 on the CPU."""
        return self._turned(torch.cat([coordinates.new_zeros(self._rank, *coordinates.shape[1:]), coordinates]))

    def coordinates(self, direction: Tensor) -> Tensor:
        """Of the part of a direction (n,) that lies in the space."""
        return self._turned(direction, transpose=True)[self._rank :]

    def _turned(self, columns: Tensor, *, transpose: bool = False) -> Tensor:
        if not self._rank:
            return columns
        flat = columns.reshape(self._length, -1)
        return torch.ormqr(self._reflections, self._factors, flat, transpose=transpose).reshape(columns.shape)
