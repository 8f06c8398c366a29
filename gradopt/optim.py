"""gradopt's own solvers as `torch.optim.Optimizer` classes, for anybody's loop.

A call of `step(closure)` makes one step: as many trials as it takes until one is accepted. The parameters then stand at
the accepted point, with its gradient in `.grad`. The closure must be the same function at every call: these methods
compare losses, which minibatches spoil.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradopt.contracts import Evaluation, Linearised, Objective, Optimiser, State, Stuck
from gradopt.mistakes import Mistake, did_you_mean
from gradopt.oracle import AutogradOracle
from gradopt.selection import selected

Closure = Callable[[], Any]


class Solver(torch.optim.Optimizer):
    """Any optimiser of gradopt that finds the length of its steps itself, by its registered name.

    It has no learning rate, so learning-rate schedulers are refused. Where anybody else has moved the parameters since
    the last call, it starts afresh.

    Args:
        params: Parameters, or one group of them: the step mixes all unknowns.
        name: Such as "lbfgs".
        options: Keyword arguments of the optimiser.

    Attributes:
        stuck: Why the last `step` could not be made, empty if it could. Mostly there is no lower loss to be seen in
            this dtype: the parameters are at a minimum, or near one. `step` then changes nothing any more.

    Raises:
        Mistake: Options that do not fit, several groups, or parameters that are not real, or not finite.
    """

    def __init__(self, params: Iterable[Any], name: str, **options: Any) -> None:
        self._name, self._options = name, options
        super().__init__(params, dict(options))
        self._open()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the first group.

        Raises:
            Mistake: A second one, or an option that is not the solver's.
        """
        title = type(self).__name__
        if self.param_groups:
            raise Mistake(f"{title} takes one group of parameters, as its step mixes all of them; give it a flat list")
        for option in param_group.keys() - {"params", "param_names", *self._options}:
            near, known = did_you_mean(option, self._options), ", ".join(self._options) or "none"
            raise Mistake(f"a parameter group of {title} has no option {option!r}.{near} Available: {known}")
        super().add_param_group(_Group(param_group))

    def step(self, closure: Closure) -> Tensor:  # type: ignore[override] - like torch's LBFGS, not without a closure
        """Make one step, and return the loss at the point where the parameters then stand, shape ().

        Args:
            closure: Returns the loss; it may call `backward()` as torch's convention has it, unless the solver needs
                second derivatives. For solvers of least squares it returns the residuals, of any shape.

        Raises:
            Mistake: A closure that does not fit the solver. What the closure raises is passed on. The parameters are
                then back at the last accepted point.
        """
        self._objective.closure = closure
        here, self._here = self._here, None
        try:
            with torch.enable_grad():
                if here is None or not torch.equal(self._oracle.read(), here.point):
                    self._solver, self.stuck = self._built(), ""
                    here = self._oracle.evaluate()
                    self._solver.accepts(here, self._oracle)  # the contract: a first point always is
                if not self.stuck:
                    here = self._next(here)
        except Stuck as reason:
            assert here is not None
            self.stuck = str(reason)
            self._oracle.restore(replace(here, gradient=here.gradient.clone()))
        except BaseException:  # whatever the closure raises; the solver was on its way, and will start afresh
            if here is not None:
                self._oracle.restore(here)
            raise
        self._here = here
        return here.point.new_tensor(here.loss)

    def state_dict(self) -> dict[str, Any]:
        """In torch's form, with the solver's memory under "state". Going on from it, with the parameters as they were,
        repeats the run bit for bit.
        """
        return {**super().state_dict(), "state": self._memory()}

    def __getstate__(self) -> dict[str, Any]:
        kept = {"_name": self._name, "_options": self._options, "state": self._memory()}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a pickled solver, or what `load_state_dict` was given."""
        memory = state["state"]
        if memory and memory.get("name") != self.__dict__.get("_name", state.get("_name")):
            raise Mistake(f"this is not the state of a {type(self).__name__}: it is of {memory.get('name', 'another')}")
        super().__setstate__({**state, "state": {}})
        self._open()
        if memory:
            self._here, self.stuck = Evaluation(*copy.deepcopy(memory["here"])), memory["stuck"]
            self._solver.load_state_dict(copy.deepcopy(memory["solver"]))

    def _open(self) -> None:
        group = self.param_groups[0] = _Group(self.param_groups[0])
        unknowns, options = group["params"], {option: group[option] for option in self._options}
        self._entry, values = selected("optimiser", {"name": self._name, **options})
        self._keywords = {option: values[option] for option in options}
        self._objective = _Residuals(unknowns) if getattr(self._entry.load(), "residuals", False) else _Loss(unknowns)
        self._oracle = ClosureOracle(self._objective)
        self._solver = self._built()
        self._here: Evaluation | None = None
        self.stuck = ""

    def _built(self) -> Optimiser:
        factory: Any = self._entry.load()
        if hasattr(factory, "wraps"):  # for constraints, or all over a box
            raise Mistake(
                f"{self._name} wraps another optimiser, for what a closure does not have: use gradopt.minimise, or a "
                "solver such as lbfgs"
            )
        solver: Any = factory(self._oracle.parameters, **self._keywords)
        if isinstance(solver, torch.optim.Optimizer) or not hasattr(solver, "accepts"):
            raise Mistake(f"{self._name} is a torch.optim.Optimizer already, or builds one: use it as it is")
        if hasattr(solver, "plan"):
            solver.plan(residuals=False)
        return solver

    def _next(self, here: Evaluation) -> Evaluation:
        """The next accepted point."""
        if not (math.isfinite(here.loss) and math.isfinite(here.gradient_norm)):
            raise Stuck("the loss or its gradient is not finite here")
        solver, oracle = self._solver, self._oracle
        solver.update(here, oracle)
        trial = oracle.evaluate()
        while not solver.accepts(trial, oracle):
            solver.update(trial, oracle)
            trial = oracle.evaluate()
        return trial

    def _memory(self) -> State:
        here = self._here
        if here is None:
            return {}
        evaluation = (here.loss, here.gradient_norm, here.point, here.gradient)
        memory = {"name": self._name, "solver": self._solver.state_dict(), "here": evaluation, "stuck": self.stuck}
        return copy.deepcopy(memory)


class _Group(dict[str, Any]):
    """A parameter group that says why it has no learning rate; torch's schedulers just take it."""

    def __missing__(self, option: str) -> Any:
        if option != "lr":
            raise KeyError(option)
        raise Mistake(
            "this solver finds the length of its steps itself and has no learning rate for a scheduler to change: "
            "leave the scheduler out"
        )


class LBFGS(Solver):
    """Limited-memory BFGS with a strong Wolfe line search that works down to rounding; see `gradopt.optimisers.lbfgs`.

    Args:
        params: Parameters, or one group of them.
        history_size: Pairs of steps and gradient changes that are remembered.
    """

    def __init__(self, params: Iterable[Any], *, history_size: int = 20) -> None:
        super().__init__(params, "lbfgs", history_size=history_size)


class TrustRegion(Solver):
    """Newton's method in a trust region; see `gradopt.optimisers.trust_region`. Its closure must not call `backward()`.

    Args:
        params: Parameters, or one group of them.
        hessian: "matrix", "products", or "auto": the matrix up to 200 unknowns.
    """

    def __init__(self, params: Iterable[Any], *, hessian: Literal["auto", "matrix", "products"] = "auto") -> None:
        super().__init__(params, "trust_region", hessian=hessian)


class LevenbergMarquardt(Solver):
    """Levenberg-Marquardt; see `gradopt.optimisers.levenberg_marquardt`. Its closure returns the residuals, and the
    loss is half the sum of their squares.

    Args:
        params: Parameters, or one group of them.
        jacobian: "matrix", "products", or "auto": the matrix up to 1e7 entries.
    """

    def __init__(self, params: Iterable[Any], *, jacobian: Literal["auto", "matrix", "products"] = "auto") -> None:
        super().__init__(params, "levenberg_marquardt", jacobian=jacobian)


class _Loss(Objective):
    """What a closure returns, as an objective of parameters that belong to someone else."""

    def __init__(self, unknowns: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self._unknowns = tuple(unknowns)  # a tuple, so that the module does not register them
        self.closure: Closure = lambda: None

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The unknowns by number; plain tensors that require a gradient too, as torch.optim takes them."""
        yield from ((f"{prefix}{index}", unknown) for index, unknown in enumerate(self._unknowns))

    def forward(self, batch: None = None) -> Tensor:
        """The closure's loss."""
        loss = self.closure()
        return torch.as_tensor(loss) if isinstance(loss, float) else loss

    def describe(self) -> str:
        """What it is."""
        return "the closure"


class _Residuals(_Loss):
    """The same for a closure that returns residuals."""

    def forward(self, batch: None = None) -> Tensor:
        """Half their sum of squares."""
        return Objective.forward(self)

    def residuals(self) -> Tensor:
        """The closure's residuals."""
        residuals = self.closure()
        if not isinstance(residuals, Tensor) or residuals.ndim == 0:
            raise Mistake(
                "the closure must return the residuals, a tensor of one dimension or more, and not their loss"
            )
        return residuals


class ClosureOracle(AutogradOracle):
    """An oracle of a closure, which may call `zero_grad()` and `backward()` itself."""

    def hessian(self, multipliers: Tensor | None = None, *, loss: float = 1.0) -> Callable[[Tensor], Tensor] | None:
        """As `AutogradOracle.hessian`.

        Raises:
            Mistake: The closure has freed the graph.
        """
        with self._gradients_aside():
            product = super().hessian(multipliers, loss=loss)
            if product is None and self._has_gradients():
                raise Mistake(
                    "this solver needs second derivatives: let the closure return the loss without backward()"
                )
        return product

    def linearised(self) -> Linearised:  # type: ignore[override] - the contract says enough
        """As `AutogradOracle.linearised`."""
        with self._gradients_aside():
            return super().linearised()

    def _backward(self, output: Tensor) -> None:
        if not self._has_gradients():
            super()._backward(output)
        elif not isinstance(output, Tensor):
            self._check(output)

    def _evaluation(self, losses: Sequence[Tensor], since: Tensor | None) -> Evaluation:
        evaluation = super()._evaluation(losses, since)  # its gradient may share memory with .grad, which others zero
        return replace(evaluation, gradient=evaluation.gradient.clone())

    def _has_gradients(self) -> bool:
        return any(parameter.grad is not None for parameter in self.parameters)

    @contextmanager
    def _gradients_aside(self) -> Iterator[None]:
        """Without `.grad`, which a closure might zero."""
        kept = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in zip(self.parameters, kept, strict=True):
                parameter.grad = gradient
