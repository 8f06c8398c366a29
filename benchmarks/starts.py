"""Many starts at once: CPU time for a step and start, and peak memory, against a bare torch loop and a scan of JAX.

Adam on Rosenbrock's valley in two unknowns, float64, one thread, all checks and the history on. The bare loop checks
and keeps nothing: vmap, backward, step. Each run has a process of its own, so that its memory is its own; the time of
a run of half the steps is taken off, so that what is done once does not count. JAX is measured if `--peers` names the
directory of an environment; where there is none it is made there.

    python -m benchmarks.starts [--sizes 1,100,10000,1000000] [--peers DIR] [--write]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SIZES = (1, 100, 10_000, 1_000_000)
STEPS = {
    "eager": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 80},
    "native": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 400},
    "peers": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 80},
}
"""Of the longer run: up to 400 steps no start of many has come to an end yet. The slow have the shorter runs."""

RATE = 0.01


def valley(x):
    """Of one start, shape (2,)."""
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def eager(starts, steps, engine="eager"):
    """`gradopt.minimise`, with everything it checks."""
    import gradopt

    options = {"optimiser": "adam", "optimiser_options": {"lr": RATE}, "stop": gradopt.Stop(max_steps=steps)}
    gradopt.minimise(valley, starts=starts, engine=engine, **options)


def native(starts, steps):
    """The same by a program."""
    eager(starts, steps, "native")


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


VARIANTS = {"eager": eager, "native": native, "bare": bare}


def torch_run(run, number, steps):
    """CPU seconds of a run."""
    import torch

    torch.set_num_threads(1)
    starts = torch.rand(number, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    run(starts[:2].clone(), 2)  # what is imported late
    began = time.process_time()
    run(starts, steps)
    return time.process_time() - began


def jax_run(number, steps):
    """CPU seconds of one scan over the steps of all starts, compiled before."""
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

    @jax.jit
    def run(x):
        zeros = jax.numpy.zeros_like(x)
        return jax.lax.scan(step, (x, zeros, zeros), jax.numpy.arange(steps, dtype=x.dtype))[0][0]

    starts = jax.random.uniform(jax.random.key(0), (number, 2), dtype="float64") * 4 - 2
    run(starts).block_until_ready()
    began = time.process_time()
    run(starts).block_until_ready()
    return time.process_time() - began


def child(variant, number, steps):
    """Print what a run took, as JSON."""
    seconds = jax_run(number, steps) if variant == "jax" else torch_run(VARIANTS[variant], number, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)
    print(json.dumps({"seconds": seconds, "gigabytes": peak}))


def measure(python, variant, number):
    """Microseconds for a step and start, and gigabytes at the peak."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
    runs = []
    most = STEPS[variant if variant in STEPS else "peers"].get(number, 100)
    for steps in (most // 2, most):
        command = [python, "-m", "benchmarks.starts", "--child", variant, str(number), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    half, whole = runs
    return (whole["seconds"] - half["seconds"]) / (most - most // 2) / number * 1e6, whole["gigabytes"]


def table(sizes, pythons):
    """Markdown: a row a size."""
    lines = ["| starts | " + " | ".join(f"{name}, us | GB" for name in pythons) + " |"]
    lines.append("|---" * (1 + 2 * len(pythons)) + "|")
    for number in sizes:
        cells = []
        for variant, python in pythons.items():
            microseconds, gigabytes = measure(python, variant, number)
            cells += [f"{microseconds:.4g}", f"{gigabytes:.2f}"]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]), int(arguments.child[2]))
        return
    pythons = dict.fromkeys(VARIANTS, sys.executable)
    if arguments.peers:
        from benchmarks.quality.environment import python_of

        pythons["jax"] = python_of(arguments.peers, ("jax",))
    text = table(map(int, arguments.sizes.split(",")), pythons)
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
