"""Steps of programs against torch's eager loop and JAX's `lax.scan` with optax: CPU time a step, one thread.

The three run turn by turn, JAX in an environment of its own that is made here. What is timed is steps alone: eager is a
bare loop that checks and logs nothing, JAX keeps the losses, the program keeps its records, tests each row against
bands on all columns and keeps the best point. It is the native one, and the compiled one for the network on all of
scikit-learn's digits in one batch, whose matrix products the native one refuses; JAX has noise of their shape there.

    python benchmarks/native_engine.py [--rounds 7] [--peers ~/.cache/gradopt-jax] [--write]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import time
import venv
from collections.abc import Callable
from pathlib import Path

import torch
from overhead import Digits
from torch import Tensor, nn

from gradopt.contracts import Objective
from gradopt.engines.compiled import compiled
from gradopt.engines.eager import EagerEngine
from gradopt.engines.graph import Program
from gradopt.engines.native.program import NativeProgram
from gradopt.engines.tracing import trace
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle

PACKAGES = ("jax", "optax")
SECONDS = 0.2
"""A round of a variant lasts about this long."""

BLOCK = 10_000
"""Steps of a block: calling a program costs some 15 us, judging what it returns some 100."""

WORKER = """
import os, sys, json, time
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
import jax, jax.numpy as jnp, numpy, optax

def polynomial(x):
    return ((5 * x[0] + 2) * x[0] + 4) * x[0] + 8

def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

images = jnp.array(numpy.random.default_rng(0).random((1797, 64)), dtype=jnp.float32)
labels = jnp.arange(1797) % 10

def network(x):
    first, second = x[:4096].reshape(64, 64), x[4160:4800].reshape(10, 64)
    hidden = jax.nn.relu(images @ first.T + x[4096:4160])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ second.T + x[4800:], labels).mean()

runs = {}

def run(case, name, rate, steps, start):
    loss = {"polynomial": polynomial, "digits MLP": network}.get(case, rosenbrock)
    optimiser = getattr(optax, name)(rate)
    def step(carry, _):
        x, state = carry
        value, gradient = jax.value_and_grad(loss)(x)
        update, state = optimiser.update(gradient, state, x)
        return (optax.apply_updates(x, update), state), value
    key = case, name, steps
    if key not in runs:
        runs[key] = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps))
        x = jnp.array(start, dtype=jnp.float32)
        jax.block_until_ready(runs[key]((x, optimiser.init(x))))
    x = jnp.array(start, dtype=jnp.float32)
    carry = x, optimiser.init(x)
    began = time.process_time()
    jax.block_until_ready(runs[key](carry))
    return time.process_time() - began

print(jax.__version__, optax.__version__, flush=True)
for line in sys.stdin:
    print(run(*json.loads(line)), flush=True)
"""

RATES = {"adam": 1e-3, "sgd": 1e-9}
NETWORK = "digits MLP"
STARTS = {
    "polynomial": [2.0],
    "rosenbrock(2)": [-1.2, 1.0],
    "rosenbrock(100)": [-1.2, 1.0] * 50,
    NETWORK: [0.01 * (i % 17 - 8) for i in range(4810)],
}


class Case(Objective):
    """Written for torch as for JAX above; the polynomial falls for ever, so no step of it is a step at rest."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(STARTS[name]))
        self.polynomial = name == "polynomial"

    def forward(self, batch=None) -> Tensor:
        x = self.x
        if self.polynomial:
            return ((5 * x[0] + 2) * x[0] + 4) * x[0] + 8
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def objective_of(case: str) -> Objective:
    return Digits() if case == NETWORK else Case(case)


def block_of(case: str) -> int:
    return BLOCK // 50 if case == NETWORK else BLOCK


def optimizer_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name]


class Ours:
    """The program of a case, started anew for each round."""

    def __init__(self, case: str, name: str) -> None:
        self.oracle = AutogradOracle(objective_of(case))
        adapter = TorchOptimiser(optimizer_of(name)(self.oracle.parameters, lr=RATES[name]))
        engine = EagerEngine(self.oracle, adapter)
        engine.advance(1, {}, math.inf)
        engine.update()
        graph = trace(self.oracle, adapter)
        began = time.perf_counter()
        self.program: Program = compiled(graph) if case == NETWORK else NativeProgram(graph)
        self.block = block_of(case)
        self.build = time.perf_counter() - began
        self._live = [*graph.parameters, *graph.state()]
        self._start = [tensor.detach().clone() for tensor in self._live]
        self._rate = torch.full((1, 1), RATES[name], dtype=torch.float64)

    def seconds(self, steps: int) -> float:
        """In blocks."""
        with torch.no_grad():
            for tensor, value in zip(self._live, self._start, strict=True):
                tensor.copy_(value)
        bands = [(column, -math.inf, math.inf) for column in range(3)]
        self.program.step_norm, self.program.best = 0.0, None
        rows = 0
        began = time.process_time()
        while rows < steps:
            rows += len(self.program.run(self._rate.expand(self.block, 1), bands, math.inf))
            self.program.update(self._rate[0])
        seconds = time.process_time() - began
        if rows != steps:
            raise RuntimeError(f"a block ended early, at step {rows}")
        return seconds


def eager(case: str, name: str, steps: int) -> float:
    objective = objective_of(case)
    optimizer = optimizer_of(name)(objective.parameters(), lr=RATES[name])
    began = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()
    return time.process_time() - began


class Jax:
    """A process of the peers' environment that runs what it is told."""

    def __init__(self, directory: Path) -> None:
        python = directory / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not python.exists():
            venv.create(directory, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        self._process = subprocess.Popen(
            [python, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.versions = self._line()

    def seconds(self, case: str, name: str, steps: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([case, name, RATES[name], steps, STARTS[case]]) + "\n")
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def measure(case: str, name: str, jax: Jax, rounds: int) -> str:
    """A row of the table."""
    ours = Ours(case, name)
    ours.seconds(ours.block)
    steps = ours.block * max(1, round(SECONDS / ours.seconds(10 * ours.block) * 10))
    few = max(200, steps // 10_000)
    jax.seconds(case, name, steps)
    eager(case, name, few)
    turns = [
        (ours.seconds(steps) / steps, jax.seconds(case, name, steps) / steps, eager(case, name, few) / few)
        for _ in range(rounds)
    ]
    mine, theirs, bare = (1e9 * statistics.median(side) for side in zip(*turns, strict=True))
    to_jax = statistics.median(one / other for one, other, _ in turns)
    to_eager = statistics.median(one / other for one, _, other in turns)
    return (
        f"| {case} | {name} | {mine:.1f} | {theirs:.1f} | {bare:,.0f} | **{to_jax:.2f}** | {to_eager:.5f} | "
        f"{ours.build:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "gradopt-jax")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    jax = Jax(chosen.peers)
    load = f", load of the machine {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"# Steps of programs, {time.strftime('%Y-%m-%d')}",
        "",
        f"torch {torch.__version__}, jax and optax {jax.versions}; float32, CPU nanoseconds a step on one thread, "
        f"median of {chosen.rounds} rounds in turn{load}. Native (compiled for the digits) tests every row against "
        f"bands on three columns, records it and keeps the best point, in blocks of {BLOCK} rows "
        f"({block_of(NETWORK)} of the digits); JAX keeps the losses; eager keeps nothing. "
        "Build is in seconds, from graph to object.",
        "",
        "| objective | optimiser | ours | JAX scan | eager | ours / JAX | ours / eager | build |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in RATES:
        for case in STARTS:
            lines.append(measure(case, name, jax, chosen.rounds))
            print(lines[-1], flush=True)
    print("\n".join(lines))
    if chosen.write:
        path = Path(__file__).parent / "results" / f"native-{time.strftime('%Y-%m-%d')}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
