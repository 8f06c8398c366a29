"""Directories like those that runs leave, by the hundred."""

from pathlib import Path

import numpy

from gradopt.result import write_json

COLUMNS = [(name, "<f8") for name in ("step", "loss", "gradient_norm", "evaluations", "seconds")]


def write_run(
    place: Path,
    *,
    objective="rosenbrock",
    optimiser="adam",
    lr=0.1,
    seed=0,
    losses=(10.0, 1.0, 0.1),
    each=1,
    **result,
):
    """A run whose step k has `losses[k]` after `each` * (k + 1) evaluations; an `unfinished` one leaves no result."""
    (place / ".hydra").mkdir(parents=True)
    (place / ".hydra" / "config.yaml").write_text(
        f"objective:\n  name: {objective}\n  'n': 2\noptimiser:\n  name: {optimiser}\n  lr: {lr}\nseed: {seed}\n"
        "starts:\n  number: null\nstop:\n  max_steps: 9\nobservers:\n- history\n"
    )
    table = numpy.zeros(len(losses), dtype=COLUMNS)
    table["step"] = numpy.arange(len(losses))
    table["loss"], table["evaluations"] = losses, each * (table["step"] + 1)
    numpy.save(place / "history.npy", table)
    content = {
        "gradopt": "0.1.0",
        "status": "converged",
        "message": "first-order optimal",
        "fun": min(losses, default=None),
        "nit": len(losses) - 1,
        "nfev": each * len(losses),
        "seconds": 0.5,
        "started": f"2026-01-01T00:00:{seed:02}+0000",
        "minima": [],
        **result,
    }
    if content["status"] != "unfinished":
        write_json(place / "result.json", content)
    return place
