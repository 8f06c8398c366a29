"""Our `lbfgs` on a program of loss and gradient, against SciPy's L-BFGS-B and torch.optim.LBFGS on torch's gradients.

CPU time of a run to a largest gradient entry of 1e-6, in float64 on one thread. The runs take turns in one process; the
median of the ratios to SciPy's run of the same round is printed. What a program takes to be built (from the compiler's
cache) is told apart. "With a verdict" is a run as users make it, to gradopt's own ending: it goes on to where the loss
has converged, and looks at the curvature there.

    python benchmarks/solver_engines.py [--rounds 9] [--cases rosenbrock(100) ...] [--write]
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import scipy.optimize
import torch
from torch import Tensor, nn

from gradopt.assemble import assemble
from gradopt.conclusion import form_of
from gradopt.contracts import Band, Block, Judgement, Objective, Oracle, State
from gradopt.execution import execute
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.settings import Stop
from gradopt.verdict import Status

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""NumPy and torch read these when they are imported."""

TARGET = 0.4
"""Time of ours on a program / SciPy's, on rosenbrock(100)."""

SMALL_GRADIENT = 1e-6


class Logistic(Objective):
    """Logistic regression, 2000 samples of 50 features, with a small ridge."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("features", torch.randn(2000, 50, generator=generator))
        truth = torch.randn(50, generator=generator)
        self.register_buffer(
            "labels", (torch.rand(2000, generator=generator) < (self.features @ truth).sigmoid()) * 1.0
        )
        self.x = nn.Parameter(torch.zeros(50))

    def forward(self, batch: None = None) -> Tensor:
        scores = self.features @ self.x
        return (nn.functional.softplus(scores) - self.labels * scores).mean() + 1e-4 * (self.x**2).sum()


CASES: Mapping[str, Callable[[], Objective]] = {
    "rosenbrock(100)": lambda: Rosenbrock(100),
    "rosenbrock(10)": lambda: Rosenbrock(10),
    "logistic(50)": Logistic,
}


class Below:
    """A criterion: the gradient is as small as all are asked for."""

    def bands(self) -> Mapping[str, Band]:
        return {"gradient_norm": Band(low=SMALL_GRADIENT)}

    def due(self, step: int) -> float:
        return math.inf

    def judge(self, block: Block, oracle: Oracle) -> Judgement | None:
        small = block["gradient_norm"][-1, 0].item() <= SMALL_GRADIENT
        return Judgement.one(Status.STOPPED, len(block) - 1) if small else None

    def sentence(self, status: Status, evidence: Mapping[str, object]) -> str:
        return "the gradient is small"

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass


def scipys(case: str) -> tuple[float, int, float]:
    """(CPU seconds, evaluations, largest entry of the last gradient)."""
    objective = CASES[case]()

    def evaluate(point):
        with torch.no_grad():
            objective.x.copy_(torch.from_numpy(point))
        objective.x.grad = None
        loss = objective()
        loss.backward()
        return loss.item(), objective.x.grad.numpy()

    start = objective.x.detach().numpy().copy()
    options = {"gtol": SMALL_GRADIENT, "ftol": 0.0, "maxiter": 10**6, "maxfun": 10**6}
    began = time.process_time()
    found = scipy.optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    return time.process_time() - began, found.nfev, abs(found.jac).max()


def torchs(case: str) -> tuple[float, int, float]:
    """The same of torch.optim.LBFGS, with the memory of ours."""
    objective, count = CASES[case](), 0
    optimizer = torch.optim.LBFGS(
        objective.parameters(),
        history_size=20,
        max_iter=10**6,
        max_eval=10**6,
        tolerance_grad=SMALL_GRADIENT,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    began = time.process_time()
    optimizer.step(closure)
    return time.process_time() - began, count, objective.x.grad.abs().max().item()


def ours(case: str, engine: str, *, verdict: bool = False) -> tuple[float, int, float, float]:
    """The same of gradopt, and the seconds of wall time its parts took to be put together."""
    objective, began = CASES[case](), time.perf_counter()
    if verdict:
        assembly = assemble(objective, "lbfgs", engine=engine)
    else:
        stop, below = Stop(gradient_tolerance=0.0), Below()
        assembly = assemble(objective, "lbfgs", engine=engine, stop=stop, extra_criteria=[below])
    ready, began = time.perf_counter() - began, time.process_time()
    result = execute(assembly, [], form_of(objective))
    seconds = time.process_time() - began
    assert result.status is (Status.CONVERGED if verdict else Status.STOPPED), result.message
    return seconds, result.nfev, result.jac.abs().max().item(), ready


VARIANTS: Mapping[str, Callable[[str], tuple[float, ...]]] = {
    "SciPy L-BFGS-B": scipys,
    "torch.optim.LBFGS": torchs,
    **{
        f"gradopt, {engine}": lambda case, engine=engine: ours(case, engine)
        for engine in ("eager", "native", "compiled")
    },
    **{
        f"gradopt, {engine}, with a verdict": lambda case, engine=engine: ours(case, engine, verdict=True)
        for engine in ("eager", "native")
    },
}


def table(case: str, rounds: int) -> tuple[list[str], dict[str, float]]:
    """Lines of the report, and the ratio to SciPy by variant."""
    lines, ratios = [], {}
    found = [{name: run(case) for name, run in VARIANTS.items()} for _ in range(rounds + 1)]
    prepared = {name: one[3] for name, one in found[-1].items() if len(one) > 3}
    found = found[1:]  # what is imported and compiled late
    for name in VARIANTS:
        seconds = statistics.median(one[name][0] for one in found)
        ratios[name] = statistics.median(one[name][0] / one["SciPy L-BFGS-B"][0] for one in found)
        evaluations, norm = found[-1][name][1:3]
        built = f"{prepared[name]:.2f}" if name in prepared else ""
        pace = 1e6 * seconds / evaluations
        lines.append(
            f"| {case} | {name} | {evaluations} | {norm:.1e} | {1e3 * seconds:.3g} | {pace:.0f} | {ratios[name]:.2f} "
            f"| {built} |"
        )
    return lines, ratios


def main() -> int:
    """Print the table; exit 1 if ours on the better program is above the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results/")
    asked = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    lines = [
        "| case | solver | evaluations | gradient | ms | us an evaluation | of SciPy's time | ready in, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best = 0.0
    for case in asked.cases:
        rows, ratios = table(case, asked.rounds)
        lines += rows
        print("\n".join(rows), flush=True)
        if case == "rosenbrock(100)":
            best = min(ratios["gradopt, native"], ratios["gradopt, compiled"])
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    report = (
        f"# L-BFGS by each engine, {time.strftime('%Y-%m-%d')}\n\ntorch {torch.__version__}, float64, CPU time on one "
        f"thread, to a gradient of {SMALL_GRADIENT:g}, median of {asked.rounds} rounds in turn. Target: at most "
        f"{TARGET} of SciPy's time on rosenbrock(100). Load average at the end: {load}, on {os.cpu_count()} cores.\n\n"
    )
    report += "\n".join(lines) + "\n"
    print(report)
    if asked.write:
        path = Path(__file__).parent / "results" / f"solver_engines-{time.strftime('%Y-%m-%d')}.md"
        path.write_text(report, encoding="utf-8")
    return int(best > TARGET)


if __name__ == "__main__":
    sys.exit(main())
