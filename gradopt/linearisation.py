"""Residuals or constraints and their Jacobian at one point."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradopt.contracts import Robust
from gradopt.torch_internals import pulled_back
from gradopt.unknowns import joined, joined_rows, split, split_rows

MAX_ROWS = 64
"""Rows of a Jacobian up to which their scales are exact; those of more are estimated from below by products."""


class Linearisation:
    """A `Linearised` by autograd: J'v is a backward pass, J v a backward pass through that one.

    With many starts the parameters have a leading axis, and so have all vectors; each start has its own J.

    Args:
        residuals: Shape (m,), with many starts (starts, m), with their graph.
        robust: The loss of the residuals that weighs them, if there is one.
        constant: A mask (n,) of unknowns whose columns of J are left out, as zeros: their derivatives are infinite.
    """

    def __init__(
        self,
        residuals: Tensor,
        parameters: Sequence[Tensor],
        robust: Robust | None = None,
        *,
        constant: Tensor | None = None,
    ) -> None:
        self._graph, self._parameters, self._constant = residuals, parameters, constant
        self._split, self._joined = (split, joined) if residuals.dim() == 1 else (split_rows, joined_rows)
        self._rows: Tensor | None = None
        self.residuals = residuals.detach()
        if robust is not None:
            factors, self._rows = robust.weights(self.residuals)
            self.residuals = factors * self.residuals
        self._dual: Tensor | None = None
        self._pulled: Sequence[Tensor | None] = ()

    def jvp(self, vector: Tensor) -> Tensor:
        """J v."""
        if self._constant is not None:  # a product of infinity and 0 would spoil the sum
            return (self.jacobian() @ vector.unsqueeze(-1)).squeeze(-1)
        if self._dual is None:  # J'u is linear in u; its derivative by u along v is J v
            self._dual = torch.zeros_like(self._graph, requires_grad=True)
            self._pulled = pulled_back([self._graph], self._parameters, [self._dual], create_graph=True)
        pairs = [
            (p, v) for p, v in zip(self._pulled, self._split(vector, self._parameters), strict=True) if p is not None
        ]
        (image,) = pulled_back([p for p, _ in pairs], [self._dual], [v for _, v in pairs], retain_graph=True)
        image = torch.zeros_like(self.residuals) if image is None else image
        return image if self._rows is None else self._rows * image

    def vjp(self, vector: Tensor) -> Tensor:
        """J' v."""
        weighed = vector if self._rows is None else self._rows * vector
        parts = pulled_back([self._graph], self._parameters, [weighed], retain_graph=True)
        image = self._joined(parts, self._parameters)
        return image if self._constant is None else image.masked_fill(self._constant, 0.0)

    def scales(self, rows: Tensor, size: Tensor) -> Tensor:
        """(|J| size)_i for the given rows, shape (rows,): how much each value changes when the unknowns move by `size`.

        Of many rows it is the largest |J (size * signs)|_i over three patterns of signs, which is never larger.
        """
        if len(rows) > MAX_ROWS:
            generator = torch.Generator().manual_seed(0)
            signs = torch.randint(0, 2, (3, *size.shape), generator=generator).to(size) * 2 - 1
            try:
                return torch.stack([self.jvp(sign * size) for sign in signs]).abs().amax(0)[rows]
            except RuntimeError:  # an operation without a second derivative: row by row, then
                pass
        return self.jacobian(rows).abs() @ size

    def jacobian(self, rows: Tensor | None = None) -> Tensor:
        """J, or some rows of it; the whole by columns or by rows, whichever are fewer."""
        like, height = self.residuals, self.residuals.shape[-1]
        if rows is not None:
            units = torch.nn.functional.one_hot(rows, height).to(like)
            return torch.stack([self.vjp(unit.expand_as(like)) for unit in units], dim=-2)
        starts = like.shape[:-1]
        width = sum(p.numel() for p in self._parameters) // max(1, starts.numel())
        if width <= height and self._constant is None:
            units = torch.eye(width).to(self._parameters[0])
            return torch.stack([self.jvp(unit.expand(*starts, width)) for unit in units], dim=-1)
        return torch.stack([self.vjp(unit.expand_as(like)) for unit in torch.eye(height).to(like)], dim=-2)
