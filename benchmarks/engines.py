"""Whole runs by each engine against a bare hand-written loop with torch's default Adam: CPU time a step, one thread.

The bare loop checks and logs nothing; ours have all default criteria and keep the history. They run turn by turn in one
process; the median of the ratios to the bare loop of the same round is printed, and beside it what building a program
took: cold, and in a second process, which finds the compiler's output on disk. JAX is compared in native_engine.py.

    python benchmarks/engines.py [--rounds 5] [--cases polynomial ...] [--write]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from overhead import CASES as LARGER
from overhead import bare

from gradopt.assemble import Assembly, assemble
from gradopt.conclusion import form_of
from gradopt.execution import execute
from gradopt.objectives.polynomial import Polynomial
from gradopt.settings import Stop

LR = 1e-5
ENGINES = ("eager", "auto", "compiled", "native")
TARGETS = {"polynomial": 0.03, "rosenbrock(2)": 0.03, "rosenbrock(100)": 0.03, "digits MLP": 0.2}
"""Of a program."""

CASES = {"polynomial": Polynomial, **LARGER}
DEFAULT_TARGET = 0.75
"""Of engine=auto."""

STEPS = {"bare": 2000, "eager": 2000, "auto": 2000, "compiled": 20_000, "native": 20_000}
FEWER = 2000
"""Of the digits. A run of 200 is a fifth longer a step: what is looked at as it begins and ends is shared by few."""


def built(case: str, engine: str, steps: int) -> Assembly:
    return assemble(CASES[case](), "adam", {"lr": LR}, engine=engine, stop=Stop(max_steps=steps))


def seconds_a_step(case: str, engine: str) -> float:
    steps = min(STEPS[engine], FEWER) if case == "digits MLP" else STEPS[engine]
    if engine == "bare":
        return bare(CASES[case])(steps) / steps
    assembly = built(case, engine, steps)
    began = time.process_time()
    result = execute(assembly, [], form_of(assembly.oracle.objective))
    elapsed = time.process_time() - began
    assert result.nit == steps, f"the run ended early: {result.message}"
    return elapsed / steps


def build_seconds(case: str, engine: str) -> tuple[float, float]:
    """Wall seconds from a new process's first trace to a program, cold and with what the first one left on disk."""
    with tempfile.TemporaryDirectory() as place:
        times = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, __file__, "--build", case, engine],
                env={"PATH": "/usr/bin:/bin", "TORCHINDUCTOR_CACHE_DIR": place, "XDG_CACHE_HOME": place},
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(float(done.stdout))
    return times[0], times[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--steps-only", action="store_true", help="leave out how long programs take to build")
    parser.add_argument("--write", action="store_true", help="write a dated result beside the others")
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.build:
        began = time.perf_counter()
        built(*asked.build, 10)
        print(time.perf_counter() - began)
        return
    lines = ["| case | bare, us | engine | us a step | ratio | target | build cold, s | second process, s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for case in asked.cases:
        engines = []
        for engine in ENGINES:
            try:
                built(case, engine, 10)
                engines.append(engine)
            except ValueError as refusal:
                lines.append(f"| {case} | | {engine} | refused: {refusal} | | | | |")
        rounds = [{name: seconds_a_step(case, name) for name in ("bare", *engines)} for _ in range(asked.rounds)]
        usual = statistics.median(one["bare"] for one in rounds)
        for engine in engines:
            pace = statistics.median(one[engine] for one in rounds)
            ratio = statistics.median(one[engine] / one["bare"] for one in rounds)
            targets = {"eager": "", "auto": f"{DEFAULT_TARGET}"}
            target = targets.get(engine, f"{TARGETS.get(case, '')}")
            measured = engine not in targets and not asked.steps_only
            cold, warm = (f"{s:.1f}" for s in build_seconds(case, engine)) if measured else ("", "")
            times = f"{1e6 * usual:.0f} | {engine} | {1e6 * pace:.3g}"
            lines.append(f"| {case} | {times} | {ratio:.4f} | {target} | {cold} | {warm} |")
            print(lines[-1], flush=True)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    report = (
        f"torch {torch.__version__}, one thread, {asked.rounds} rounds, CPU time; builds in wall time. Load average at "
        f"the end: {load}, on {os.cpu_count()} cores.\n\n" + "\n".join(lines) + "\n"
    )
    print(report)
    if asked.write:
        place = Path(__file__).parent / "results" / f"engines-{time.strftime('%Y-%m-%d')}.md"
        place.write_text("# Engines against a bare loop with torch's default Adam\n\n" + report)


if __name__ == "__main__":
    main()
