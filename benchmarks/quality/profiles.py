"""Pictures of how many runs are solved at which cost."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.report import Rows, cost_of
from gradopt.comparison.profiles import picture

OWN = "gradopt"
COLOURS = ("#d1495b", "#00798c", "#edae49", "#30638e")
MUTED = ("#555555", "#b07d7d", "#6f9fb5", "#94a86f", "#a48bc0", "#c2a05f", "#9aa0a6")


def draw(path: Path, title: str, cases: list[str], rows: Rows) -> bool:
    """Write a performance profile and a data profile, side by side, of the solvers that have run on all cases.

    Returns whether there was anything to draw.
    """
    costs = {solver: _costs(cases, records) for solver, records in rows.items() if records.keys() >= set(cases)}
    costs = {solver: cost for solver, cost in costs.items() if np.isfinite(cost).any()}
    path.unlink(missing_ok=True)
    if not costs:
        return False
    figure = picture(costs, _looks(costs), title, "evaluations + Hessian products")
    figure.savefig(path, dpi=80)
    return True


def _costs(cases: list[str], records: Any) -> np.ndarray:
    costs = [cost_of(records[case]) for case in cases]
    return np.array([np.inf if cost is None else max(1, cost) for cost in costs], dtype=float)


def _looks(costs: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """What is drawn, and how: ours, then the peers that solve most."""
    own = [solver for solver in costs if solver.startswith(OWN)]
    others = [solver for solver in costs if not solver.startswith(OWN)]
    others = sorted(others, key=lambda solver: -int(np.isfinite(costs[solver]).sum()))[: len(MUTED)]
    strong = {
        solver: {"color": colour, "linewidth": 2.2, "zorder": 3} for solver, colour in zip(own, COLOURS, strict=False)
    }
    styles = itertools.cycle(("--", "-.", ":"))
    thin = {
        solver: {"color": colour, "linestyle": style, "linewidth": 1.3}
        for solver, colour, style in zip(others, MUTED, styles, strict=False)
    }
    return strong | thin
