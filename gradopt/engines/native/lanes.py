"""The step of one start as a program in C for many: a start a lane, tiles of lanes that stay in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from torch import Tensor, fx

from gradopt.engines.native.calls import Unprintable
from gradopt.engines.native.elements import Body, Memory
from gradopt.engines.native.expressions import TYPES, expression
from gradopt.engines.native.indices import Affine, Index, Ranges
from gradopt.engines.native.step import Step
from gradopt.engines.native.values import Leaf, Reduction, Value, ordered

TILE = 128
"""Lanes whose numbers stay in the nearest cache."""

MAX_LINES = 3000
"""Of one step: every element of every value is written out."""

HEAD = """\
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const double *bands[6];
    int64_t spread[6];
    const int64_t *due;
    const bool *live;
    int64_t *steps, *made;
    double *loss, *size, *moved, *before, *lowest, *lowest_size, *bottom;
} Columns;
"""


@dataclass(frozen=True, slots=True)
class LanesSource:
    """A program in C.

    Attributes:
        text: It exports `visit` and `scalars`, see `printed_lanes`.
        states: The places, among the states of the step, of those that each start has of its own.
        common: The places of the others: numbers that depend on the count of steps and the learning rates alone.
        width: Numbers in a row of the table that `scalars` makes.
        constants: Tensors of the objective that it reads.
    """

    text: str
    states: Sequence[int]
    common: Sequence[int]
    width: int
    constants: Sequence[Tensor]


def printed_lanes(module: fx.GraphModule, num_parameters: int, num_groups: int) -> LanesSource:
    """The step graph of one start as functions in C for many.

        void scalars(const double *common, const double *rates, long stride, long count, double *table)

    makes the table: row r holds the common states before the update of the r-th step from here, and what the lanes need
    of them and of the learning rates at rates + r * stride.

        void visit(void *const *tensors, const double *table, long first, long number, long limit, long pending,
                   const Columns *columns)

    evaluates up to `limit` rows of each of `number` starts that are live, each from where it stands to its first row
    outside its bands, or at its own due step, or to the end of the limit; it then stands there, evaluated and not
    updated. Where `pending` is 1, the update behind the row where it stands comes before. `tensors` are the addresses
    of parameters and own states, shape (number, ...), of gradients, of best points, all in the order of parameters, and
    of the constants; `first` is the step of the first row of the table.

    Raises:
        Unprintable: An operation, a type or a size that is not printed.
    """
    return _Page(Step(module, num_parameters, num_groups)).source()


@dataclass(slots=True)
class _Lane(Body):
    """All of a step of one start: sums are written out too."""

    def _computed(self, value: Value, index: Index) -> str:
        if len(self.lines) > MAX_LINES:
            raise Unprintable(f"a step of more than {MAX_LINES} operations on numbers, one by one")
        if not isinstance(value, Reduction):
            return Body._computed(self, value, index)
        form = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}[value.kind]
        places = iter(index)
        spans = [range(size) if dim in value.dims else [next(places)] for dim, size in enumerate(value.source.shape)]
        text = ""
        for place in product(*spans):
            element = self.read(value.source, tuple(Affine(p) if isinstance(p, int) else p for p in place))
            if not text:
                text = element
                continue
            name = self.memory.fresh()
            self.lines.append(
                f"const {self.memory.type_of(value)} {name} = {expression(form, [text, element], value.dtype)};"
            )
            text = name
        if not text:
            raise Unprintable("a sum over nothing")
        return text


@dataclass(slots=True)
class _Page:
    """One print."""

    step: Step
    _own: list[Leaf] = field(default_factory=list[Leaf])
    _common: list[Leaf] = field(default_factory=list[Leaf])
    _needed: list[Value] = field(default_factory=list[Value])

    def source(self) -> LanesSource:
        step = self.step
        new = {old: value for value, old in step.replaced.items()}
        states = step.live[len(step.parameters) :]
        self._common = [leaf for leaf in states if leaf.shape == () and new.get(leaf, leaf) in step.scalars | {leaf}]
        self._own = [leaf for leaf in states if leaf not in self._common]
        every = list(ordered([*step.evaluation, *step.update]))
        kept = set(self._common)
        scalars = {v for v in every if v in step.scalars or v in kept}
        results = {value for value, old in step.replaced.items() if old in kept}
        read = {s for v in every if v not in scalars for s in v.sources() if s in scalars}
        self._needed = [value for value in every if value in read]
        if any(value in results for value in step.columns):
            raise Unprintable("a loss that is a state")
        width = len(self._common) + len(self._needed)
        text = "\n".join([HEAD, *self._tables(width, new), *self._tile(width, kept), *self._visit()])
        place = {leaf: number for number, leaf in enumerate(states)}
        own, common = [place[leaf] for leaf in self._own], [place[leaf] for leaf in self._common]
        return LanesSource(text + "\n", own, common, width, step.constants)

    def _memory(self, names: dict[Value, str]) -> Memory:
        strides: dict[Value, Sequence[int]] = {leaf: leaf.strides for leaf in self.step.leaves}
        return Memory(names, strides, self.step.scalars, lambda value, exponent: None, self.step.replaced)

    def _tables(self, width: int, new: dict[Leaf, Value]) -> list[str]:
        """What follows from steps and learning rates alone, row by row."""
        names: dict[Value, str] = {leaf: f"z{number}" for number, leaf in enumerate(self._common)}
        names |= {leaf: f"rate[{leaf.slot}]" for leaf in self.step.leaves if leaf.is_rate}
        body = _Lane(self._memory(names), Ranges({}), may_split=False)
        ends = [(f"z{n}", body.read(new[leaf], ())) for n, leaf in enumerate(self._common) if leaf in new]
        cells = [body.read(value, (Affine(),) * len(value.shape)) for value in self._needed]
        kinds = [TYPES[leaf.dtype] for leaf in self._common]
        return [
            "void scalars(const double *common, const double *rates, long stride, long count, double *table)",
            "{",
            *(f"{kind} z{n} = common[{n}];" for n, kind in enumerate(kinds)),
            f"for (long row = 0; row < count; row++, table += {width}) {{",
            "const double *rate = rates + row * stride;",
            *(f"table[{n}] = z{n};" for n in range(len(kinds))),
            *body.lines,
            *(f"table[{len(kinds) + n}] = {cell};" for n, cell in enumerate(cells)),
            *(f"{name} = {value};" for name, value in ends),
            "}",
            "}",
        ]

    def _tile(self, width: int, kept: set[Leaf]) -> list[str]:
        step, lanes = self.step, [*self.step.parameters, *self._own]
        parameters = step.parameters
        names: dict[Value, str] = {leaf: f"p{leaf.slot}" for leaf in lanes}
        names |= {
            leaf: f"p{leaf.slot}" for leaf in step.leaves if not leaf.is_rate and leaf.slot >= step.first_constant
        }
        names |= {
            value: f"(({TYPES[value.dtype]}) rate[{len(self._common) + n}])" for n, value in enumerate(self._needed)
        }
        body = _Lane(self._memory(names), Ranges({}), may_split=False)
        loss, size = (self._element(body, value, 0) for value in step.columns[:2])
        slopes = [[self._element(body, g, e) for e in _elements(g)] for g in step.gradients]
        evaluation, body.lines = body.lines, []
        moved = self._element(body, step.columns[2], 0)
        new = {old: value for value, old in step.replaced.items() if old not in kept}
        changed = [
            (leaf.slot, e, self._element(body, new[leaf], e)) for leaf in lanes if leaf in new for e in _elements(leaf)
        ]
        update = body.lines
        sizes = {leaf.slot: prod(leaf.shape) for leaf in lanes}
        kind = {leaf.slot: TYPES[leaf.dtype] for leaf in lanes}
        pointers = {leaf: number for number, leaf in enumerate(lanes)}
        first = len(lanes)
        own = {leaf.slot for leaf in self._own}
        gradients, best = first, first + len(parameters)
        constants = [leaf for leaf in step.leaves if not leaf.is_rate and leaf.slot >= step.first_constant]
        each = [(slot, e) for slot, n in sizes.items() for e in range(n)]
        points = [(slot, e) for slot, e in each if slot not in own]
        number = {leaf.slot: n for n, leaf in enumerate(parameters)}

        def span(slot: int, e: int) -> str:
            return f"{e} + (begin + s) * {sizes[slot]}"

        def tensor(place: int, slot: int) -> str:
            return f"(({kind[slot]} *) tensors[{place}])"

        return [
            "static inline __attribute__((always_inline)) void tile(const bool same, const long start,",
            "    const long begin, const long lanes, void *const *tensors, const double *table, const long first,",
            "    const long limit, const long pending, const Columns *c)",
            "{",
            *(f"{kind[slot]} w{slot}_{e}[{TILE}];" for slot, e in each),
            *(f"{kind[slot]} g{slot}_{e}[{TILE}], b{slot}_{e}[{TILE}];" for slot, e in points),
            *(
                f"double {name}[{TILE}];"
                for name in ["loss_", "size_", "moved_", "before_", "bottom_", "lowest_", "least_"]
            ),
            f"double band_[6][{TILE}];",
            f"int64_t at_[{TILE}], due_[{TILE}], going_[{TILE}], made_[{TILE}];",
            *(
                _constant(leaf, best + len(parameters) + leaf.slot - step.first_constant)
                for leaf in sorted(constants, key=lambda leaf: leaf.slot)
            ),
            f"for (long k = 0; k < {TILE}; k++) {{",
            "const long s = k < lanes ? k : 0, i = begin + s;",
            *(
                f"w{slot}_{e}[k] = {tensor(pointers[leaf], slot)}[{span(slot, e)}];"
                for leaf in lanes
                for slot, e in [(leaf.slot, e) for e in _elements(leaf)]
            ),
            *(f"g{slot}_{e}[k] = {tensor(gradients + number[slot], slot)}[{span(slot, e)}];" for slot, e in points),
            *(f"b{slot}_{e}[k] = {tensor(best + number[slot], slot)}[{span(slot, e)}];" for slot, e in points),
            "loss_[k] = c->loss[i]; size_[k] = c->size[i]; moved_[k] = c->moved[i]; before_[k] = c->before[i];",
            "lowest_[k] = c->lowest[i]; least_[k] = c->lowest_size[i]; bottom_[k] = INFINITY;",
            "for (long b = 0; b < 6; b++) band_[b][k] = c->bands[b][i * c->spread[b]];",
            "due_[k] = c->due[i]; made_[k] = 0; going_[k] = k < lanes && c->live[i];",
            "at_[k] = going_[k] ? c->steps[i] : start;",
            "}",
            "for (long row = 0; row < limit + pending; row++) {",
            "const int64_t tested = !pending | (row > 0), last = (row + 1 == limit + pending) & tested;",
            "int64_t any = 0;",
            f"const double *const shared = table + (start + row - first) * {width};",
            '_Pragma("omp simd reduction(|:any)")',
            f"for (long s = 0; s < {TILE}; s++) {{",
            f"const double *const rate = same ? shared : table + (at_[s] - first) * {width};",
            *(
                f"const {kind[leaf.slot]} p{leaf.slot}{'' if leaf.uniform else f'[{sizes[leaf.slot]}]'} = "
                + (
                    f"w{leaf.slot}_0[s];"
                    if leaf.uniform
                    else "{" + ", ".join(f"w{leaf.slot}_{e}[s]" for e in _in_memory(leaf)) + "};"
                )
                for leaf in lanes
            ),
            *evaluation,
            f"const double loss = {loss}, size = {size}, moved = moved_[s];",
            "const int64_t on = going_[s], here = on & tested;",
            "before_[s] = here ? loss_[s] : before_[s];",
            "loss_[s] = here ? loss : loss_[s]; size_[s] = here ? size : size_[s]; made_[s] += here;",
            "bottom_[s] = here & (loss > -INFINITY) & (loss < bottom_[s]) ? loss : bottom_[s];",
            "const int64_t lower = (loss < lowest_[s]) | ((loss == lowest_[s]) & (size < least_[s]));",
            "const int64_t better = here & (loss > -INFINITY) & lower;",
            "lowest_[s] = better ? loss : lowest_[s]; least_[s] = better ? size : least_[s];",
            *(f"b{slot}_{e}[s] = better ? w{slot}_{e}[s] : b{slot}_{e}[s];" for slot, e in points),
            *(
                f"g{leaf.slot}_{e}[s] = here ? {slopes[n][e]} : g{leaf.slot}_{e}[s];"
                for n, leaf in enumerate(parameters)
                for e in _elements(leaf)
            ),
            "const int64_t inside = (band_[0][s] < loss) & (loss < band_[1][s]) & (band_[2][s] < size)",
            "    & (size < band_[3][s]) & (((band_[4][s] < moved) & (moved < band_[5][s])) | (moved != moved));",
            "const int64_t goes = on & (!tested | (inside & (at_[s] < due_[s]) & !last));",
            *update,
            *(f"w{slot}_{e}[s] = goes ? {name} : w{slot}_{e}[s];" for slot, e, name in changed),
            f"moved_[s] = goes ? (double) {moved} : moved;",
            "at_[s] += goes; going_[s] = goes; any |= goes;",
            "}",
            "if (!any) break;",
            "}",
            "for (long s = 0; s < lanes; s++) {",
            "const long i = begin + s;",
            *(
                f"{tensor(pointers[leaf], slot)}[{span(slot, e)}] = w{slot}_{e}[s];"
                for leaf in lanes
                for slot, e in [(leaf.slot, e) for e in _elements(leaf)]
            ),
            *(f"{tensor(gradients + number[slot], slot)}[{span(slot, e)}] = g{slot}_{e}[s];" for slot, e in points),
            *(f"{tensor(best + number[slot], slot)}[{span(slot, e)}] = b{slot}_{e}[s];" for slot, e in points),
            "c->loss[i] = loss_[s]; c->size[i] = size_[s]; c->moved[i] = moved_[s]; c->before[i] = before_[s];",
            "c->lowest[i] = lowest_[s]; c->lowest_size[i] = least_[s]; c->bottom[i] = bottom_[s];",
            "c->made[i] = made_[s];",
            "if (c->live[i]) c->steps[i] = at_[s];",
            "}",
            "}",
        ]

    def _visit(self) -> list[str]:
        return [
            "void visit(void *const *tensors, const double *table, long first, long number, long limit, long pending,",
            "           const Columns *columns)",
            "{",
            f"for (long begin = 0; begin < number; begin += {TILE}) {{",
            f"const long lanes = number - begin < {TILE} ? number - begin : {TILE};",
            "int64_t low = INT64_MAX, high = INT64_MIN;",
            "for (long s = begin; s < begin + lanes; s++) {",
            "const int64_t step = columns->steps[s];",
            "low = columns->live[s] && step < low ? step : low; high = columns->live[s] && step > high ? step : high;",
            "}",
            "if (low > high) continue;",
            "if (low == high) tile(true, low, begin, lanes, tensors, table, first, limit, pending, columns);",
            "else tile(false, low, begin, lanes, tensors, table, first, limit, pending, columns);",
            "}",
            "}",
        ]

    @staticmethod
    def _element(body: Body, value: Value, place: int) -> str:
        index: list[Affine] = []
        for size in reversed(value.shape):
            index.append(Affine(place % size))
            place //= size
        return body.read(value, tuple(reversed(index)))


def _constant(leaf: Leaf, place: int) -> str:
    """Of the objective, for all starts."""
    kind, name = TYPES[leaf.dtype], f"p{leaf.slot}"
    if leaf.uniform:
        return f"const {kind} {name} = *({kind} *) tensors[{place}];"
    return f"const {kind} *const {name} = tensors[{place}];"


def _elements(value: Value) -> range:
    return range(prod(value.shape))


def _in_memory(leaf: Leaf) -> list[int]:
    """Elements in row-major order, in the order of the one start's memory, as its strides have it."""
    order = {}
    for element, index in enumerate(product(*map(range, leaf.shape))):
        order[sum(i * stride for i, stride in zip(index, leaf.strides, strict=True))] = element
    return [order[place] for place in sorted(order)]
