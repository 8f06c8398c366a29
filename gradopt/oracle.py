"""The only caller of autograd: losses, gradients and Hessian products of an objective, counted and budgeted."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradopt.constraints.box import Box, mending, projected_gradient
from gradopt.constraints.functions import ConstraintFunctions, excess
from gradopt.contracts import BudgetSpent, Constraints, Evaluation, Objective
from gradopt.evaluations import KEEP_EVERY, Copying, Sparing, Uncopied, copying, kept, settled
from gradopt.linearisation import MAX_ROWS, Linearisation
from gradopt.mistakes import Mistake
from gradopt.stopwatch import Stopwatch
from gradopt.torch_internals import backward, pulled_back
from gradopt.unknowns import joined, largest, split


class AutogradOracle:
    """An `Oracle` round an objective on one device.

    Attributes:
        functions: The objective's constraints; None without any.
        differentiate: Returns the loss where the parameters stand, and leaves its gradient in new tensors in their
            `.grad`, which was None: `by_autograd`, or what an engine has put in its place. It serves `evaluate`, where
            there are no batches; everything else is autograd's.
        stopwatch: Times the forward and the backward of evaluations as long as there is one.

    Raises:
        Mistake: Nothing to optimise, unknowns that are not real floating point, or a start outside the bounds.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        named = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        if not named:
            raise Mistake(
                f"{type(objective).__name__} has no trainable parameters: make each unknown a torch.nn.Parameter"
            )
        for name, parameter in named.items():
            if parameter.dtype not in (torch.float32, torch.float64):
                raise Mistake(
                    f"unknown {name!r} is {parameter.dtype}; unknowns must be float32 or float64 (what is computed "
                    "from them may be of less precision, as under autocast)"
                )
            if not bool(parameter.isfinite().all()):
                raise Mistake(f"the start is not finite: {name} = {parameter.detach().flatten()[:8].tolist()}")
        self.names = tuple(named)
        self.parameters: Sequence[nn.Parameter] = list(named.values())
        bounds = objective.bounds()
        self.box = Box({name: p.detach() for name, p in named.items()}, bounds) if bounds else None
        self.lower = None if self.box is None else self.box.lower
        self.upper = None if self.box is None else self.box.upper
        with torch.random.fork_rng(devices=[]):  # looking at the constraints changes no run
            constraints = list(objective.constraints())
            self.functions: ConstraintFunctions | None = ConstraintFunctions(constraints) if constraints else None
        self.constraints: Constraints | None = self.functions
        self.violation_tolerance = math.sqrt(torch.finfo(self.parameters[0].dtype).eps)
        self.origin: Tensor | None = None
        self._linearised: tuple[list[int], Linearisation] | None = None
        self.num_losses = 0
        self.num_gradients = 0
        self.num_hessian_products = 0
        self.num_refused = 0
        self.max_evaluations = math.inf
        self.deadline = math.inf
        self.best: Evaluation | None = None
        self.lowest_loss = math.inf
        self.pinned: Tensor | None = None
        self.has_full_loss = True
        self._full_gradient: Tensor | None = None
        self._twice_differentiable: bool | None = None
        self.micro_batches: Sequence[Any] | None = None
        self.stopwatch: Stopwatch | None = None
        self._evaluations: Copying | Sparing = copying(self.parameters, self.box)
        self.differentiate: Callable[[], Tensor] = self.by_autograd

    def evaluate(self, since: Tensor | None = None) -> Evaluation:
        """Forward and backward on the batch of the current step; `since` is where the step began, if it is measured."""
        self._spend()
        for parameter in self.parameters:
            parameter.grad = None
        if self.micro_batches is None:
            losses = [self._differentiated()]
        else:
            # The mean of the micro-batches' gradients, summed up in .grad, is the gradient of the mean loss.
            share = 1.0 / len(self.micro_batches)
            losses: list[Tensor] = []
            for batch in self.micro_batches:
                output = self._forward(batch) * share
                self._backward(output)
                losses.append(output.detach())
        self.num_gradients += 1
        evaluation = self._evaluation(losses, since)
        if self.origin is None:
            self.origin = evaluation.point
        if self.constraints is not None:
            self._constrain(evaluation)
        if self.micro_batches is None:
            self.pinned = evaluation.pinned
            self._keep(evaluation)
        return evaluation

    def _differentiated(self) -> Tensor:
        watch = self.stopwatch
        if watch is None or self.differentiate == self.by_autograd:  # whose parts are timed one by one
            return self.differentiate()
        before = watch.turn("loss and gradient")
        try:
            return self.differentiate()
        finally:
            watch.turn(before)

    def by_autograd(self) -> Tensor:
        """Forward and backward: the loss with its graph, the gradient in `.grad`."""
        loss = self._forward()
        self._backward(loss)
        return loss

    def evaluate_full(self) -> Evaluation | None:
        """As `evaluate`, on all data: None if there is no full loss. `.grad` is left alone."""
        self._spend()
        output = self.objective.full_loss()
        if output is None:
            self.num_losses -= 1
            self.has_full_loss = False
            return None
        point, gradient = self.read(), self._gradient(output)
        self.num_gradients += 1
        self._full_gradient, self.pinned = gradient, mask = settled(gradient, point, self.box)
        evaluation = Evaluation(output.item(), self._norm(gradient, point), point, gradient, pinned=mask)
        self._keep(evaluation)
        return evaluation

    def loss(self, point: Tensor) -> float:
        """The full loss at `point`; the parameters are moved there and back."""
        self._spend()
        here = self.read()
        self.write(point)
        try:
            with torch.no_grad():
                output = self.objective.full_loss()
                return math.nan if output is None else output.item()  # read here: it may be a view of a parameter
        finally:
            self.write(here)

    def constraint_values(self, point: Tensor) -> Tensor:
        """The constraints at `point`, shape (m,); not counted. The parameters are moved there and back.

        Raises:
            Mistake: The objective has no constraints.
        """
        functions, here = self._constrained(), self.read()
        self.write(point)
        try:
            with torch.no_grad():
                return functions.values()  # a new tensor: they are joined
        finally:
            self.write(here)

    def gradient(self, point: Tensor) -> Tensor:
        """The gradient of the full loss at `point`, shape (n,); the parameters are moved there and back."""
        self._spend()
        here = self.read()
        self.write(point)
        try:
            output = self.objective.full_loss()
            gradient = torch.full_like(here, math.nan) if output is None else self._gradient(output)
        finally:
            self.write(here)
        self.num_gradients += 1
        return settled(gradient, point, self.box)[0]

    def include(self, evaluation: Evaluation, losses: int, gradients: int, hessian_products: int) -> None:
        """Count what an oracle of many starts has evaluated, and keep the best of it if it is the best of all."""
        self.num_losses += losses
        self.num_gradients += gradients
        self.num_hessian_products += hessian_products
        self._keep(evaluation)

    def full_gradient(self) -> Tensor:
        """The gradient of the full loss where it was last evaluated, shape (n,)."""
        if self.micro_batches is not None and self._full_gradient is not None:
            return self._full_gradient
        return joined([parameter.grad for parameter in self.parameters], self.parameters)

    def hessian(self, multipliers: Tensor | None = None, *, loss: float = 1.0) -> Callable[[Tensor], Tensor] | None:
        """The map v -> H v of the full loss here, or of loss f + multipliers'c; None where autograd has no second
        derivatives, or where an infinite one of a pinned unknown hides those of the others. Pinned unknowns are
        constants to it.

        One graph serves all products. Random numbers drawn by the objective are put back, so asking changes no run.
        """
        gradients = self._gradients_with_graph(multipliers, loss)
        if gradients is None:
            return None
        curved = [(g, p) for g, p in zip(gradients, self.parameters, strict=True) if g is not None and g.requires_grad]
        _, constant = settled(joined(gradients, self.parameters), self.read(), self.box)

        def product(vector: Tensor) -> Tensor:
            self.num_hessian_products += 1
            if constant is not None:
                vector = vector.masked_fill(constant, 0.0)
            parts = dict(zip(map(id, self.parameters), split(vector, self.parameters), strict=True))
            if not curved:  # the gradient does not depend on the unknowns: a linear loss
                return torch.zeros_like(vector)
            vectors = [parts[id(p)] for _, p in curved]
            outer = pulled_back([g for g, _ in curved], self.parameters, vectors, retain_graph=True)
            image = joined(outer, self.parameters)
            return image if constant is None else image.masked_fill(constant, 0.0)

        if self._twice_differentiable is None:  # tried once: some operations refuse only when they are asked
            try:
                product(torch.zeros_like(self.read()))
                self._twice_differentiable = not _refuses([g.grad_fn for g, _ in curved])
            except RuntimeError:
                self._twice_differentiable = False
            finally:
                self.num_hessian_products -= 1
        if not self._twice_differentiable:
            return None
        if constant is not None and not bool(product(torch.ones_like(self.read())).isfinite().all()):
            return None
        return product

    def hessian_matrix(self) -> Tensor | None:
        """The Hessian of the full loss here, shape (n, n); None where there are no second derivatives.

        It costs n products.
        """
        product = self.hessian()
        if product is None:
            return None
        identity = torch.eye(sum(p.numel() for p in self.parameters), dtype=self.parameters[0].dtype)
        identity = identity.to(self.parameters[0].device)
        return torch.stack([product(row) for row in identity])

    def linearised_constraints(self) -> Linearisation:
        """The constraints here and their Jacobian; the graph of the last evaluation serves until the unknowns move.

        Raises:
            Mistake: The objective has no constraints.
        """
        functions = self._constrained()
        versions = [parameter._version for parameter in self.parameters]
        if self._linearised is None or self._linearised[0] != versions:
            with torch.random.fork_rng(devices=[]):
                values = functions.values()
            self._linearised = versions, Linearisation(values, self.parameters)
        return self._linearised[1]

    def _constrained(self) -> ConstraintFunctions:
        if self.functions is None:
            raise Mistake(f"{self.objective.describe()} has no constraints: return them from constraints()")
        return self.functions

    @property
    def has_residuals(self) -> bool:
        """Whether the objective is a least-squares problem."""
        return type(self.objective).residuals is not Objective.residuals

    def linearised(self) -> Linearisation:
        """The residuals here and their Jacobian, weighed by the robust loss if there is one.

        Raises:
            Mistake: The objective has no residuals, or its loss is not theirs.
        """
        self.num_gradients += 1
        residuals = self.objective.residuals()
        if residuals is None:
            raise Mistake(f"{self.objective.describe()} has no residuals: return them from residuals(), or use lbfgs")
        return Linearisation(residuals.reshape(-1), self.parameters, self.objective.robust, constant=self.pinned)

    def read(self) -> Tensor:
        """The unknowns as one vector, shape (n,): a copy."""
        return self._evaluations.point()

    def write(self, point: Tensor) -> None:
        """Set the parameters, in place, to the entries of `point`."""
        if len(self.parameters) == 1:  # the plain case, in as few operations as there are
            parameter = self.parameters[0].detach()
            parameter.copy_(point if parameter.dim() == 1 else point.view_as(parameter))
            return
        with torch.no_grad():
            for parameter, part in zip(self.parameters, split(point, self.parameters), strict=True):
                parameter.copy_(part)

    def restore(self, evaluation: Evaluation) -> None:
        """Set the parameters and their `.grad`, in place, to those of an earlier evaluation."""
        self.write(evaluation.point)
        if self.micro_batches is None:
            self.pinned = evaluation.pinned
        for parameter, part in zip(self.parameters, split(evaluation.gradient, self.parameters), strict=True):
            parameter.grad = part

    def metrics(self) -> Mapping[str, float]:
        """The objective's metrics here; random numbers it draws are put back."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return self.objective.metrics()

    def unbounded_below(self) -> str | None:
        """A proof that descent from here never ends, if the objective has one."""
        return self.objective.unbounded_below()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Inside, evaluations belong to no step: they are not counted, no budget stops them, and none is the best."""
        counts = self.num_losses, self.num_gradients, self.num_hessian_products
        budget = self.max_evaluations, self.deadline
        best = self.best, self.lowest_loss
        self.max_evaluations = self.deadline = math.inf
        try:
            yield
        finally:
            self.num_losses, self.num_gradients, self.num_hessian_products = counts
            self.max_evaluations, self.deadline = budget
            self.best, self.lowest_loss = best

    def custom_functions(self) -> list[str]:
        """The names of the `torch.autograd.Function`s with a backward of their own in the graph of the full loss."""
        output = self.objective.full_loss()
        return [] if output is None else _custom_functions(output)

    def custom_constraint_functions(self, weights: Tensor) -> list[str]:
        """The same in the graph of a weighed sum of the constraints, of those whose weight, shape (m,), is not zero."""
        if self.functions is None:
            return []
        names = self.functions.by_name(weights).items()
        values = self.functions.values_by_name()
        return [f for name, part in names if bool(part.any()) for f in _custom_functions(values[name])]

    def project(self) -> None:
        """Move the parameters, in place, into their bounds."""
        if self.box is not None:
            self.box.project(self.parameters)

    def spare(self) -> None:
        """Copy the point only where it is asked for, and keep the best of every `KEEP_EVERY` evaluations.

        The deadline then stops no evaluation: there would be no way back to the point before.
        """
        self._evaluations = Sparing(self.parameters, self.box)

    @property
    def is_sparing(self) -> bool:
        """Whether `spare` was called."""
        return isinstance(self._evaluations, Sparing)

    def _evaluation(self, losses: Sequence[Tensor], since: Tensor | None) -> Evaluation:
        return self._evaluations.of(losses, since)

    def _keep(self, evaluation: Evaluation) -> None:
        """Keep the best evaluation: its point survives every ending."""
        loss, best = evaluation.loss, self.best
        if loss < self.lowest_loss:
            self.lowest_loss = loss
        if isinstance(evaluation, Uncopied) and (self.num_losses - 1) % KEEP_EVERY:
            return
        if best is None:
            is_better = True
        elif self.constraints is None and loss != best.loss and math.isfinite(best.loss):
            is_better = -math.inf < loss < best.loss  # what most steps come to
        else:
            is_better = math.isfinite(loss) and self._rank(evaluation) < self._rank(best)
        if is_better:
            self.best = kept(evaluation) if self.is_sparing else evaluation

    def _rank(self, evaluation: Evaluation) -> tuple[bool, float, float, float]:
        """Smaller is better: finite, then feasible (or nearest to it), then of lower loss, then of smaller gradient."""
        missed = max(evaluation.violation, self.violation_tolerance) if evaluation.violation >= 0 else math.inf
        return not math.isfinite(evaluation.loss), missed, evaluation.loss, evaluation.gradient_norm

    def _constrain(self, evaluation: Evaluation) -> None:
        """Add the constraints' values, and by how much they are missed."""
        watch = self.stopwatch
        before = None if watch is None else watch.turn("constraints")
        try:
            self._measure(evaluation)
        finally:
            if watch is not None:
                watch.turn(before)

    def _measure(self, evaluation: Evaluation) -> None:
        assert self.constraints is not None
        linear, point = self.linearised_constraints(), evaluation.point
        evaluation.constraints = values = linear.residuals
        assert self.origin is not None
        missed = excess(values, self.constraints.lower, self.constraints.upper)
        rows = missed.nonzero().flatten()
        if not len(rows):
            return
        size = torch.maximum(point.abs(), (point - self.origin).abs())
        if not size.any():
            size = torch.ones_like(size)
        if self.lower is None or self.upper is None or len(rows) > MAX_ROWS:
            scales = linear.scales(rows, size)
        else:
            scales = mending(linear.jacobian(rows), missed[rows], point, self.lower, self.upper).abs() @ size
        evaluation.violation = (missed[rows].abs() / scales).max().item()

    def _spend(self) -> None:
        late = self.num_losses and time.perf_counter() >= self.deadline and not self.is_sparing
        if self.num_losses >= self.max_evaluations or late:
            self.num_refused += 1
            raise BudgetSpent
        self.num_losses += 1

    def _forward(self, *batch: Any) -> Tensor:
        watch = self.stopwatch
        before = None if watch is None else watch.turn("forward")
        try:
            return self.objective(*batch)
        except RuntimeError as error:
            if "numpy()" in str(error):  # torch's words for it speak of detach(), which would cut the gradient
                raise Mistake(
                    f"the loss of {self.objective.describe()} passes its unknowns through NumPy, which has no "
                    "gradients: use the function of the same name in torch"
                ) from error
            raise
        finally:
            if watch is not None:
                watch.turn(before)

    def _backward(self, output: Tensor) -> None:
        watch = self.stopwatch
        before = None if watch is None else watch.turn("backward")
        try:
            # Constraints may go on from what the loss has computed.
            backward(output, retain_graph=self.constraints is not None)
        except (RuntimeError, AttributeError):
            self._check(output)  # a clearer word for the mistakes people make
            raise
        finally:
            if watch is not None:
                watch.turn(before)

    def _check(self, output: Any) -> None:
        name = self.objective.describe()
        if not isinstance(output, Tensor):
            raise Mistake(
                f"the loss of {name} must be a tensor of shape (), it is a {type(output).__name__}: {output!r}"
            )
        if output.numel() != 1:
            raise Mistake(
                f"the loss of {name} must be one number, it has shape {tuple(output.shape)}; take its sum or mean"
            )
        if output.is_complex():
            raise Mistake(f"the loss of {name} is complex, and only real ones have a least: take .real, or .abs()")
        if not output.requires_grad:
            raise Mistake(
                f"the loss of {name} does not depend on the unknowns by differentiable operations (no grad_fn): "
                "compute it from the parameters, without .item(), .detach(), torch.tensor(...) or NumPy on the way"
            )

    def _norm(self, gradient: Tensor, point: Tensor) -> float:
        if self.lower is not None and self.upper is not None:
            gradient = projected_gradient(gradient, point, self.lower, self.upper)
        return largest(gradient)

    def _gradients_with_graph(self, multipliers: Tensor | None, loss: float) -> Sequence[Tensor | None] | None:
        """The gradient of loss f + multipliers'c by parameter, with its graph; None where there can be none."""
        devices = [p.device for p in self.parameters[:1] if p.device.type == "cuda"]
        with torch.random.fork_rng(devices=devices):
            output = self.objective.full_loss()
            if output is None:
                return None
            if multipliers is not None and self.functions is not None:
                summed = multipliers @ self.functions.values()
                output = summed if loss == 0 else loss * output + summed  # 0 times an infinite derivative is NaN
            try:
                # A factor that needs a gradient itself makes functions that are differentiable only once say so.
                one = torch.ones_like(output, requires_grad=True)
                return pulled_back([output], self.parameters, [one], create_graph=True)
            except RuntimeError:  # an operation without a second derivative
                return None

    def _gradient(self, output: Tensor) -> Tensor:
        try:
            return joined(torch.autograd.grad(output, self.parameters, allow_unused=True), self.parameters)
        except (RuntimeError, TypeError):
            self._check(output)
            raise


def _refuses(nodes: Sequence[Any]) -> bool:
    """Whether a graph of gradients holds a function marked once_differentiable: an `Error` node, which raises only if
    it is met on the way; where it cuts the way off, its part of the second derivatives is silently left out.
    """
    return any(type(node).__name__ == "Error" for node in _graph(nodes))


def _custom_functions(output: Tensor) -> list[str]:
    custom = torch.autograd.function.BackwardCFunction
    names = [type(node).__name__ for node in _graph([output.grad_fn]) if isinstance(node, custom)]
    return [name.removesuffix("Backward") for name in dict.fromkeys(names)]


def _graph(nodes: Sequence[Any]) -> Iterator[Any]:
    """The nodes of autograd's graph that can be reached from `nodes`."""
    seen: set[Any] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        yield node
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
