"""The loss, its weights, and what is said about it; and the mistakes in a model, each one sentence."""

import math
from pathlib import Path

import pytest
import torch
from gradopt_datafit.objective import DataFit

from gradopt import Mistake

THREE = "t,s,e,w\n0,1,1,4\n1,3,2,1\n2,4,4,0\n"


def constant(x, level=2.0):
    return level + 0 * x


def test_the_loss_is_the_mean_of_the_squared_residuals(write):
    path = write(THREE)
    plain = DataFit(path, x="t", y="s", model=constant)
    by_sigma = DataFit(path, x="t", y="s", model=constant, sigma="e")
    by_weight = DataFit(path, x="t", y="s", model=constant, weights="w")

    # model minus data: 1, -1, -2
    cases = ((plain, [1.0, -1.0, -2.0]), (by_sigma, [1.0, -0.5, -0.5]), (by_weight, [2.0, -1.0, 0.0]))

    for objective, expected in cases:
        torch.testing.assert_close(objective.residuals().detach(), torch.tensor(expected) * math.sqrt(2 / 3))
        assert objective().item() == pytest.approx(sum(value**2 for value in expected) / 3)


def test_metrics_are_in_the_units_of_y_and_weighted(write):
    path = write(THREE)

    plain = DataFit(path, x="t", y="s", model=constant).metrics()
    weighted = DataFit(path, x="t", y="s", model=constant, weights="w").metrics()

    variance = sum((y - 8 / 3) ** 2 for y in (1, 3, 4)) / 3
    assert plain == pytest.approx({"rmse": math.sqrt(2.0), "r_squared": 1 - 2.0 / variance})
    # weights 4, 1, 0: squared errors 1, 1 and mean y 1.4
    assert weighted == pytest.approx({"rmse": 1.0, "r_squared": 1 - 1.0 / ((4 * 0.4**2 + 1.6**2) / 5)})


def test_a_constant_y_has_no_explained_share(write):
    metrics = DataFit(write("x,y\n1,5\n2,5\n"), x="x", y="y", model="line").metrics()

    assert metrics["rmse"] == 0.0
    assert math.isnan(metrics["r_squared"])


def test_the_description_names_formula_data_and_size(write):
    path = write(THREE)

    named = DataFit(path, x="t", y="s", model="line").describe()
    own = DataFit(path, x=["t", "e"], y="s", model=lambda x, a=1.0: a * x[0]).describe()

    assert named == "y = intercept + slope x, fitted to 3 rows of my.csv (s against t)"
    assert own == "<lambda>, fitted to 3 rows of my.csv (s against t, e)"


def test_a_start_overrides_a_guess_and_fixed_parameters_are_constants(write):
    objective = DataFit(write(THREE), x="t", y="s", model="line", start={"slope": 1.5}, fixed=["slope"])

    assert {name: (p.item(), p.requires_grad) for name, p in objective.named_parameters()} == {
        "intercept": (pytest.approx(8 / 3), True),
        "slope": (1.5, False),
    }


def test_a_guess_is_moved_inside_the_bounds(write):
    objective = DataFit(write(THREE), x="t", y="s", model="line", bounds={"slope": [0.5, None], "intercept": [0, 2]})

    assert objective.slope.item() == 0.5
    assert objective.intercept.item() == 2.0
    assert objective.bounds() == {"slope": (0.5, None), "intercept": (0, 2)}


def test_data_and_unknowns_take_the_default_dtype(write):
    torch.set_default_dtype(torch.float32)

    objective = DataFit(write(THREE), x="t", y="s", model="line", sigma="e")

    assert {t.dtype for t in (*objective.parameters(), *objective.buffers(), objective())} == {torch.float32}


def test_second_derivatives_exist_for_every_named_model(write):
    path = write("x,y\n1,1\n2,3\n3,2\n4,6\n5,5\n")
    for model in ("line", "polynomial", "plane", "exponential", "saturation", "gaussian", "logistic", "sine"):
        objective = DataFit(path, x="x", y="y", model=model)
        parameters = list(objective.parameters())

        slopes = torch.autograd.grad(objective(), parameters, create_graph=True)
        curvatures = torch.autograd.grad(sum(slope.sum() for slope in slopes), parameters)

        assert all(curvature.isfinite() for curvature in curvatures), model


def own(x, a=1.0, b=0.5):
    return a * x + b


def required(x, a, b=0.5):
    return a * x + b


MISTAKES = {
    # what is given: what the message must hold
    "misspelt model": (
        {"model": "gausian"},
        ["objective.model=gausian", "Did you mean 'gaussian'?", "file.py:function"],
    ),
    "unknown start": (
        {"start": {"slop": 1.0}},
        ["objective.start", "'slop'", "Did you mean 'slope'?", "intercept, slope"],
    ),
    "start of NaN": ({"start": {"slope": math.nan}}, ["objective.start.slope", "finite"]),
    "unknown bound": ({"bounds": {"slop": [0, 1]}}, ["objective.bounds", "Did you mean 'slope'?"]),
    "bound of one side": ({"bounds": {"slope": [0]}}, ["objective.bounds.slope", "[lower, upper]", "[0]"]),
    "bound of a number": ({"bounds": {"slope": 3}}, ["objective.bounds.slope", "[lower, upper]"]),
    "bounds upside down": ({"bounds": {"slope": [2, 1]}}, ["objective.bounds.slope", "lower 2 is above upper 1"]),
    "unknown fixed": ({"fixed": ["slop"]}, ["objective.fixed", "Did you mean 'slope'?"]),
    "all fixed": ({"fixed": ["slope", "intercept"]}, ["every parameter", "leave one free"]),
    "degree of a line": ({"degree": 3}, ["objective.degree=3", "polynomial only"]),
    "two x for a line": ({"x": ["t", "e"]}, ["takes one x column, got 2", "plane"]),
    "no x": ({"x": []}, ["objective.x=[]"]),
    "sigma and weights": ({"sigma": "e", "weights": "w"}, ["use one of them"]),
    "too few rows": ({"model": "polynomial", "degree": 3}, ["3 rows", "4 parameters", "c0, c1, c2, c3"]),
    "one x only": ({"model": "gaussian", "x": "one"}, ["two different values of x"]),
    "no start": ({"model": required}, ["'a'", "has no start", "objective.start={a: ...}"]),
    "no parameters": ({"model": lambda x: x}, ["no parameters to fit"]),
    "collected parameters": ({"model": lambda x, *a: x}, ["one by one", "*a"]),
    "wrong shape": ({"model": lambda x, a=1.0: a * x[:2]}, ["(3,)", "shape (2,)"]),
    "a column": ({"model": lambda x, a=1.0: (a * x).unsqueeze(1)}, ["(3,)", "shape (3, 1)"]),
    "no tensor": ({"model": lambda x, a=1.0: 1.0}, ["got a float"]),
    "raises": ({"model": lambda x, a=1.0: 1 / 0}, ["failed at the start", "ZeroDivisionError"]),
    "infinite": ({"model": lambda x, a=1.0: a / x}, ["not finite at line 2 of", "a = 1", "objective.start"]),
    "far from 0": ({"model": "exponential", "x": "year"}, ["from 1990 to 1992, is too far", "subtract"]),
    "cut off": ({"model": lambda x, a=1.0, b=1.0: a * x * math.exp(b)}, ["does not depend on b", "torch.exp"]),
    "a name of torch": ({"model": lambda x, half=1.0: half * x}, ["'half'", "call it half_"]),
    "no such file": ({"model": "mine.py:f"}, ["no file 'mine.py'"]),
    "no such function": ({"model": "math:sinus"}, ["defines no 'sinus'", "sin"]),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_model_is_one_sentence_that_says_what_to_mend(case, write):
    given, expected = MISTAKES[case]
    path = write("t,s,e,w,one,year\n0,1,1,4,7,1990\n1,3,2,1,7,1991\n2,4,4,0,7,1992\n")

    with pytest.raises(Mistake) as caught:
        DataFit(path, **{"x": "t", "y": "s", "model": "line", **given})

    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_arguments_that_are_no_numbers_are_left_alone(write):
    def either(x, a=1.0, kind="linear", *, squared=False):
        assert kind == "linear"
        assert squared is False
        return a * x

    objective = DataFit(write(THREE), x="t", y="s", model=either)

    assert [name for name, _ in objective.named_parameters()] == ["a"]


def test_the_shipped_data_say_where_they_come_from():
    import gradopt_datafit

    files = sorted(Path(gradopt_datafit.dataset("")).glob("*.csv"))

    assert [file.stem for file in files] == ["eckerle4", "thurber"]
    for file in files:
        assert "NIST Statistical Reference Datasets" in file.read_text(encoding="utf-8")
