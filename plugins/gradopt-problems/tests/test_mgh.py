"""The problems of More, Garbow and Hillstrom are those of the paper, and their minima are found by another solver."""

import pytest
import scipy.optimize
import torch
from gradopt_problems import mgh

# f of the paper at its start, which is twice the loss.
STARTS = {
    mgh.Rosenbrock: 24.2,
    mgh.FreudensteinRoth: 400.5,
    mgh.PowellBadlyScaled: 1.135261720,
    mgh.BrownBadlyScaled: 999998000003.0,
    mgh.Beale: 14.203125,
    mgh.JennrichSampson: 4171.306162,
    mgh.HelicalValley: 2500.0,
    mgh.Bard: 41.68169643,
    mgh.Gaussian: 3.888106991e-6,
    mgh.Meyer: 1693607808.0,
    mgh.Box3D: 1031.153811,
    mgh.PowellSingular: 215.0,
    mgh.Wood: 19192.0,
    mgh.KowalikOsborne: 5.313172272e-3,
    mgh.BrownDennis: 7926693.336997,
    mgh.Osborne1: 0.8790258,
    mgh.BiggsExp6: 0.7790700757,
    mgh.Osborne2: 2.093419514,
    mgh.Watson: 30.0,
    mgh.ExtendedRosenbrock: 121.0,
    mgh.ExtendedPowellSingular: 645.0,
    mgh.LinearFullRank: 10 * 4.0 + 10.0,
}
ALL = sorted(
    (cls for cls in vars(mgh).values() if isinstance(cls, type) and issubclass(cls, mgh.MGH) and cls is not mgh.MGH),
    key=lambda cls: cls.__name__,
)
# Starts from which the lowest of several minima is found; the standard start leads to another.
NEAR = {
    mgh.FreudensteinRoth: [6.0, 3.5],
    mgh.Trigonometric: [0.01] * 10,
}
problems = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def residuals(problem, x):
    with torch.no_grad():
        problem.x.copy_(torch.as_tensor(x))
        return problem.residuals().numpy().copy()


def jacobian(problem, x):
    with torch.no_grad():
        problem.x.copy_(torch.as_tensor(x))
    rows = [torch.autograd.grad(entry, problem.x, retain_graph=True)[0] for entry in problem.residuals()]
    return torch.stack(rows).numpy()


def test_there_are_all_35():
    assert len(ALL) == 35


@pytest.mark.parametrize("cls", STARTS, ids=lambda cls: cls.__name__)
def test_the_start_has_the_value_of_the_paper(cls):
    assert 2 * cls()().item() == pytest.approx(STARTS[cls], rel=1e-6)


@problems
@pytest.mark.parametrize("move", [0.0, 0.03])
def test_gradients_agree_with_central_differences(cls, move):
    problem = cls()
    x = problem.x.detach().clone() * (1 + move) + move
    with torch.no_grad():
        problem.x.copy_(x)
    gradient = torch.autograd.grad(problem(), problem.x)[0]

    differences = torch.zeros_like(x)
    for index in range(len(x)):
        step = 1e-6 * max(abs(x[index].item()), 1e-2)
        values = []
        for sign in (1, -1):
            moved = x.clone()
            moved[index] += sign * step
            values.append(residuals(problem, moved))
        here = residuals(problem, x)
        differences[index] = float(here @ (values[0] - values[1])) / (2 * step)

    torch.testing.assert_close(gradient, differences, rtol=1e-5, atol=1e-5 * gradient.abs().max().item() + 1e-12)


@problems
def test_the_minimum_is_found_by_an_independent_solver(cls):
    problem = cls()
    start = NEAR.get(cls, problem.x.detach().numpy().copy())

    found = scipy.optimize.least_squares(
        lambda x: residuals(problem, x), start, jac=lambda x: jacobian(problem, x),
        x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=5000,
    )  # fmt: skip

    assert found.cost == pytest.approx(problem.minimum(), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls().minimiser()], ids=lambda cls: cls.__name__)
def test_the_stated_minimiser_has_the_stated_minimum(cls):
    problem = cls()

    value = 0.5 * (residuals(problem, problem.minimiser()) ** 2).sum()

    assert value == pytest.approx(problem.minimum(), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_a_scale_multiplies_the_start(scale):
    for cls in ALL:
        if cls is not mgh.Watson:
            torch.testing.assert_close(cls(scale=scale).x, scale * cls().x)
