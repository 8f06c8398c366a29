"""Optimisers of a real package that knows nothing of gradopt."""

import inspect
import math
import warnings
from importlib.metadata import version

import pytest
import torch

import gradopt
from tests import functions as f
from tests.installed import gradopt as command

package = pytest.importorskip("pytorch_optimizer", reason="needs the extra `optimisers`")

FLOOR = 70
"""How many must run: what ran when this was written, less some room for the package to change."""


def classes():
    found = {name: getattr(package, name) for name in dir(package) if not name.startswith("_")}
    return {
        name: cls
        for name, cls in sorted(found.items())
        if inspect.isclass(cls)
        and issubclass(cls, torch.optim.Optimizer)
        and cls.__module__.startswith("pytorch_optimizer.optimizer")
        and not inspect.isabstract(cls)
    }


def outcome(cls):
    """The result on rosenbrock(2), or the reason why there is none."""
    x0 = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's own
            return gradopt.minimise(f.rosenbrock, x0, optimiser=cls, stop=gradopt.Stop(max_steps=200))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


@pytest.mark.slow
def test_the_package_runs_and_no_failure_is_called_a_success(capsys):
    outcomes = {name: outcome(cls) for name, cls in classes().items()}

    ran = {name: result for name, result in outcomes.items() if isinstance(result, gradopt.Result)}
    refused = {name: reason for name, reason in outcomes.items() if isinstance(reason, str)}
    with capsys.disabled():
        print(f"\n{len(ran)} of {len(outcomes)} optimisers of pytorch-optimizer {version('pytorch-optimizer')} ran")
        for name, reason in refused.items():
            print(f"  {name}: {reason}")
    assert len(ran) >= FLOOR
    start = f.rosenbrock(torch.tensor([-1.2, 1.0], dtype=torch.float64)).item()
    for name, result in ran.items():
        assert math.isfinite(result.fun), name
        assert result.fun <= start, name
        if result.success:
            assert result.x.tolist() == pytest.approx([1.0, 1.0], abs=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Lion", "AdaBelief", "RAdam"])
def test_any_class_is_reached_from_the_command_line(name, tmp_path):
    done = command(
        "objective=rosenbrock",
        "optimiser=custom",
        f"optimiser.target=pytorch_optimizer:{name}",
        "optimiser.options.lr=0.01",
        "stop.max_steps=300",
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert f"{name} (" in done.stdout or "custom (" in done.stdout
    assert "max_steps" in done.stdout or "converged" in done.stdout
