"""What a person reads at the end of a run: how it ended, what was checked, and how the last steps went."""

import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from gradopt.contracts import Block, tested_gradient
from gradopt.observers.output import Output
from gradopt.plurals import counted
from gradopt.result import MAX_LISTED, Result, Results

MOST = 12
"""Numbers that are shown one by one."""

MOST_FITTED = 30
"""Unknowns of a fit that are shown with their standard errors."""

LAST = 6
"""Steps at the end of a run that are shown: the last one, and five before it."""

Table = Sequence[Sequence[str]]


def verdict_line(result: Result | Results, output: Output) -> str:
    """A mark, the status and the sentence; of many starts those of the best, behind how many ended how."""
    status = result.best_start.status if isinstance(result, Results) else result.status
    mark, colour = ("+", "green") if status.success else ("x", "red") if status.failure else ("-", "yellow")
    return f"{output.coloured(f'{mark} {status.value}', colour)}: {result.message}"


def ending(found: Result | Results) -> dict[str, str]:
    """The verdict and what follows it by name, for where a line of its own cannot go before the others."""
    best = found.best_start if isinstance(found, Results) else found
    return {"status": best.status.value, "reason": found.message, **facts(found)}


def facts(found: Result | Results) -> dict[str, str]:
    """The result by name, a line each."""
    result = found.best_start if isinstance(found, Results) else found
    rows = {"best point" if not result.success else "point": _point(result.x), "loss": f"{result.fun:.12g}"}
    if result.multipliers is not None:
        rows |= _constraints(result)
    if result.metrics:
        rows["metrics"] = ", ".join(f"{name} {value:.6g}" for name, value in result.metrics.items())
    if held := "; ".join(checks(result)):
        rows["checked"] = held
    if result.minima:
        rows["minima"] = f"{len(result.minima)} found, the lowest {counted(result.minima[0]['visits'], 'time')}"
    rows["work"] = _work(found)
    if split := _split(result.seconds_by):
        rows["time"] = split
    return rows


def checks(result: Result) -> Iterator[str]:
    """What the verdict rests on, from its evidence."""
    found = result.verdict.evidence
    if "target" in found:
        yield f"loss {found['loss']:.10g} <= target {found['target']:.10g}"
    if "relative" in found:
        sign = "<=" if found["relative"] <= found["tolerance"] else ">"
        yield f"{found['word']}gradient {found['relative']:.2g} {sign} {found['tolerance']:.2g} of its scale"
    if words := _curvature(found):
        yield words
    if "violation" in found:
        yield f"constraints missed by {found['violation']:.2g} of the unknowns' size"
    if "gradient_check" in found:
        what, _, why = str(found["gradient_check"]).partition(": ")
        told = {"agrees": "agrees with", "wrong": "is refuted by", "unjudged": "is not judged by"}[what]
        yield f"the gradient {told} differences of the loss" + (f" ({why})" if why else "")
    if lower := _lower(result):
        yield lower


def _lower(result: Result) -> str:
    """That a lower loss was seen, if by more than the verdict tells points apart, and with the digits that show it."""
    found, loss = result.verdict.evidence, result.fun
    lower = found.get("lower_loss_seen", math.inf)
    if not loss - lower > found.get("tolerance", 0.0) * abs(loss):
        return ""
    digits = next((n for n in range(10, 17) if f"{lower:.{n}g}" != f"{loss:.{n}g}"), 17)
    where = ", where the constraints are kept to their tolerance" if "violation" in found else ""
    return f"a lower loss was seen on the way, {lower:.{digits}g}{where}"


def _curvature(found: Mapping[str, Any]) -> str:
    sign, ends = found.get("curvature"), [found[name] for name in ("curvature_min", "curvature_max") if name in found]
    spread = " to ".join(dict.fromkeys(f"{end:.3g}" for end in sorted(ends)))  # their order is that in scaled unknowns
    words = {
        "positive": f"curvature positive ({spread})",
        "none": f"no negative curvature ({spread})",
        "negative": f"curvature negative ({spread})",
        "held": "every unknown held by a bound" + " or a constraint" * ("violation" in found),
        "unchecked": "curvature unchecked",
    }
    return words.get(sign, "") if isinstance(sign, str) else ""


def _work(found: Result | Results) -> str:
    many = isinstance(found, Results)
    counts = (found.nit, found.nfev, found.njev, found.nhev)
    steps, losses, gradients, products = (int(torch.as_tensor(count).sum()) for count in counts)
    return (
        f"{counted(steps, 'step')}, {counted(losses, 'evaluation')}, {counted(gradients, 'gradient')}, "
        f"{counted(products, 'Hessian product')} "
        f"{'of all starts ' * many}in {found.seconds:.3g} s"
        f"{f', the last by {found.engine}' * (found.engine != 'eager')}"
    )


def _split(seconds: Mapping[str, float]) -> str:
    whole = sum(seconds.values())
    shares = [(name, 100 * part / whole) for name, part in seconds.items()] if whole else []
    return ", ".join(f"{name} {share:.0f}%" for name, share in shares if share >= 0.5)


class LastSteps:
    """The first row of a run and its last ones, of the blocks it was given; it copies none."""

    def __init__(self) -> None:
        self._first: list[tuple[float, ...]] = []
        self._blocks: deque[Block] = deque()
        self._rows = 0

    def add(self, block: Block) -> None:
        """Take over a block, and let go of those that are too far back."""
        if not self._first:
            self._first = list(_rows(block.upto(0)))
        self._blocks.append(block)
        self._rows += len(block)
        while self._rows - len(self._blocks[0]) > LAST:  # one more, to compare with
            self._rows -= len(self._blocks.popleft())

    def table(self, size: float) -> Table:
        """The first step and the last ones; empty where none was made.

        Args:
            size: Of the unknowns: the largest of them.
        """
        rows = [row for block in self._blocks for row in _rows(block)][-LAST - 1 :]
        if len(rows) < 2:
            return []
        has_violation = "violation" in self._blocks[-1].columns
        batch = "batch " * (self._blocks[-1]["full_loss"] is not self._blocks[-1]["loss"])
        step = "step / size" if 0 < size < math.inf else "length"
        gradient = _gradient(self._blocks[-1].columns)
        heads = ["step", "evaluations", f"{batch}loss", "change", gradient, step, *["violation"] * has_violation]
        table = [heads, _cells(self._first[0], None, size)]
        if rows[0][0] > 1:
            table.append(["..."] + [""] * (len(heads) - 1))
        for before, row in itertools.pairwise(rows):
            table.append(_cells(row, before, size))
        return table


def _gradient(columns: Mapping[str, Any]) -> str:
    """What the column of it is called."""
    if "violation" not in columns:
        return "gradient"
    return "loss gradient" if tested_gradient(columns) == "gradient_norm" else "Lagr. gradient"


def _rows(block: Block) -> Iterator[tuple[float, ...]]:
    """Step, evaluations, loss, gradient norm, step norm, and by how much constraints are missed where there are any."""
    start = max(0, len(block) - LAST - 1)
    names = ("evaluations", "loss", tested_gradient(block.columns), "step_norm", "violation")
    columns = [block[name][start:, 0].tolist() for name in names if name in block.columns]
    yield from zip(range(block.first_step + start, block.last_step + 1), *columns, strict=True)


def _cells(row: Sequence[float], before: Sequence[float] | None, size: float) -> list[str]:
    step, evaluations, loss, gradient, moved, *violation = row
    change = ""
    if before is not None:
        scale = max(abs(loss), abs(before[2]))
        change = f"{(loss - before[2]) / scale:.1e}" if 0 < scale < math.inf else "0"
    length = "" if math.isnan(moved) or before is None else f"{moved / size if 0 < size < math.inf else moved:.1e}"
    return [
        str(int(step)),
        str(int(evaluations)),
        f"{loss:.9g}",
        change,
        f"{gradient:.2e}",
        length,
        *(f"{one:.1e}" for one in violation),
    ]


def statuses(results: Results) -> Table:
    """How many starts ended how, and where."""
    rows = [["status", "starts", "lowest loss", "median loss", "median steps"]]
    for status, number in results.counts.items():
        these = results.verdicts.codes == status.code
        losses, steps = results.fun[these.to(results.fun.device)], results.nit[these.to(results.nit.device)]
        lowest = losses[losses.isfinite()]
        least = f"{lowest.min().item():.9g}" if len(lowest) else "none finite"
        rows.append([status.value, str(number), least, f"{losses.nanmedian().item():.9g}", str(int(steps.median()))])
    return rows


def size_of(x: Any) -> float:
    """The largest absolute unknown."""
    return max((part.abs().max().item() for _, part in _parts(x) if part.numel()), default=0.0)


def aligned(table: Table, width: float = math.inf, spare: str = "") -> Iterator[str]:
    """The lines of a table, names to the left and numbers to the right.

    Args:
        spare: The column to leave out where the lines are too wide.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > width and spare in table[0]:
        place = list(table[0]).index(spare)
        table = [[cell for index, cell in enumerate(row) if index != place] for row in table]
        widths.pop(place)
    numeric = all(cell.replace(".", "").isdigit() or cell == "..." for cell in (row[0] for row in table[1:]))
    for row in table:
        first = row[0].rjust(widths[0]) if numeric else row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([first, *rest]).rstrip()


def fit(result: Result) -> Iterator[str]:
    """The unknowns of a fit with their standard errors, one a line; how many there are where they are many."""
    errors = result.standard_errors.tolist()
    if len(errors) > MOST_FITTED:
        yield f"{len(errors)} standard errors, in result.json"
        return
    rows = [("parameter", "value", "standard error")]
    rows += [
        (name, f"{value:.10g}", f"{error:.4g}") for (name, value), error in zip(_entries(result.x), errors, strict=True)
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    yield from (f"{name:<{first}}  {value:<{second}}  {error}" for name, value, error in rows)


def _entries(x: Any) -> Iterator[tuple[str, float]]:
    """Each unknown by its name, such as x[0] or b1."""
    for name, part in _parts(x):
        for place in itertools.product(*map(range, part.shape)):
            yield f"{name}[{', '.join(map(str, place))}]" if place else name, part[place].item()


def _parts(x: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(x, Mapping):
        yield from x.items()
    elif isinstance(x, tuple):
        yield from ((f"x{index}", part) for index, part in enumerate(x))
    else:
        yield "x", x


def _constraints(result: Result) -> dict[str, str]:
    assert result.multipliers is not None
    shown = ", ".join(f"{name} {_tensor(y)}" for name, y in result.multipliers.items() if y.numel() <= MOST)
    return {"violation": f"{result.violation:.3g}", **({"multipliers": shown} if shown else {})}


def _point(x: Any) -> str:
    """The unknowns if they are few; otherwise how many there are."""
    parts = list(_parts(x))
    number = sum(part.numel() for _, part in parts)
    if number > MOST:
        return f"{number} unknowns, in {'result.json' if number <= MAX_LISTED else 'x.pt'}"
    return ", ".join((f"{name} = " if isinstance(x, Mapping) else "") + _tensor(part) for name, part in parts)


def _tensor(part: Any) -> str:
    if part.ndim == 0:
        return f"{part.item():.10g}"
    return f"[{', '.join(f'{value:.10g}' for value in part.flatten().tolist())}]"
