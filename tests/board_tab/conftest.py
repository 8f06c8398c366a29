"""Real runs to look at."""

import shutil

import pytest

from tests.installed import gradopt

CAMEL = """
def camel(x):
    a, b = x[0], x[1]
    return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (-4 + 4 * b**2) * b**2
"""


@pytest.fixture(scope="package")
def sweep(tmp_path_factory):
    """Real runs: two optimisers with three seeds, one that fails, many starts; and beside them broken ones."""
    place = tmp_path_factory.mktemp("sweep")
    (place / "camel.py").write_text(CAMEL)
    jobs = (
        ("-m", "objective=rosenbrock", "optimiser=adam,lbfgs", "seed=0,1,2", "stop.max_steps=200"),
        ("objective=polynomial", "objective.bounds=null", "hydra.run.dir=runs/failing"),
        (
            *("objective=function", "objective.target=camel.py:camel", "objective.x0=[0.5,0.5]"),
            *("objective.bounds=[[-3,-2],[3,2]]", "optimiser=lbfgs", "starts=400", "hydra.run.dir=runs/many"),
        ),
        (
            *("objective=rosenbrock", "optimiser=sgd", "optimiser.lr=1e-3", "stop.max_steps=100"),
            "hydra.run.dir='runs/<img src=x onerror=window.hacked=1>'",
        ),
    )
    for arguments in jobs:
        done = gradopt(*arguments, "engine=eager", "observers=[tensorboard,history]", cwd=place)
        assert done.returncode in (0, 3), done.stderr
    shutil.copytree(place / "runs" / "failing", place / "runs" / "torn")
    (place / "runs" / "torn" / "result.json").write_text('{"gradopt": ')
    return place / "runs"
