"""The values of one step: what a graph takes and gives, sorted by what a program does with them."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch.utils._pytree import tree_leaves

from gradopt.engines.native.calls import Unprintable, leaf
from gradopt.engines.native.lowering import Lowering
from gradopt.engines.native.values import Constant, Leaf, Pointwise, Value, ordered

NUM_COLUMNS = 3
"""Of a record: loss, gradient norm, step norm."""


class Step:
    """The values of a step graph. None of its results is a leaf, and no two are the same value.

    Attributes:
        inputs: Examples of parameters and states: their shapes, strides and types.
        live: The leaves of these, in their order; slot i is the i-th pointer of a program.
        parameters: Those of the parameters.
        constants: Tensors whose pointers follow behind those of `live`, of gradients and of best points.
        columns: Loss, gradient norm, step norm.
        gradients: One a parameter.
        replaced: By the new content of a live tensor, its leaf; what does not change is left out.
        leaves: All leaves that are read.
        scalars: Numbers that follow from learning rates, step counters and constants alone: in eager, numbers of
            Python.
    """

    def __init__(self, module: fx.GraphModule, num_parameters: int, num_groups: int) -> None:
        examples = [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]
        self.inputs: list[Tensor] = examples[: len(examples) - num_groups]
        if not all(map(is_non_overlapping_and_dense_or_false, self.inputs)):
            raise Unprintable("an unknown that does not fill its memory")
        self.live = [leaf(tensor, slot) for slot, tensor in enumerate(self.inputs)]
        self.parameters = self.live[:num_parameters]
        self.first_constant = len(self.live) + 2 * num_parameters
        lowering = Lowering(self.first_constant)
        rates = [Leaf((), torch.float64, (), group, is_rate=True) for group in range(num_groups)]
        outputs = tree_leaves(lowering.outputs(module, [*self.live, *rates]))
        self.constants = lowering.constants
        columns, gradients = outputs[:NUM_COLUMNS], outputs[NUM_COLUMNS : NUM_COLUMNS + num_parameters]
        behind = outputs[NUM_COLUMNS + num_parameters :]
        seen: set[Value] = set()
        self.columns = [_own(value, seen) for value in columns]
        self.gradients = [_own(value, seen) for value in gradients]
        seen.update(ordered(self.evaluation))  # what is known before the tests must not be stored before them
        pairs = zip(behind, self.live, strict=True)
        self.replaced = {_own(value, seen): old for value, old in pairs if value is not old}
        every = list(ordered([*self.evaluation, *self.update]))
        self.leaves = [value for value in every if isinstance(value, Leaf)]
        self.scalars = self._scalars(every)

    @property
    def evaluation(self) -> list[Value]:
        """What must be known before the tests."""
        return [*self.columns[:2], *self.gradients]

    @property
    def update(self) -> list[Value]:
        """What must be known behind them."""
        return [self.columns[2], *self.replaced]

    def _scalars(self, every: Sequence[Value]) -> set[Value]:
        new = {old: value for value, old in self.replaced.items()}
        counters = {old for old in self.live[len(self.parameters) :] if old.shape == ()}
        while True:
            scalars: set[Value] = set()
            for value in every:
                if isinstance(value, Leaf):
                    known = value.is_rate or value in counters
                else:
                    known = value.uniform and all(source in scalars for source in value.sources())
                if known:
                    scalars.add(value)
            wrong = {old for old in counters if old in new and new[old] not in scalars}
            if not wrong:
                return {value for value in scalars if not isinstance(value, Constant)}
            counters -= wrong


def _own(value: Value, seen: set[Value]) -> Value:
    """A value with a place of its own: a copy of what lives elsewhere, or is another result too."""
    if value in seen or isinstance(value, Leaf | Constant):
        value = Pointwise(value.shape, value.dtype, "cast", (value,), value.dtype)
    seen.add(value)
    return value
