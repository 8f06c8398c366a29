"""The documents name every tag that runs write, and no other."""

import os
import re

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import gradopt
from gradopt import Objective
from gradopt.objectives.rosenbrock import Rosenbrock
from gradopt.observers.curves import DESCRIPTIONS
from gradopt.observers.tensorboard import TensorBoard
from tests.installed import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "read-the-dashboards.md").read_text(encoding="utf-8")
NAMED = ("x", "metrics", "unknowns", "gradient")
HIDDEN = ("_hparams_/", "custom_scalars__config__")


class Line(Objective):
    """A slope, fitted in two batches."""

    class Halves:
        steps_per_epoch = 2

        def at(self, step):
            return [slice(step % 2, None, 2)]

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.x = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)
        self.batches = self.Halves()

    def forward(self, batch):
        return (self.slope * self.x - 2 * self.x)[batch].square().mean()

    def full_loss(self):
        return self(slice(None))

    def metrics(self):
        return {"slope": self.slope.item()}


def written(place):
    accumulator = EventAccumulator(os.fspath(place))
    accumulator.Reload()
    tags = accumulator.Tags()
    return {tag for tag in (*tags["scalars"], *tags["tensors"]) if not tag.startswith(HIDDEN)}


def test_the_documents_name_every_tag_and_no_other(tmp_path):
    tables = re.findall(r"<!-- tags -->\n((?:\|.*\n)+)", DOCUMENT)
    named = {tag for table in tables for row in table.splitlines() for tag in re.findall(r"`(\S+?/\S+?)`", row)}

    def run(name, *what, **how):
        gradopt.minimise(*what, directory=tmp_path / name, observers=[TensorBoard()], **how)

    adam = {"optimiser": "adam", "stop": gradopt.Stop(max_steps=20)}
    run("wide", Rosenbrock(20), **adam)
    run("batches", Line(), **adam)
    run("many", lambda x: x.square().sum(), starts=torch.ones(3, 2), **adam)
    limit = gradopt.Constraint(lambda x: x.sum(), lower=1.0)
    run("constrained", lambda x: x.square().sum(), [0.1, 0.2], constraints=limit)

    found = {tag for place in tmp_path.iterdir() for tag in written(place)}
    found = {f"{tag.partition('/')[0]}/NAME" if tag.partition("/")[0] in NAMED else tag for tag in found}
    # There is no config where a run is started from Python.
    assert found | {"run/config"} == named
    assert set(DESCRIPTIONS) == {tag for tag in named if not tag.endswith("/NAME") and not tag.startswith("run/")} - {
        "ms/log10_loss"
    }
