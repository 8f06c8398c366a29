"""An objective evaluated for those who only watch: nothing is counted, nothing is moved, no random number used."""

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradopt.constraints.functions import ConstraintFunctions
from gradopt.oracle import AutogradOracle
from gradopt.stacked import StackedOracle
from gradopt.stacking import PROBED, named

MAX_KEPT = 100_000
"""Entries of a buffer up to which it is put back: those that a forward changes are few, those that hold data many."""

TOGETHER = 16
"""Points that are evaluated at once, to begin with."""

QUICK = 0.02
"""Seconds that points evaluated at once take at most: it bounds their memory, too."""


class Soundings:
    """What a `Run` offers of its objective."""

    def __init__(self, oracle: AutogradOracle | StackedOracle) -> None:
        self._oracle = oracle

    def graph(self) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `Run.graph`."""
        objective = self._oracle.objective
        named = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        batches = self._oracle.micro_batches if isinstance(self._oracle, AutogradOracle) else None
        with _unchanged(objective), torch.enable_grad():
            return (objective() if batches is None else objective(batches[0])), named

    def losses(self, points: Tensor) -> Tensor:
        """See `Run.losses`."""
        oracle, points = self._oracle, self._inside(points)
        with _unchanged(oracle.objective):
            if isinstance(oracle, StackedOracle):
                return oracle.losses_at(points).double().cpu()
            with oracle.uncounted(), torch.no_grad():
                objective = oracle.objective

                def at_once(many: Tensor) -> Tensor:
                    return objective.losses(named(objective, many))

                return _evaluated(points, oracle.loss, None if _keeps_tensors(objective.full_loss) else at_once)

    def constraint_values(self, points: Tensor) -> Tensor:
        """See `Run.constraint_values`."""
        oracle, points = self._oracle, self._inside(points)
        assert isinstance(oracle, AutogradOracle) and oracle.functions is not None  # many starts have no constraints
        values = _Values(oracle.objective, oracle.functions)

        def at_once(many: Tensor) -> Tensor:
            starts = {f"objective.{name}": part for name, part in named(oracle.objective, many).items()}
            return torch.func.vmap(lambda one: torch.func.functional_call(values, one), randomness="error")(starts)

        with _unchanged(oracle.objective), torch.no_grad():
            keeps = _keeps_tensors(oracle.functions.values)
            return _evaluated(points, oracle.constraint_values, None if keeps else at_once)

    def _inside(self, points: Tensor) -> Tensor:
        """The points in the dtype and on the device of the unknowns."""
        oracle = self._oracle
        points = points.to(oracle.parameters[0])
        if oracle.lower is not None and oracle.upper is not None:
            outside = (points < oracle.lower) | (points > oracle.upper)
            if bool(outside.any()):
                raise ValueError(f"{int(outside.any(1).sum())} of {len(points)} points lie outside the bounds")
        return points


class _Values(nn.Module):
    """The constraints of an objective as what a module is called for."""

    def __init__(self, objective: nn.Module, functions: ConstraintFunctions) -> None:
        super().__init__()
        self.objective, self._functions = objective, functions

    def forward(self) -> Tensor:
        return self._functions.values()


class _Made(TorchFunctionMode):
    """While it is entered, it remembers the tensors that operations make, and keeps none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[weakref.ref[Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not any(result is one for one in args):
            self.tensors.append(weakref.ref(result))
        return result


def _keeps_tensors(evaluate: Callable[[], Any]) -> bool:
    """Whether a function still has tensors of an evaluation when that is over: a cache, or a list of its points. Those
    made for many points at once could not be used any more.
    """
    try:
        with _Made() as made:
            evaluate()
    except Exception:  # such as compiled code, which may not be looked at
        return True
    return any(tensor() is not None for tensor in made.tensors)


def _evaluated(points: Tensor, one: Callable[[Tensor], Any], many: Callable[[Tensor], Tensor] | None) -> Tensor:
    """A function at points of shape (points, n), float64 on the CPU: one after another, or ever more at once where it
    is quick and that gives the same, to rounding.
    """
    began, first = time.perf_counter(), _one_by_one(points[:PROBED], one)
    if len(points) <= PROBED:
        return first
    if many is not None and (time.perf_counter() - began) / PROBED < QUICK / TOGETHER:
        with suppress(Exception):  # of any kind: what it is made of need not take many points
            found = _at_once(points, many)
            rtol = torch.finfo(points.dtype).eps ** 0.5
            if torch.allclose(found[:PROBED], first, rtol=rtol, atol=0.0, equal_nan=True):
                return found
    return torch.cat([first, _one_by_one(points[PROBED:], one)])


def _one_by_one(points: Tensor, one: Callable[[Tensor], Any]) -> Tensor:
    return torch.stack([torch.as_tensor(one(point), dtype=torch.float64) for point in points]).cpu()


def _at_once(points: Tensor, many: Callable[[Tensor], Tensor]) -> Tensor:
    found: list[Tensor] = []
    done, number = 0, TOGETHER
    while done < len(points):
        began = time.perf_counter()
        found.append(many(points[done : done + number]).double().cpu())
        done += number
        if time.perf_counter() - began < QUICK / 8:
            number *= 4
    return torch.cat(found)


@contextmanager
def _unchanged(objective: nn.Module) -> Iterator[None]:
    """Put back the random state, and buffers that a forward changes, such as the means of a batch normalisation."""
    kept = [(buffer, buffer.clone()) for buffer in objective.buffers() if buffer.numel() <= MAX_KEPT]
    devices = {parameter.device for parameter in objective.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in kept:
                    if not torch.equal(buffer, value):  # their versions do not tell: batch_norm keeps them
                        buffer.copy_(value)
