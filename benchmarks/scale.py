"""A step against the number of unknowns, from 1 to 1e8: its time, what it allocates, and the peak of memory.

The objective is a bowl, x'x / 2, in float32, with a gradient written by hand: it reads the unknowns twice and writes
the gradient once, the least an objective can do. So the bound is the memory that a step must move, over the bandwidth
of the machine, which is measured in between by a copy of as many numbers:

    forward reads x; backward reads x, writes g; the norm reads g; sgd reads x, g and writes x; adam also reads m, v and
    writes them: 28 bytes an unknown with sgd, 44 with adam.

"kernels" is torch's own operations for such a step, one after another, on memory that is there: no engine of separate
kernels falls below. "step" is that of the engine on ordinary steps, the best point looked at as always; "without best"
has it never looked at; "bare" is a hand-written loop (zero_grad, forward, backward, step) with the class's default. All
in turn, CPU seconds on one thread. Page faults show what the system had to give: memory that is kept faults once, not
at each step.
The peak is that of a whole run of 45 steps with all default criteria, from the objective to the result, in a process of
its own, beyond what that took before (Linux only).

    python benchmarks/scale.py [--largest 1e8] [--rounds 5] [--write]
"""

import argparse
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradopt import devices
from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.contracts import Objective
from gradopt.engines.eager import EagerEngine
from gradopt.evaluations import KEEP_EVERY, LARGE
from gradopt.execution import execute
from gradopt.settings import Stop

TARGET = 1.3
BYTES = {"sgd": 28, "adam": 44}
CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
VECTORS = {"sgd": "x, g", "adam": "x, g, m, v"}
RATE = 1e-4
RESULTS = Path(__file__).parent / "results"


class Squares(torch.autograd.Function):
    """x'x / 2 and its gradient x, each in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 0.5 * torch.dot(x, x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * slopes[0]


class Bowl(Objective):
    """x'x / 2 in n unknowns."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(n, dtype=torch.float32))

    def forward(self, batch: None = None) -> Tensor:
        return Squares.apply(self.x)  # type: ignore[return-value]


class Loop:
    """Steps that go on where the last call has left them."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.seconds: list[float] = []
        self.faults: list[float] = []

    def run(self, steps: int) -> None:
        """Time some steps, and count the pages they asked the system for."""
        began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self._advance(steps)
        self.seconds.append((time.process_time() - began) / steps)
        self.faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps)


def ours(n: int, name: str) -> tuple[Loop, EagerEngine]:
    """The engine's loop, its block never cut short."""
    engine = assemble(Bowl(n), name, {"lr": RATE}, stop=Stop(max_steps=10**9, gradient_tolerance=0.0)).engine

    def advance(steps: int) -> None:
        engine.advance(steps, {}, 1e9)
        engine.update()

    return Loop(advance), engine


def bare(n: int, name: str) -> Loop:
    """The hand-written loop."""
    objective = Bowl(n)
    optimizer = CLASSES[name](objective.parameters(), lr=RATE)

    def advance(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            objective().backward()
            optimizer.step()

    return Loop(advance)


def copying(n: int) -> Loop:
    """A copy of n numbers, in place: 8 bytes each."""
    source, target = torch.ones(n), torch.ones(n)

    def advance(steps: int) -> None:
        for _ in range(steps):
            target.copy_(source)

    return Loop(advance)


def kernels(n: int, name: str) -> Loop:
    """The operations of a step alone: the loss, its gradient, the norm of that, and the fused update."""
    x = nn.Parameter(torch.ones(n))
    x.grad, one = torch.zeros(n), torch.ones(())
    optimizer = CLASSES[name]([x], lr=RATE, fused=True)

    def advance(steps: int) -> None:
        for _ in range(steps):
            with torch.no_grad():
                0.5 * torch.dot(x, x)
                torch.mul(x, one, out=x.grad)
                torch.aminmax(x.grad)
            optimizer.step()

    return Loop(advance)


def unkept(n: int, name: str) -> Loop:
    """The engine's loop on the steps between two looks at the best point."""
    loop, engine = ours(n, name)
    advance = loop._advance

    def between(steps: int) -> None:
        engine.step, engine.oracle.num_losses = 1, 1  # so far from the next multiple that none is met
        engine._previous = None
        advance(min(steps, KEEP_EVERY - 2))

    return Loop(between)


def measure(n: int, name: str, rounds: int) -> dict[str, float]:
    """Medians of rounds in turn: microseconds a step, the bound, page faults a step."""
    steps = KEEP_EVERY if n >= LARGE else 400 if n < 10_000 else 100
    loops = {"copy": copying(n), "kernels": kernels(n, name), "step": ours(n, name)[0], "bare": bare(n, name)}
    if n >= LARGE:
        loops["without best"] = unkept(n, name)
    counts = dict.fromkeys(("copy", "bare"), max(3, steps // 4)) | dict.fromkeys(
        ("kernels", "without best"), KEEP_EVERY - 2
    )
    for _ in range(rounds + 1):
        for kind, loop in loops.items():
            if kind == "bare":  # as a bare loop runs: with glibc left alone
                loop.run(counts[kind])
                continue
            with devices.kept_memory(n) as memory, memory or nullcontext():
                loop.run(counts.get(kind, steps))  # what the memory given back in between costs is no step's
                loop.seconds.pop()
                loop.faults.pop()
                loop.run(counts.get(kind, steps))
    median = {kind: statistics.median(loop.seconds[1:]) for kind, loop in loops.items()}
    found = {f"{kind} us": 1e6 * seconds for kind, seconds in median.items()}
    found["bandwidth"] = 8 * n / median["copy"] / 1e9
    found["bound us"] = 1e6 * median["copy"] * BYTES[name] / 8
    found["faults"] = statistics.median(loops.get("without best", loops["step"]).faults[1:])
    found["bare faults"] = statistics.median(loops["bare"].faults[1:])
    return found


def peak(n: int, name: str) -> float:
    """Megabytes that a whole run takes at most, in a process of its own, beyond what it has before; NaN: more than
    there is.
    """
    command = [sys.executable, __file__, "--peak", name, str(n)]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode == -signal.SIGKILL:
        return math.nan
    done.check_returncode()
    return int(done.stdout) / 1024


def run_whole(name: str, n: int) -> int:
    """By how many KB the memory of this process grows in a run, at most."""
    torch.set_num_threads(1)

    def run(n: int) -> None:
        target = Bowl(n)
        assembly = assemble(target, name, {"lr": RATE}, stop=Stop(max_steps=45, gradient_tolerance=0.0))
        execute(assembly, [], form_of(target))

    run(1)  # everything is imported
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    run(n)
    return _memory("VmHWM") - before


def _memory(name: str) -> int:
    """A figure of this process's memory, in KB; Linux tells it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The picture: time a step against n, per optimiser, with the bound."""
    import matplotlib as mpl  # only the picture needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5))
    for index, name in enumerate(BYTES):
        mine = [row for row in rows if row["name"] == name]
        sizes, colour = [row["n"] for row in mine], f"C{index}"
        axes.loglog(sizes, [row["step us"] for row in mine], "o-", color=colour, label=f"gradopt, {name}")
        axes.loglog(sizes, [row["bare us"] for row in mine], "x:", color=colour, label=f"bare loop, {name}")
        axes.loglog(sizes, [row["bound us"] for row in mine], "--", color=colour, alpha=0.5, label=f"bound, {name}")
    axes.set(xlabel="unknowns", ylabel="CPU microseconds a step", title="A step against the number of unknowns")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def table(rows: list[dict[str, Any]], rounds: int) -> str:
    """The rows for people."""
    lines = [
        f"# Scale, {time.strftime('%Y-%m-%d')}",
        "",
        f"torch {torch.__version__}, float32, CPU microseconds on one thread, median of {rounds} rounds in turn; load "
        f"average {', '.join(f'{load:.1f}' for load in os.getloadavg())} at the end. Target: a step at "
        f"most {TARGET} of the bound from 1e6 unknowns on, without the best point. From {LARGE:.0e} on the best point "
        f"is looked at every {KEEP_EVERY} steps. What each column is, the script says.",
        "",
        "| unknowns | optimiser | step | without best | bound | without best / bound | kernels / bound | bare "
        "| step / bare | faults a step | bare faults | peak MB | vectors |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        between = row.get("without best us", row["step us"])
        vectors = (
            f"{row['peak'] * 2**20 / (4 * row['n']):.1f} (least: {VECTORS[row['name']]})" if row["n"] >= LARGE else ""
        )
        lines.append(
            f"| {row['n']:.0e} | {row['name']} | {row['step us']:.4g} | {between:.4g} | {row['bound us']:.3g} | "
            f"{between / row['bound us']:.2f} | {row['kernels us'] / row['bound us']:.2f} | {row['bare us']:.4g} | "
            f"{row['step us'] / row['bare us']:.2f} | "
            f"{row['faults']:.0f} | {row['bare faults']:.0f} | {row['peak']:.0f} | {vectors} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table; exit 1 if a step from 1e6 on is above the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep table and picture under benchmarks/results/")
    parser.add_argument("--peak", nargs=2, metavar=("OPTIMISER", "N"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        print(run_whole(chosen.peak[0], int(chosen.peak[1])))
        return 0
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for exponent in range(9):
        n = 10**exponent
        for name in BYTES if n <= chosen.largest else ():
            rows.append({"n": n, "name": name, **measure(n, name, chosen.rounds), "peak": peak(n, name)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows, chosen.rounds))
    if chosen.write:
        stem = f"scale-{time.strftime('%Y-%m-%d')}"
        (RESULTS / f"{stem}.md").write_text(table(rows, chosen.rounds) + f"\n![]({stem}.png)\n", encoding="utf-8")
        draw(rows, RESULTS / f"{stem}.png")
    large = [row["without best us"] / row["bound us"] for row in rows if row["n"] >= LARGE]
    return int(any(ratio > TARGET for ratio in large))


if __name__ == "__main__":
    sys.exit(main())
