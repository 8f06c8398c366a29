"""The step of one start as that of many: a map over starts, beside what all of them have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from gradopt.engines.graph import STEP_NORM
from gradopt.engines.tracing import StepGraph
from gradopt.torch_internals import strict_vmap

NUM_COLUMNS = STEP_NORM + 1


@dataclass(frozen=True, slots=True)
class MappedStep:
    """A step graph in parts. Two are of numbers, with inputs (*common states, *rates), and run on the CPU, wherever the
    unknowns are.

    Attributes:
        onwards: Outputs the new common states.
        numbers: Outputs what the step of each start needs of them.
        each: Of one start: inputs (*parameters, *own states, *needed numbers), outputs as those of the step graph, with
            the own states alone.
        common_places, own_places: The places of the two kinds of states among those of the step graph.
        needed: The dtypes of the needed numbers.
    """

    onwards: GraphModule
    numbers: GraphModule
    each: GraphModule
    common_places: Sequence[int]
    own_places: Sequence[int]
    needed: Sequence[torch.dtype]

    def many(self, *tensors: Tensor) -> list[Tensor]:
        """`each` for many starts, which are the last axis of all inputs and outputs.

        Raises:
            RuntimeError: An operation has no rule for it.
        """
        return _over(self.each, tensors)

    def over(self, inputs: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
        """`many` as a graph; see `over_starts`."""
        return over_starts(self.each, inputs)

    def table(self, states: Sequence[Tensor], rates: Tensor) -> Tensor:
        """Rows of the common states and the needed numbers, a row a step; from these states on, at these rates.

        Args:
            states: Common ones, of shape () in their own dtypes.
            rates: Shape (steps, groups).
        """
        before: list[Sequence[Tensor]] = []
        for row in rates.unbind():
            before.append(states)
            states = self.onwards(*states, *row.unbind())
        columns = [torch.stack(column) for column in zip(*before, strict=True)]
        if self.needed:  # all rows at once: what a step needs follows from its row alone
            columns += torch.func.vmap(self.numbers)(*columns, *rates.unbind(1))
        return torch.stack([column.double() for column in columns], dim=1) if columns else rates[:, :0]


def over_starts(module: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
    """A graph of one start for many, which are the last axis of all inputs and outputs.

    Args:
        inputs: Fake tensors with that axis.

    Raises:
        RuntimeError: An operation has no rule for it.
    """
    one = _mappable(module)
    return make_fx(lambda *tensors: _over(one, tensors), tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)


def _over(module: GraphModule, tensors: Sequence[Tensor]) -> list[Tensor]:
    with strict_vmap():
        return torch.func.vmap(module, in_dims=-1, out_dims=-1)(*tensors)  # type: ignore[return-value]


def mapped(graph: StepGraph) -> MappedStep:
    """Part a step graph. Common are the numbers that follow from the count of steps and the learning rates alone."""
    nodes, count = list(graph.module.graph.nodes), len(graph.parameters)
    given = [node for node in nodes if node.op == "placeholder"]
    parameters, states, rates = given[:count], given[count : -graph.num_groups], given[-graph.num_groups :]
    outputs = tree_leaves(next(node for node in nodes if node.op == "output").args[0])
    first = NUM_COLUMNS + 2 * count
    results, behind = outputs[:first], dict(zip(states, outputs[first:], strict=True))
    shared = {state for state in states if state.meta["val"].shape == ()}
    while True:
        known = _following(nodes, {*rates, *shared})
        less = {state for state in shared if behind[state] in known}
        if less == shared:
            break
        shared = less
    common, own = ([state for state in states if (state in shared) is which] for which in (True, False))
    results += [behind[state] for state in own]
    needed = [
        node
        for node in nodes
        if node in known
        and (node.op == "placeholder" or node.all_input_nodes)  # a constant is made where it is used
        and (node in results or not known.issuperset(_users(node)))
    ]
    module = graph.module
    return MappedStep(
        _on_cpu(_part(module, [*common, *rates], [behind[state] for state in common])),
        _on_cpu(_part(module, [*common, *rates], needed)),
        _mappable(_part(module, [*parameters, *own, *needed], results)),
        [states.index(state) for state in common],
        [states.index(state) for state in own],
        [node.meta["val"].dtype for node in needed],
    )


def _following(nodes: Sequence[Node], known: set[Node]) -> set[Node]:
    """These numbers, and what is computed of them alone."""
    found = set(known)
    for node in nodes:
        if node.op == "call_function" and _is_number(node) and found.issuperset(node.all_input_nodes):
            found.add(node)
    return found


def _is_number(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.shape == ()


def _users(node: Node) -> list[Node]:
    return [user for user in node.users if user.op == "call_function"]


def _part(module: GraphModule, inputs: Sequence[Node], outputs: Sequence[Node]) -> GraphModule:
    """A graph from some nodes to others."""
    part = Graph()
    copies = {node: part.placeholder(f"input_{place}") for place, node in enumerate(inputs)}
    for node, copy in copies.items():
        copy.meta = dict(node.meta)
    waiting = list(outputs)
    wanted = set[Node]()
    while waiting:
        node = waiting.pop()
        if node not in copies and node not in wanted:
            wanted.add(node)
            waiting += node.all_input_nodes
    for node in module.graph.nodes:
        if node in wanted:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output([copies[node] for node in outputs])
    return GraphModule(module, part)


def _on_cpu(module: GraphModule) -> GraphModule:
    """The same graph with what it reads and makes on the CPU."""
    for node in module.graph.nodes:
        if node.op == "get_attr":
            setattr(module, str(node.target), getattr(module, str(node.target)).cpu())
        elif "device" in node.kwargs:
            node.update_kwarg("device", torch.device("cpu"))
    module.recompile()
    return module


def _mappable(module: GraphModule) -> GraphModule:
    """A graph that computes the same without two operations that no map has a rule for: a number written where a mask
    is true is a choice, and a copy into a tensor like it is itself.
    """
    graph = Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.index_put.default):
        whole, places, value = node.args[:3]
        mask = places[0]
        if not isinstance(mask, Node) or len(places) > 1 or any(node.args[3:]):
            continue
        like = mask.meta["val"]
        if like.dtype is torch.bool and like.shape == whole.meta["val"].shape and _is_number(value):
            with graph.inserting_before(node):
                chosen = graph.call_function(torch.ops.aten.where.self, (mask, value, whole))
            _replace(node, chosen)
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.copy.default):
        into, source = node.args[:2]
        if all(getattr(into.meta["val"], name) == getattr(source.meta["val"], name) for name in ("shape", "dtype")):
            _replace(node, source)
    return GraphModule(module, graph)


def _replace(node: Node, other: Node) -> None:
    other.meta = {**node.meta, **other.meta}
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
