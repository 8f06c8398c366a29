"""Runs of one problem by any engine, told by all that an observer could see."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import gradopt
from gradopt import devices
from gradopt.assemble import assemble
from gradopt.engines import choice
from gradopt.engines.compiled import StepProgram, chunk_of
from gradopt.engines.cuda_graph import MaskedProgram
from gradopt.loop import iterate
from gradopt.objectives.polynomial import Polynomial
from gradopt.objectives.rosenbrock import Rosenbrock

SEEN = ("loss", "gradient_norm", "step_norm", "learning_rate", "evaluations")


class Perceptron(gradopt.Objective):
    """A small network on seeded data, with a constant buffer and an unknown that the loss does not use."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("images", torch.rand(20, 6, generator=generator))
        self.register_buffer("labels", torch.eye(3)[torch.randint(3, (20,), generator=generator)])
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.unused = nn.Parameter(torch.ones(2))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)

    def forward(self, batch=None):
        scores = self.second(torch.tanh(self.first(self.images)))
        return -(self.labels * scores.log_softmax(dim=1)).sum(dim=1).mean()


PROBLEMS = {
    "polynomial": lambda: Polynomial(bounds=[-2.0, 2.0]),
    "rosenbrock2": lambda: Rosenbrock(2),
    "rosenbrock100": lambda: Rosenbrock(100),
    "perceptron": Perceptron,
}

PROGRAMS = {
    "traced": lambda graph: StepProgram(graph, graph.module),
    "chunked": lambda graph: StepProgram(graph, graph.module, chunk_of(graph)),
    "masked": MaskedProgram,
    "native": choice.KINDS["native"].build,
    "compiled": choice.KINDS["compiled"].build,
}
"""Every program there is, and what takes part in the compiled ones without a compiler's minutes."""


@dataclass
class Told:
    """What a run shows."""

    status: str
    step: int
    columns: dict[str, Tensor]
    point: Tensor
    best: tuple[float, Tensor]
    counts: tuple[int, int]
    engine: str


def use(monkeypatch, program, patience=math.inf):
    """Let `engine=compiled` and `auto` know this program alone."""
    monkeypatch.setattr(choice, "KINDS", {"compiled": choice.Kind(PROGRAMS.get(program, program), patience)})


def built(problem, optimiser="adam", options=None, *, engine="eager", dtype=torch.float64, **others):
    with devices.defaults(torch.device("cpu"), dtype):
        objective = PROBLEMS[problem]() if isinstance(problem, str) else problem()
    return assemble(objective, optimiser, {"lr": 1e-3} if options is None else options, engine=engine, **others)


def told(assembly, *, until=None):
    """Run to the end, or to before step `until`, where the state is complete."""
    blocks, status = [], "going on"
    blocks_of_run = iterate(assembly.engine, assembly.criteria)
    while True:
        try:
            blocks.append(next(blocks_of_run))
        except StopIteration as stopped:
            status = stopped.value.verdicts[0].status.value
            break
        if until is not None and blocks[-1].last_step + 1 >= until:
            assembly.engine.update()
            break
    oracle = assembly.oracle
    columns = {name: torch.cat([block[name][:, 0] for block in blocks]) for name in SEEN}
    best = (math.inf, torch.empty(0)) if oracle.best is None else (oracle.best.loss, oracle.best.point)
    counts = oracle.num_losses, oracle.num_gradients
    return Told(status, blocks[-1].last_step, columns, oracle.read(), best, counts, assembly.engine.name)


def agree(ours, eager, *, tolerance):
    """The law of engines: the status of eager, its steps within max(2, 1 %), and its records as far as both go."""
    assert ours.status == eager.status
    assert abs(ours.step - eager.step) <= max(2, 0.01 * eager.step)
    for name in SEEN:
        rows = min(len(ours.columns[name]), len(eager.columns[name]))
        theirs, mine = eager.columns[name][:rows], ours.columns[name][:rows]
        scale = theirs[theirs.isfinite()].abs().max()
        torch.testing.assert_close(mine, theirs, rtol=0.0, atol=tolerance * scale.item(), equal_nan=True, msg=name)
    assert ours.counts[0] - ours.step == eager.counts[0] - eager.step
