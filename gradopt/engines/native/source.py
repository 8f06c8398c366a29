"""A whole program in C: the rows, the tests between them, and the best point."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, fx

from gradopt.engines.native.calls import Unprintable
from gradopt.engines.native.elements import Body, Memory, expensive
from gradopt.engines.native.expressions import TYPES, cost
from gradopt.engines.native.indices import Affine, Ranges, row_major
from gradopt.engines.native.loops import MAX_UNROLLED, loop_lines
from gradopt.engines.native.powers import HELPER, Powers
from gradopt.engines.native.schedule import Level, Schedule, domain_of, scheduled
from gradopt.engines.native.step import NUM_COLUMNS, Step
from gradopt.engines.native.values import Leaf, Pointwise, Reduction, Value

MAX_CHARACTERS = 1 << 19
"""Of a program: beyond that the compiler takes too long."""

ALIGNMENT = 64
"""Bytes: a line of the cache."""

CLOCK_SECONDS = 2e-5
"""How often the clock is read, roughly, if an addition takes the third of a nanosecond."""

HEAD = f"""\
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static double now(void)
{{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}}

{HELPER}
long rows(void *const *tensors, const double *rates, long stride, long limit, const double *bands,
          double *records, double *results, double seconds)
{{
const double stop = seconds < 1e9 ? now() + seconds : INFINITY;
double lowest = results[0], moved = results[1];
const bool watched0 = bands[0] != 0, watched1 = bands[3] != 0, watched2 = bands[6] != 0;
const double low0 = bands[1], low1 = bands[4], low2 = bands[7];
const double high0 = bands[2], high1 = bands[5], high2 = bands[8];
long row = 0;
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A program in C.

    Attributes:
        text: It exports `rows`, see `printed`.
        inputs: Examples of parameters and states: their shapes, strides and types.
        constants: Tensors of the objective that it reads.
        workspace: Bytes it needs for values between its loops.
    """

    text: str
    inputs: Sequence[Tensor]
    constants: Sequence[Tensor]
    workspace: int


def printed(module: fx.GraphModule, num_parameters: int, num_groups: int) -> Source:
    """The step graph as a function in C:

        long rows(void *const *tensors, const double *rates, long stride, long limit, const double *bands,
                  double *records, double *results, double seconds)

    It evaluates up to `limit` rows and returns their number; with a limit of 0 it makes the update behind the current
    point instead. `tensors` are the addresses of parameters, states, gradients, best points, constants and the
    workspace. Row r finds its learning rates, one a group, at rates + r * stride. `bands` are (watched, low, high) of
    the three columns. `results` are the lowest loss and the step norm of the last update, on the way in and out.

    Raises:
        Unprintable: An operation, a type or a size that is not printed.
    """
    step = Step(module, num_parameters, num_groups)
    candidates = {value for value in step.replaced if not value.uniform}
    in_place, worth_keeping = set(candidates), set[Value]()
    while True:  # until a print shows nothing more that is computed twice for much, or stored too early
        page = Page(step, in_place, worth_keeping)
        keep, early = page.costly(), page.early()
        if not keep and not early:
            break
        worth_keeping |= keep
        in_place = candidates if keep else in_place - early
    text = page.text()
    if len(text) > MAX_CHARACTERS:
        raise Unprintable(f"a program of {len(text)} characters")
    return Source(text, step.inputs, step.constants, page.workspace)


class Page:
    """One print of a step.

    Args:
        in_place: Results stored over the live tensors they replace, in their own loops.
        worth_keeping: Values with a place of their own, though they need none.
    """

    def __init__(self, step: Step, in_place: set[Value], worth_keeping: set[Value]) -> None:
        self._step, self._in_place = step, in_place
        self._schedule: Schedule = scheduled(step.evaluation, step.update, worth_keeping)
        self.workspace = 0
        self._arrays: list[str] = []
        names, strides = self._places()
        self._powers = Powers(step)
        self._memory = Memory(names, strides, step.scalars, self._powers.carried, step.replaced)
        self._evaluation = self._phase(self._schedule.phases[0])
        self._memory.reads.clear()
        self._update = self._phase(self._schedule.phases[1])

    def costly(self) -> set[Value]:
        """Values it computes in several places, at more cost than reading them from memory."""
        return expensive(self._memory, self._schedule.kept)

    def early(self) -> set[Value]:
        """Results stored in place though the old content is still read: elsewhere in their loop, or behind it."""
        levels = self._schedule.phases[1]
        homes = {member: loop for level in levels for loop in level.loops for member in loop.members}
        order = {id(loop): place for place, loop in enumerate(loop for level in levels for loop in level.loops)}
        last = {id(loop) for loop in levels[-1].loops} if levels else set[int]()

        def is_early(value: Value) -> bool:
            home = homes[value]
            old = self._step.replaced[value]
            return home.partial is not None or any(
                order[id(home)] < order[id(loop)] if loop is not None else id(home) not in last
                for loop, read in self._memory.reads
                if read is old
            )

        return {value for value in self._in_place if value in self._memory.hazards or is_early(value)}

    def text(self) -> str:
        """The program."""
        names, step = self._memory.names, self._step
        loss, gradient_norm, step_norm = (names[value] for value in step.columns)
        opened, closed = self._edges()
        gradients = [
            f"p{slot} = {names[gradient]};"
            for slot, gradient in enumerate(step.gradients, len(step.live))
            if gradient.uniform
        ]
        lines = [
            *opened,
            *self._arrays,
            *self._powers.declared(),
            "for (;; row++) {",
            *self._evaluation,
            *gradients,
            "if (limit) {",
            f"const double loss = {loss}, size = {gradient_norm};",
            f"double *record = records + {NUM_COLUMNS} * row;",
            "record[0] = loss; record[1] = size; record[2] = moved;",
            "if (loss < lowest && loss > -INFINITY) {",
            "lowest = loss;",
            *self._best_point(),
            "}",
            "const bool outside = (watched0 & !((low0 < loss) & (loss < high0)))",
            "    | (watched1 & !((low1 < size) & (size < high1))) | (watched2 & !((low2 < moved) & (moved < high2)));",
            f"if ((row == limit - 1) | outside || ({self._clock_is_due()} && now() >= stop)) {{ row++; break; }}",
            "}",
            "const double *rate = rates + row * stride;",
            *self._update,
            f"moved = {step_norm};",
            *self._commits(),
            "if (!limit) break;",
            "}",
            "results[0] = lowest; results[1] = moved;",
            *closed,
            "return row;",
            "}",
        ]
        return HEAD + "\n".join(lines) + "\n"

    def _phase(self, levels: Sequence[Level]) -> list[str]:
        lines: list[str] = []
        for level in levels:
            body = Body(self._memory, Ranges({}), may_split=False)
            for value in level.numbers:
                text = body.define(value, (Affine(),) * len(value.shape))
                body.lines.append(f"const {TYPES[value.dtype]} {self._memory.names[value]} = {text};")
            lines += body.lines
            for loop in level.loops:
                lines += loop_lines(loop, self._memory)
        return lines

    def _places(self) -> tuple[dict[Value, str], dict[Value, Sequence[int]]]:
        """Names of all kept values, and strides of those that are arrays."""
        step = self._step
        names: dict[Value, str] = {}
        strides: dict[Value, Sequence[int]] = {}
        for leaf in step.leaves:
            names[leaf] = f"rate[{leaf.slot}]" if leaf.is_rate else f"p{leaf.slot}"
            strides[leaf] = leaf.strides
        stored = {value: leaf for value, leaf in step.replaced.items() if value in self._in_place}
        slots = {value: leaf.slot for value, leaf in stored.items()}
        for slot, gradient in enumerate(step.gradients, len(step.live)):
            stored[gradient], slots[gradient] = step.parameters[slot - len(step.live)], slot
        for number, value in enumerate(self._schedule.kept):
            if value.uniform:
                names[value] = f"u{number}"
            elif value in stored:
                names[value], strides[value] = f"p{slots[value]}", stored[value].strides
            else:
                names[value], strides[value] = f"b{number}", row_major(value.shape)
                self._arrays.append(self._array(value, names[value]))
        return names, strides

    def _array(self, value: Value, name: str) -> str:
        kind, count = TYPES[value.dtype], prod(value.shape)
        if count <= MAX_UNROLLED:
            return f"{kind} {name}[{count}];"
        place = self.workspace
        self.workspace += -(-count * value.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        slot = self._step.first_constant + len(self._step.constants)
        return f"{kind} *const {name} = ({kind} *) ((char *) tensors[{slot}] + {place});"

    def _edges(self) -> tuple[list[str], list[str]]:
        """Small tensors are taken into variables before the rows, and put back behind them."""
        step, changed = self._step, set(self._step.replaced.values())
        opened: list[str] = []
        closed: list[str] = []
        for leaf in dict.fromkeys([*step.live, *(leaf for leaf in step.leaves if not leaf.is_rate)]):
            into, back = _opened(leaf, leaf.slot)
            opened.append(into)
            closed += [back] if leaf in changed else []
        for slot, parameter in enumerate(step.parameters, len(step.live)):
            into, back = _opened(parameter, slot)
            opened.append(into)
            closed.append(back)
        return opened, closed

    def _best_point(self) -> list[str]:
        lines: list[str] = []
        for slot, leaf in enumerate(self._step.parameters, len(self._step.live) + len(self._step.parameters)):
            if leaf.uniform:
                lines.append(f"*({TYPES[leaf.dtype]} *) tensors[{slot}] = p{leaf.slot};")
            else:
                lines.append(f"memcpy(tensors[{slot}], p{leaf.slot}, {_bytes(leaf)});")
        return lines

    def _commits(self) -> list[str]:
        """What could not be stored in place."""
        lines: list[str] = []
        for value, leaf in self._step.replaced.items():
            name = self._memory.names[value]
            if value.uniform:
                lines.append(f"p{leaf.slot} = {name};")
            elif value not in self._in_place:
                ranges = Ranges({f"i{dim}": (0, size) for dim, size in enumerate(leaf.shape)})
                index = tuple(map(Affine.of, ranges.of))
                to = ranges.offset(index, leaf.strides).text()
                source = ranges.offset(index, self._memory.strides[value]).text()
                lines += [f"for (long {i} = 0; {i} < {size}; {i}++)" for i, (_, size) in ranges.of.items()]
                lines.append(f"p{leaf.slot}[{to}] = {name}[{source}];")
        return lines

    def _clock_is_due(self) -> str:
        work = 1
        for value in self._schedule.kept:
            if isinstance(value, Pointwise | Reduction):
                work += prod(domain_of(value)) * (cost(value.operation) if isinstance(value, Pointwise) else 2)
        every = 1
        while every < 1024 and every * work * 3e-10 < CLOCK_SECONDS:
            every *= 2
        return f"(row & {every - 1}) == {every - 1}"


def _opened(leaf: Leaf, slot: int) -> tuple[str, str]:
    kind, count, name = TYPES[leaf.dtype], prod(leaf.shape), f"p{slot}"
    if leaf.uniform:
        return f"{kind} {name} = *({kind} *) tensors[{slot}];", f"*({kind} *) tensors[{slot}] = {name};"
    if count <= MAX_UNROLLED:
        take = f"{kind} {name}[{count}]; memcpy({name}, tensors[{slot}], {_bytes(leaf)});"
        return take, f"memcpy(tensors[{slot}], {name}, {_bytes(leaf)});"
    return f"{kind} *const {name} = tensors[{slot}];", ""


def _bytes(leaf: Leaf) -> int:
    return prod(leaf.shape) * leaf.dtype.itemsize
