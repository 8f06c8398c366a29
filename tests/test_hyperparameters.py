"""What tells a run from others."""

import pytest
import torch

import gradopt
from gradopt.hyperparameters import chosen

CONFIG = {
    "objective": {"name": "function", "target": "mine.py:f", "x0": [1.0]},
    "optimiser": {"name": "adam", "lr": 0.1, "betas": [0.9, 0.99], "clip_norm": None},
    "schedule": {"name": None},
    "stop": {"max_steps": 10, "target": None},
    "observers": ["console"],
    "seed": 3,
}


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        ([], {}),
        (["optimiser"], {}),
        (["optimiser.lr", "seed"], {"optimiser.lr": 0.1, "seed": 3}),
        (["stop"], {"stop.max_steps": 10}),
        (["optimiser.clip_norm", "schedule", "observers", "no.such"], {}),
    ],
)
def test_of_a_config_what_was_said_is_chosen_beside_objective_and_optimiser(keys, more):
    assert chosen(CONFIG, keys) == {"objective": "function", "optimiser": "adam", **more}


class Listener:
    def open(self, run):
        self.run = run

    def record(self, block, metrics):
        pass

    def close(self, result, error):
        pass


@pytest.mark.parametrize(
    ("optimiser", "options", "more", "expected"),
    [
        (None, None, {}, {"optimiser": "lbfgs"}),
        (torch.optim.SGD, {"lr": 0.1}, {}, {"optimiser": "SGD", "optimiser.lr": 0.1}),
        (
            "adam",
            {"lr": 0.1},
            {"schedule": "constant"},
            {"optimiser": "adam", "optimiser.lr": 0.1, "schedule": "constant"},
        ),
        ("lbfgs", {}, {"starts": [[1.0], [2.0]]}, {"optimiser": "lbfgs"}),
    ],
)
def test_from_python_what_was_given_is_chosen(optimiser, options, more, expected):
    def bowl(x):
        return x.square().sum()

    listener, start = Listener(), {} if "starts" in more else {"x0": [1.0]}
    gradopt.minimise(
        bowl,
        optimiser=optimiser,
        optimiser_options=options,
        stop=gradopt.Stop(max_steps=2),
        observers=[listener],
        **start,
        **more,
    )

    assert listener.run.chosen == {"objective": "bowl", **expected, "stop.max_steps": 2}
