"""Steps by code that torch's compiler makes of the graph, called directly: without Dynamo's guards and wrappers.

The compiler keeps what it has made on disk, by the content of the graph: another process makes it anew in a second.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map

from gradopt.engines.graph import LOSS, STEP_NORM, Watch
from gradopt.engines.loss_graph import LossGraph
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import StepGraph

Step = Callable[..., Sequence[Tensor]]
"""A function of the inputs of a `StepGraph` that returns its outputs in new tensors."""

CHUNK = 8
"""Steps in one call where a call costs more than a step: a longer one gains little and takes long to compile."""

SMALL = 1000
"""Unknowns up to which that is so."""

COLUMNS = 3

MOVED = "an unknown or a state has another shape, stride or type than when it was traced"


def compiled(graph: StepGraph) -> "StepProgram":
    """Compile a step, and a chunk of steps where that pays.

    Raises:
        Refusal: The compiler fails, such as without a C++ compiler, with its reason.
    """
    small = sum(parameter.numel() for parameter in graph.parameters) <= SMALL
    with refused():
        graph = replace(graph, module=_with_results_held(graph.module))
        step = code_of(graph.module, graph.inputs)
        if not small:
            return StepProgram(graph, step)
        rates = graph.inputs[-1].expand(CHUNK, graph.num_groups).clone()
        return StepProgram(graph, step, code_of(chunk_of(graph), [*graph.inputs[: -graph.num_groups], rates]))


def compiled_evaluation(graph: LossGraph) -> Callable[[], Tensor]:
    """Compile loss and gradient: it returns the one, and leaves the other in new tensors in `.grad`.

    Raises:
        Refusal: As `compiled`.
    """
    parameters, forms = graph.parameters, [_form(tensor) for tensor in graph.inputs]
    with refused():
        call = code_of(graph.module, graph.inputs)

    def evaluation() -> Tensor:
        here = [parameter.detach() for parameter in parameters]
        if [_form(tensor) for tensor in here] != forms:
            raise RuntimeError(MOVED)
        loss, *gradients = call(*here)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss

    return evaluation


class StepProgram:
    """A `Program` of calls that make new tensors: inputs stay as they are, so a row is kept by keeping its tensors.

    A chunk in which a row wants attention is made again step by step up to it, from its inputs.

    Args:
        step: One step.
        chunk: `CHUNK` steps: rates of shape (CHUNK, groups) in, the records of all rows as one vector out, then the new
            parameters and state.
    """

    def __init__(self, graph: StepGraph, step: Step, chunk: Step | None = None) -> None:
        self.step_norm = math.nan
        self.best: tuple[float, Tensor] | None = None
        self._graph, self._step, self._chunk = graph, step, chunk
        self._count = len(graph.parameters)
        self._forms = [_form(tensor) for tensor in graph.inputs[: -graph.num_groups]]
        self._behind: Sequence[Tensor] = ()

    def run(self, rates: Tensor, watched: Sequence[Watch], stop: float) -> Tensor:
        """See `Program.run`."""
        here = self._live()
        chunks = rates.contiguous().split(CHUNK) if self._chunk is not None else ()
        records: list[float] = []
        lowest = _Lowest(here)
        careful = 0  # rows before this one are made one by one
        done = 0
        while True:
            if self._chunk is not None and careful <= done < len(rates) - CHUNK and time.perf_counter() < stop:
                out = self._chunk(*here, chunks[done // CHUNK])
                rows = out[0].tolist()
                norms = [self.step_norm, *rows[STEP_NORM::COLUMNS]]
                rows[STEP_NORM::COLUMNS] = norms[:-1]  # the norm of an update belongs to the row behind it
                if all([low < value < high for column, low, high in watched for value in rows[column::COLUMNS]]):
                    lowest.see(rows, here, done)
                    records += rows
                    here, self.step_norm, done = out[1:], norms[-1], done + CHUNK
                else:
                    careful = done + CHUNK
                continue
            out = self._step(*here, *rates[done].unbind())
            rows = [out[0].item(), out[1].item(), self.step_norm]
            lowest.see(rows, here, done)
            records += rows
            done += 1
            outside = any([not low < rows[column] < high for column, low, high in watched])
            if outside or done == len(rates) or time.perf_counter() >= stop:
                break
            here, self.step_norm = self._next(out), out[2].item()
        self._behind = out
        self.best = self._best(lowest, rates)
        self._put(here)
        for parameter, gradient in zip(self._graph.parameters, out[COLUMNS:], strict=False):
            parameter.grad = gradient
        return torch.tensor(records, dtype=torch.float64).view(-1, COLUMNS)

    def update(self, rates: Tensor) -> None:
        """See `Program.update`: `run` has made it already, beside the live tensors."""
        self._put(self._next(self._behind))
        self.step_norm = self._behind[STEP_NORM].item()

    def _best(self, lowest: "_Lowest", rates: Tensor) -> tuple[float, Tensor] | None:
        """The best row: of a chunk only the inputs are there, so it is made again from them."""
        if lowest.loss == math.inf:
            return None
        here = lowest.inputs
        for row in range(lowest.first, lowest.row):
            here = self._next(self._step(*here, *rates[row].unbind()))
        return lowest.loss, torch.cat([part.reshape(-1) for part in here[: self._count]])

    def _live(self) -> Sequence[Tensor]:
        live = [*[parameter.detach() for parameter in self._graph.parameters], *self._graph.state()]
        if [_form(tensor) for tensor in live] != self._forms:  # the code reads them as what it was made for
            raise RuntimeError(MOVED)
        return live

    def _next(self, out: Sequence[Tensor]) -> Sequence[Tensor]:
        return out[COLUMNS + self._count :]

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for live, value in zip([*self._graph.parameters, *self._graph.state()], values, strict=True):
                live.copy_(value)


class _Lowest:
    """The lowest finite loss, its row, and inputs of a call with that of their row."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.loss, self.row, self.first, self.inputs = math.inf, 0, 0, inputs

    def see(self, rows: Sequence[float], inputs: Sequence[Tensor], first: int) -> None:
        """The records of the rows of one call."""
        losses = rows[LOSS::COLUMNS]
        loss = min([value for value in losses if value > -math.inf], default=math.inf)
        if loss < self.loss:
            self.loss, self.row, self.first, self.inputs = loss, first + losses.index(loss), first, inputs


def chunk_of(graph: StepGraph) -> Step:
    """`CHUNK` steps, one after another. The records go into one vector entry by entry: joining them costs more."""
    count, groups = len(graph.parameters), graph.num_groups

    def steps(*inputs: Tensor) -> tuple[Tensor, ...]:
        *here, rates = inputs
        records = torch.zeros(CHUNK * COLUMNS, dtype=torch.float64, device=rates.device)
        for row in range(CHUNK):
            out = graph.module(*here, *[rates[row, group] for group in range(groups)])
            for column in range(COLUMNS):
                records = torch.select_scatter(records, out[column].double(), 0, row * COLUMNS + column)
            here = out[COLUMNS + count :]
        return records, *here

    return steps


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


def held(tensor: Tensor) -> Tensor:
    """The same, which the compiler writes to memory, row by row: it would else make it anew for all who read it."""
    with _quiet():
        from torch._inductor.inductor_prims import force_stride_order  # late, as below
    strides = [math.prod(tensor.shape[place + 1 :]) for place in range(tensor.dim())]
    return force_stride_order(tensor, strides)


def _with_results_held(module: GraphModule) -> GraphModule:
    """The same graph, whose results are written to memory as they are made: the compiler would else make a gradient
    anew in each of the updates that read it.
    """
    with _quiet():
        from torch._inductor.inductor_prims import force_stride_order  # late, as below
    graph = Graph()
    results = graph.graph_copy(module.graph, {})
    for node in dict.fromkeys(tree_leaves(results)[COLUMNS:]):
        if node.op == "call_function":
            with graph.inserting_after(node):
                held = graph.call_function(force_stride_order, (node, node.meta["val"].stride()))
            held.meta = dict(node.meta)
            node.replace_all_uses_with(held, lambda user, held=held: user is not held)
            results = tree_map(lambda one, node=node, held=held: held if one is node else one, results)
    graph.output(results)
    return GraphModule(module, graph)


def code_of(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Step:
    """Compile a function of tensors without side effects. Tensors it reads besides become inputs: they stay alive."""
    with _quiet():
        from torch._inductor import config  # late: it takes more than a second to import
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table

    table = select_decomp_table()
    module = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True, decomposition_table=table)(*inputs)
    constants = _lift(module)
    mode = detect_fake_mode(inputs)
    assert mode is not None, "the inputs of a graph are fake"
    with torch.no_grad(), config.patch(size_asserts=False):  # whoever calls it has looked at the forms
        code = compile_fx_inner(module, [*inputs, *[mode.from_tensor(constant) for constant in constants]])
    call = getattr(code, "current_callable", None) or code  # without what only profilers and autotuning need
    return lambda *values: call([*values, *constants])


def _lift(module: GraphModule) -> list[Tensor]:
    """Make the tensors that a graph reads inputs of it, behind the others, each once."""
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    constants: dict[tuple[Any, ...], tuple[Tensor, Node]] = {}
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, str(node.target)).detach()
        key = (tensor.data_ptr(), *_form(tensor))
        if key not in constants:
            with module.graph.inserting_after(last):
                last = module.graph.placeholder(f"constant_{len(constants)}")
            last.meta = node.meta
            constants[key] = tensor, last
        node.replace_all_uses_with(constants[key][1])
        module.graph.erase_node(node)
    module.recompile()
    return [tensor for tensor, _ in constants.values()]


@contextmanager
def refused() -> Iterator[None]:
    """Whatever a compiler of many parts raises becomes a refusal: the run is worth more."""
    try:
        yield
    except Exception as error:
        raise Refusal(
            f"it does not compile: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Importing parts of torch warns of what others of its parts do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
