"""Evaluations of what autograd has left in `.grad`: the numbers, read as seldom as they can be, and the vectors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradopt.constraints.box import Box, pinned, projected_gradient
from gradopt.contracts import Evaluation
from gradopt.torch_internals import flattened
from gradopt.unknowns import chunks, flat, is_near, joined, largest, numbers, peak, split

LARGE = 1_000_000
"""Unknowns from which on copying the point costs as much as moving it: it is then copied only now and then."""

KEEP_EVERY = 20
"""Steps between two copies then: both the best point and the length of a step are looked at as often."""


class Copying:
    """Makes evaluations that hold a copy of the point: for few unknowns, of which a copy costs next to nothing."""

    def __init__(self, parameters: Sequence[nn.Parameter], box: Box | None) -> None:
        self._parameters, self._box = parameters, box

    def point(self) -> Tensor:
        """The unknowns as one vector, shape (n,): a copy."""
        if len(self._parameters) == 1:
            return flat(self._parameters[0].detach().clone())
        return flattened(self._parameters)

    def gradient(self) -> Tensor:
        """What `.grad` holds as such a vector; it shares the memory of a parameter that is alone."""
        return joined([parameter.grad for parameter in self._parameters], self._parameters)

    def of(self, losses: Sequence[Tensor], since: Tensor | None) -> Evaluation:
        """The evaluation where the parameters stand, with their gradient in `.grad`.

        Args:
            losses: What the objective has returned; their sum is the loss.
            since: The point from which the step is measured.
        """
        point, gradient, box = self.point(), self.gradient(), self._box
        if not is_near(point):
            return self._far(losses, since, point, gradient)
        if box is not None and not box.has_inside(point):
            return self._at_bounds(losses, since, point, gradient, box)
        loss = losses[0].item() if len(losses) == 1 else sum(loss.item() for loss in losses)
        moved = math.nan if since is None else largest(point - since)
        return Evaluation(loss, largest(gradient), point, gradient, step_norm=moved)

    def _far(self, losses: Sequence[Tensor], since: Tensor | None, point: Tensor, gradient: Tensor) -> Evaluation:
        """All numbers by one read from the device."""
        raw, box = peak(gradient), self._box
        norm = raw if box is None else peak(projected_gradient(gradient, point, box.lower, box.upper))
        moved = torch.full_like(norm, math.nan) if since is None else peak(point - since)
        loss, gradient_norm, step_norm, largest_entry = _read(losses, [norm, moved, raw])
        if box is not None and not math.isfinite(largest_entry):  # an unknown may be pinned
            return self._at_bounds(losses, since, point, gradient, box)
        return Evaluation(loss, gradient_norm, point, gradient, step_norm=step_norm)

    def _at_bounds(
        self, losses: Sequence[Tensor], since: Tensor | None, point: Tensor, gradient: Tensor, box: Box
    ) -> Evaluation:
        """Where unknowns may be held by their bounds, or pinned to them."""
        gradient, mask = settled(gradient, point, box)
        if mask is not None:
            for parameter, part in zip(self._parameters, split(gradient, self._parameters), strict=True):
                parameter.grad = part
        norm = largest(projected_gradient(gradient, point, box.lower, box.upper))
        moved = math.nan if since is None else largest(point - since)
        return Evaluation(sum(numbers(losses)), norm, point, gradient, pinned=mask, step_norm=moved)


class Single(Copying):
    """Makes evaluations of one unknown on the CPU, where numbers cost less than tensors."""

    def of(self, losses: Sequence[Tensor], since: Tensor | None) -> Evaluation:
        """As `Copying.of`."""
        point, gradient = self.point(), self.gradient()
        x = point.item()
        if self._box is not None and not self._box.lower.item() < x < self._box.upper.item():
            return super().of(losses, since)
        loss = losses[0].item() if len(losses) == 1 else sum(loss.item() for loss in losses)
        moved = math.nan if since is None else abs(x - since.item())
        return Evaluation(loss, abs(gradient.item()), point, gradient, step_norm=moved)


class Sparing:
    """Makes evaluations that copy nothing unless they are asked: for so many unknowns that each vector counts. What is
    measured is measured piece by piece, so that none is made on the way either.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], box: Box | None) -> None:
        self._copying = Copying(parameters, box)
        self._parameters, self._box = parameters, box

    def point(self) -> Tensor:
        """As `Copying.point`."""
        return self._copying.point()

    def of(self, losses: Sequence[Tensor], since: Tensor | None) -> Evaluation:
        """As `Copying.of`, with a point that is there until it is left."""
        raw = self._gradient_norm()
        norm = raw if self._box is None else self._projected_norm(self._box)
        moved = torch.full_like(norm, math.nan) if since is None else self._distance(since)
        loss, gradient_norm, step_norm, largest_entry = _read(losses, [norm, moved, raw])
        if self._box is not None and not math.isfinite(largest_entry):  # an unknown may be pinned
            return self._copying.of(losses, since)
        return Uncopied(self._copying, loss, gradient_norm, step_norm)

    def _projected_norm(self, box: Box) -> Tensor:
        lower, upper = split(box.lower, self._parameters), split(box.upper, self._parameters)
        sides = zip(self._parameters, lower, upper, strict=True)
        return _worst([one for p, low, high in sides for one in _projected_peaks(p, low, high)], self._parameters)

    def _gradient_norm(self) -> Tensor:
        gradients = [parameter.grad for parameter in self._parameters]
        dense = [g.coalesce().values() if g.is_sparse else g for g in gradients if g is not None]
        return _worst([peak(gradient) for gradient in dense if gradient.numel()], self._parameters)

    def _distance(self, point: Tensor) -> Tensor:
        found: list[Tensor] = []
        for parameter, part in zip(self._parameters, split(point, self._parameters), strict=True):
            here, there = parameter.detach().reshape(-1), part.reshape(-1)
            found += [peak(here[piece] - there[piece]) for piece in chunks(here)]
        return _worst(found, self._parameters)


class Uncopied(Evaluation):
    """An evaluation whose vectors are made when they are asked for, while the parameters stand where it was made.

    Raises:
        RuntimeError: The point, or the gradient, of one that was left without asking for it.
    """

    __slots__ = ("_copy", "_left", "_makes")

    def __init__(self, makes: Copying, loss: float, gradient_norm: float, step_norm: float) -> None:
        self._makes, self._copy, self._left = makes, None, False
        self.loss, self.gradient_norm, self.step_norm = loss, gradient_norm, step_norm
        self.constraints, self.violation, self.pinned = None, 0.0, None

    @property
    def point(self) -> Tensor:  # type: ignore[override]
        """As `Evaluation.point`."""
        if self._copy is None:
            self._check()
            self._copy = self._makes.point()
        return self._copy

    @property
    def gradient(self) -> Tensor:  # type: ignore[override]
        """As `Evaluation.gradient`; with several parameters it is made each time."""
        self._check()
        return self._makes.gradient()

    def copied(self) -> Evaluation:
        """The same with its vectors, for whoever may have to go back."""
        return Evaluation(self.loss, self.gradient_norm, self.point, self.gradient, step_norm=self.step_norm)

    def leave(self) -> None:
        """The parameters are about to move: what has not been copied is gone."""
        self._left = True

    def _check(self) -> None:
        if self._left:
            raise RuntimeError(
                "the parameters have moved on since this evaluation: with so many unknowns its point must be asked "
                "for before the update"
            )


def copying(parameters: Sequence[nn.Parameter], box: Box | None) -> Copying:
    """What makes evaluations with a copy of the point in the fewest operations."""
    is_single = sum(parameter.numel() for parameter in parameters) == 1 and is_near(parameters[0])
    return (Single if is_single else Copying)(parameters, box)


def kept(evaluation: Evaluation) -> Evaluation:
    """The evaluation without its gradient, which would keep as much memory as the point and is asked by nobody."""
    nothing = evaluation.point.new_tensor(math.nan).expand_as(evaluation.point)
    return Evaluation(evaluation.loss, evaluation.gradient_norm, evaluation.point, nothing, pinned=evaluation.pinned)


def settled(gradient: Tensor, point: Tensor, box: Box | None) -> tuple[Tensor, Tensor | None]:
    """The gradient without the entries of pinned unknowns, and which these are; see `Evaluation.pinned`."""
    mask = None if box is None else pinned(gradient, point, box.lower, box.upper)
    return gradient if mask is None else gradient.masked_fill(mask, 0.0), mask


def _projected_peaks(parameter: nn.Parameter, lower: Tensor, upper: Tensor) -> list[Tensor]:
    gradient = parameter.grad
    if gradient is None:
        return []
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    vectors = [tensor.detach().reshape(-1) for tensor in (gradient, parameter, lower, upper)]
    return [peak(projected_gradient(*(vector[piece] for vector in vectors))) for piece in chunks(vectors[0])]


def _worst(peaks: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The largest of them, NaN if one is NaN; 0 of none."""
    return torch.stack(list(peaks)).amax() if peaks else parameters[0].new_zeros(())


def _read(losses: Sequence[Tensor], lengths: Sequence[Tensor]) -> list[float]:
    """The sum of the losses, and the lengths."""
    values = numbers([*losses, *lengths])
    return [sum(values[: len(losses)]), *values[len(losses) :]]
