"""How long a person waits: --help, a mistake and a whole one-step run, against importing what they stand on.

Fresh processes, turn by turn; CPU seconds (user and system) of each, medians and the median of the ratios.

    python benchmarks/startup.py [--rounds 7] [--write]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {
    "--help": (["-m", "gradopt", "--help"], ["-c", "import torch"], 0.5),
    "a misspelt name": (["-m", "gradopt", "objective=polynomal"], ["-c", "import torch"], 0.5),
    "a one-step run": (
        ["-m", "gradopt", "objective=polynomial", "stop.max_steps=1"],
        ["-c", "import torch, hydra"],
        2.3,
    ),
}


def cpu(arguments: list[str], place: str) -> float:
    """CPU seconds of one fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=place, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(case: str, rounds: int) -> tuple[float, float, float]:
    """(median ratio, median seconds of ours, of the imports)."""
    mine, theirs, _ = CASES[case]
    with tempfile.TemporaryDirectory() as place:
        cpu(mine, place), cpu(theirs, place)
        pairs = [(cpu(mine, place), cpu(theirs, place)) for _ in range(rounds)]
    return (
        statistics.median(a / b for a, b in pairs),
        *(statistics.median(side) for side in zip(*pairs, strict=True)),
    )


def main() -> int:
    """Print the table; exit 1 if a ratio is above its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results/")
    chosen = parser.parse_args()
    lines = [
        f"# Start-up, {time.strftime('%Y-%m-%d')}",
        "",
        f"CPU seconds of fresh processes, medians of {chosen.rounds} interleaved rounds.",
        "",
        "| what | against | ratio | target | gradopt, s | against, s |",
        "|---|---|---|---|---|---|",
    ]
    missed = False
    for case, (_, theirs, target) in CASES.items():
        ratio, mine, base = measure(case, chosen.rounds)
        missed |= ratio > target
        lines.append(f"| {case} | `python -c '{theirs[1]}'` | {ratio:.2f} | {target} | {mine:.2f} | {base:.2f} |")
    print("\n".join(lines))
    if chosen.write:
        path = Path(__file__).parent / "results" / f"startup-{time.strftime('%Y-%m-%d')}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
