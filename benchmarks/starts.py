"""Many starts at once: CPU time for a step and start, and peak memory, against a bare torch loop and a scan of JAX.

Adam on Rosenbrock's valley in two unknowns, float64, one thread, all checks and the history on. The bare loop checks
and keeps nothing: vmap, backward, step. Each run has a process of its own, so that its memory is its own. The second
half of the steps counts, so that what is done once, such as compiling, does not: of gradopt it is what its blocks say,
of the others a run of half the steps is taken off. Variants take turns, and medians are told, with the least and the
most. JAX is measured if `--peers` names the directory of an environment; where there is none it is made there.

    python -m benchmarks.starts [--sizes 1,100,10000,1000000] [--variants eager,native,compiled,bare] [--repeats 3]
                                [--peers DIR] [--write]
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = (1, 100, 10_000, 1_000_000)
STEPS = {
    "eager": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 80},
    "native": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 400},
    "compiled": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 400},
    "peers": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 80},
}
"""Of the longer run: up to 400 steps no start of many has come to an end yet. The slow have the shorter runs."""

RATE = 0.01


def valley(x):
    """Of one start, shape (2,)."""
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


class Clock:
    """Notes at which CPU time each block was there."""

    def __init__(self):
        self.marks = []

    def open(self, run):
        pass

    def record(self, block, metrics):
        self.marks.append((block.last_step, time.process_time()))

    def close(self, result, error):
        pass

    def pace(self, steps):
        """Seconds of a step of the second half of so many."""
        late = [mark for mark in self.marks if mark[0] >= steps // 2]
        return (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0])


def ours(engine, starts, steps):
    """Seconds of a step of `gradopt.minimise`, with everything it checks."""
    import gradopt

    clock = Clock()
    options = {"optimiser": "adam", "optimiser_options": {"lr": RATE}, "stop": gradopt.Stop(max_steps=steps)}
    gradopt.minimise(valley, starts=starts, engine=engine, observers=[clock], **options)
    return clock.pace(steps)


def bare(starts, steps):
    """The hand-written loop."""
    import torch

    x = torch.nn.Parameter(starts)
    optimizer = torch.optim.Adam([x], lr=RATE, foreach=False)
    losses = torch.func.vmap(valley)
    for _ in range(steps):
        optimizer.zero_grad()
        losses(x).sum().backward()
        optimizer.step()


ENGINES = ("eager", "native", "compiled")
VARIANTS = (*ENGINES, "bare")


def torch_run(variant, number, steps):
    """CPU seconds of a step."""
    import torch

    torch.set_num_threads(1)
    starts = torch.rand(number, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    if variant in ENGINES:
        return ours(variant, starts, steps)
    bare(starts[:2].clone(), 2)  # what is imported late
    return by_difference(lambda most: bare(starts.clone(), most), steps)


def by_difference(run, steps):
    """CPU seconds of a step, of runs of so many and of half of them."""
    took = []
    for most in (steps // 2, steps):
        began = time.process_time()
        run(most)
        took.append(time.process_time() - began)
    return (took[1] - took[0]) / (steps - steps // 2)


def jax_run(number, steps):
    """CPU seconds of a step of a scan over those of all starts, compiled before."""
    import jax

    jax.config.update("jax_enable_x64", True)

    def loss(x):
        return (100 * (x[:, 1] - x[:, 0] ** 2) ** 2 + (1 - x[:, 0]) ** 2).sum()

    def step(state, count):
        x, m, v = state
        g = jax.grad(loss)(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        hat, scale = m / (1 - 0.9 ** (count + 1)), v / (1 - 0.999 ** (count + 1))
        return (x - RATE * hat / (scale**0.5 + 1e-8), m, v), None

    @functools.partial(jax.jit, static_argnums=1)
    def run(x, count):
        zeros = jax.numpy.zeros_like(x)
        return jax.lax.scan(step, (x, zeros, zeros), jax.numpy.arange(count, dtype=x.dtype))[0][0]

    starts = jax.random.uniform(jax.random.key(0), (number, 2), dtype="float64") * 4 - 2
    for count in (steps // 2, steps):
        run(starts, count).block_until_ready()
    return by_difference(lambda count: run(starts, count).block_until_ready(), steps)


def child(variant, number, steps):
    """Print what a run took, as JSON."""
    seconds = jax_run(number, steps) if variant == "jax" else torch_run(variant, number, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)
    print(json.dumps({"seconds": seconds, "gigabytes": peak}))


def measure(python, variant, number):
    """Microseconds for a step and start, and gigabytes at the peak."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
    most = STEPS[variant if variant in STEPS else "peers"].get(number, 100)
    command = [python, "-m", "benchmarks.starts", "--child", variant, str(number), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"] / number * 1e6, found["gigabytes"]


def table(sizes, pythons, repeats):
    """Markdown: a row a size."""
    lines = ["| starts | " + " | ".join(f"{name}, us | GB" for name in pythons) + " |"]
    lines.append("|---" * (1 + 2 * len(pythons)) + "|")
    for number in sizes:
        found = {variant: [] for variant in pythons}
        for _ in range(repeats):
            for variant, python in pythons.items():
                found[variant].append(measure(python, variant, number))
        cells = []
        for runs in found.values():
            paces, peaks = zip(*runs, strict=True)
            cells.append(f"{statistics.median(paces):.3g} ({min(paces):.3g} to {max(paces):.3g})")
            cells.append(f"{max(peaks):.2f}")
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]), int(arguments.child[2]))
        return
    pythons = dict.fromkeys(arguments.variants.split(","), sys.executable)
    if arguments.peers:
        from benchmarks.quality.environment import python_of

        pythons["jax"] = python_of(arguments.peers, ("jax",))
    text = table(map(int, arguments.sizes.split(",")), pythons, arguments.repeats)
    print(text)
    if arguments.write:
        import torch

        day = time.strftime("%Y-%m-%d")
        place = Path(__file__).parent / "results" / f"starts-{day}.md"
        load = os.getloadavg()[0]
        asked = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        note = (
            f"CPU time for a step and start, one thread, torch {torch.__version__}, commit {commit}, load "
            f"{load:.1f} at the end.\n"
        )
        place.write_text(f"# Many starts, {day}\n\n{note}\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
