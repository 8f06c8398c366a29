"""The loop with all default criteria and observers against a bare hand-written torch loop: the ratio of their times.

The bare loop checks and logs nothing: zero_grad, forward, backward, step. Both run in one process, one thread, in turn;
the median of the ratios is printed. A run has the default budget of 10 000 steps: its first steps are logged one by
one, so short runs pay more for each. The digits need scikit-learn, and take a fifth of the steps.

    python benchmarks/overhead.py [--steps 10000] [--rounds 5] [--write]
"""

import argparse
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
from gradopt.observers.history import HistoryFile
from gradopt.observers.tensorboard import TensorBoard
from gradopt.settings import Stop

TARGET = 1.15
RATES = {"sgd": 1e-5, "adam": 1e-5}


class Valley(Objective):
    """Rosenbrock in n unknowns, written the same for both loops."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([-1.2, 1.0] * (n // 2), dtype=torch.float64))

    def forward(self, batch=None):
        head, tail = self.x[:-1], self.x[1:]
        return (100.0 * (tail - head * head) ** 2 + (1.0 - head) ** 2).sum()


class Digits(Objective):
    """A 64-64-10 network on all of scikit-learn's digits, full batch, float32."""

    def __init__(self) -> None:
        super().__init__()
        from sklearn.datasets import load_digits  # only this case needs it

        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images / 16.0, dtype=torch.float32)
        self.labels = torch.tensor(labels)
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, batch=None):
        return nn.functional.cross_entropy(self.network(self.images), self.labels)


CASES: dict[str, Callable[[], Objective]] = {
    "rosenbrock(2)": lambda: Valley(2),
    "rosenbrock(100)": lambda: Valley(100),
    "digits MLP": Digits,
}


def bare(make: Callable[[], Objective], cls: type[torch.optim.Optimizer], lr: float, steps: int) -> float:
    """CPU seconds of the hand-written loop: on one thread the time it took, without that of the neighbours."""
    objective = make()
    optimizer = cls(objective.parameters(), lr=lr)
    began = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()
    return time.process_time() - began


def ours(make: Callable[[], Objective], name: str, lr: float, steps: int) -> float:
    """CPU seconds of gradopt's loop: every default criterion, TensorBoard, history file, history in memory."""
    objective = make()
    stop = Stop(max_steps=steps, gradient_tolerance=0.0)
    assembly = assemble(objective, name, {"lr": lr}, stop=stop)
    with tempfile.TemporaryDirectory() as place:
        began = time.process_time()
        result = execute(assembly, [TensorBoard(), HistoryFile()], form_of(objective), directory=place)
        seconds = time.process_time() - began
    if result.nit != steps:
        raise RuntimeError(f"the run ended early: {result}")
    return seconds


def measure(case: str, name: str, steps: int, rounds: int) -> tuple[float, float, float]:
    """(median ratio, median us a step of ours, of the bare loop)."""
    cls = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    pairs = []
    for _ in range(rounds + 1):  # the first round warms up
        theirs = bare(CASES[case], cls, RATES[name], steps)
        pairs.append((ours(CASES[case], name, RATES[name], steps), theirs))
    pairs = pairs[1:]
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    return ratio, *(1e6 * statistics.median(side) / steps for side in zip(*pairs, strict=True))


def main() -> int:
    """Print the table; exit 1 if a ratio is above the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"# Loop overhead, {time.strftime('%Y-%m-%d')}",
        "",
        f"torch {torch.__version__}, CPU seconds on one thread, {chosen.steps} steps (digits a fifth of that), "
        f"median of {chosen.rounds} rounds in turn. Target: at most {TARGET}.",
        "",
        "| objective | optimiser | gradopt / bare | gradopt, us a step | bare, us a step |",
        "|---|---|---|---|---|",
    ]
    worst = 0.0
    for case in CASES:
        for name in RATES:
            steps = chosen.steps // 5 if case == "digits MLP" else chosen.steps
            ratio, mine, theirs = measure(case, name, steps, chosen.rounds)
            worst = max(worst, ratio)
            lines.append(f"| {case} | {name} | {ratio:.3f} | {mine:.0f} | {theirs:.0f} |")
    print("\n".join(lines))
    if chosen.write:
        path = Path(__file__).parent / "results" / f"overhead-{time.strftime('%Y-%m-%d')}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(worst > TARGET)


if __name__ == "__main__":
    sys.exit(main())
