"""Many starts at once: time for a step and start, and peak memory, against a bare torch loop and a scan of JAX.

Adam on Rosenbrock's valley in two unknowns, float64, one thread, all checks and the history on. The bare loop checks
and keeps nothing: vmap, backward, step. Each run has a process of its own, so that its memory is its own. The second
half of the steps counts, so that what is done once, such as compiling, does not: of gradopt it is what its blocks say,
of the others a run of half the steps is taken off. Variants take turns, and medians are told, with the least and the
most. JAX is measured if `--peers` names the directory of an environment; where there is none it is made there.

On the CPU it is CPU time and the memory of the process; on a CUDA device it is the time on the clock and the memory
that torch has taken there, of eager, compiled, cuda_graph and the bare loop. No device has been measured yet.

    python -m benchmarks.starts [--sizes 1,100,10000,1000000] [--variants eager,native,compiled,bare] [--repeats 3]
                                [--device cuda] [--peers DIR] [--write]
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
    "cuda_graph": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 400},
    "peers": {1: 2000, 100: 2000, 10_000: 400, 1_000_000: 80},
}
"""Of the longer run: up to 400 steps no start of many has come to an end yet. The slow have the shorter runs."""

RATE = 0.01


def valley(x):
    """Of one start, shape (2,)."""
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


class Clock:
    """Notes at which time each block was there."""

    def __init__(self, now):
        self.now, self.marks = now, []

    def open(self, run):
        pass

    def record(self, block, metrics):
        self.marks.append((block.last_step, self.now()))

    def close(self, result, error):
        pass

    def pace(self, steps):
        """Seconds of a step of the second half of so many."""
        late = [mark for mark in self.marks if mark[0] >= steps // 2]
        return (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0])


def clock_of(device):
    """Seconds of the CPU; or those of the clock, once the device has done everything."""
    if device == "cpu":
        return time.process_time
    import torch

    def now():
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def ours(engine, starts, steps):
    """Seconds of a step of `gradopt.minimise`, with everything it checks."""
    import gradopt

    clock = Clock(clock_of(starts.device.type))
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


VARIANTS = {"cpu": ("eager", "native", "compiled", "bare"), "cuda": ("eager", "compiled", "cuda_graph", "bare")}
"""By device."""


def torch_run(variant, number, steps, device):
    """Seconds of a step."""
    import torch

    torch.set_num_threads(1)
    starts = torch.rand(number, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    starts = starts.to(device)
    if variant != "bare":
        return ours(variant, starts, steps)
    bare(starts[:2].clone(), 2)  # what is imported late
    return by_difference(lambda most: bare(starts.clone(), most), steps, clock_of(device))


def by_difference(run, steps, now=time.process_time):
    """Seconds of a step, of runs of so many and of half of them."""
    took = []
    for most in (steps // 2, steps):
        began = now()
        run(most)
        took.append(now() - began)
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


def child(variant, number, steps, device):
    """Print what a run took, as JSON."""
    seconds = jax_run(number, steps) if variant == "jax" else torch_run(variant, number, steps, device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform != "darwin" else 1e9)
    if device != "cpu":
        import torch

        peak = torch.cuda.max_memory_reserved() / 1e9
    print(json.dumps({"seconds": seconds, "gigabytes": peak}))


def measure(python, variant, number, device):
    """Microseconds for a step and start, and gigabytes at the peak."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
    most = STEPS[variant if variant in STEPS else "peers"].get(number, 100)
    command = [python, "-m", "benchmarks.starts", "--child", variant, str(number), str(most), device]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"] / number * 1e6, found["gigabytes"]


def table(sizes, pythons, repeats, device):
    """Markdown: a row a size."""
    lines = ["| starts | " + " | ".join(f"{name}, us | GB" for name in pythons) + " |"]
    lines.append("|---" * (1 + 2 * len(pythons)) + "|")
    for number in sizes:
        found = {variant: [] for variant in pythons}
        for _ in range(repeats):
            for variant, python in pythons.items():
                found[variant].append(measure(python, variant, number, device))
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
    parser.add_argument("--variants")
    parser.add_argument("--device", choices=VARIANTS, default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=4)
    arguments = parser.parse_args()
    if arguments.child:
        variant, number, steps, device = arguments.child
        child(variant, int(number), int(steps), device)
        return
    device = arguments.device
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            parser.error(f"--device {device}: there is none here")
    variants = VARIANTS[device] if arguments.variants is None else arguments.variants.split(",")
    pythons = dict.fromkeys(variants, sys.executable)
    if arguments.peers and device == "cpu":
        from benchmarks.quality.environment import python_of

        pythons["jax"] = python_of(arguments.peers, ("jax",))
    text = table(map(int, arguments.sizes.split(",")), pythons, arguments.repeats, device)
    print(text)
    if arguments.write:
        import torch

        day = time.strftime("%Y-%m-%d")
        name = "starts" if device == "cpu" else f"starts-{device}"
        place = Path(__file__).parent / "results" / f"{name}-{day}.md"
        load = os.getloadavg()[0]
        asked = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        what = "CPU time" if device == "cpu" else f"Time on a {torch.cuda.get_device_name()}"
        note = (
            f"{what} for a step and start, one thread, torch {torch.__version__}, commit {commit}, load "
            f"{load:.1f} at the end.\n"
        )
        place.write_text(f"# Many starts, {day}\n\n{note}\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
