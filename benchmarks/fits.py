"""Many fits at once: CPU time of a fit by Levenberg-Marquardt or the trust region, against loops over single fits.

A decay of three unknowns is fitted to 40 points from random starts, in float64 on one thread, each to convergence with
all that is checked of it. The loops are over `gradopt.least_squares` and over `scipy.optimize.least_squares`, this with
residuals and Jacobians of torch, and with those of NumPy, written by hand, as its best case; they are timed at the
first starts, as the others take as long. Each run has a process of its own, and the median of three is shown.

    python -m benchmarks.fits [--number 1000] [--write]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SAMPLE = {"loop": 50, "scipy": 100, "numpy": 200}
BOX = ((0.5, 0.3, -0.5), (4.0, 2.0, 1.5))
"""Of the starts, and in the bounded fits of the unknowns."""

SOLVED = 1e-6
"""A fit is solved if its loss is, to this part, the lowest that any has found."""


def data():
    """Times and values."""
    import torch

    torch.set_num_threads(1)
    t = torch.linspace(0.0, 4.0, 40, dtype=torch.float64)
    return t, 2.5 * torch.exp(-0.7 * t) + 0.5 + 0.05 * torch.cos(9 * t)


def drawn(number):
    """Starts in the box."""
    import torch

    lower, upper = torch.tensor(BOX, dtype=torch.float64)
    parts = torch.rand(number, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return lower + parts * (upper - lower)


def in_torch():
    """The residuals."""
    import torch

    t, y = data()
    return lambda x: x[0] * torch.exp(-x[1] * t) + x[2] - y


def ours(optimiser, number, bounds):
    """CPU seconds, losses and evaluations of the fits, all at once."""
    import gradopt

    starts, residuals = drawn(number), in_torch()
    gradopt.least_squares(residuals, starts=starts[:2], optimiser=optimiser, bounds=bounds)  # what is imported late
    began = time.process_time()
    found = gradopt.least_squares(residuals, starts=starts, optimiser=optimiser, bounds=bounds)
    return time.process_time() - began, found.fun.tolist(), found.nfev.tolist()


def loop(optimiser, number, bounds):
    """Likewise, one after another."""
    import gradopt

    starts, residuals = drawn(number)[: SAMPLE["loop"]], in_torch()
    gradopt.least_squares(residuals, starts[0], optimiser=optimiser, bounds=bounds)
    began = time.process_time()
    found = [gradopt.least_squares(residuals, start, optimiser=optimiser, bounds=bounds) for start in starts]
    return time.process_time() - began, [one.fun for one in found], [one.nfev for one in found]


def scipy_torch(number, bounds):
    """SciPy's trf, with torch's derivatives."""
    import torch

    residuals = in_torch()
    jacobian = torch.func.jacfwd(residuals)  # three unknowns: cheaper than by rows
    return scipy_loop(
        lambda x: residuals(torch.from_numpy(x)).numpy(),
        lambda x: jacobian(torch.from_numpy(x)).numpy(),
        drawn(number)[: SAMPLE["scipy"]],
        bounds,
    )


def scipy_numpy(number, bounds):
    """SciPy's trf, with derivatives by hand."""
    import numpy as np

    t, y = (part.numpy() for part in data())

    def jacobian(x):
        decay = np.exp(-x[1] * t)
        return np.stack([decay, -x[0] * t * decay, np.ones_like(t)], axis=1)

    return scipy_loop(lambda x: x[0] * np.exp(-x[1] * t) + x[2] - y, jacobian, drawn(number)[: SAMPLE["numpy"]], bounds)


def scipy_loop(residuals, jacobian, starts, bounds):
    """A loop of fits."""
    import numpy as np
    import scipy.optimize

    limits = (-np.inf, np.inf) if bounds is None else bounds
    points = starts.numpy()
    scipy.optimize.least_squares(residuals, points[0], jac=jacobian, bounds=limits)
    began = time.process_time()
    found = [scipy.optimize.least_squares(residuals, start, jac=jacobian, bounds=limits) for start in points]
    return time.process_time() - began, [one.cost for one in found], [one.nfev for one in found]


VARIANTS = {
    "levenberg_marquardt, all at once": lambda *given: ours("levenberg_marquardt", *given),
    "trust_region, all at once": lambda *given: ours("trust_region", *given),
    "levenberg_marquardt, a loop": lambda *given: loop("levenberg_marquardt", *given),
    "trust_region, a loop": lambda *given: loop("trust_region", *given),
    "SciPy trf, a loop, torch": scipy_torch,
    "SciPy trf, a loop, NumPy by hand": scipy_numpy,
}


def child(variant, number, *, bounded):
    """Print what a fit takes, as JSON."""
    seconds, losses, evaluations = VARIANTS[variant](number, BOX if bounded else None)
    count = len(losses)
    print(json.dumps({"ms": 1e3 * seconds / count, "losses": losses, "evaluations": sum(evaluations) / count}))


def measure(variant, number, *, bounded):
    """The median run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    runs = []
    for _ in range(3):
        command = [sys.executable, "-m", "benchmarks.fits", "--child", variant, str(number), str(int(bounded))]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return sorted(runs, key=lambda run: run["ms"])[1]


def table(number):
    """Markdown: a row for each way to fit, without bounds and with them."""
    lines = ["| fits | by | ms a fit | / first row | evaluations | solved |", "|---" * 6 + "|"]
    for bounded in (False, True):
        runs = {variant: measure(variant, number, bounded=bounded) for variant in VARIANTS}
        first = next(iter(runs.values()))["ms"]
        lowest = min(min(run["losses"]) for run in runs.values())
        for variant, run in runs.items():
            solved = sum(loss <= lowest * (1 + SOLVED) for loss in run["losses"]) / len(run["losses"])
            cells = [
                f"{number}{' in a box' if bounded else ''}",
                variant,
                f"{run['ms']:.3g}",
                f"{run['ms'] / first:.3g}",
            ]
            lines.append(f"| {' | '.join(cells)} | {run['evaluations']:.1f} | {100 * solved:.0f} % |")
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]), bounded=arguments.child[2] == "1")
        return
    text = table(arguments.number)
    print(text)
    if arguments.write:
        import scipy
        import torch

        day = time.strftime("%Y-%m-%d")
        place = Path(__file__).parent / "results" / f"fits-{day}.md"
        note = (
            f"Median CPU time of three runs each, one thread, torch {torch.__version__}, SciPy {scipy.__version__}, "
            f"load {os.getloadavg()[0]:.1f} at the end. Loops are timed at the first starts. Solved: the lowest loss "
            f"that any fit has found, to {SOLVED:g} of it.\n"
        )
        place.write_text(f"# Many fits, {day}\n\n{note}\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
