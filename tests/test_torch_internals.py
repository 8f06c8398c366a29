"""What reaches behind torch's public interface is there in this release, changes no bit, and can be done without."""

import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

import gradopt
from gradopt import torch_internals
from gradopt.torch_internals import FOUND, KernelStep, backward, flattened, lean_step, pulled_back
from tests import functions as f

STEPS = 12
FORMS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.01, "betas": (0.8, 0.95)}),
    "decoupled": (torch.optim.Adam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", torch_internals.NAMES)
def test_this_release_of_torch_has_the_name(name):
    assert FOUND[name] is not None, f"torch {torch.__version__} has no {name} any more: everything works, but slower"


def build(form, *, groups=1):
    cls, options = FORMS[form]
    torch.manual_seed(0)
    unknowns = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 5), (7,), ())]
    parts = [{"params": unknowns[:2]}, {"params": unknowns[2:], "lr": 0.03}] if groups == 2 else unknowns
    return unknowns, cls(parts, **{"lr": 0.01, **options}, fused=True)


def trajectory(unknowns, optimizer, step, steps=STEPS, *, skip=()):
    """The points after each step, with a learning rate that changes and unknowns that lack a gradient now and then."""
    points = []
    for index in range(steps):
        for number, unknown in enumerate(unknowns):
            unknown.grad = None if (index, number) in skip else torch.sin(unknown.detach() + index)
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        step()
        points.append(torch.cat([unknown.detach().reshape(-1).clone() for unknown in unknowns]))
    return torch.stack(points)


@pytest.mark.parametrize("name", [torch_internals.RUN_BACKWARD, None])
def test_vectors_are_pulled_back_as_by_autograd_and_twice(monkeypatch, name):
    if name is not None:
        monkeypatch.setitem(FOUND, name, None)
    x, y, unused = (torch.tensor([1.5, 2.0, 3.0], dtype=torch.float64, requires_grad=True) for _ in range(3))
    vector = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)

    first = pulled_back([(x * y).sin()], [x, y, unused], [vector], create_graph=True)
    second = pulled_back([first[0]], [x, vector], [torch.ones(3, dtype=torch.float64)], retain_graph=True)

    theirs = torch.autograd.grad((x * y).sin(), [x, y, unused], vector, create_graph=True, allow_unused=True)
    again = torch.autograd.grad(theirs[0].sum(), [x, vector])
    assert first[2] is None and theirs[2] is None
    assert all(torch.equal(one, other) for one, other in zip([*first[:2], *second], [*theirs[:2], *again], strict=True))


def test_a_run_does_without_what_autograd_imports_for_vectors():
    script = (
        "import sys, torch, gradopt\n"
        "result = gradopt.minimise(lambda x: (x**4).sum() + (x[0] - 1) ** 2, [3.0, 2.0], optimiser='trust_region')\n"
        "assert result.nhev > 0 and 'sympy' not in sys.modules, result"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_the_kernel_alone_is_the_step_of_the_fused_class(form, groups):
    unknowns, optimizer = build(form, groups=groups)
    theirs = trajectory(unknowns, optimizer, optimizer.step)

    mine, optimizer = build(form, groups=groups)
    assert KernelStep.fits(optimizer)

    assert torch.equal(trajectory(mine, optimizer, lean_step(optimizer)), theirs)


@pytest.mark.parametrize(
    ("form", "skip"),
    [(form, {(0, 1)}) for form in ("sgd", "adam", "adagrad")]  # torch's own fused SGD with momentum fails there
    + [(form, {(4, 0), (5, 2)}) for form in ("momentum", "adam", "adagrad")],
)
def test_an_unknown_without_a_gradient_is_left_to_the_class(form, skip):
    unknowns, optimizer = build(form)
    theirs = trajectory(unknowns, optimizer, optimizer.step, skip=skip)

    mine, optimizer = build(form)

    assert torch.equal(trajectory(mine, optimizer, lean_step(optimizer), skip=skip), theirs)


@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_state_is_the_one_that_is_moved(form):
    unknowns, optimizer = build(form)
    step = lean_step(optimizer)
    trajectory(unknowns, optimizer, step)
    state, points = copy.deepcopy(optimizer.state_dict()), [unknown.detach().clone() for unknown in unknowns]
    goes_on = trajectory(unknowns, optimizer, step)

    for unknown, point in zip(unknowns, points, strict=True):
        unknown.data.copy_(point)
    optimizer.load_state_dict(state)

    assert torch.equal(trajectory(unknowns, optimizer, step), goes_on)


def test_the_kernel_is_what_runs():
    unknowns, optimizer = build("adam")
    calls = []
    body = KernelStep(optimizer, lambda optimizer: calls.append(inspect.unwrap(type(optimizer).step)(optimizer)))

    with torch.no_grad():
        trajectory(unknowns, optimizer, body)

    assert len(calls) == 1, "the first step is the class's, which makes the state"


@pytest.mark.parametrize("hook", ["register_step_pre_hook", "register_step_post_hook"])
def test_a_step_with_hooks_is_left_alone(hook):
    unknowns, optimizer = build("adam")
    calls = []
    getattr(optimizer, hook)(lambda *arguments: calls.append(arguments))

    trajectory(unknowns, optimizer, lean_step(optimizer))

    assert len(calls) == STEPS


@pytest.mark.parametrize("absent", [*torch_internals.NAMES, "all"])
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_nothing_changes_where_a_release_lacks_it(engine, absent, monkeypatch):
    def points(name):
        return torch.stack(
            [
                torch.cat([part.reshape(-1) for part in progress.x.values()])
                for progress in gradopt.steps(
                    lambda x: f.rosenbrock(x["a"]) + x["b"].square().sum(),
                    {"a": torch.tensor([-1.2, 1.0, 0.7]), "b": torch.ones(2, 2)},
                    optimiser=name,
                    optimiser_options={"lr": 1e-3},
                    stop=gradopt.Stop(max_steps=5),
                    engine=engine,
                )
            ]
        )

    names = ("sgd", "adam", "adagrad", "rmsprop")
    with_all = [points(name) for name in names]
    for name in torch_internals.NAMES:
        if absent in (name, "all"):
            monkeypatch.setitem(FOUND, name, None)

    for name, expected in zip(names, with_all, strict=True):
        assert torch.equal(points(name), expected), name


def test_a_gradient_that_is_the_one_of_backward_may_be_changed_in_place():
    x = nn.Parameter(torch.tensor([3.0]))
    for _ in range(2):
        x.grad = None
        backward(x.squeeze())
        assert x.grad is not None
        assert x.grad.item() == 1.0
        x.grad.mul_(0.5)


@pytest.mark.parametrize("output", [torch.ones(2, requires_grad=True) * 2, torch.ones(())], ids=["vector", "constant"])
def test_what_backward_refuses_is_refused(output):
    with pytest.raises(RuntimeError, match="grad"):
        backward(output)


def test_flattened_tensors_are_a_copy_outside_any_graph():
    parts = [nn.Parameter(torch.arange(6.0).reshape(2, 3).T), nn.Parameter(torch.tensor(7.0))]

    vector = flattened(parts)

    assert not vector.requires_grad
    assert torch.is_grad_enabled()
    assert torch.equal(vector, torch.tensor([0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 7.0]))
    vector.zero_()
    assert parts[1].item() == 7.0
