"""gradopt's solvers as torch optimisers, in loops that know nothing else of gradopt."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import gradopt
from gradopt import Mistake, Status, Stop
from gradopt.objectives.function import FunctionObjective
from gradopt.objectives.least_squares import ResidualObjective
from gradopt.optim import LBFGS, LevenbergMarquardt, Solver, TrustRegion
from tests import functions as f

SOLVERS = {"lbfgs": LBFGS, "trust_region": TrustRegion, "levenberg_marquardt": LevenbergMarquardt}


def rosenbrock_residuals(x):
    return torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


def closure_of(optimizer, x, *, name="lbfgs", backward=True):
    """In torch's convention where the solver takes it."""

    def closure():
        if name == "levenberg_marquardt":
            return rosenbrock_residuals(x)
        optimizer.zero_grad()
        loss = f.rosenbrock(x)
        if backward and name == "lbfgs":
            loss.backward()
        return loss

    return closure


def start(dtype=torch.float64, n=4):
    return nn.Parameter(torch.tensor([-1.2, 1.0] * (n // 2), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", SOLVERS)
def test_its_trajectory_is_that_of_minimise_to_the_last_bit(name, dtype):
    points = []
    function = rosenbrock_residuals if name == "levenberg_marquardt" else f.rosenbrock
    make = ResidualObjective if name == "levenberg_marquardt" else FunctionObjective
    # In four unknowns it comes to a saddle point that float32 cannot leave.
    size = 2 if name == "levenberg_marquardt" else 4
    objective = make(function, start(dtype, size).detach())
    result = gradopt.minimise(
        objective,
        optimiser=name,
        engine="eager",
        callback=lambda block: points.append(objective.x.detach().clone()),
        stop=Stop(max_steps=8),
    )
    x = start(dtype, size)
    optimizer = SOLVERS[name]([x])
    closure = closure_of(optimizer, x, name=name)
    walk, losses = [x.detach().clone()], []
    for _ in range(result.nit):
        losses.append(optimizer.step(closure).item())
        walk.append(x.detach().clone())

    assert result.nit >= 5
    assert torch.equal(torch.stack(walk), torch.stack(points))
    assert losses == result.history["loss"].tolist()[1:]


@pytest.mark.parametrize("name", ["lbfgs", "trust_region"])
def test_so_it_is_with_parameters_of_several_shapes(name):
    def loss(matrix, shift):
        return (1 + (matrix @ shift - 1).square()).log().sum() + 0.1 * matrix.square().sum()

    torch.manual_seed(0)
    starts = (torch.rand(3, 2, dtype=torch.float64), torch.rand(2, dtype=torch.float64))
    result = gradopt.minimise(lambda x: loss(*x), starts, optimiser=name, stop=Stop(max_steps=6))
    parameters = [nn.Parameter(part.clone()) for part in starts]
    optimizer = SOLVERS[name](parameters)
    for _ in range(6):
        optimizer.step(lambda: loss(*parameters))

    assert result.nit == 6
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, result.x, strict=True))


@pytest.mark.parametrize("name", SOLVERS)
def test_it_comes_to_the_minimum_and_says_when_it_can_go_no_further(name):
    x = start(n=2)
    optimizer = SOLVERS[name]([x])
    closure = closure_of(optimizer, x, name=name)
    for _ in range(200):
        loss = optimizer.step(closure)
        if optimizer.stuck:
            break

    assert optimizer.stuck
    assert x.detach().tolist() == pytest.approx([1.0, 1.0], abs=1e-7)
    here = x.detach().clone()
    assert optimizer.step(closure) == loss
    assert torch.equal(x, here)


def test_both_conventions_of_closures_are_one():
    ends = []
    for backward in (True, False):
        x = start()
        optimizer = LBFGS([x])
        for _ in range(10):
            optimizer.step(closure_of(optimizer, x, backward=backward))
        ends.append(x.detach())

    assert torch.equal(*ends)


def test_a_step_leaves_the_gradient_of_where_it_ends_and_returns_that_loss():
    x = start()
    optimizer = LBFGS([x])
    loss = optimizer.step(closure_of(optimizer, x))
    expected = f.rosenbrock(x)
    (gradient,) = torch.autograd.grad(expected, x)

    assert loss.item() == expected.item()
    assert torch.equal(x.grad, gradient)


def test_no_evaluation_is_made_twice():
    calls = 0
    x = start()
    optimizer = LBFGS([x])
    inner = closure_of(optimizer, x)

    def closure():
        nonlocal calls
        calls += 1
        return inner()

    for _ in range(10):
        optimizer.step(closure)
    result = gradopt.minimise(f.rosenbrock, start().detach(), stop=Stop(max_steps=10))

    assert calls == result.nfev


@pytest.mark.parametrize("solver", [LBFGS, TrustRegion])
def test_a_network_of_many_shapes_is_fitted(solver):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    net[0].bias.requires_grad_(False)
    inputs = torch.rand(20, 2, dtype=torch.float64)
    targets = inputs.prod(1, keepdim=True)
    optimizer = solver(net.parameters())

    def closure():
        return nn.functional.mse_loss(net(inputs), targets)

    frozen, first = net[0].bias.clone(), closure().item()
    for _ in range(30):
        loss = optimizer.step(closure)

    assert loss.item() < 0.05 * first
    assert torch.equal(net[0].bias, frozen)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("cut", [0, 1, 6])
def test_a_saved_state_goes_on_to_the_last_bit_on_other_parameters(name, cut, tmp_path):
    x = start()
    optimizer = SOLVERS[name]([x])
    for _ in range(cut):
        optimizer.step(closure_of(optimizer, x, name=name))
    torch.save({"x": x.detach(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    y = nn.Parameter(saved["x"].clone())
    other = SOLVERS[name]([y])
    other.load_state_dict(saved["optimizer"])
    for _ in range(8):
        loss = optimizer.step(closure_of(optimizer, x, name=name))
        again = other.step(closure_of(other, y, name=name))

        assert torch.equal(x, y)
        assert loss == again


def test_loading_takes_over_the_options_and_nothing_that_lives_on():
    x, y = start(), start()
    optimizer, other = LBFGS([x], history_size=2), LBFGS([y])
    for _ in range(4):
        optimizer.step(closure_of(optimizer, x))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    for _ in range(4):
        optimizer.step(closure_of(optimizer, x))
    other.load_state_dict(state)

    assert other.param_groups[0]["history_size"] == 2
    assert str(state) == str(before)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_their_own_way(name, duplicate):
    x = start()
    optimizer = SOLVERS[name]([x])
    for _ in range(3):
        optimizer.step(closure_of(optimizer, x, name=name))
    y, other = duplicate((x, optimizer))
    before = x.detach().clone()
    for _ in range(3):
        other.step(closure_of(other, y, name=name))

    assert torch.equal(x, before)
    for _ in range(3):
        optimizer.step(closure_of(optimizer, x, name=name))
    assert torch.equal(x, y)


def test_the_memory_of_another_class_is_refused():
    x = start()
    optimizer = TrustRegion([x])
    optimizer.step(closure_of(optimizer, x, name="trust_region"))
    state = optimizer.state_dict()
    state["param_groups"] = LBFGS([x]).state_dict()["param_groups"]

    with pytest.raises(Mistake, match="not the state of a LBFGS: it is of trust_region"):
        LBFGS([x]).load_state_dict(state)


def test_parameters_that_others_moved_are_a_new_start():
    x = start()
    optimizer = LBFGS([x])
    for _ in range(5):
        optimizer.step(closure_of(optimizer, x))
    with torch.no_grad():
        x.copy_(start())
    optimizer.step(closure_of(optimizer, x))
    y = start()
    fresh = LBFGS([y])
    fresh.step(closure_of(fresh, y))

    assert torch.equal(x, y)


@pytest.mark.parametrize("to_none", [True, False])
def test_zeroed_gradients_between_steps_change_nothing(to_none):
    walks = []
    for meddle in (False, True):
        x = start()
        optimizer = LBFGS([x])
        for _ in range(6):
            optimizer.step(closure_of(optimizer, x))
            if meddle:
                optimizer.zero_grad(set_to_none=to_none)
        walks.append(x.detach())

    assert torch.equal(*walks)


@pytest.mark.parametrize("solver", [LBFGS, TrustRegion])
def test_beyond_the_domain_it_turns_back(solver):
    x = nn.Parameter(torch.tensor([0.01], dtype=torch.float64))
    optimizer = solver([x])
    for _ in range(30):
        loss = optimizer.step(lambda: (x - torch.log(x)).sum())

    assert x.item() == pytest.approx(1.0)
    assert loss.item() == pytest.approx(1.0)


@pytest.mark.parametrize("solver", [LBFGS, TrustRegion])
def test_where_the_loss_is_not_finite_nothing_is_moved(solver):
    x = nn.Parameter(torch.tensor([-1.0], dtype=torch.float64))
    optimizer = solver([x])
    loss = optimizer.step(lambda: torch.log(x).sum())

    assert math.isnan(loss.item())
    assert x.item() == -1.0
    assert "not finite" in optimizer.stuck


def test_an_error_in_the_closure_leaves_the_last_accepted_point():
    x = start()
    optimizer = LBFGS([x])
    optimizer.step(closure_of(optimizer, x))
    here = x.detach().clone()

    def broken():
        raise RuntimeError("out of data")

    with pytest.raises(RuntimeError, match="out of data"):
        optimizer.step(broken)
    assert torch.equal(x, here)
    assert optimizer.step(closure_of(optimizer, x)).item() < f.rosenbrock(here).item()


def test_plain_tensors_and_floats_serve_as_with_torch():
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = LBFGS([x])

    def closure():
        optimizer.zero_grad()
        loss = f.rosenbrock(x)
        loss.backward()
        return loss.item()

    for _ in range(60):
        with torch.no_grad():
            loss = optimizer.step(closure)

    assert loss.item() < 1e-20
    assert not loss.requires_grad


def mistakes():
    x = start()
    two = [{"params": [x]}, {"params": [start()]}]
    return {
        "groups": (lambda: LBFGS(two), "LBFGS takes one group of parameters"),
        "option": (lambda: LBFGS([{"params": [x], "lr": 0.1}]), "LBFGS has no option 'lr'.*Available: history_size"),
        "range": (lambda: LBFGS([x], history_size=0), r"history_size must be >= 1, got 0"),
        "choice": (lambda: TrustRegion([x], hessian="matrx"), "Did you mean 'matrix'"),
        "torch": (lambda: Solver([x], "adam"), "adam is a torch.optim.Optimizer already"),
        "wrapper": (lambda: Solver([x], "augmented_lagrangian"), "wraps another optimiser.*use gradopt.minimise"),
        "name": (lambda: Solver([x], "lbgfs"), "Did you mean"),
        "not finite": (lambda: LBFGS([nn.Parameter(torch.tensor(math.nan))]), "the start is not finite"),
        "complex": (
            lambda: LBFGS([nn.Parameter(torch.zeros(1, dtype=torch.complex64))]),
            "unknowns must be float32 or float64",
        ),
        "detached": (lambda: LBFGS([x]).step(lambda: f.rosenbrock(x).detach()), "does not depend on the unknowns"),
        "vector": (lambda: LBFGS([x]).step(lambda: x**2), "must be one number"),
        "nothing": (lambda: LBFGS([x]).step(lambda: None), "must be a tensor"),
        "forgotten": (lambda: LBFGS([x]).step(lambda: f.rosenbrock(x).backward()), "must be a tensor.*NoneType"),
        "loss": (lambda: LevenbergMarquardt([x]).step(lambda: f.rosenbrock(x)), "must return the residuals"),
    }


@pytest.mark.parametrize("case", mistakes())
def test_mistakes_are_told_in_a_line(case):
    act, message = mistakes()[case]
    with pytest.raises(Mistake, match=message):
        act()


def test_a_closure_that_frees_the_graph_is_told_what_second_derivatives_need():
    x = start()
    optimizer = TrustRegion([x])
    here = x.detach().clone()
    with pytest.raises(Mistake, match=r"return the loss without backward\(\)"):
        optimizer.step(closure_of(optimizer, x))
    assert torch.equal(x, here)


def test_schedulers_are_refused():
    optimizer = LBFGS([start()])
    for refused in (optimizer, copy.deepcopy(optimizer)):
        refused.load_state_dict(optimizer.state_dict())
        with pytest.raises(Mistake, match="no learning rate for a scheduler to change"):
            torch.optim.lr_scheduler.StepLR(refused, 10)
        with pytest.raises(KeyError, match="momentum"):
            refused.param_groups[0]["momentum"]


def test_any_solver_by_its_name():
    x = start()
    optimizer = Solver([x], "auto")
    for _ in range(60):
        optimizer.step(lambda: f.rosenbrock(x))

    assert x.detach().tolist() == pytest.approx([1.0] * 4)


def test_hooks_of_torch_are_called():
    x, calls = start(), []
    optimizer = LBFGS([x])
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    optimizer.step(closure_of(optimizer, x))

    assert calls == [1]


def test_it_runs_inside_gradopt_as_any_class_does():
    options = {"target": "gradopt.optim:LBFGS", "options": {"history_size": 5}}
    result = gradopt.minimise(f.rosenbrock, [-1.2, 1.0], optimiser="custom", optimiser_options=options)

    assert result.status is Status.CONVERGED
    assert result.x.tolist() == pytest.approx([1.0, 1.0])


def test_gradopt_offers_it_without_importing_torch():
    import subprocess
    import sys

    code = "import gradopt, sys; assert 'torch' not in sys.modules; print(gradopt.optim.LBFGS.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "LBFGS"
