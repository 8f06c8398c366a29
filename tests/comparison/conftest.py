"""One real sweep for all tests of comparisons, and runs written by hand."""

import json

import numpy
import pytest
import yaml

from tests.installed import gradopt

NOISY = """
import torch


def valley(x):
    return 10 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 0.1 * (torch.randn_like(x) * x).sum()
"""


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """A directory with the runs of sgd and adam from three seeds; the loss is noisy, so each seed is another run."""
    place = tmp_path_factory.mktemp("sweep")
    (place / "noisy.py").write_text(NOISY, encoding="utf-8")
    done = gradopt(
        *("-m", "objective=function", "objective.target=noisy.py:valley", "objective.x0=[-1.2,1]", "threads=1"),
        *("optimiser=sgd,adam", "optimiser.lr=0.01", "seed=0,1,2", "stop.max_steps=40", "engine=eager"),
        "observers=[tensorboard,history]",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    (place / "output.txt").write_text(done.stdout, encoding="utf-8")
    return place


@pytest.fixture
def write(tmp_path):
    """Writes a run by hand: its config, its losses one an evaluation, and its result."""

    def written(
        name,
        *,
        objective="bowl",
        optimiser="sgd",
        losses=None,
        violation=None,
        result=None,
        status="max_steps",
        **config,
    ):
        directory = tmp_path / "runs" / name
        (directory / ".hydra").mkdir(parents=True)
        said = {
            "objective": {"name": objective, **config.pop("objective_options", {})},
            "optimiser": {"name": optimiser, **config.pop("options", {})},
            "dtype": "float64",
            "engine": "auto",
            "on_saddle": "stop",
            "seed": 0,
            **config,
        }
        (directory / ".hydra" / "config.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
        if losses is not None:
            rows = numpy.arange(len(losses), dtype=float)
            columns = {"step": rows, "loss": losses, "evaluations": rows + 1, "seconds": rows / 10}
            columns |= {} if violation is None else {"violation": violation}
            table = numpy.zeros(len(losses), dtype=[(column, "<f8") for column in columns])
            for column, values in columns.items():
                table[column] = values
            numpy.save(directory / "history.npy", table)
        if status is not None:
            count = len(losses or [0.0])
            end = {"fun": min(losses or [0.0]), "nit": count - 1, "nfev": count, "seconds": (count - 1) / 10}
            content = {"gradopt": "0.1.0", "status": status, **({} if status == "error" else end), **(result or {})}
            (directory / "result.json").write_text(json.dumps(content), encoding="utf-8")
        return directory

    return written
