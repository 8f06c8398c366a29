"""A whole program in C: the rows, the tests between them, the best point, and the learning rates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from gradopt.engines.native.expressions import COST_OF_FUNCTION, TYPES, cost
from gradopt.engines.native.indices import Affine, Ranges, row_major
from gradopt.engines.native.lowering import Lowering
from gradopt.engines.native.rules import Unprintable, leaf
from gradopt.engines.native.printing import MAX_UNROLLED, Body, Memory, expensive, loop_lines
from gradopt.engines.native.schedule import Level, Loop, Schedule, domain_of, ordered, scheduled
from gradopt.engines.native.values import Constant, Leaf, Pointwise, Reduction, Value

NUM_COLUMNS = 3
"""Of a record: loss, gradient norm, step norm."""

MAX_CHARACTERS = 1 << 19
"""Of a program: beyond that the compiler takes too long."""

CLOCK_SECONDS = 2e-5
"""How often the clock is read, roughly."""

REBASED = 64
"""Steps after which a power that is carried from row to row is computed anew."""

HEAD = """\
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double carried(double power, double factor, long count)
{
    while (count-- > 0) power *= factor;
    return power;
}

static inline bool outside(const double *band, double value)
{
    return band[0] != 0 && !(band[1] < value && value < band[2]);
}
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A program in C.

    Attributes:
        text: It exports `rows`, see `printed`.
        constants: Tensors whose addresses follow those of parameters, states, gradients and best points.
        inputs: Examples of parameters and states: their shapes, strides and types.
        workspace: Bytes it needs for values between its loops.
    """

    text: str
    inputs: list[Tensor]
    constants: list[Tensor]
    workspace: int


def printed(module: fx.GraphModule, num_parameters: int, num_groups: int) -> Source:
    """The step graph as a function in C:

        long rows(void *const *tensors, const double *rates, long stride, long limit, const double *bands,
                  double *records, double *best_loss, double *step_norm, double seconds)

    It evaluates up to `limit` rows and returns their number; with a limit of 0 it makes the update behind the current
    point instead. `tensors` are the addresses of parameters, states, gradients, best points, constants and the
    workspace; row r finds its learning rates, one a group, at rates + r * stride; `bands` (watched, low, high) for the three columns.

    Raises:
        Unprintable: An operation, a type or a size that is not printed.
    """
    return Program(module, num_parameters, num_groups).source()


class Program:
    """Arranges a graph until its print is settled: what a print shows to be costly or unsafe is arranged anew."""

    def __init__(self, module: fx.GraphModule, num_parameters: int, num_groups: int) -> None:
        examples = [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]
        self.inputs = live = examples[: len(examples) - num_groups]
        self.num_slots = len(live) + 2 * num_parameters
        lowering = Lowering(self.num_slots)
        self.live = [leaf(tensor, slot) for slot, tensor in enumerate(live)]
        self.parameters = self.live[:num_parameters]
        rates = [Leaf((), torch.float64, (), group, is_rate=True) for group in range(num_groups)]
        outputs = tree_leaves(lowering.outputs(module, [*self.live, *rates]))
        self.constants = lowering.constants
        n = num_parameters
        seen: set[Value] = set()
        self.columns = [_own(value, seen) for value in outputs[:3]]
        self.gradients = [_own(value, seen) for value in outputs[3 : 3 + n]]
        new = zip(self.live, outputs[3 + n :], strict=True)
        self.replaced = {_own(value, seen): old for old, value in new if value is not old}
        self.leaves = [v for v in ordered([*self.columns, *self.gradients, *self.replaced]) if isinstance(v, Leaf)]
        self.scalars = self._scalars()
        self.in_place: set[Value] = set()
        self.worth_keeping: set[Value] = set()
        self.powers: dict[str, tuple[str, str]] = {}

    def source(self) -> Source:
        """Print until nothing changes."""
        candidates = {value for value in self.replaced if not value.uniform}
        self.in_place = set(candidates)
        for _ in range(8):
            text, memory, unsafe, workspace = self._printed()
            keep = expensive(memory, self.schedule.kept) - self.worth_keeping
            unsafe &= self.in_place
            if not keep and not unsafe:
                break
            self.worth_keeping |= keep
            self.in_place = set(candidates) - unsafe if keep else self.in_place - unsafe
        else:
            self.in_place = set()
            text, memory, unsafe, workspace = self._printed()
        if len(text) > MAX_CHARACTERS:
            raise Unprintable(f"a program of {len(text)} characters")
        return Source(text, self.inputs, self.constants, workspace)

    # --- arranging

    def _scalars(self) -> set[Value]:
        """Numbers that follow from learning rates, step counters and constants alone: in eager, numbers of Python."""
        new = {old: value for value, old in self.replaced.items()}
        counters = {old for old in self.live[len(self.parameters) :] if old.shape == ()}
        order = list(ordered([*self.columns, *self.gradients, *self.replaced]))
        while True:
            scalars: set[Value] = set()
            for value in order:
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

    # --- printing

    def _printed(self) -> tuple[str, Memory, set[Value], int]:
        evaluation = [self.columns[0], self.columns[1], *self.gradients]
        update = [self.columns[2], *self.replaced]
        self.schedule = scheduled(evaluation, update, self.worth_keeping)
        names, strides, declared, workspace = self._places()
        self.powers = {}
        memory = Memory(names, strides, self.scalars, self._power, self.replaced)
        first = self._phase(self.schedule.phases[0], memory)
        for slot, gradient in enumerate(self.gradients, len(self.live)):
            if gradient.uniform:
                first.append(f"p{slot} = {names[gradient]};")
        memory.reads.clear()
        second = self._phase(self.schedule.phases[1], memory)
        unsafe = self._unsafe(memory)
        opened, closed = self._edges()
        best = self._best()
        commits = self._commits(names)
        loss, gradient_norm, step_norm = (self._column(value, memory) for value in self.columns)
        carried = [f"double {name} = 0;" for name in self.powers]
        lines = [
            HEAD,
            "long rows(void *const *tensors, const double *rates, long stride, long limit, const double *bands,",
            "          double *records, double *best_loss, double *step_norm, double seconds)",
            "{",
            "const double stop = seconds < 1e9 ? now() + seconds : INFINITY;",
            "double moved = *step_norm;",
            *opened,
            *declared,
            *carried,
            "long row = 0;",
            "for (;; row++) {",
            *first,
            "if (limit) {",
            f"const double loss = {loss}, size = {gradient_norm};",
            "double *record = records + 3 * row;",
            "record[0] = loss; record[1] = size; record[2] = moved;",
            "if (loss < *best_loss && loss > -INFINITY) {",
            "*best_loss = loss;",
            *best,
            "}",
            "if (row == limit - 1 || outside(bands, loss) || outside(bands + 3, size) || outside(bands + 6, moved)",
            f"    || ({self._clock_test()} && now() >= stop)) {{ row++; break; }}",
            "}",
            "const double *rate = rates + row * stride;",
            "(void) rate;",
            *second,
            f"moved = {step_norm};",
            *commits,
            "if (!limit) break;",
            "}",
            "*step_norm = moved;",
            *closed,
            "return row;",
            "}",
        ]
        return "\n".join(lines) + "\n", memory, unsafe, workspace

    def _phase(self, levels: Sequence[Level], memory: Memory) -> list[str]:
        lines: list[str] = []
        for level in levels:
            body = Body(memory, Ranges({}), may_split=False)
            for value in level.numbers:
                text = body.define(value, (Affine(),) * len(value.shape))
                kind = memory.type_of(value)
                body.lines.append(f"const {kind} {memory.names[value]} = {text};")
            lines += body.lines
            for loop in level.loops:
                lines += loop_lines(loop, memory)
        return lines

    def _places(self) -> tuple[dict[Value, str], dict[Value, Sequence[int]], list[str], int]:
        """Names, strides, the declarations of arrays, and the size of the workspace."""
        names: dict[Value, str] = {}
        strides: dict[Value, Sequence[int]] = {}
        declared: list[str] = []
        for value in self.leaves:
            names[value] = f"rate[{value.slot}]" if value.is_rate else f"p{value.slot}"
            strides[value] = value.strides
        first = len(self.live)
        for place, value in enumerate(self.gradients):
            if not value.uniform:
                names[value], strides[value] = f"p{first + place}", self.live[place].strides
        used = 0
        for number, value in enumerate(self.schedule.kept):
            if value in names:
                continue
            kind = TYPES[value.dtype]
            if value.uniform:
                names[value] = f"u{number}"
            elif value in self.in_place:
                old = self.replaced[value]
                names[value], strides[value] = f"p{old.slot}", old.strides
            else:
                names[value] = f"b{number}"
                strides[value] = row_major(value.shape)
                if prod(value.shape) <= MAX_UNROLLED:
                    declared.append(f"{kind} b{number}[{prod(value.shape)}];")
                else:
                    place = f"(char *) tensors[{self.num_slots + len(self.constants)}] + {used}"
                    declared.append(f"{kind} *const b{number} = ({kind} *) ({place});")
                    used += -(-prod(value.shape) * value.dtype.itemsize // 64) * 64
        return names, strides, declared, used

    def _edges(self) -> tuple[list[str], list[str]]:
        """Take small tensors into variables before the rows, and put them back behind."""
        opened: list[str] = []
        closed: list[str] = []
        changed = set(self.replaced.values())
        for value in dict.fromkeys([*self.live, *self.leaves]):
            if not value.is_rate:
                into, back = _opened(value, f"p{value.slot}", value.slot)
                opened += into
                closed += back if value in changed else []
        for slot, old in enumerate(self.parameters, len(self.live)):
            into, back = _opened(old, f"p{slot}", slot)
            opened += into
            closed += back
        return opened, closed

    def _best(self) -> list[str]:
        first = len(self.live) + len(self.parameters)
        lines: list[str] = []
        for place, old in enumerate(self.parameters):
            kind, count = TYPES[old.dtype], prod(old.shape)
            target = f"(({kind} *) tensors[{first + place}])"
            if old.uniform:
                lines.append(f"{target}[0] = p{old.slot};")
            else:
                lines.append(f"memcpy({target}, p{old.slot}, {count * old.dtype.itemsize});")
        return lines

    def _commits(self, names: dict[Value, str]) -> list[str]:
        lines = []
        for value, old in self.replaced.items():
            if value.uniform:
                lines.append(f"p{old.slot} = ({TYPES[old.dtype]}) {names[value]};")
            elif value not in self.in_place:
                index = [f"i{dim}" for dim in range(len(old.shape))]
                to = " + ".join(f"{s}*{i}" for s, i in zip(old.strides, index, strict=True))
                source = " + ".join(f"{s}*{i}" for s, i in zip(row_major(old.shape), index, strict=True))
                loops = "".join(f"for (long {i} = 0; {i} < {n}; {i}++) " for i, n in zip(index, old.shape, strict=True))
                lines.append(f"{loops}p{old.slot}[{to}] = {names[value]}[{source}];")
        return lines

    def _column(self, value: Value, memory: Memory) -> str:
        return f"(double) {memory.names[value]}"

    def _unsafe(self, memory: Memory) -> set[Value]:
        """Values stored in place whose tensor is still read: elsewhere in their loop, or by a later one."""
        unsafe = set(memory.hazards)
        homes: dict[Value, Loop] = {}
        position: dict[int, int] = {}
        for level in self.schedule.phases[1]:
            for loop in level.loops:
                position[id(loop)] = len(position)
                homes.update(dict.fromkeys(loop.members, loop))
        levels = {
            id(loop): number for number, level in enumerate(self.schedule.phases[1]) for loop in level.loops
        }
        for value in self.in_place:
            old, home = self.replaced[value], homes.get(value)
            if home is None or home.partial is not None:
                unsafe.add(value)
                continue
            for loop, read in memory.reads:
                if read is old and (
                    position[id(loop)] > position[id(home)] if loop is not None else levels[id(home)] < len(levels) - 1
                ):
                    unsafe.add(value)
        return unsafe

    def _clock_test(self) -> str:
        work = 0
        for value in self.schedule.kept:
            if isinstance(value, Pointwise | Reduction):
                work += prod(domain_of(value)) * (cost(value.operation) if isinstance(value, Pointwise) else 2)
        every = 1
        while every < 1024 and every * max(1, work) * 3e-10 < CLOCK_SECONDS:
            every *= 2
        return f"(row & {every - 1}) == {every - 1}"

    # --- powers

    def _power(self, value: Pointwise, exponent: str) -> str | None:
        """base^(slope * step + offset) carried from row to row: one multiplication in place of a call of pow.

        It is pow() at steps that REBASED divides and a product of up to REBASED - 1 factors behind, whatever row a
        block begins at: within REBASED * 2^-53 of the true power.
        """
        base, power = value.operands
        if value not in self.scalars or not isinstance(base, Constant) or not base.number > 0:
            return None
        counters = [leaf for leaf in ordered([power]) if isinstance(leaf, Leaf)]
        if len(counters) != 1 or counters[0] not in self._counters():
            return None
        counter = counters[0]
        slope = _slope(power, counter)
        if slope is None:
            return None
        name = f"w{len(self.powers)}"
        number = float(base.number)
        factor = (number**slope).hex()
        self.powers[name] = (name, factor)
        new = f"(long) p{counter.slot}"
        start = f"pow({number.hex()}, {exponent} - ({slope.hex()}) * ({new} % {REBASED}))"
        return (
            f"({name} = row && {new} % {REBASED} ? {name} * {factor} : carried({start}, {factor}, {new} % {REBASED}))"
        )

    def _counters(self) -> set[Leaf]:
        """States that grow by one each step."""
        found = set()
        for new, old in self.replaced.items():
            if isinstance(new, Pointwise) and new.operation == "add" and new in self.scalars:
                one, other = new.operands
                if one is old and isinstance(other, Constant) and other.number == 1:
                    found.add(old)
        return found


def _slope(value: Value, counter: Leaf) -> float | None:
    """By how much a number grows with the counter; None if it is not a straight line."""
    if value is counter:
        return 1.0
    if isinstance(value, Constant):
        return 0.0
    if not isinstance(value, Pointwise):
        return None
    slopes = [_slope(operand, counter) for operand in value.operands]
    if None in slopes:
        return None
    match value.operation, slopes, value.operands:
        case "add", [one, other], _:
            return one + other  # type: ignore[operator]
        case "sub", [one, other], _:
            return one - other  # type: ignore[operator]
        case "cast", [one], _:
            return one
        case "mul", [one, 0.0], [_, Constant() as factor]:
            return one * factor.number  # type: ignore[operator]
        case "mul", [0.0, one], [Constant() as factor, _]:
            return one * factor.number  # type: ignore[operator]
    return None


def _own(value: Value, seen: set[Value]) -> Value:
    """A value with a place of its own: a copy of what lives elsewhere, or is another output too."""
    if value in seen or isinstance(value, Leaf | Constant):
        value = Pointwise(value.shape, value.dtype, "cast", (value,), value.dtype)
    seen.add(value)
    return value


def _opened(value: Leaf, name: str, slot: int) -> tuple[list[str], list[str]]:
    address = f"tensors[{slot}]"
    kind, count = TYPES[value.dtype], prod(value.shape)
    if value.uniform:
        return [f"{kind} {name} = *({kind} *) {address};"], [f"*({kind} *) {address} = {name};"]
    if count <= MAX_UNROLLED and value.strides == row_major(value.shape):
        size = count * value.dtype.itemsize
        return [f"{kind} {name}[{count}]; memcpy({name}, {address}, {size});"], [f"memcpy({address}, {name}, {size});"]
    return [f"{kind} *const {name} = {address};"], []
