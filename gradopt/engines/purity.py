"""What a graph would leave out: Python state, hooks, random numbers and writes into tensors that are not its inputs."""

import collections
import contextvars
import copy
import functools
import itertools
import operator
import pickle
import random
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.modules import module as module_hooks

from gradopt.torch_internals import has_step_hooks


class Refusal(Exception):
    """Why a step cannot be one graph; the message is a sentence for people, without a full stop."""


MOST = 1000
"""Functions, objects and containers in which state of a loss is looked for; and entries of one of these."""

MOST_BYTES = 10_000_000
"""Of an array that is kept to be compared: more is data."""

FOREIGN = ("torch", "numpy", "scipy", "gradopt")
"""Packages whose functions and classes keep no state of a user's loss; nor do those of the standard library."""

MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def refuse_hooks(objective: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Refuse what torch calls from outside the step's own code.

    Raises:
        Refusal: A hook on a module, a parameter or the optimiser.
    """
    for name, module in objective.named_modules():
        if any(getattr(module, hooks, None) for hooks in MODULE_HOOKS):
            raise Refusal(f"a hook is registered on {f'module {name!r}' if name else 'the objective'}")
    if any(getattr(module_hooks, f"_global{hooks}", None) for hooks in MODULE_HOOKS):
        raise Refusal("a global hook on modules is registered")
    for name, parameter in objective.named_parameters():
        if any(getattr(parameter, hooks, None) for hooks in PARAMETER_HOOKS):
            raise Refusal(f"a hook is registered on unknown {name!r}")
    if optimizer is not None and has_step_hooks(optimizer):
        raise Refusal("a hook is registered on the optimiser")


def refuse_impure(graph: GraphModule, names: Mapping[int, str]) -> None:
    """Refuse a graph, traced as it ran, that draws random numbers or writes into what is not its own.

    Args:
        names: Of the tensors of the objective, by id.

    Raises:
        Refusal: With the operation, or the tensor it writes into.
    """
    for node in graph.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            operation = node.target.name().removeprefix("aten::").partition(".")[0]
            raise Refusal(f"the loss draws random numbers ({operation})")
        given = _arguments(node)
        training = any(given.get(name) for name in ("training", "train", "use_input_stats"))
        for argument in node.target._schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            # A batch norm updates its running statistics, and its schema does not say so.
            written |= training and argument.name.startswith("running_")
            source = _source(given.get(argument.name)) if written else None
            if source is not None and source.op == "get_attr":
                tensor = getattr(graph, str(source.target))
                raise Refusal(f"the loss writes into {names.get(id(tensor), 'a tensor that is no unknown')}")


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call by the names of its schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _source(node: Any) -> Node | None:
    """The node whose memory this one shares."""
    while isinstance(node, Node) and isinstance(node.target, torch._ops.OpOverload):
        returned = node.target._schema.returns
        if not returned or returned[0].alias_info is None:
            break
        node = node.args[0]
    return node if isinstance(node, Node) else None


@contextmanager
def python_state(objective: nn.Module) -> Iterator[None]:
    """Inside, calls of the objective leave no trace: what they change in Python is put back, and refused at the end.

    It sees the attributes of its modules, what these lead to (objects, their classes, containers, NumPy's arrays,
    functions with their variables, globals, defaults and attributes), up to a thousand such things, and generators of
    random numbers; not what an iterator or other code in C keeps to itself.

    Raises:
        Refusal: Something has changed, by name.
    """
    spaces = list(_spaces(objective))
    # Tensors of one entry that a trace holds for constants are computed with, in place too; no other one is touched.
    numbers = {name: (one, one.clone()) for name, one in objective.named_buffers() if one.numel() == 1}
    generators = random.getstate(), torch.get_rng_state()
    changed: set[str] = set()
    refusal: Refusal | None = None
    try:
        yield
    except Refusal as raised:
        refusal = raised
    finally:
        for space in spaces:
            changed.update(space.restore())
        for live, kept in numbers.values():
            live.copy_(kept)
        if random.getstate() != generators[0] or not torch.equal(torch.get_rng_state(), generators[1]):
            changed.add("a generator of random numbers")
            random.setstate(generators[0])
            torch.set_rng_state(generators[1])
    if changed:
        raise Refusal(f"the loss keeps state of its own: a call changes {', '.join(sorted(changed))}") from refusal
    if refusal is not None:
        raise refusal


def watched(values: Mapping[str, Any]) -> Callable[[], list[str]]:
    """What puts back what some values hold now, and names those that held something else."""
    return _Space("", dict(values)).restore


class _Space:
    """Names and values as they were, and what containers among the values held."""

    def __init__(self, title: str, live: Any, names: Iterable[str] | None = None) -> None:
        self._title, self._live, self._all = title, live, names is None
        self._values = dict(live) if names is None else {name: live[name] for name in names if name in live}
        kept = {name: _kept_if_it_can_be(value) for name, value in self._values.items()}
        self._contents = {name: restore for name, restore in kept.items() if restore is not None}

    @property
    def values(self) -> Iterable[Any]:
        """As they were."""
        return self._values.values()

    def restore(self) -> list[str]:
        """Put everything back, and say by name what had changed."""
        changed = [name for name, value in self._values.items() if self._live.get(name, self) is not value]
        for name in changed:
            self._live[name] = self._values[name]
        for name in [name for name in self._live if self._all and name not in self._values]:
            del self._live[name]
            changed.append(name)
        changed += [name for name, restore in self._contents.items() if restore()]
        return [self._title + name for name in changed]


def _kept_if_it_can_be(value: Any) -> Callable[[], bool] | None:
    try:
        return _kept(value)
    except Exception:  # a class of the user's that cannot be copied is looked into as an object
        return None


def _kept(value: Any) -> Callable[[], bool] | None:
    """What puts back into something what it holds now, and says whether it held something else; None for what holds
    nothing, or is looked into as an object.
    """
    if isinstance(value, (list, dict, set, collections.deque)):
        return _kept_items(value)
    if isinstance(value, bytearray):
        return _kept_state(lambda: bytes(value), lambda content: value.__setitem__(slice(None), content))
    if isinstance(value, random.Random):
        return _kept_state(value.getstate, value.setstate)
    if isinstance(value, contextvars.ContextVar):
        return _kept_context(value)
    if (
        type(value) in (torch.Tensor, nn.Parameter) and value.layout is torch.strided
    ):  # a trace may put fakes in the place of its numbers
        return _kept_state(lambda: value.data, lambda content: setattr(value, "data", content), _same_memory)
    if isinstance(value, torch.Generator):
        return _kept_state(value.get_state, value.set_state, torch.equal)
    return _kept_by_numpy(value)


def _kept_state(
    read: Callable[[], Any], write: Callable[[Any], Any], same: Callable[[Any, Any], bool] = operator.eq
) -> Callable[[], bool]:
    content = read()

    def restore() -> bool:
        changed = not same(read(), content)
        if changed:
            write(content)
        return changed

    return restore


def _kept_items(value: Any) -> Callable[[], bool]:
    def write(content: Any) -> None:
        value.clear()
        value.update(content) if isinstance(value, (dict, set)) else value.extend(content)

    def same(now: Any, content: Any) -> bool:
        pairs = zip(_items(now), _items(content), strict=True)
        return len(now) == len(content) and all(a is b for a, b in pairs)

    return _kept_state(lambda: copy.copy(value), write, same)


def _kept_context(value: contextvars.ContextVar[Any]) -> Callable[[], bool] | None:
    try:
        content = value.get()
    except LookupError:
        return None
    token = value.set(content)

    def restore() -> bool:
        changed = value.get() is not content
        value.reset(token)
        return changed

    return restore


def _kept_by_numpy(value: Any) -> Callable[[], bool] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.ndarray) and value.nbytes <= MOST_BYTES and value.flags.writeable:
        return _kept_state(
            value.copy, lambda content: numpy.copyto(value, content), lambda a, b: a.tobytes() == b.tobytes()
        )
    if isinstance(value, numpy.random.Generator):
        value = value.bit_generator
        return _kept_state(
            lambda: pickle.dumps(value.state), lambda content: setattr(value, "state", pickle.loads(content))
        )
    if isinstance(value, numpy.random.RandomState):
        return _kept_state(
            lambda: pickle.dumps(value.get_state()), lambda content: value.set_state(pickle.loads(content))
        )
    return None


def _same_memory(now: torch.Tensor, before: torch.Tensor) -> bool:
    return now.device == before.device and now.data_ptr() == before.data_ptr()


def _items(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


class _Cells(dict[str, Any]):
    """The variables of a function that belong to functions round it; set like the entries of a dict."""

    def __init__(self, function: types.FunctionType) -> None:
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        super().__init__({name: cell.cell_contents for name, cell in self._cells.items() if _bound(cell)})

    def get(self, name: str, default: Any = None) -> Any:
        return self._cells[name].cell_contents if _bound(self._cells[name]) else default

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value


class _Attributes(dict[str, Any]):
    """Some attributes of a class, or of an object with slots; likewise."""

    def __init__(self, owner: Any, names: Iterable[str]) -> None:
        self._owner = owner
        super().__init__({name: getattr(owner, name) for name in names if hasattr(owner, name)})

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self._owner, name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._owner, name, value)


def _bound(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _spaces(objective: nn.Module) -> Iterator[_Space]:
    """All that is looked at, from the modules on."""
    waiting: list[Any] = []
    seen: set[int] = set()
    for name, module in objective.named_modules():
        yield _Space(f"{name}." if name else "", vars(module))
        seen.add(id(module))
        waiting += [type(module), *vars(module).values()]
    held = list(waiting)  # an id is that of one thing only as long as this is alive
    while waiting and len(seen) < MOST:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (torch.Tensor, types.ModuleType, str, bytes, int, float)):
            continue
        seen.add(id(one))
        held.append(one)
        found = list(_parts(one))
        yield from (space for space in found if isinstance(space, _Space))
        for leads in found:
            waiting += leads.values if isinstance(leads, _Space) else leads


def _parts(one: Any) -> Iterator["_Space | Iterable[Any]"]:
    """Where something keeps state, and what else it leads to."""
    if isinstance(one, types.MethodType):
        yield [one.__self__, one.__func__]
    elif isinstance(one, functools.partial):
        yield [one.func, *one.args, *one.keywords.values()]
    elif isinstance(one, types.FunctionType):
        yield from () if _is_foreign(one) else _of_function(one)
    elif isinstance(one, type):
        yield from () if _is_foreign(one) else _of_class(one)
    elif type(one) in (list, tuple, set, frozenset, dict):
        if not isinstance(one, (tuple, frozenset)):
            yield _Space("", {f"a {type(one).__name__} inside another object": one})
        yield list(itertools.islice(_items(one), MOST))
    else:
        yield from _of_object(one)


def _of_function(function: types.FunctionType) -> Iterator[_Space]:
    yield _Space("", _Cells(function))
    yield _Space("", function.__globals__, function.__code__.co_names)
    yield _Space(f"{function.__name__}.", vars(function))
    yield _Space("", _defaults(function))


def _of_class(kind: type) -> Iterator[_Space | Iterable[Any]]:
    own = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
    yield _Space(
        f"{kind.__name__}.", _Attributes(kind, [n for n, value in own.items() if not hasattr(value, "__get__")])
    )
    yield [*[value for value in vars(kind).values() if isinstance(value, types.FunctionType)], *kind.__bases__]


def _of_object(one: Any) -> Iterator[_Space | Iterable[Any]]:
    if isinstance(getattr(one, "__dict__", None), dict):
        yield _Space("", vars(one))
    kind = type(one)
    slots = [name for base in kind.__mro__ for name in _listed(vars(base).get("__slots__", ()))]
    if slots and not _is_foreign(kind):
        yield _Space("", _Attributes(one, slots))
    yield [kind]


def _defaults(function: types.FunctionType) -> dict[str, Any]:
    """The values of its arguments that are given where it is defined."""
    values, code = function.__defaults__ or (), function.__code__
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(names, values, strict=True)), **(function.__kwdefaults__ or {})}


def _listed(names: str | Iterable[str]) -> Iterable[str]:
    return [names] if isinstance(names, str) else names


def _is_foreign(definition: types.FunctionType | type) -> bool:
    root = (definition.__module__ or "").partition(".")[0]
    return root in FOREIGN or root in sys.stdlib_module_names
