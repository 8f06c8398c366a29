"""The computational graph of a loss, read from what autograd has recorded for its backward pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradopt.pictures.operations import label, operation

CONSTANTS = "gradopt.constants"
"""Where the node of an operation keeps its numbers."""

ARITHMETIC = frozenset(
    f"{side}{name}"
    for name in ("add", "sub", "subtract", "mul", "multiply", "div", "truediv")
    for side in ("", "r", "i")
)
"""Functions of two operands, by the names under which torch and Python call them."""

MAX_NODES = 20_000
"""Of a graph that is shown at all: a browser draws no more."""


@dataclass(frozen=True, slots=True)
class Node:
    """One box of the graph.

    Attributes:
        name: Unique, without a slash: an unknown's own, the operation's with a number behind, or `loss`.
        operation: What autograd calls it, such as Mul.
        label: For people: what it does, with its constants.
        inputs: The places among the nodes of what it is computed from.
        constants: What else it is computed from, as text, by name.
        shape: Of its value; None where autograd does not say.
    """

    name: str
    kind: Literal["unknown", "operation", "output"]
    operation: str
    label: str
    inputs: tuple[int, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    shape: tuple[int, ...] | None = None


class Numbers(TorchFunctionMode):
    """While it is entered, each operation notes the numbers it is given at its node in the graph: autograd itself
    forgets the 2 of x + 2, which no derivative needs.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operation, and note its numbers."""
        result = func(*args, **(kwargs or {}))
        if func.__name__.strip("_") in ARITHMETIC and isinstance(result, Tensor) and result.grad_fn is not None:
            noted: Any = result.grad_fn.metadata
            noted[CONSTANTS] = [number for one in args for number in _numbers(one)]
        return result


def _numbers(argument: Any) -> Iterator[float]:
    """The number that an argument of an operation is, if it is one."""
    if isinstance(argument, int | float) and not isinstance(argument, bool):
        yield argument
    elif isinstance(argument, Tensor) and argument.numel() == 1 and not argument.requires_grad:
        yield argument.item()


def graph(output: Tensor, names: Mapping[int, str]) -> list[Node]:
    """The nodes of the graph of a loss, each behind its inputs; the last one is the loss.

    It is walked without recursion: a recurrent objective has chains of many thousand nodes.

    Args:
        output: With its graph, before `backward()` has freed what it saved.
        names: Of the unknowns, by `id`.
    """
    nodes: list[Node] = []
    places: dict[Any, int] = {}
    taken: set[str] = {"loss", *names.values()}
    counts: dict[str, int] = {}

    def fresh(name: str) -> str:
        count = counts.get(name, 0)
        found = name if count == 0 else f"{name}_{count}"
        counts[name] = count + 1
        if found in taken:
            return fresh(name)
        taken.add(found)
        return found

    root = output.grad_fn
    if root is None:  # the loss is an unknown itself
        nodes.append(_unknown(output, names.get(id(output), "x")))
    for function in _ordered(root):
        inputs = tuple(places[one] for one, _ in function.next_functions if one is not None)
        places[function] = len(nodes)
        if _is_leaf(function):
            variable = function.variable
            name = names.get(id(variable)) or fresh("variable")
            nodes.append(_unknown(variable, name))
            continue
        kind = operation(function.name())
        shape = _shape(function)
        text, constants = label(kind, function, function.metadata.get(CONSTANTS, ()), inputs)
        nodes.append(Node(fresh(kind), "operation", kind, text, inputs, constants, shape))
    nodes.append(Node("loss", "output", "Output", "loss", (len(nodes) - 1,), {}, tuple(output.shape)))
    return nodes


def _ordered(root: Any) -> Iterator[Any]:
    """The functions of a graph, each once and behind all it is computed from."""
    if root is None:
        return
    seen = {root}
    stack = [(root, iter(root.next_functions))]
    while stack:
        function, following = stack[-1]
        for one, _ in following:
            if one is not None and one not in seen:
                seen.add(one)
                stack.append((one, iter(one.next_functions)))
                break
        else:
            stack.pop()
            yield function


def _unknown(tensor: Tensor, name: str) -> Node:
    shape = tuple(tensor.shape)
    return Node(name, "unknown", "Variable", name, shape=shape)


def _is_leaf(function: Any) -> bool:
    return function.name() == "torch::autograd::AccumulateGrad"


def _shape(function: Any) -> tuple[int, ...] | None:
    """Of the value of an operation: that of the gradient its node is given."""
    described: Any = getattr(function, "_input_metadata", None)
    try:
        return tuple(int(size) for size in described[0].shape)
    except (IndexError, AttributeError, TypeError, RuntimeError):  # torch promises nothing of it
        return None


def size(output: Tensor, most: int) -> int:
    """The number of functions in the graph of a loss, counted up to `most`."""
    number = 0
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting and number < most:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        number += 1
        waiting += [following for following, _ in function.next_functions]
    return number


def recorded(evaluate: Any) -> Tensor:
    """What `evaluate()` returns, with the numbers of its operations noted; without them where it cannot run so."""
    try:
        with torch.enable_grad(), Numbers():
            return evaluate()
    except Exception:  # such as compiled code, which may not be looked at
        with torch.enable_grad():
            return evaluate()
