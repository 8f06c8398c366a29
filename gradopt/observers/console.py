"""What a person reads in the terminal: the problem, a live line, the verdict."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from tqdm import tqdm

from gradopt.contracts import Block, Run
from gradopt.result import MAX_LISTED, Result

MOST = 12
"""Numbers that are shown one by one."""

MOST_FITTED = 30
"""Unknowns of a fit that are shown with their standard errors."""

MARKS = {True: "+", False: "x", None: "-"}


class Console:
    """The objective and its start, a live progress line when on a terminal, and the verdict with its numbers.

    Args:
        stream: Where to write; standard output if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._bar: Any = None

    def open(self, run: Run) -> None:
        """Say what is about to run."""
        self._run = run
        width = max(map(len, run.facts))
        for name, value in run.facts.items():
            self._write(f"{name:<{width}}  {value}")
        self._write("")
        self._bar = tqdm(
            total=None if run.budget == float("inf") else int(run.budget),
            file=self._stream,
            disable=not self._stream.isatty(),
            unit=" steps",
            leave=False,
            dynamic_ncols=True,
        )

    def record(self, block: Block, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Move the live line on."""
        if self._bar is None or self._bar.disable:
            return
        last = len(block) - 1
        loss, gradient = block["loss"][last, 0].item(), block["gradient_norm"][last, 0].item()
        state = f"loss {loss:.8g}, gradient {gradient:.3g}"
        if "violation" in block.columns:
            state += f", violation {block['violation'][last, 0].item():.2g}"
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update(block.last_step - self._bar.n)

    def close(self, result: Result | None, error: BaseException | None) -> None:
        """Say how it ended."""
        if self._bar is not None:
            self._bar.close()
        if result is None:
            return
        rows = {
            "best point" if not result.success else "point": _point(result.x),
            "loss": f"{result.fun:.12g}",
            **({} if result.multipliers is None else _constraints(result)),
            **({"metrics": ", ".join(f"{k} {v:.6g}" for k, v in result.metrics.items())} if result.metrics else {}),
            "work": (
                f"{result.nit} steps, {result.nfev} evaluations, {result.njev} gradients, {result.nhev} Hessian "
                f"products in {result.seconds:.3g} s"
            ),
            **({"run": result.directory} if result.directory else {}),
            **({"dashboards": f"tensorboard --logdir {result.directory}"} if result.directory else {}),
        }
        fine = True if result.success else None if not result.status.failure else False
        self._write(f"{MARKS[fine]} {result.status.value}: {result.message}")
        self._write("")
        width = max(map(len, rows))
        for name, value in rows.items():
            self._write(f"{name:<{width}}  {value}")
        if result.standard_errors is not None:
            self._write("")
            for line in _fit(result):
                self._write(line)

    def _write(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough: the run goes on without one
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _fit(result: Result) -> Iterator[str]:
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
    named = x.items() if isinstance(x, Mapping) else [("x", x)]
    if isinstance(x, tuple):
        named = [(f"x{index}", part) for index, part in enumerate(x)]
    for name, part in named:
        for place in itertools.product(*map(range, part.shape)):
            yield f"{name}[{', '.join(map(str, place))}]" if place else name, part[place].item()


def _constraints(result: Result) -> dict[str, str]:
    assert result.multipliers is not None
    shown = ", ".join(f"{name} {_tensor(y)}" for name, y in result.multipliers.items() if y.numel() <= MOST)
    return {"violation": f"{result.violation:.3g}", **({"multipliers": shown} if shown else {})}


def _point(x: Any) -> str:
    """The unknowns if they are few; otherwise how many there are."""
    parts = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]
    number = sum(part.numel() for part in parts)
    if number > MOST:
        return f"{number} unknowns, in {'result.json' if number <= MAX_LISTED else 'x.pt'}"
    names = [f"{name} = " for name in x] if isinstance(x, Mapping) else [""] * len(parts)
    return ", ".join(name + _tensor(part) for name, part in zip(names, parts, strict=True))


def _tensor(part: Any) -> str:
    if part.ndim == 0:
        return f"{part.item():.10g}"
    return f"[{', '.join(f'{value:.10g}' for value in part.flatten().tolist())}]"
