"""The loop with all default criteria and observers against a bare hand-written torch loop: the ratio of their times.

The bare loop checks and logs nothing: zero_grad, forward, backward, step of torch's Adam as it comes. Beside it stand
gradopt's loop with engine=auto (which takes the fused Adam) and with engine=eager (the arithmetic of the class, to the
last bit), and the objective alone: forward and backward, below which no loop can get. All run in one process, one
thread, in turn; medians of the ratios are printed. A run has the default budget of 10 000 steps: its first steps are
logged one by one, so short runs pay more for each. The digits need scikit-learn, and take a fifth of the steps.

    python benchmarks/overhead.py [--steps 10000] [--rounds 5] [--write]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.contracts import Objective
from gradopt.execution import execute
from gradopt.objectives.polynomial import Polynomial
from gradopt.observers.history import HistoryFile
from gradopt.observers.tensorboard import TensorBoard
from gradopt.settings import Stop

TARGET = 0.75
"""Of engine=auto, where the objective alone leaves room for it."""

RATE = 1e-5


class Valley(Objective):
    """Rosenbrock in n unknowns, written the same for both loops."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([-1.2, 1.0] * (n // 2), dtype=torch.float64))

    def forward(self, batch=None):
        head, tail = self.x[:-1], self.x[1:]
        return (100.0 * (tail - head * head) ** 2 + (1.0 - head) ** 2).sum()


class Digits(Objective):
    """A 64-64-10 network on scikit-learn's first digits, all of them or fewer in one batch, float32."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        from sklearn.datasets import load_digits  # only this case needs it

        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images / 16.0, dtype=torch.float32)[:number]
        self.labels = torch.tensor(labels)[:number]
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, batch=None):
        return nn.functional.cross_entropy(self.network(self.images), self.labels)


CASES: dict[str, Callable[[], Objective]] = {
    "polynomial": lambda: Polynomial(bounds=(-2.0, 2.0)),
    "rosenbrock(2)": lambda: Valley(2),
    "rosenbrock(100)": lambda: Valley(100),
    "digits MLP, 128 images": lambda: Digits(128),
    "digits MLP": Digits,
}


def bare(make: Callable[[], Objective]) -> Callable[[int], float]:
    """The hand-written loop: CPU seconds of some steps, on one thread the time without that of the neighbours."""

    def run(steps: int) -> float:
        objective = make()
        optimizer = torch.optim.Adam(objective.parameters(), lr=RATE)
        began = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            objective().backward()
            optimizer.step()
        return time.process_time() - began

    return run


def alone(make: Callable[[], Objective]) -> Callable[[int], float]:
    """Forward and backward, and nothing else."""

    def run(steps: int) -> float:
        objective = make()
        parameters = list(objective.parameters())
        began = time.process_time()
        for _ in range(steps):
            for parameter in parameters:
                parameter.grad = None
            objective().backward()
        return time.process_time() - began

    return run


def ours(make: Callable[[], Objective], engine: str) -> Callable[[int], float]:
    """gradopt's loop: every default criterion, TensorBoard, history file, history in memory."""

    def run(steps: int) -> float:
        objective = make()
        stop = Stop(max_steps=steps, gradient_tolerance=0.0)
        assembly = assemble(objective, "adam", {"lr": RATE}, stop=stop, engine=engine)
        with tempfile.TemporaryDirectory() as place:
            began = time.process_time()
            result = execute(assembly, [TensorBoard(), HistoryFile()], form_of(objective), directory=place)
            seconds = time.process_time() - began
        if result.nit != steps:
            raise RuntimeError(f"the run ended early: {result}")
        return seconds

    return run


def measure(case: str, steps: int, rounds: int) -> dict[str, tuple[float, float]]:
    """By loop the median of its ratios to the bare one, and its median of microseconds a step."""
    make = CASES[case]
    loops = {"bare": bare(make), "auto": ours(make, "auto"), "eager": ours(make, "eager"), "objective": alone(make)}
    taken = [{name: run(steps) for name, run in loops.items()} for _ in range(rounds + 1)][1:]  # the first warms up
    return {
        name: (
            statistics.median(one[name] / one["bare"] for one in taken),
            1e6 * statistics.median(one[name] for one in taken) / steps,
        )
        for name in loops
    }


def main() -> int:
    """Print the table; exit 1 if a ratio is above the target where the objective leaves room for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"# Loop overhead, {time.strftime('%Y-%m-%d')}",
        "",
        f"torch {torch.__version__}, Adam, CPU time on one thread, {chosen.steps} steps (digits a fifth of that), "
        f"median of {chosen.rounds} rounds in turn. Target: auto at most {TARGET} of the bare loop.",
        "",
        "| objective | auto / bare | eager / bare | objective alone / bare | auto, us a step | eager | alone | bare |",
        "|---|---|---|---|---|---|---|---|",
    ]
    missed = False
    for case in CASES:
        steps = chosen.steps // 5 if case.startswith("digits") else chosen.steps
        found = measure(case, steps, chosen.rounds)
        missed |= found["auto"][0] > TARGET > found["objective"][0]
        ratios = " | ".join(f"{found[name][0]:.3f}" for name in ("auto", "eager", "objective"))
        times = " | ".join(f"{found[name][1]:.0f}" for name in ("auto", "eager", "objective", "bare"))
        lines.append(f"| {case} | {ratios} | {times} |")
        print(lines[-1], file=sys.stderr, flush=True)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines += ["", f"Load average at the end: {load}, on {os.cpu_count()} cores."]
    print("\n".join(lines))
    if chosen.write:
        path = Path(__file__).parent / "results" / f"overhead-{time.strftime('%Y-%m-%d')}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
