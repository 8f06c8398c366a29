"""What is learnt of residuals' own curvature, and how far Gauss-Newton steps may throw. Of one start or of many."""

import torch
from torch import Tensor

from gradopt.contracts import State
from gradopt.mistakes import Mistake
from gradopt.optimisers.trust_model import dot, times

MATRIX_ENTRIES = 10_000_000
"""Entries of the Jacobian up to which `jacobian=auto` takes the whole matrix."""

TINY = torch.finfo(torch.float64).tiny
"""The smallest number with all its digits."""

BETTER = 3.0
"""The other model takes over when the error of its prediction is so many times smaller."""


class SecondOrder:
    """S, (n, n): the sum of each residual times its Hessian, learnt from how J'r changes from point to point.

    The symmetric secant update of NL2SOL (Dennis, Gay and Welsch, 1981, section 3), after S has been sized down to the
    curvature along the last step, so that it vanishes where the residuals do.
    """

    def __init__(self) -> None:
        self._matrix = torch.empty(0)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def learn(self, point: Tensor, gradient: Tensor, residuals: Tensor, jacobian: Tensor) -> Tensor:
        """S at a new point, where the gradient is J'r."""
        last, self._last = self._last, (point, gradient, jacobian)
        if last is None:
            self._matrix = torch.zeros(len(point), len(point), dtype=point.dtype)
        else:
            wanted = gradient - last[2].T @ residuals
            self._matrix = learnt(self._matrix, point - last[0], gradient - last[1], wanted)
        return self._matrix

    def state_dict(self) -> State:
        return dict(vars(self))

    def load_state_dict(self, state: State) -> None:
        vars(self).update(state)


def learnt(matrix: Tensor, step: Tensor, turn: Tensor, wanted: Tensor) -> Tensor:
    """S after a step, of one start or of many: shapes (..., n, n), then (..., n) each.

    Args:
        turn: How the gradient has changed.
        wanted: What S times the step ought to be.
    """
    along, had = dot(step, turn), times(matrix, step)
    norms = torch.linalg.vector_norm(step, dim=-1) * torch.linalg.vector_norm(turn, dim=-1)
    # Nothing is learnt from a turn that is rounding, or underflows.
    learns = ~((along <= torch.finfo(step.dtype).eps * norms) | (along.square() < TINY))
    along, curvature = torch.where(learns, along, 1.0).unsqueeze(-1), dot(step, had)
    size = torch.where(curvature != 0, (dot(step, wanted) / curvature).abs().clamp(max=1.0), 1.0).unsqueeze(-1)
    rest = wanted - size * had
    pair = (rest / along).unsqueeze(-1) * turn.unsqueeze(-2)
    bend = (dot(step, rest).unsqueeze(-1) / along.square() * turn).unsqueeze(-1) * turn.unsqueeze(-2)
    return torch.where(learns[..., None, None], size.unsqueeze(-1) * matrix + pair + pair.mT - bend, matrix)


def capped(scale: Tensor, point: Tensor, origin: Tensor) -> Tensor:
    """The scale D, raised to |D s| / s_i: a step as long as the size |D s| moves no unknown by more than its own size.
    Of one start or of many, shape (..., n).

    An unknown of weak influence would else be thrown so far that it has none any more, and nothing leads back. Its
    size is s = max(|x|, distance from the start); of one that started at zero none is known, and it is left alone.
    """
    size = torch.maximum(point.abs(), (point - origin).abs())
    needed = torch.linalg.vector_norm(scale * size, dim=-1, keepdim=True) / size
    return torch.where(origin == 0, scale, torch.maximum(scale, needed))


def check_residuals(expected: Tensor, gradient: Tensor) -> None:
    """Refuse residuals that are not those of the loss: its gradient must be J'r. Of one start or of many, (..., n)."""
    errors, sizes = (expected - gradient).abs().amax(-1), gradient.abs().amax(-1)
    enough = torch.finfo(expected.dtype).eps ** 0.25 * torch.maximum(sizes, expected.abs().amax(-1))
    wrong = (errors > enough).flatten().nonzero().flatten()
    if len(wrong):
        error, size = errors.flatten()[wrong[0]].item(), sizes.flatten()[wrong[0]].item()
        raise Mistake(
            "the loss is not half the sum of squares of residuals(): J'r differs from its gradient by "
            f"{error:.2g} of {size:.2g}; leave forward() out, or use lbfgs"
        )
