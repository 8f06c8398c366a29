"""Many solves at once: CPU time of a solve by L-BFGS from random starts, against a loop over SciPy's L-BFGS-B, and of
engines whose losses and gradients are a program's, against eager.

All starts of Rosenbrock's valley are solved together, in float64 on one thread, each to convergence with all that is
checked of it. The loop takes the gradients of torch and SciPy's default tolerances, which end sooner; it is timed at
the first 200 starts, as the others take as long. Each run has a process of its own, the variants take turns, and
medians of three rounds are shown; ratios are taken within a round. Of an engine one is of the run from its first record
on, one of the whole call, in which the program is built, from a cache on disk but for the first round.

    python -m benchmarks.solves [--sizes 1,100,1000,10000] [--write]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = (1, 100, 1000, 10_000)
UNKNOWNS = (2, 10)
ENGINES = ("eager", "native", "compiled")
SAMPLE = 200
SOLVED = 1e-8


def valley(x):
    """Of one start, shape (n,)."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def drawn(number, n):
    """Starts in the box from -2 to 2."""
    import torch

    torch.set_num_threads(1)
    return torch.rand(number, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 - 2


class Clock:
    """An observer that notes when the first record is there."""

    def open(self, run):
        """The run has begun."""
        self.opened = time.process_time()

    def record(self, block, metrics):
        """Not looked at."""

    def close(self, result, error):
        """Nothing to close."""


def ours(engine, starts):
    """CPU seconds of the call and of the run in it, losses and evaluations of the solves, all at once."""
    import gradopt

    gradopt.minimise(valley, starts=starts[:2], optimiser="lbfgs", engine=engine)  # what is imported late
    clock = Clock()
    began = time.process_time()
    found = gradopt.minimise(valley, starts=starts, optimiser="lbfgs", engine=engine, observers=[clock])
    ended = time.process_time()
    return ended - began, ended - clock.opened, found.fun.tolist(), found.nfev.tolist()


def loop(starts):
    """Likewise, one after another by SciPy."""
    import scipy.optimize
    import torch

    def evaluate(point):
        x = torch.from_numpy(point).requires_grad_()
        loss = valley(x)
        loss.backward()
        return loss.item(), x.grad.numpy()

    def solve(start):
        return scipy.optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B")

    sample = starts[:SAMPLE].numpy()
    solve(sample[0])
    began = time.process_time()
    found = [solve(start) for start in sample]
    seconds = time.process_time() - began
    return seconds, seconds, [one.fun for one in found], [one.nfev for one in found]


VARIANTS = {**{engine: lambda starts, engine=engine: ours(engine, starts) for engine in ENGINES}, "SciPy": loop}


def child(variant, number, n):
    """Print what a solve takes, as JSON."""
    seconds, run, losses, evaluations = VARIANTS[variant](drawn(number, n))
    count = len(losses)
    solved = sum(loss < SOLVED for loss in losses) / count
    told = {"seconds": seconds / count, "run": run / count, "solved": solved, "evaluations": sum(evaluations) / count}
    print(json.dumps(told))


def measure(number, n):
    """Three runs of each variant, by its name."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    runs = {variant: [] for variant in VARIANTS}
    for _ in range(3):
        for variant, found in runs.items():
            command = [sys.executable, "-m", "benchmarks.solves", "--child", variant, str(number), str(n)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return runs


def ratio(runs, one, other, part="seconds"):
    """The median over the rounds."""
    return statistics.median(a[part] / b[part] for a, b in zip(runs[one], runs[other], strict=True))


def table(sizes):
    """Markdown: a row for so many unknowns and starts."""
    solved = [f"{who}: ms a solve | evaluations | solved" for who in ("eager", "SciPy")]
    programs = [f"{engine} / eager: run | call" for engine in ENGINES[1:]]
    head = ["unknowns", "starts", *solved, "eager / SciPy", *programs]
    lines = ["| " + " | ".join(head) + " |", "|---" * (9 + 2 * len(programs)) + "|"]
    for n in UNKNOWNS:
        for number in sizes:
            runs = measure(number, n)
            cells = [str(n), str(number)]
            for who in ("eager", "SciPy"):
                one = sorted(runs[who], key=lambda run: run["seconds"])[1]
                cells += [f"{1e3 * one['seconds']:.3g}", f"{one['evaluations']:.1f}", f"{100 * one['solved']:.0f} %"]
            cells.append(f"{ratio(runs, 'eager', 'SciPy'):.3f}")
            cells += [f"{ratio(runs, e, 'eager', part):.2f}" for e in ENGINES[1:] for part in ("run", "seconds")]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]), int(arguments.child[2]))
        return
    text = table(list(map(int, arguments.sizes.split(","))))
    print(text)
    if arguments.write:
        import scipy
        import torch

        day = time.strftime("%Y-%m-%d")
        place = Path(__file__).parent / "results" / f"solves-{day}.md"
        note = (
            f"Median CPU time of three runs each, one thread, torch {torch.__version__}, SciPy {scipy.__version__}, "
            f"load {os.getloadavg()[0]:.1f} at the end. SciPy is timed at the first {SAMPLE} starts. Solved: a loss "
            f"below {SOLVED:g}, the others are at the valley's local minimum, or SciPy has ended before.\n"
        )
        place.write_text(f"# Many solves, {day}\n\n{note}\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
