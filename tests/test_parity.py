"""The parity law: the trajectory equals ten lines of plain torch, bit for bit."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import gradopt
from gradopt.plugins import torch_optimisers
from tests import functions as f

STEPS = 25
NAMES = {name: target.rpartition(":")[2] for name, target in torch_optimisers().items()}
ELEMENTWISE = sorted(set(NAMES) - {"torch_lbfgs", "muon", "sparseadam"})


def plain(function, x0, cls, steps, options, *, clip=None, scheduler=None):
    """Ten lines of plain torch."""
    x = nn.Parameter(x0.clone())
    optimizer = cls([x], **options)
    schedule = scheduler(optimizer) if scheduler else None
    points = []
    for _ in range(steps):
        points.append(x.detach().clone())
        optimizer.zero_grad()
        function(x).backward()
        if clip:
            nn.utils.clip_grad_norm_([x], clip)
        optimizer.step()
        if schedule:
            schedule.step()
    return torch.stack([*points, x.detach().clone()])


def ours(function, x0, optimiser, steps, options, **others):
    return torch.stack(
        [
            progress.x
            for progress in gradopt.steps(
                function,
                x0,
                optimiser=optimiser,
                optimiser_options=options,
                stop=gradopt.Stop(max_steps=steps, gradient_tolerance=0.0),
                engine="eager",
                **others,
            )
        ]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_class_of_torch_optim_moves_as_in_plain_torch(name, dtype):
    x0 = torch.tensor([-1.2, 1.0, 0.7], dtype=dtype)
    options = {"lr": 1e-4} if name in ("sgd", "asgd") else {}

    theirs = plain(f.rosenbrock, x0, getattr(torch.optim, NAMES[name]), STEPS, options)

    assert torch.equal(ours(f.rosenbrock, x0, name, STEPS, options), theirs)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_moves_as_in_plain_torch(search):
    x0 = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    options = {"line_search_fn": search, "lr": 1.0 if search else 1e-3, "max_iter": 4}
    x = nn.Parameter(x0.clone())
    optimizer = torch.optim.LBFGS([x], **options)
    points = [x.detach().clone()]

    def closure():
        optimizer.zero_grad()
        loss = f.rosenbrock(x)
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
        points.append(x.detach().clone())

    assert torch.equal(ours(f.rosenbrock, x0, "torch_lbfgs", 5, options), torch.stack(points))


def test_muon_moves_matrices_as_in_plain_torch():
    x0 = torch.arange(6, dtype=torch.float32).reshape(2, 3)

    theirs = plain(f.parabola, x0, torch.optim.Muon, STEPS, {"lr": 0.01})

    assert torch.equal(ours(f.parabola, x0, "muon", STEPS, {"lr": 0.01}), theirs)


class Lookup(gradopt.Objective):
    """Rows of a table picked by index: its gradients are sparse."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 2, sparse=True)
        with torch.no_grad():
            self.table.weight.copy_(torch.arange(8.0).reshape(4, 2))

    def forward(self, batch=None):
        return (self.table(torch.tensor([0, 2])) ** 2).sum()


def test_sparse_adam_moves_as_in_plain_torch():
    mine, theirs = Lookup(), Lookup()
    optimizer = torch.optim.SparseAdam(list(theirs.parameters()), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        theirs().backward()
        optimizer.step()

    for progress in gradopt.steps(
        mine, optimiser="sparseadam", optimiser_options={"lr": 0.1}, stop=gradopt.Stop(max_steps=STEPS), engine="eager"
    ):
        last = progress

    assert torch.equal(last.x, theirs.table.weight.detach())


def test_schedules_and_clipping_move_as_in_plain_torch():
    x0 = torch.tensor([-1.2, 1.0], dtype=torch.float64)

    theirs = plain(
        f.rosenbrock,
        x0,
        torch.optim.SGD,
        STEPS,
        {"lr": 0.01},
        clip=1.0,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS),
    )

    mine = ours(
        f.rosenbrock,
        x0,
        "sgd",
        STEPS,
        {"lr": 0.01, "clip_norm": 1.0},
        schedule={"name": "cosine", "T_max": STEPS},
    )
    assert torch.equal(mine, theirs)


def test_no_evaluation_is_wasted_by_a_closure():
    count = 0

    def counted(x):
        nonlocal count
        count += 1
        return f.rosenbrock(x)

    x = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = torch.optim.LBFGS([x], line_search_fn="strong_wolfe", max_iter=5)

    def closure():
        optimizer.zero_grad()
        loss = counted(x)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    theirs = count

    result = gradopt.minimise(
        f.rosenbrock,
        [-1.2, 1.0],
        optimiser="torch_lbfgs",
        optimiser_options={"line_search_fn": "strong_wolfe", "max_iter": 5},
        stop=gradopt.Stop(max_steps=3),
    )

    assert result.nfev == theirs + 1  # the last point is judged, too


def test_building_an_optimiser_imports_no_compiler():
    program = (
        "import sys, torch, gradopt\n"
        "from gradopt.assemble import assemble\n"
        "from gradopt.objectives.rosenbrock import Rosenbrock\n"
        "before = torch.optim.Optimizer.add_param_group\n"
        "assemble(Rosenbrock(), 'adam')\n"
        "assert torch.optim.Optimizer.add_param_group is before\n"
        "print('torch._dynamo' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
