"""Global searches: CPU time of 10 000 evaluations by `tiktak`, whose local searches are one program, and by
`multi_start`, which makes one evaluation after another.

Rastrigin's function in a box, float64, one thread, with everything a run checks, its end and its verdict. The searches
do not end before their evaluations are used up, as tiktak is given twice the searches they suffice for and no
rediscovery ends it. Variants take turns, and the median of three is shown.

    python -m benchmarks.searches [--sizes 2,10,50] [--write]
"""

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

import torch

import gradopt

SIZES = (2, 10, 50)
EVALUATIONS = 10_000
BOUNDS = (-5.12, 5.0)
ENDLESS = {"samples": 2000, "searches": 2000, "discoveries": 10**6}
VARIANTS = {
    "multi_start": ("multi_start", {"unseen": 0.0}),
    "tiktak, 40 at once": ("tiktak", {**ENDLESS, "batch": 40}),
    "tiktak, 400 at once": ("tiktak", {**ENDLESS, "batch": 400}),
}


def rastrigin(x):
    """Of one point, shape (n,)."""
    return 10 * len(x) + (x**2 - 10 * torch.cos(2 * math.pi * x)).sum()


def run(name, n):
    """CPU seconds and evaluations of a search."""
    optimiser, options = VARIANTS[name]
    x0 = torch.full((n,), 3.3, dtype=torch.float64)
    began = time.process_time()
    result = gradopt.minimise(
        rastrigin,
        x0,
        bounds=BOUNDS,
        optimiser=optimiser,
        optimiser_options={**options, "max_evaluations": EVALUATIONS},
    )
    return time.process_time() - began, result.nfev


def table(sizes):
    """Markdown: a row for so many unknowns."""
    names = list(VARIANTS)
    lines = [
        "| unknowns | " + " | ".join(f"{name}: s | evaluations | us each" for name in names) + " | best ratio |",
        "|---" * (2 + 3 * len(names)) + "|",
    ]
    for n in sizes:
        runs = {name: [] for name in names}
        for _ in range(3):
            for name in names:
                runs[name].append(run(name, n))
        cells, each = [str(n)], []
        for name in names:
            seconds, evaluations = statistics.median(pair[0] for pair in runs[name]), runs[name][0][1]
            each.append(seconds / evaluations)
            cells += [f"{seconds:.2f}", str(evaluations), f"{1e6 * each[-1]:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {min(each[1:]) / each[0]:.3f} |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gradopt.minimise(rastrigin, [1.0], bounds=BOUNDS, optimiser="tiktak")  # what is imported late
    text = table(list(map(int, arguments.sizes.split(","))))
    print(text)
    if arguments.write:
        day = time.strftime("%Y-%m-%d")
        note = (
            f"Median CPU time of three searches each, one thread, torch {torch.__version__}, load "
            f"{os.getloadavg()[0]:.1f} at the end. Ratio: of the time of an evaluation by the fastest tiktak to that "
            "by multi_start.\n"
        )
        place = Path(__file__).parent / "results" / f"searches-{day}.md"
        place.write_text(f"# Global searches, {day}\n\n{note}\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
