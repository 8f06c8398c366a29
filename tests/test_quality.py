"""The yardstick of the solvers measures what it says."""

import json
import os
from dataclasses import replace

import pytest
import torch

from tests.installed import REPOSITORY, python

pytest.importorskip("gradopt_problems", reason="the problems are a package of their own: plugins/gradopt-problems")

from benchmarks.quality import report
from benchmarks.quality.cases import Case, Rescaled, library
from benchmarks.quality.groups import GROUPS
from benchmarks.quality.meter import Meter
from benchmarks.quality.referee import Referee
from benchmarks.quality.runs import Record, Results
from benchmarks.quality.solvers import Budget

ROSENBROCK = Case("mgh/rosenbrock", (("scale", 1.0),))
TWO_MINIMA = Case("mgh/freudenstein_roth", (("scale", 1.0),))
BEALE = Case("mgh/beale", (("scale", 1.0),))
REGRESSION = Case("nist/misra1a", (("start", 1),))


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def record(solver, case, *, solved, **values):
    kept = {"claim": "", "status": "", "evaluations": 10, "products": 0, "to_target": 10 if solved else None}
    kept |= {"products_to_target": 0, "seconds": 0.1, "gap": 0.0, "digits": None, **values}
    return Record(solver, case, solved, **kept)


def test_every_case_has_a_name_of_its_own_and_starts_above_the_best():
    cases = library()

    assert len({case.name for case in cases}) == len(cases) > 150
    for case in cases[::7]:
        problem = case.original()
        referee = Referee(case)
        start = problem.x.detach()
        assert problem().item() >= problem.minimum() or not referee.is_feasible(start), case.name


@pytest.mark.parametrize("case", [ROSENBROCK, REGRESSION], ids=lambda case: case.name)
def test_other_variables_change_the_unknowns_and_nothing_else(case):
    moved = replace(case, rescaled=True)
    ours, theirs = moved.objective(), case.objective()

    assert isinstance(ours, Rescaled)
    assert not torch.allclose(ours.x, theirs.x)
    torch.testing.assert_close(moved.restore(ours.x.detach()), theirs.x.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.residuals(), theirs.residuals(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved.objective().x, ours.x)  # the same ones each time


@pytest.mark.parametrize(
    ("case", "point", "claim"),
    [
        (ROSENBROCK, (1.0, 1.0), "solved"),
        (ROSENBROCK, (1.0 + 1e-4, 1.0 + 2e-4), "solved"),
        (ROSENBROCK, (1.01, 1.0201), "early"),
        (ROSENBROCK, (-1.0, 1.0), "false"),
        (ROSENBROCK, (float("nan"), 1.0), "false"),
        (TWO_MINIMA, (5.0, 4.0), "solved"),
        (TWO_MINIMA, (11.412778869, -0.896805253), "elsewhere"),
        (TWO_MINIMA, (11.42, -0.89), "early"),
        (TWO_MINIMA, (10.0, -1.0), "false"),
        (REGRESSION, (238.94212918, 5.5015643181e-04), "solved"),
    ],
)
def test_a_claim_is_what_the_point_makes_of_it(case, point, claim):
    score = Referee(case).score(vector(*point), claimed=True)

    assert score.claim == claim, score
    assert score.solved is (claim == "solved")


def test_a_stationary_point_of_negative_curvature_is_no_minimum():
    saddle = vector(0.0, 1.0)
    problem = BEALE.original()
    with torch.no_grad():
        problem.x.copy_(saddle)
    (gradient,) = torch.autograd.grad(problem(), problem.x)

    score = Referee(BEALE).score(saddle, claimed=True)

    assert gradient.abs().max() == 0.0
    assert score.claim == "false"


def test_certified_digits_are_counted():
    certified = vector(238.94212918, 5.5015643181e-04)
    referee = Referee(REGRESSION)

    assert referee.score(certified, claimed=False).digits == 11.0
    assert referee.score(certified * (1 + 1e-5), claimed=False).digits == pytest.approx(5.0, abs=0.011)


def test_a_meter_counts_ends_at_the_budget_and_keeps_the_best():
    def wanders(meter, budget):
        for step in range(100):
            meter.loss_and_gradient(meter.start + step * (1.0 - meter.start) / 4)
        raise AssertionError("the budget is over long before")

    outcome = Meter(ROSENBROCK, Budget(evaluations=7)).outcome(wanders)

    assert outcome.evaluations == 7
    assert outcome.to_target == 5  # the fifth point is the minimiser
    assert outcome.point.tolist() == pytest.approx([1.0, 1.0])
    assert (outcome.claimed, outcome.status) == (False, "budget")


def test_a_meter_gives_the_same_derivatives_in_every_form():
    meter = Meter(replace(REGRESSION, rescaled=True), Budget())
    x = meter.start
    loss, gradient = meter.loss_and_gradient(x)
    residuals, jacobian = meter.residuals(x), meter.jacobian(x)
    hessian = meter.hessian(x)
    tensor = torch.from_numpy(x.copy()).requires_grad_()

    assert loss == pytest.approx(0.5 * residuals @ residuals)
    assert gradient == pytest.approx(jacobian.T @ residuals)
    assert hessian @ gradient == pytest.approx(meter.product(x, gradient))
    assert torch.autograd.grad(meter.of_tensor(tensor), tensor)[0].numpy() == pytest.approx(gradient)


def test_results_are_kept_and_the_last_of_a_run_counts(tmp_path):
    results = Results(tmp_path)
    results.append("unconstrained", record("a", "one", solved=False))
    results.append("unconstrained", record("a", "one", solved=True))
    results.append("unconstrained", record("b", "one", solved=True))

    results.forget("unconstrained", "b")

    assert {key: found.solved for key, found in results.read("unconstrained").items()} == {("a", "one"): True}
    lines = (tmp_path / "unconstrained.jsonl").read_text().splitlines()
    assert json.loads(lines[0])[0] == "solver"


def test_a_table_counts_what_was_solved_at_which_cost():
    found = {
        "good": {
            "one": record("good", "one", solved=True, to_target=4, products_to_target=6, claim="solved"),
            "two": record("good", "two", solved=True, to_target=8, products_to_target=2, claim="solved"),
        },
        "liar": {
            "one": record("liar", "one", solved=False, claim="false"),
            "two": record("liar", "two", solved=True, products=None),
        },
        "absent": {"one": record("absent", "one", solved=False, status="needs elsewhere")},
    }

    (table,) = report.tables(GROUPS["unconstrained"], found, ["one", "two"])

    assert "| good | 2 / 2 | 100.0 % | 6 | 4 | 0 | 0 | 0 | 10.00 |" in table
    assert "| liar | 1 / 2 | 50.0 % | 10 | ? | 0 | 0 | 1 | 10.00 |" in table
    assert "| absent | not run: needs elsewhere |" in table
    assert [report.cost_of(one) for one in found["good"].values()] == [10, 10]
    assert report.cost_of(found["liar"]["two"]) is None


def test_doubts_name_false_claims_and_losses_below_the_best(tmp_path):
    results = Results(tmp_path)
    results.append("unconstrained", record("gradopt lbfgs", "one", solved=False, claim="false", status="converged"))
    results.append("unconstrained", record("gradopt lbfgs", "two", solved=False, claim="elsewhere"))
    results.append("unconstrained", record("SciPy BFGS", "one", solved=True, gap=-40.0))

    said = report.doubts(GROUPS, results)

    assert "- unconstrained, gradopt lbfgs, one: converged is false" in said
    assert "- unconstrained, SciPy BFGS, one: below the best known (-40 units)" in said
    assert "two" not in said


def test_pictures_show_whoever_ran_on_every_case(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from benchmarks.quality import profiles

    rows = {
        "gradopt lbfgs": {case: record("gradopt lbfgs", case, solved=True) for case in ("one", "two")},
        "partial": {"one": record("partial", "one", solved=True)},
    }
    path = tmp_path / "picture.png"

    assert profiles.draw(path, "Title", ["one", "two"], rows)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not profiles.draw(path, "Title", ["one", "two"], {"partial": rows["partial"]})
    assert not path.exists(), "an old picture must not stay"


def quality(*arguments):
    return python("-m", "benchmarks.quality", *arguments, cwd=REPOSITORY, seconds=600)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_run_prints_its_table_and_is_not_repeated(tmp_path):
    chosen = ("--quick", "--group", "least_squares", "--only", "levenberg_marquardt,SciPy trf", "--runs")

    first = quality(*chosen, os.fspath(tmp_path))
    kept = (tmp_path / "least_squares.jsonl").read_text()
    second = quality(*chosen, os.fspath(tmp_path), "--limit", "0.001")

    assert first.returncode == 0, first.stderr
    rows = {
        line.split("|")[1].strip(): line.split("|")
        for line in first.stdout.partition("NIST")[0].splitlines()
        if "%" in line
    }
    assert set(rows) == {"gradopt levenberg_marquardt", "SciPy trf"}
    for cells in rows.values():
        solved, total = map(int, cells[2].split("/"))
        assert total >= 6
        assert solved >= 0.75 * total, first.stdout
    assert rows["gradopt levenberg_marquardt"][8].strip() == "0", "a success was claimed that is none"
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "least_squares.jsonl").read_text() == kept


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended(tmp_path):
    ended = quality(*("--quick", "--group", "least_squares", "--only", "levenberg_marquardt"),
                    *("--limit", "0.0001", "--seconds", "1", "--runs", os.fspath(tmp_path)))  # fmt: skip

    assert ended.returncode == 3, ended.stderr
    assert "time limit" in (tmp_path / "least_squares.jsonl").read_text()
