"""Every named model is fitted from the start it reads from the data, and agrees with scipy."""

import csv
import math

import pytest
import torch
from gradopt_datafit.objective import DataFit
from scipy.optimize import curve_fit

import gradopt

LBFGS = {"optimiser": "lbfgs"}
CASES = {
    # model: (true parameters, from x, to x)
    "line": ({"intercept": -2.0, "slope": 0.7}, -3.0, 9.0),
    "exponential": ({"amplitude": 5.0, "rate": 0.8, "offset": 1.0}, 0.0, 6.0),
    "saturation": ({"limit": 4.0, "rate": 0.5}, 0.0, 9.0),
    "gaussian": ({"amplitude": 3.0, "centre": 2.5, "width": 0.6, "offset": 0.5}, 0.0, 6.0),
    "logistic": ({"limit": 6.0, "rate": 1.5, "midpoint": 3.0}, 0.0, 7.0),
    "michaelis_menten": ({"vmax": 8.0, "km": 1.5}, 0.1, 10.0),
    "sine": ({"amplitude": 2.0, "frequency": 0.35, "phase": 0.6, "offset": -1.0}, 0.0, 12.0),
}
OTHERWISE = {
    # the same models otherwise: growth, a dip, a fall, a limit below 0, many periods
    "exponential": ({"amplitude": 0.5, "rate": -0.6, "offset": -1.0}, 0.0, 5.0),
    "gaussian": ({"amplitude": -3.0, "centre": 40.0, "width": 6.0, "offset": 10.0}, 0.0, 100.0),
    "logistic": ({"limit": 6.0, "rate": -1.5, "midpoint": 3.0}, 0.0, 7.0),
    "saturation": ({"limit": -4.0, "rate": 0.5}, 0.0, 9.0),
    "sine": ({"amplitude": 2.0, "frequency": 1.9, "phase": -0.6, "offset": 0.0}, 0.0, 12.0),
}
FORMULAS = {
    "line": lambda x, intercept, slope: intercept + slope * x,
    "exponential": lambda x, amplitude, rate, offset: amplitude * torch.exp(-rate * x) + offset,
    "saturation": lambda x, limit, rate: limit * (1 - torch.exp(-rate * x)),
    "gaussian": lambda x, amplitude, centre, width, offset: (
        amplitude * torch.exp(-((x - centre) ** 2) / (2 * width**2)) + offset
    ),
    "logistic": lambda x, limit, rate, midpoint: limit / (1 + torch.exp(-rate * (x - midpoint))),
    "michaelis_menten": lambda x, vmax, km: vmax * x / (km + x),
    "sine": lambda x, amplitude, frequency, phase, offset: (
        amplitude * torch.sin(2 * math.pi * frequency * x + phase) + offset
    ),
}


def save(path, **columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return path


def noisy(model, truth, low, high, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(low, high, 60)
    y = FORMULAS[model](x, *truth.values())
    return x, y + 0.02 * torch.randn(60, generator=generator)


@pytest.mark.parametrize(
    ("model", "case"),
    [*CASES.items(), *OTHERWISE.items()],
    ids=[*CASES, *(f"{name} otherwise" for name in OTHERWISE)],
)
def test_a_named_model_finds_the_least_squares_of_scipy_from_the_data_alone(model, case, tmp_path):
    truth, low, high = case
    x, y = noisy(model, truth, low, high)
    data = save(tmp_path / "data.csv", x=x, y=y)

    result = gradopt.minimise(DataFit(data, x="x", y="y", model=model), **LBFGS)

    def formula(points, *values):
        return FORMULAS[model](torch.as_tensor(points), *values).numpy()

    expected, _ = curve_fit(formula, x.numpy(), y.numpy(), p0=list(truth.values()), xtol=1e-12, ftol=1e-12)
    # Not the verdict: where rounding ends a line search early, the run is called stalled at the same point.
    assert list(result.x) == list(truth)
    assert [value.item() for value in result.x.values()] == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("degree", [None, 0, 1, 3])
def test_a_polynomial_is_the_least_squares_solution(degree, tmp_path):
    x = torch.linspace(-1.0, 2.0, 30)
    y = torch.cos(2 * x)
    data = save(tmp_path / "data.csv", x=x, y=y)

    objective = DataFit(data, x="x", y="y", model="polynomial", degree=degree)
    result = gradopt.minimise(objective, **LBFGS)

    powers = torch.stack([x**power for power in range((2 if degree is None else degree) + 1)], 1)
    expected = torch.linalg.lstsq(powers, y.unsqueeze(1)).solution.flatten()
    found = torch.stack(list(result.x.values())) if isinstance(result.x, dict) else result.x.reshape(1)
    assert result.success, result.message
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_plane_takes_several_columns(tmp_path):
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, 40, generator=generator)
    data = save(tmp_path / "data.csv", u=u, v=v, z=1.0 + 2.0 * u - 3.0 * v)

    result = gradopt.minimise(DataFit(data, x=["u", "v"], y="z", model="plane"), **LBFGS)

    assert {name: value.item() for name, value in result.x.items()} == pytest.approx({"c0": 1.0, "c1": 2.0, "c2": -3.0})


def test_a_function_of_several_columns_unpacks_them(tmp_path):
    generator = torch.Generator().manual_seed(1)
    u, v = torch.rand(2, 40, generator=generator)
    data = save(tmp_path / "data.csv", u=u, v=v, z=2.0 * u * torch.exp(-0.5 * v))

    def product(x, a=1.0, b=0.1):
        first, second = x
        return a * first * torch.exp(-b * second)

    result = gradopt.minimise(DataFit(data, x=["u", "v"], y="z", model=product), **LBFGS)

    assert {name: value.item() for name, value in result.x.items()} == pytest.approx({"a": 2.0, "b": 0.5})


def test_every_named_model_starts_near_enough_whatever_the_order_of_the_rows(tmp_path):
    generator = torch.Generator().manual_seed(2)
    for model, (truth, low, high) in CASES.items():
        x, y = noisy(model, truth, low, high)
        order = torch.randperm(len(x), generator=generator)
        sorted_rows = DataFit(save(tmp_path / "a.csv", x=x, y=y), x="x", y="y", model=model)
        shuffled_rows = DataFit(save(tmp_path / "b.csv", x=x[order], y=y[order]), x="x", y="y", model=model)

        starts = [{name: p.item() for name, p in one.named_parameters()} for one in (sorted_rows, shuffled_rows)]

        assert starts[1] == pytest.approx(starts[0]), model
