"""From torch's graph of aten operations to values."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import decomposition_table
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map

from gradopt.engines.native.calls import Call, Unprintable, leaf
from gradopt.engines.native.expressions import TYPES
from gradopt.engines.native.rules import RULES
from gradopt.engines.native.values import Constant, Leaf, Value

MAX_FOLDED = 1 << 20
"""Elements of a constant that is computed when the program is printed."""

IRRELEVANT = ("memory_format", "layout", "device", "pin_memory", "non_blocking", "implicit", "copy")
"""Arguments that say where and how a tensor is stored, not what it holds."""


@dataclass(slots=True)
class Lowering:
    """Walks a graph, one value a node; equal nodes are one value.

    Attributes:
        slots: The number of pointers a program is given before those of the constants.
        constants: Tensors that its values read besides its inputs, in the order of their slots.
    """

    slots: int
    constants: list[Tensor] = field(default_factory=list[Tensor])
    _leaves: list[Leaf] = field(default_factory=list[Leaf])
    _seen: dict[Any, Any] = field(default_factory=dict[Any, Any])
    _within: list[Any] = field(default_factory=list[Any])

    def outputs(self, module: fx.GraphModule, inputs: Sequence[Value]) -> Any:
        """The values of the graph's outputs, in their structure, given those of its inputs.

        Raises:
            Unprintable: With the operation in the message.
        """
        values: dict[fx.Node, Any] = {}
        placeholders = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(placeholders)
            elif node.op == "get_attr":
                values[node] = self._constant(operator.attrgetter(str(node.target))(module))
            elif node.op == "call_function":
                arguments, keywords = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
                values[node] = self._lowered(node, arguments, keywords)
            elif node.op == "output":
                return fx.map_arg(node.args[0], values.__getitem__)
        raise AssertionError("a graph has an output")

    def _lowered(self, node: fx.Node, arguments: Any, keywords: Any) -> Any:
        key = node.target, _frozen(arguments), _frozen(keywords)
        if key not in self._seen:
            self._seen[key] = self._folded(node, arguments, keywords) or self._ruled(node, arguments, keywords)
        return self._seen[key]

    def _ruled(self, node: fx.Node, arguments: Any, keywords: Any) -> Any:
        name = _name(node.target)
        rule = RULES.get(name) or RULES.get(name.replace("prims.", "aten."))
        if rule is None:
            return self._decomposed(node, arguments, keywords)
        relevant = {name: value for name, value in keywords.items() if name not in IRRELEVANT}
        try:
            return rule(Call(name, node.meta.get("val")), *arguments, **relevant)
        except TypeError as error:
            raise Unprintable(f"the operation {_name(node.target)} with these arguments") from error

    def _decomposed(self, node: fx.Node, arguments: Any, keywords: Any) -> Any:
        """By simpler operations, as torch defines it."""
        formula = decomposition_table.get(node.target)  # type: ignore[call-overload]
        if formula is None or node.target in self._within:
            raise Unprintable(f"the operation {_name(node.target)}")
        nodes = [leaf for leaf in tree_leaves((node.args, dict(node.kwargs))) if isinstance(leaf, fx.Node)]
        values = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Value)]
        examples = [one.meta["val"] for one in nodes]

        def applied(*tensors: Tensor) -> Any:
            given = dict(zip(nodes, tensors, strict=True))
            args, kwargs = tree_map(
                lambda leaf: given[leaf] if isinstance(leaf, fx.Node) else leaf, (node.args, dict(node.kwargs))
            )
            result = formula(*args, **kwargs)
            return tuple(result) if isinstance(result, tuple) else result

        self._within.append(node.target)
        try:
            try:
                module = make_fx(functionalize(applied), tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
            except Exception as error:  # torch's formula may use what it cannot make a graph of
                raise Unprintable(f"the operation {_name(node.target)}, whose definition is no graph") from error
            return self.outputs(module, values)
        finally:
            self._within.pop()

    def _folded(self, node: fx.Node, arguments: Any, keywords: Any) -> Value | None:
        """The result of an operation on numbers alone, computed now."""
        example = node.meta.get("val")
        sources = [value for value in tree_leaves((arguments, keywords)) if isinstance(value, Value)]
        if (
            not isinstance(node.target, torch._ops.OpOverload)
            or not isinstance(example, Tensor)
            or example.dtype not in TYPES
            or not 0 < example.numel() <= MAX_FOLDED
            or not all(isinstance(source, Constant) for source in sources)
        ):
            return None
        arguments, keywords = tree_map(_filled, (arguments, keywords))
        result = node.target(*arguments, **keywords)
        first = result.reshape(-1)[0]
        if bool((result == first).all()):
            return Constant(tuple(result.shape), result.dtype, first.item())
        return self._constant(result)

    def _constant(self, tensor: Tensor) -> Value:
        for known, value in zip(self.constants, self._leaves, strict=True):
            if known is tensor:
                return value
        value = leaf(tensor, self.slots + len(self.constants))
        self.constants.append(tensor)
        self._leaves.append(value)
        return value


def _filled(value: Any) -> Any:
    return torch.full(value.shape, value.number, dtype=value.dtype) if isinstance(value, Constant) else value


def _frozen(argument: Any) -> Any:
    """A key that is equal where arguments are."""
    if isinstance(argument, Mapping):
        return tuple((key, _frozen(value)) for key, value in sorted(argument.items()))
    if isinstance(argument, list | tuple):
        return tuple(_frozen(value) for value in argument)
    if isinstance(argument, Constant):
        return argument.shape, argument.dtype, repr(argument.number)
    if isinstance(argument, Value):
        return id(argument)
    return type(argument), str(argument)


def _name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket)
    return f"{target.__module__}.{target.__name__}".removeprefix("_")
