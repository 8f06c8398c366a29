"""The oracle of many starts: every parameter has a leading axis, one entry a start."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradopt.constraints.box import pinned, projected_gradient
from gradopt.contracts import Evaluation, Objective
from gradopt.linearisation import Linearisation
from gradopt.oracle import AutogradOracle
from gradopt.stacking import check_kind, check_losses, stacked
from gradopt.torch_internals import pulled_back

Differentiate = Callable[[Sequence[Tensor]], tuple[Tensor, Sequence[Tensor | None]]]
"""See `StackedOracle.differentiate`."""

MAX_ENTRIES = 100_000
"""Of the unknowns of all starts that are evaluated together: half a megabyte or so."""


@dataclass(slots=True)
class Evaluations:
    """One forward and backward of many starts.

    Attributes:
        loss, gradient_norm: Shape (starts,); with bounds, the norm is of the part that can move inside them.
        point, gradient: Shape (starts, n); the gradient may share memory with `.grad`.
        pinned: As `Evaluation.pinned` of each start, shape (starts, n); None where no start has such an unknown.
    """

    loss: Tensor
    gradient_norm: Tensor
    point: Tensor
    gradient: Tensor
    pinned: Tensor | None = None

    def of(self, place: int) -> Evaluation:
        """That of one start."""
        mask = None if self.pinned is None or not bool(self.pinned[place].any()) else self.pinned[place]
        numbers = self.loss[place].item(), self.gradient_norm[place].item()
        return Evaluation(*numbers, self.point[place], self.gradient[place], pinned=mask)

    def at(self, places: Tensor) -> "Evaluations":
        """Those of some starts."""
        mask = None if self.pinned is None else self.pinned[places]
        return Evaluations(
            self.loss[places], self.gradient_norm[places], self.point[places], self.gradient[places], mask
        )

    def put(self, places: Tensor, others: "Evaluations") -> None:
        """Set those of some starts, in place."""
        if others.pinned is not None and self.pinned is None:
            self.pinned = torch.zeros_like(self.point, dtype=torch.bool)
        if self.pinned is not None:
            self.pinned[places] = False if others.pinned is None else others.pinned
        self.loss[places], self.gradient_norm[places] = others.loss, others.gradient_norm
        self.point[places], self.gradient[places] = others.point, others.gradient

    def clone(self) -> "Evaluations":
        """A copy."""
        mask = None if self.pinned is None else self.pinned.clone()
        norm, point, gradient = self.gradient_norm.clone(), self.point.clone(), self.gradient.clone()
        return Evaluations(self.loss.clone(), norm, point, gradient, mask)


class StackedOracle:
    """Losses and derivatives of all starts at once. The sum of their losses has independent gradients.

    It is an `Oracle` in which every quantity of a start has a leading `starts` axis. What it cannot take is refused
    before the run.

    Attributes:
        one: The oracle of one start, wherever it stands.
        parameters: The unknowns, shape (starts, ...) each.
        last: The latest evaluation.
        num_losses, num_gradients, num_hessian_products: Of each start, shape (starts,), float64.
        has_residuals: Whether its loss is made of residuals.
        has_proofs: Whether the objective can prove that a start is unbounded below.
        num_evaluations: Of all starts together or each, shape (starts,), where they are at steps of their own.
        best_loss, best_norm, best_point: Of the lowest finite loss of each start so far, ties to the smaller gradient.
        origin: Where each start began, shape (starts, n).
        differentiate: Returns the losses at starts given by stacked parameters, shape (starts,), and their gradients,
            None of unknowns that the loss does not use, which may share memory with what the loss has read. It is
            `by_autograd`, or what an engine has put in its place, and serves `evaluate` and `evaluate_some`; everything
            else is autograd's.

    Raises:
        Mistake: Starts that do not fit the unknowns, are not finite or lie outside the bounds; constraints or batches;
            an objective that cannot be evaluated at many starts at once, with the reason.
    """

    constraints = None
    has_full_loss = True

    def __init__(self, objective: Objective, starts: Mapping[str, Tensor]) -> None:
        self.one = AutogradOracle(objective)
        check_kind(self.one)
        self.objective = objective
        self.names = self.one.names
        self.has_residuals = self.one.has_residuals
        self.has_proofs = type(objective).unbounded_below is not Objective.unbounded_below
        self.box = self.one.box
        self.lower, self.upper = self.one.lower, self.one.upper
        self.parameters: Sequence[nn.Parameter] = stacked(self.one, starts)
        self._shapes = [tuple(parameter.shape) for parameter in self.one.parameters]
        self.max_evaluations = self.deadline = math.inf
        self.violation_tolerance = self.one.violation_tolerance
        number, like = len(self.parameters[0]), self.parameters[0]
        self.num_evaluations: Any = 0
        self._is_curved: bool | None = None
        self._has_best = False
        self._extra = torch.zeros(3, number, dtype=torch.float64)
        self.last = Evaluations(like.new_zeros(0), like.new_zeros(0), like.new_zeros(0), like.new_zeros(0))
        self.best_loss = torch.full((number,), math.nan, dtype=like.dtype, device=like.device)
        self.best_norm = self.best_loss.clone()
        self.origin, self.best_point = self.read(), self.read()
        self.differentiate: Differentiate = self.by_autograd
        check_losses(self.one, self.losses, self.parameters)

    @property
    def num_starts(self) -> int:
        """Those it holds."""
        return len(self.parameters[0])

    @property
    def num_losses(self) -> Tensor:
        return self._extra[0] + self.num_evaluations

    @property
    def num_gradients(self) -> Tensor:
        return self._extra[1] + self.num_evaluations

    @property
    def num_hessian_products(self) -> Tensor:
        return self._extra[2]

    def evaluate(self) -> Evaluations:
        """Forward and backward of every start."""
        losses, gradients = self.differentiate(self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.num_evaluations += 1
        here = self._seen(losses, self.read(), self.joined([parameter.grad for parameter in self.parameters]))
        if here.pinned is not None:
            for parameter, part in zip(self.parameters, self.split(here.gradient), strict=True):
                parameter.grad = part
        self.last = here
        self._keep_best()
        return here

    def evaluate_some(self, places: Tensor) -> Evaluations:
        """Forward and backward of the starts at these places, where the parameters stand: for optimisers that make
        trials. `.grad` and `last` are left alone: whoever asks says which of them are steps.
        """
        rows = slice(None) if len(places) == self.num_starts else places
        parts = [parameter.detach()[rows].clone() for parameter in self.parameters]
        losses, gradients = self.differentiate(parts)
        self._extra[:2, places] += 1
        here = self._seen(losses, self.joined(parts), self.joined(gradients, parts).clone())
        known = self.best_loss[places], self.best_norm[places]
        better = (here.loss < known[0]) | ((here.loss == known[0]) & (here.gradient_norm < known[1]))
        better = ((better | ~(known[0].abs() < math.inf)) & (here.loss.abs() < math.inf)).cpu()
        those = places[better]
        self.best_loss[those], self.best_norm[those] = here.loss[better], here.gradient_norm[better]
        self.best_point[those] = here.point[better]
        return here

    def by_autograd(self, parts: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See `differentiate`. Of very many starts it takes a part at a time, whose numbers stay in the cache."""
        most = max(1, MAX_ENTRIES // sum(map(math.prod, self._shapes)))
        if len(parts[0]) <= 2 * most:
            return self._pulled_back([part.detach() for part in parts])
        found: list[Tensor] = []
        gradients = [torch.zeros_like(part) for part in parts]
        for begin in range(0, len(parts[0]), most):
            rows = slice(begin, begin + most)
            losses, slopes = self._pulled_back([part.detach()[rows] for part in parts])
            for gradient, slope in zip(gradients, slopes, strict=True):
                if slope is not None:
                    gradient[rows] = slope
            found.append(losses)
        return torch.cat(found), gradients

    def losses(self, parameters: Sequence[Tensor]) -> Tensor:
        """The losses at starts given by stacked parameters, shape (starts,); not counted."""
        found = self.objective.losses(dict(zip(self.names, parameters, strict=True)))
        return found.to(parameters[0].dtype)  # a loss may be a number of another type than its unknowns

    def losses_at(self, points: Tensor) -> Tensor:
        """The losses at other points, shape (starts, n), without gradients; not counted."""
        with torch.no_grad():
            return self.losses(self.split(points))

    def probe(self, places: Tensor, points: Tensor) -> Tensor:
        """The losses of some starts at other points inside the bounds; each is counted."""
        self._extra[0, places] += 1
        return self.losses_at(self.inside(points))

    def gradients_at(self, points: Tensor) -> Tensor:
        """The gradients at other points, shape (starts, n); not counted."""
        parts = [part.detach().requires_grad_() for part in self.split(points)]
        losses = self.losses(parts)
        return self.joined(pulled_back([losses], parts, [torch.ones_like(losses)]), parts)

    def is_curved(self) -> bool:
        """Whether second derivatives exist; it costs nothing that counts."""
        if self._is_curved is None:  # all starts go through the same operations
            with self.one.uncounted():
                self._is_curved = self.one.hessian() is not None
        return self._is_curved

    def hessian(self, places: Tensor) -> Callable[..., Tensor] | None:
        """The map V -> H V at some of the starts where they were last evaluated, each with its own H and row of V; None
        where second derivatives do not exist. A product is counted for each of them; or, given a mask as well, only
        for those in it, and the others' rows are of no account.
        """
        if not self.is_curved():
            return None
        parts = [part.detach().requires_grad_() for part in self.split(self.last.point[places])]
        losses = self.losses(parts)
        gradients = pulled_back([losses], parts, [torch.ones_like(losses)], create_graph=True)
        curved = [(gradient, index) for index, gradient in enumerate(gradients) if gradient is not None]
        curved = [(gradient, index) for gradient, index in curved if gradient.requires_grad]

        def product(vectors: Tensor, asked: Tensor | None = None) -> Tensor:
            self._extra[2, places] += 1 if asked is None else asked.cpu().double()
            if not curved:  # a linear loss
                return torch.zeros_like(vectors)
            rows = self.split(vectors)
            chosen = [rows[index] for _, index in curved]
            return self.joined(pulled_back([g for g, _ in curved], parts, chosen, retain_graph=True), parts)

        return product

    def hessian_matrix(self, places: Tensor) -> Tensor:
        """The Hessians at some of the starts where they were last evaluated, shape (starts, n, n), at the cost of n
        products each; NaN where `Oracle.hessian_matrix` is None.
        """
        n = self.last.point.shape[1]
        matrices = self.last.point.new_full((len(places), n, n), math.nan)
        rare = torch.zeros_like(places, dtype=torch.bool)
        if self.last.pinned is not None:
            rare = self.last.pinned[places].any(1).cpu()
        for entry in rare.nonzero().flatten().tolist():
            with self.alone(int(places[entry])) as one:
                found = one.hessian_matrix()
            if found is not None:
                matrices[entry] = found
        for part in (~rare).nonzero().flatten().split(max(1, MAX_ENTRIES // n)):
            product = self.hessian(places[part]) if len(part) else None
            if product is not None:
                units = torch.eye(n).to(matrices)
                matrices[part] = torch.stack([product(unit.expand(len(part), n)) for unit in units], dim=1)
        return matrices

    def num_jacobian_entries(self) -> int:
        """Of the Jacobian of the residuals of one start."""
        with torch.no_grad():
            few = [part.detach()[:1] for part in self.parameters]
            return self.objective.residuals_at(dict(zip(self.names, few, strict=True))).numel() * self.read().shape[1]

    def linearised(self, places: Tensor) -> Linearisation:
        """The residuals of some of the starts where they were last evaluated, shape (starts, m), and their Jacobians,
        weighed by the robust loss if there is one. It counts as a gradient of each.
        """
        self._extra[1, places] += 1
        mask = None if self.last.pinned is None else self.last.pinned[places]
        return self.linearised_at(self.last.point[places], mask if mask is not None and bool(mask.any()) else None)

    def linearised_at(self, points: Tensor, constant: Tensor | None = None) -> Linearisation:
        """The residuals at points of shape (starts, n), and their Jacobians; not counted. See `Linearisation`."""
        parts = [part.detach().requires_grad_() for part in self.split(points)]
        residuals = self.objective.residuals_at(dict(zip(self.names, parts, strict=True)))
        return Linearisation(residuals.reshape(len(points), -1), parts, self.objective.robust, constant=constant)

    @contextmanager
    def alone(self, place: int) -> Iterator[AutogradOracle]:
        """The oracle of one start, where it was last evaluated: for what is asked of few. What it spends is counted."""
        made = int(self.num_losses[place] - self._extra[0, place])
        before = [int(extra) + count for extra, count in zip(self._extra[:, place], (made, made, 0), strict=True)]
        with self.at(self.last.of(place), self.origin[place]) as one:
            one.num_losses, one.num_gradients, one.num_hessian_products = before
            one.max_evaluations, one.deadline = self.max_evaluations, self.deadline
            best = self.best_loss[place].item(), self.best_norm[place].item(), self.best_point[place]
            one.best = Evaluation(*best, self.last.gradient[place])
            yield one
            after = one.num_losses, one.num_gradients, one.num_hessian_products
        self._extra[:, place] += torch.tensor([b - a for a, b in zip(before, after, strict=True)])

    @contextmanager
    def at(self, here: Evaluation, origin: Tensor) -> Iterator[AutogradOracle]:
        """The oracle of the start that began at `origin`, at a point where it has been evaluated, with nothing counted
        so far.
        """
        one = self.one
        one.restore(here)
        one.origin = origin
        one.num_losses = one.num_gradients = one.num_hessian_products = 0
        one.max_evaluations = math.inf
        one.deadline = self.deadline
        yield one

    def read(self) -> Tensor:
        """The unknowns of all starts, shape (starts, n): a copy."""
        return self.joined([parameter.detach().clone() for parameter in self.parameters])

    def write(self, places: Tensor, points: Tensor) -> None:
        """Set the parameters of some starts, in place."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self.split(points), strict=True):
                parameter[places] = part

    def project(self) -> None:
        """Move the parameters, in place, into their bounds."""
        if self.box is not None:
            self.box.project(self.parameters)

    def keep(self, kept: Tensor) -> None:
        """Hold only the starts at these places from here on: parameters and their `.grad` become smaller in place."""
        for parameter in self.parameters:
            gradient, parameter.grad = parameter.grad, None
            parameter.data = parameter.data[kept]
            parameter.grad = None if gradient is None else gradient[kept]
        self.last = self.last.at(kept)
        self._extra = self._extra[:, kept]
        if isinstance(self.num_evaluations, Tensor):
            self.num_evaluations = self.num_evaluations[kept]
        self.best_loss, self.best_norm = self.best_loss[kept], self.best_norm[kept]
        self.best_point, self.origin = self.best_point[kept], self.origin[kept]

    def state(self) -> dict[str, object]:
        """What it remembers, to be saved."""
        names = ("num_evaluations", "_has_best", "_extra", "best_loss", "best_norm", "best_point", "origin")
        values = {name: getattr(self, name) for name in names}
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()}

    def take(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        for name, value in state.items():
            setattr(self, name, value.clone() if isinstance(value, Tensor) else value)

    def inside(self, points: Tensor) -> Tensor:
        """The nearest points inside the bounds, shape (starts, n)."""
        return points if self.lower is None or self.upper is None else points.clamp(self.lower, self.upper)

    def split(self, points: Tensor) -> list[Tensor]:
        """Vectors of unknowns, shape (starts, n), in the shapes of the stacked parameters."""
        sizes = [math.prod(shape) for shape in self._shapes]
        pieces = points.split(sizes, dim=1) if len(sizes) > 1 else [points]
        return [piece.reshape(len(points), *shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def _pulled_back(self, parts: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor | None]]:
        leaves = [part.requires_grad_() for part in parts]
        losses = self.losses(leaves)
        return losses.detach().clone(), pulled_back([losses], leaves, [torch.ones_like(losses)])

    def _seen(self, losses: Tensor, point: Tensor, gradient: Tensor) -> Evaluations:
        """The evaluations at these points, with what the bounds make of the gradients."""
        mask, projected = None, gradient
        if self.lower is not None and self.upper is not None:
            mask = pinned(gradient, point, self.lower, self.upper)
            gradient = gradient if mask is None else gradient.masked_fill(mask, 0.0)
            projected = projected_gradient(gradient, point, self.lower, self.upper)
        low, high = projected.amin(1), projected.amax(1)
        return Evaluations(losses, torch.maximum(low.abs(), high.abs()), point, gradient, mask)

    def joined(self, parts: Sequence[Tensor | None], like: Sequence[Tensor] | None = None) -> Tensor:
        """Tensors shaped like the stacked parameters as vectors of unknowns, shape (starts, n)."""
        like = self.parameters if like is None else like
        filled = [torch.zeros_like(other) if part is None else part for part, other in zip(parts, like, strict=True)]
        rows = [part.detach().reshape(len(part), math.prod(part.shape[1:])) for part in filled]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def _keep_best(self) -> None:
        loss, norm = self.last.loss, self.last.gradient_norm
        if self.num_evaluations == 1:
            self.best_loss, self.best_norm, self.best_point = loss, norm, self.last.point
            self._has_best = bool((loss.abs() < math.inf).all())
            return
        better = loss < self.best_loss
        tied = loss == self.best_loss
        if bool(tied.any()):
            better |= tied & (norm < self.best_norm)
        if not self._has_best:  # of a start whose loss was not finite, any is better that is
            better |= ~(self.best_loss.abs() < math.inf)
        better &= loss.abs() < math.inf
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best_norm = torch.where(better, norm, self.best_norm)
        self.best_point = torch.where(better.unsqueeze(1), self.last.point, self.best_point)
