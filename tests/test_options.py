"""Options as the command line gives them."""

import json

import pytest

from tests.installed import gradopt


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["objective=function", "objective.target=mine.py:loss", "objective.x0=[1]", "objective.options={a: 3}"], 0.75),
        (["optimiser.groups={x: {lr: 0.001}}", "stop.max_steps=1", "objective.bounds=null"], 1.928),
    ],
    ids=["objective.options", "optimiser.groups"],
)
def test_a_dict_can_be_given_to_an_option_that_has_none(overrides, expected, tmp_path):
    (tmp_path / "mine.py").write_text("def loss(x, a=1.0, b=4.0):\n    return ((b * x - a) ** 2).sum()\n")

    optimiser = ["optimiser=lbfgs"] if "objective=function" in overrides else []
    done = gradopt(*overrides, *optimiser, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("runs/*/*/result.json")
    found = json.loads(file.read_text())["x"]["x"]
    assert found == pytest.approx([expected] if isinstance(found, list) else expected)


@pytest.mark.parametrize("value", ["3", "[1]", "text"])
def test_an_option_that_takes_a_dict_takes_nothing_else(value, tmp_path):
    done = gradopt(f"optimiser.groups={value}", cwd=tmp_path)

    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "optimiser" in line
    assert "Dict" in line
