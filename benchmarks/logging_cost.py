"""What logging costs a run, and what it costs TensorBoard to show a long one.

The first table: an eager run of Adam on Rosenbrock's function of 100 unknowns with the observers of the default config
that log steps, over the same run with none; pairs in turn, CPU time on one thread, the median of the ratios. Beside it
the share of the run's CPU time that is spent inside them, which the neighbours disturb less. Pictures are drawn once,
when a run has ended: what they take does not grow with its steps, and stands in a column of its own.

The second: the events of a run of a million steps by the native engine: their size, and the seconds from the start of
TensorBoard, by either of its loaders, until the last step is shown.

    python -m benchmarks.logging_cost [--steps 20000] [--rounds 7] [--write]
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.overhead import RATE, Valley
from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.execution import execute
from gradopt.observers.console import Console
from gradopt.observers.history import HistoryFile
from gradopt.observers.pictures import Pictures
from gradopt.observers.tensorboard import TensorBoard
from gradopt.settings import Stop

TARGET = 0.05
"""Of a run's time, for all logging."""

MOST_BYTES, MOST_SECONDS = 1_000_000, 10.0
"""Of the events of a million steps, and until they are shown."""

SHOW = 1_000_000


class Timed:
    """An observer, and the CPU seconds it takes."""

    def __init__(self, observer) -> None:
        self._observer, self.seconds = observer, 0.0

    def open(self, run) -> None:
        self._take(self._observer.open, run)

    def record(self, block, metrics) -> None:
        self._take(self._observer.record, block, metrics)

    def close(self, result, error) -> None:
        self._take(self._observer.close, result, error)

    def _take(self, call, *arguments) -> None:
        began = time.process_time()
        call(*arguments)
        self.seconds += time.process_time() - began


def run(steps: int, observers: Sequence, *, engine: str = "eager", place: str | None = None) -> float:
    """CPU seconds of a run of some steps."""
    objective = Valley(100)
    stop = Stop(max_steps=steps, gradient_tolerance=0.0)
    assembly = assemble(objective, "adam", {"lr": RATE}, stop=stop, engine=engine)
    with tempfile.TemporaryDirectory() as own:
        began = time.process_time()
        result = execute(assembly, observers, form_of(objective), directory=place or own)
        seconds = time.process_time() - began
    if result.nit != steps:
        raise RuntimeError(f"the run ended early: {result}")
    return seconds


def shares(steps: int, rounds: int) -> tuple[float, float, float]:
    """Medians: the surplus of a run with all observers over one with none, the share spent in them, and microseconds a
    step without them.
    """
    surplus, inside, bare = [], [], []
    for _ in range(rounds + 1):
        without = run(steps, [])
        observers = [Timed(Console(io.StringIO())), Timed(TensorBoard()), Timed(HistoryFile())]
        everything = run(steps, observers)
        surplus.append(everything / without - 1)
        inside.append(sum(one.seconds for one in observers) / everything)
        bare.append(1e6 * without / steps)
    return tuple(statistics.median(numbers[1:]) for numbers in (surplus, inside, bare))  # the first warms up


def pictures(steps: int, rounds: int) -> float:
    """CPU seconds that the pictures of a run take, the median of those behind the first, which imports matplotlib."""
    taken: list[float] = []
    for _ in range(rounds + 1):
        observer = Timed(Pictures())
        run(steps, [observer])
        taken.append(observer.seconds)
    return statistics.median(taken[1:])


def shown_after(place: str, loader: str, last: int) -> float:
    """Seconds from the start of TensorBoard until it shows the last step."""
    began = time.perf_counter()
    words = ("--logdir", place, "--port", "0", "--host", "127.0.0.1", f"--load_fast={loader}")
    command = [sys.executable, "-m", "tensorboard.main", *words]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        lines = (word for line in server.stderr or () for word in line.split())
        address = next(word for word in lines if word.startswith("http://")).rstrip("/")
        while True:
            try:
                query = f"{address}/data/plugin/scalars/scalars?run=.&tag=opt%2Floss"
                with urllib.request.urlopen(query, timeout=30) as answer:
                    if json.load(answer)[-1][1] == last:
                        return time.perf_counter() - began
            except urllib.error.HTTPError:  # it has not read the run yet
                pass
            if time.perf_counter() - began > 300:
                raise RuntimeError("TensorBoard does not show the run")
            time.sleep(0.1)
    finally:
        server.terminate()
        server.communicate()


def long_run() -> tuple[int, float, float]:
    """Bytes of events of a million steps, and seconds until the fast and the slow loader show the last one."""
    with tempfile.TemporaryDirectory() as place:
        run(SHOW, [TensorBoard()], engine="native", place=place)
        size = sum(file.stat().st_size for file in Path(place).glob("events.*"))
        return size, shown_after(place, "true", SHOW), shown_after(place, "false", SHOW)


def main() -> int:
    """Print the tables; exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="keep the tables under benchmarks/results/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    surplus, inside, bare = shares(chosen.steps, chosen.rounds)
    drawn = pictures(chosen.steps // 10, chosen.rounds)
    size, fast, slow = long_run()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines = [
        f"# Cost of logging, {time.strftime('%Y-%m-%d')}",
        "",
        f"torch {torch.__version__}, Adam on rosenbrock(100), eager, {chosen.steps} steps, CPU time on one thread, "
        f"medians of {chosen.rounds} pairs in turn. Target: at most {TARGET:.0%}.",
        "",
        "| console, TensorBoard, history over none | share of the run in them | us a step with none | pictures, s |",
        "|---|---|---|---|",
        f"| {surplus:+.1%} | {inside:.1%} | {bare:.0f} | {drawn:.2f} |",
        "",
        f"Events of a million steps by the native engine. Target: at most {MOST_BYTES / 1e6:.0f} MB, shown within "
        f"{MOST_SECONDS:.0f} s of the start of TensorBoard.",
        "",
        "| size, kB | fast loader, s | slow loader, s |",
        "|---|---|---|",
        f"| {size / 1e3:.0f} | {fast:.1f} | {slow:.1f} |",
        "",
        f"Load average at the end: {load}, on {os.cpu_count()} cores.",
    ]
    print("\n".join(lines))
    if chosen.write:
        path = Path(__file__).parent / "results" / f"logging_cost-{time.strftime('%Y-%m-%d')}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(max(surplus, inside) > TARGET or size > MOST_BYTES or max(fast, slow) > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
