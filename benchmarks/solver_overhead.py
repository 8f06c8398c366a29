"""What a quasi-Newton solver costs beside the objective: gradopt's `lbfgs` against torch.optim.LBFGS, and its growth.

Overhead is the CPU time of an evaluation in the solver, less that of a bare forward and backward. All variants run in
one process, one thread, in turn; medians of rounds are printed. gradopt runs with its engine and every default
criterion; torch's class runs with its strong Wolfe search and its own tolerances at zero.

    python benchmarks/solver_overhead.py [--rounds 7] [--write]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.contracts import Objective
from gradopt.execution import execute
from gradopt.settings import Stop

TARGET = 1 / 3
"""Overhead an evaluation of ours / torch's, at n = 10."""

EVALUATIONS = 500
SIZES = (10**5, 10**6, 10**7)


class Valley(Objective):
    """Rosenbrock in a chain of n unknowns, so steep that a solver is busy for the whole budget; linear in n."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat(n // 2))

    def forward(self, batch=None):
        head, tail = self.x[:-1], self.x[1:]
        return (1e6 * (tail - head * head) ** 2 + (1.0 - head) ** 2).sum()


def bare(n: int, evaluations: int) -> float:
    """CPU seconds an evaluation: forward and backward, nothing else."""
    objective = Valley(n)
    began = time.process_time()
    for _ in range(evaluations):
        objective.x.grad = None
        objective().backward()
    return (time.process_time() - began) / evaluations


def theirs(n: int, evaluations: int) -> float:
    """CPU seconds an evaluation in torch.optim.LBFGS."""
    objective, count = Valley(n), 0

    def closure() -> torch.Tensor:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer = torch.optim.LBFGS(
        objective.parameters(),
        max_iter=evaluations,
        max_eval=evaluations,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    began = time.process_time()
    optimizer.step(closure)
    if count < 0.9 * evaluations:
        raise RuntimeError(f"torch's run ended early, after {count} evaluations")
    return (time.process_time() - began) / count


def ours(n: int, evaluations: int) -> float:
    """CPU seconds an evaluation in gradopt, from `assemble` to the result."""
    objective = Valley(n)
    began = time.process_time()
    stop = Stop(max_evaluations=evaluations, gradient_tolerance=0.0)
    result = execute(assemble(objective, "lbfgs", stop=stop), [], form_of(objective))
    if result.nfev < 0.9 * evaluations:
        raise RuntimeError(f"the run ended early: {result}")
    return (time.process_time() - began) / result.nfev


def overhead(n: int, evaluations: int, rounds: int) -> tuple[float, float, float]:
    """(median ratio of the overheads, median overhead of ours, of torch's, in seconds an evaluation)."""
    triples = [tuple(side(n, evaluations) for side in (bare, ours, theirs)) for _ in range(rounds + 1)][1:]
    mine = [own - floor for floor, own, _ in triples]
    peer = [other - floor for floor, _, other in triples]
    ratio = statistics.median(a / b for a, b in zip(mine, peer, strict=True))
    return ratio, statistics.median(mine), statistics.median(peer)


def growth(n: int, evaluations: int = 12) -> float:
    """CPU seconds an evaluation of ours takes for each unknown."""
    return ours(n, evaluations) / n


def main() -> int:
    """Print the table; exit 1 if the ratio is above the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ratio, mine, peer = overhead(10, EVALUATIONS, chosen.rounds)
    lines = [
        f"# Overhead of solvers, {time.strftime('%Y-%m-%d')}",
        "",
        f"torch {torch.__version__}, CPU, one thread, chained Rosenbrock, {EVALUATIONS} evaluations, median of "
        f"{chosen.rounds} rounds in turn. Target: at most {TARGET:.2f} at n = 10, and linear in n.",
        "",
        "| n | gradopt / torch.optim.LBFGS | gradopt, us an evaluation | torch, us an evaluation |",
        "|---|---|---|---|",
        f"| 10 | {ratio:.3f} | {1e6 * mine:.0f} | {1e6 * peer:.0f} |",
        "",
        "| n | whole evaluation, ns an unknown |",
        "|---|---|",
        *(f"| {n} | {1e9 * growth(n):.0f} |" for n in SIZES),
    ]
    print("\n".join(lines))
    if chosen.write:
        path = Path(__file__).parent / "results" / f"solver_overhead-{time.strftime('%Y-%m-%d')}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(ratio > TARGET)


if __name__ == "__main__":
    sys.exit(main())
