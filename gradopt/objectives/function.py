"""A plain function of tensors as an objective: from Python, and from a user's file or module."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gradopt.constraints.functions import check
from gradopt.contracts import Bound, Constraint, Objective
from gradopt.mistakes import Mistake, did_you_mean

MOST_SHOWN = 8
"""Bounds that a message writes out."""

Structure = Any
"""A tensor, or a dict or tuple of tensors."""


class FunctionObjective(Objective):
    """A function of one start: a tensor, or a dict or tuple of tensors, given as it was given in `x0`.

    Args:
        function: Returns the loss, shape (); called with the unknowns in the form of `x0`.
        x0: Tensors keep their dtype and device and are copied, never modified; numbers, lists and NumPy arrays take the
            default dtype.
        bounds: (lower, upper), each broadcastable to x0 or in its form; None where free. For a dict also
            {name: (lower, upper)}.
        constraints: Of functions called with the unknowns in the form of `x0`.
        maximise: Minimise minus the function.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        x0: Structure,
        bounds: Any = None,
        constraints: Constraint | Sequence[Constraint] = (),
        *,
        maximise: bool = False,
    ) -> None:
        super().__init__()
        self._function = function
        self._constraints = _listed(constraints)
        self._maximise = maximise
        self._names: tuple[Any, ...] | None = None
        if isinstance(x0, Mapping | tuple) and not x0:
            raise Mistake(f"the start x0 = {x0!r} is empty: there is nothing to minimise over")
        if isinstance(x0, Mapping):
            self._names = tuple(x0)
            self._tuple = False
        elif isinstance(x0, tuple) and any(isinstance(part, Tensor) for part in x0):
            self._names = tuple(range(len(x0)))
            self._tuple = True
        parts = [x0] if self._names is None else [x0[name] for name in self._names]
        for name, part in zip(self._keys(), parts, strict=True):
            try:
                self.register_parameter(name, nn.Parameter(_tensor(part, name)))
            except KeyError as error:  # such as "forward", which the module has already
                raise Mistake(f"an unknown cannot be called {name!r}: {error}; rename it in x0") from error
        self._bounds = self._named_bounds(bounds)

    def forward(self, batch: None = None) -> Tensor:
        """The function at the current unknowns."""
        value = self._value()
        return -value if self._maximise else value

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The function at many starts: it is mapped itself, which takes less time than to map the module."""
        values = self._mapped(parameters)
        return -values if self._maximise else values

    def bounds(self) -> Mapping[str, tuple[Bound, Bound]]:
        """As given, by parameter name."""
        return self._bounds

    def constraints(self) -> Sequence[Constraint]:
        """As given, bound to the unknowns."""
        return [self._bound(one) for one in self._constraints]

    def unknowns(self) -> Structure:
        """The live parameters in the form of `x0`."""
        if self._names is None:
            return self.x
        return self.structured([getattr(self, key) for key in self._keys()])

    def structured(self, parts: Sequence[Tensor]) -> Structure:
        """Tensors in the order of the parameters, in the form of `x0`."""
        if self._names is None:
            return parts[0]
        if self._tuple:
            return tuple(parts)
        return dict(zip(self._names, parts, strict=True))

    def named(self, structure: Structure) -> dict[str, Tensor]:
        """Tensors in the form of `x0`, by parameter name.

        Raises:
            Mistake: They have another form.
        """
        if self._names is None:
            return {"x": structure}
        fits = isinstance(structure, tuple if self._tuple else Mapping) and len(structure) == len(self._names)
        if not fits or (isinstance(structure, Mapping) and set(structure) != set(self._names)):
            raise Mistake(f"{structure!r} has not the form of the unknowns: {', '.join(map(str, self._names))}")
        return {key: structure[name] for name, key in zip(self._names, self._keys(), strict=True)}

    def describe(self) -> str:
        """Where the function comes from."""
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        module = getattr(self._function, "__module__", None)
        number = sum(parameter.numel() for parameter in self.parameters())
        return f"{'minus ' if self._maximise else ''}{module + '.' if module else ''}{name}, n = {number}"

    def _value(self) -> Any:
        """What the function returns at the current unknowns.

        Raises:
            Mistake: It takes the unknowns for one tensor, and they are a dict or tuple, or the other way round. What
                else it raises is passed on.
        """
        unknowns = self.unknowns()
        try:
            return self._function(unknowns)
        except (TypeError, AttributeError, KeyError) as error:
            if self._names is None:
                if "data type 'str'" not in str(error):  # torch's words for x["a"]
                    raise
                raise Mistake(
                    f"{self.describe()} is called with one tensor, as x0 is one, and takes it for a dict: take its "
                    "entries by number, such as x[0], or give x0 as a dict"
                ) from error
            form = "tuple" if self._tuple else "dict"
            if not re.search(rf"\b{form}\b", str(error)) and error.args[:1] not in ((0,), (1,)):
                raise
            raise Mistake(
                f"{self.describe()} is called with a {form} of tensors, as x0 is one, and takes it for something else "
                f"({type(error).__name__}: {error}): take its entries, such as x[{self._names[0]!r}], or give x0 as "
                "one tensor"
            ) from error

    def _mapped(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """What the function returns at many starts."""
        return torch.func.vmap(self._function)(self.structured([parameters[key] for key in self._keys()]))

    def _keys(self) -> tuple[str, ...]:
        if self._names is None:
            return ("x",)
        # Parameter names of torch hold no dots and no digits first.
        return tuple(f"x{name}" if isinstance(name, int) else str(name).replace(".", "_") for name in self._names)

    def _bound(self, constraint: Constraint) -> Constraint:
        function = constraint.function

        def bound() -> Tensor:
            return function(self.unknowns())

        bound.__name__ = getattr(function, "__name__", type(function).__name__)
        return replace(constraint, function=bound)

    def _named_bounds(self, bounds: Any) -> Mapping[str, tuple[Bound, Bound]]:
        if bounds is None:
            return {}
        if isinstance(bounds, Mapping):
            for name in bounds:
                if self._names is None or name not in self._names:
                    raise Mistake(f"bounds are given for {name!r}, but x0 has {list(self._names or ['one tensor'])}")
            numbers = dict(zip(self._names or (), (p.numel() for p in self.parameters()), strict=True))
            return {str(name).replace(".", "_"): _pair(side, numbers[name]) for name, side in bounds.items()}
        number = sum(parameter.numel() for parameter in self.parameters())
        lower, upper = _pair(bounds, 0 if self._names else number)  # sides in the form of x0 may look like pairs
        if self._names is None:
            return {"x": (lower, upper)}
        sides = {}
        for index, (name, key) in enumerate(zip(self._names, self._keys(), strict=True)):
            inside = index if self._tuple else name
            sides[key] = tuple(
                side[inside] if isinstance(side, Mapping | tuple | list) else side  # type: ignore[index,call-overload]
                for side in (lower, upper)
            )
        return sides  # type: ignore[return-value]


class Function(FunctionObjective):
    """Your own function, from a file or a module: objective.target=my_problem.py:loss objective.x0=[1,2].

    Args:
        target: path/to/file.py:name, or package.module:name.
        x0: A number, a list of numbers, or a dict of these.
        bounds: [lower, upper], each a number, a list or null; for a dict x0: {name: [lower, upper]}.
        constraints: Of functions named as `target` is: [{target: my_problem.py:volume, lower: 1, upper: 2}, ...].
        options: Further keyword arguments of the function.
    """

    def __init__(
        self,
        target: str,
        x0: Any,
        bounds: Any = None,
        constraints: list[dict[str, Any]] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        function = load(target)
        keywords = dict(options or {})
        limits = [constraint(node) for node in constraints or ()]
        super().__init__((lambda x: function(x, **keywords)) if keywords else function, x0, bounds, limits)
        self._target = target

    def describe(self) -> str:
        """The target and the size."""
        return f"{self._target}, n = {sum(parameter.numel() for parameter in self.parameters())}"


def constraint(node: Any) -> Constraint:
    """The constraint that a node of a config stands for.

    Raises:
        Mistake: It is no mapping with a target, or has other keys than a constraint.
    """
    known = ("target", "lower", "upper", "name")
    if not isinstance(node, Mapping) or "target" not in node:
        raise Mistake(f"a constraint is {{target: file.py:name, lower: 0, upper: 1}}, got {node!r}")
    for key in node:
        if key not in known:
            raise Mistake(f"a constraint has no {key!r}.{did_you_mean(str(key), known)} It has: {', '.join(known)}")
    values = {key: value for key, value in node.items() if key != "target"}
    return Constraint(load(node["target"]), **values)


def load(target: str) -> Callable[..., Any]:
    """The function (or class) that "file.py:name" or "module:name" names.

    Raises:
        Mistake: There is no such file, module or name, or importing it failed.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise Mistake(f"target {target!r} is not of the form file.py:name or module:name")
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    if not hasattr(module, name):
        public = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise Mistake(
            f"{place} defines no {name!r}.{did_you_mean(name, public)} It defines: {', '.join(public) or 'nothing'}"
        )
    found = getattr(module, name)
    if not callable(found):
        raise Mistake(f"{target} is a {type(found).__name__}, not a function")
    return found


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise Mistake(
            f"there is no file {str(path)!r} (looked in {Path.cwd() if not path.is_absolute() else path.parent})"
        )
    name = f"gradopt_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes and dataclasses in the file look their module up
    sys.path.insert(0, str(path.resolve().parent))  # as `python file.py` does, so that it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Mistake(f"{path} could not be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise Mistake(f"module {name!r} could not be imported: {type(error).__name__}: {error}") from error


def _tensor(value: Any, name: str) -> Tensor:
    try:
        given = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mistake(f"the start {name} = {value!r} is no number, list of numbers or tensor") from error
    if given.is_complex():
        raise Mistake(
            f"the start {name} is complex; unknowns must be real: take the real and the imaginary part as two"
        )
    if given.numel() == 0:
        raise Mistake(f"the start {name} is empty: there is nothing to minimise over")
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().clone()
    return torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()


def _listed(constraints: Any) -> Sequence[Constraint]:
    """One constraint or several, as a list."""
    several = list(constraints) if isinstance(constraints, Sequence) else [constraints]
    for one in several:
        check(one)
    return several


def _pair(bounds: Any, number: int) -> tuple[Any, Any]:
    """The two sides of the bounds of so many unknowns."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        raise Mistake("bounds must be (lower, upper): of scipy.optimize.Bounds say bounds=(b.lb, b.ub)")
    if number != 2 and tuple(getattr(bounds, "shape", ())) == (number, 2):
        bounds = bounds.tolist()
    entries = list(bounds) if isinstance(bounds, tuple | list) else []
    pairs = all(isinstance(entry, tuple | list) and len(entry) == 2 for entry in entries)
    tuples = isinstance(bounds, list) and all(isinstance(entry, tuple) for entry in entries)
    if entries and pairs and len(entries) == number and (number != 2 or tuples):
        lower, upper = ([entry[side] for entry in entries] for side in (0, 1))
        instead = f"({lower}, {upper})" if number <= MOST_SHOWN else "tuple(zip(*bounds))"
        raise Mistake(
            f"bounds must be (lower, upper), and not a pair for each unknown as in SciPy: say bounds={instead}"
        )
    if len(entries) != 2:
        raise Mistake(f"bounds must be (lower, upper), each a number, a list or None, got {_short(bounds)}")
    return bounds[0], bounds[1]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
