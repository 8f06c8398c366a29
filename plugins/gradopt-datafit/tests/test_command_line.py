"""Runs from the command line, as a user of the installed package makes them."""

import json
import math
from pathlib import Path

import pytest

CERTIFIED = {
    # from NIST's pages; the second start of each
    "thurber": (
        {
            "b1": 1288.13968,
            "b2": 1491.0792535,
            "b3": 583.23836877,
            "b4": 75.416644291,
            "b5": 0.96629502864,
            "b6": 0.39797285797,
            "b7": 0.049727297349,
        },
        5642.7082397 / 37,
        "{b1: 1300, b2: 1500, b3: 500, b4: 75, b5: 1, b6: 0.4, b7: 0.05}",
    ),
    "eckerle4": (
        {"b1": 1.5543827178, "b2": 4.0888321754, "b3": 451.54121844},
        0.0014635887487 / 35,
        "{b1: 1.5, b2: 5, b3: 450}",
    ),
}

OWN = """
import torch


def rational(x, a=1.0, b=0.5):
    return a * x / (1 + b * x)
"""


def result_of(directory):
    (file,) = Path(directory).glob("runs/*/*/result.json")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("second_start", [False, True], ids=["first start", "second start"])
@pytest.mark.parametrize("name", CERTIFIED)
def test_a_preset_reaches_the_certified_parameters(name, second_start, gradopt, tmp_path):
    certified, loss, start = CERTIFIED[name]
    extra = [f"objective.start={start}"] if second_start else []

    done = gradopt(f"objective=datafit_{name}", "optimiser=levenberg_marquardt", *extra)

    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(tmp_path)
    digits = min(-math.log10(abs(result["x"][key] / value - 1)) for key, value in certified.items())
    print(f"{name}: {digits:.1f} digits in {result['nfev']} evaluations")
    assert result["status"] == "converged"
    assert set(result["x"]) == set(certified)
    assert digits > 7
    assert result["fun"] == pytest.approx(loss, rel=1e-9)
    assert result["metrics"]["r_squared"] > 0.99


def test_a_csv_file_is_fitted_by_a_named_model(gradopt, write, tmp_path):
    write("time,signal\n" + "".join(f"{t / 4},{3 * math.exp(-0.7 * t / 4) + 1}\n" for t in range(30)))

    done = gradopt(
        "objective=datafit",
        "objective.data=my.csv",
        "objective.x=time",
        "objective.y=signal",
        "objective.model=exponential",
        "optimiser=levenberg_marquardt",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "y = amplitude exp(-rate x) + offset, fitted to 30 rows of my.csv (signal against time)" in done.stdout
    assert result_of(tmp_path)["x"] == pytest.approx({"amplitude": 3.0, "rate": 0.7, "offset": 1.0})


def test_a_function_of_ones_own_is_fitted_within_bounds(gradopt, write, tmp_path):
    write("u,v,e\n" + "".join(f"{u},{2 * u / (1 + 0.25 * u)},0.1\n" for u in range(1, 12)))
    write(OWN, "my_models.py")

    done = gradopt(
        "objective=datafit",
        "objective.data=my.csv",
        "objective.x=u",
        "objective.y=v",
        "objective.sigma=e",
        "objective.model=my_models.py:rational",
        "objective.start={a: 2.5}",
        "objective.bounds={a: [0, null], b: [0.3, 1]}",
        "optimiser=adam",
        "optimiser.lr=0.03",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(tmp_path)
    assert result["status"] == "converged", result["message"]
    assert result["x"]["b"] == 0.3  # the true 0.25 is outside
    assert 2.0 < result["x"]["a"] < 2.5


def test_a_sweep_over_models_is_a_table(gradopt, write):
    write("x,y\n" + "".join(f"{x},{x * x}\n" for x in range(8)))
    columns = ("objective.data=my.csv", "objective.x=x", "objective.y=y")

    done = gradopt("-m", "objective=datafit", *columns, "objective.model=line,polynomial", "optimiser=lbfgs")

    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.rpartition("overrides")[2]
    assert rows.count("converged") + rows.count("noise_floor") == 2  # the second fits exactly


MISTAKES = {
    # overrides: what the one line must hold
    "wrong column": (["objective.y=signl"], ["objective.y=signl", "Did you mean 'signal'?", "'time', 'signal'"]),
    "not a number": (["objective.y=noted"], ["column 'noted'", "line 3 has 'n/a'"]),
    "wrong start": (["objective.start={slop: 1}"], ["no parameter 'slop'", "Did you mean 'slope'?"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(case, gradopt, write):
    given, expected = MISTAKES[case]
    write("time,signal,noted\n1,2,3\n2,3,n/a\n3,5,5\n")
    columns = ("objective.data=my.csv", "objective.x=time", "objective.y=signal", "objective.model=line")

    done = gradopt("objective=datafit", *columns, *given)

    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("gradopt: error: ")
    for part in expected:
        assert part in line


UNREAD = {
    # mistakes that are found before torch is imported
    "missing file": (["objective.data=mine.csv", "objective.x=t"], "there is no file 'mine.csv'"),
    "missing option": (["objective.data=my.csv"], "needs objective.x"),
    "wrong type": (["objective.data=my.csv", "objective.x=t", "objective.degree=two"], "objective.degree"),
    "out of range": (
        ["objective.data=my.csv", "objective.x=t", "objective.degree=-1"],
        "objective.degree must be >= 0",
    ),
    "wrong choice": (["objective.data=my.csv", "objective.x=t", "objective.delimiter=tabs"], "Did you mean 'tab'?"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_a_mistake_in_the_config_is_found_before_torch_is_imported(case, gradopt, write):
    given, expected = UNREAD[case]
    write("t,s\n1,2\n2,3\n")

    done = gradopt("objective=datafit", *given, "objective.y=s", "objective.model=line", python=("-X", "importtime"))

    imports = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert expected in line
    assert "gradopt.settings" in imports
    assert "torch" not in imports


def test_help_lists_the_options(gradopt):
    done = gradopt("objective=datafit", "--help")

    assert done.returncode == 0
    assert "Fit a model to a CSV file" in done.stdout
    for option in (
        "data: Path  (required)",
        "x: str | list[str]",
        "sigma: str | None",
        "bounds: dict[str, Any] | None",
    ):
        assert f"objective.{option}" in done.stdout


def test_the_plugin_is_listed_with_what_it_offers(gradopt):
    done = gradopt("plugins")

    assert "datafit  (gradopt-datafit 0.1.0)" in done.stdout
    assert "pkg://gradopt_datafit.configs" in done.stdout
    assert "BROKEN" not in done.stdout
