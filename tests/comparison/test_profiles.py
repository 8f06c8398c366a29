"""Against a hand-computed example: three problems, of which each solver fails on one."""

import numpy
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gradopt.comparison import profiles
from gradopt.comparison.groups import grouped
from gradopt.comparison.records import find

INF = numpy.inf
COSTS = {"A": numpy.array([10.0, 20.0, INF, INF]), "B": numpy.array([20.0, 10.0, 30.0, INF])}


def test_ratios_are_to_the_cheapest_solver_of_each_case():
    found = profiles.ratios(COSTS)

    assert found["A"].tolist() == [1.0, 2.0, INF, INF]
    assert found["B"].tolist() == [2.0, 1.0, 1.0, INF]


def test_shares_rise_where_a_case_is_solved():
    reached, share = profiles.shares(COSTS["B"])

    assert reached.tolist() == [10.0, 20.0, 30.0]
    assert share.tolist() == [0.25, 0.5, 0.75]


def test_the_picture_shows_these_steps():
    figure = profiles.picture(COSTS, {"A": {}, "B": {}}, "Title", "evaluations")

    performance, data = figure.axes
    # rho_A(1) = 1/4, rho_A(2) = 2/4; rho_B(1) = 2/4, rho_B(2) = 3/4.
    at = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in performance.lines}
    assert (at["A: 2"][1.0], at["A: 2"][2.0]) == (0.25, 0.5)
    assert (at["B: 3"][1.0], at["B: 3"][2.0]) == (0.5, 0.75)
    # d_A(10) = 1/4, d_A(20) = 2/4; d_B(10) = 1/4, d_B(20) = 2/4, d_B(30) = 3/4.
    at = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in data.lines}
    assert (at["A: 2"][10.0], at["A: 2"][20.0], at["A: 2"][30.0 * 1.3]) == (0.25, 0.5, 0.5)
    assert (at["B: 3"][10.0], at["B: 3"][20.0], at["B: 3"][30.0]) == (0.25, 0.5, 0.75)


def test_the_axis_reaches_the_largest_ratio():
    figure = profiles.picture(
        {"A": numpy.array([1.0, 1.0]), "B": numpy.array([INF, 1361.0])}, {"A": {}, "B": {}}, "", ""
    )

    assert figure.axes[0].get_xlim()[1] > 1361


def test_the_cost_is_what_the_history_needs_to_come_near_the_best_of_all(write, tmp_path):
    for objective, shift in (("bowl", 0.0), ("valley", -32.0)):
        write(f"{objective}-sgd", objective=objective, losses=[shift + loss for loss in (100.0, 50.0, 1e-5, 0.0)])
        write(f"{objective}-adam", objective=objective, optimiser="adam", losses=[shift + 100.0, shift + 1.0])

    cases = profiles.common(grouped(find([tmp_path])))

    assert (cases.number, cases.problems) == (2, 2)
    assert cases.costs["sgd"].tolist() == [3.0, 3.0]  # within 1e-6 of 100
    assert cases.costs["adam"].tolist() == [INF, INF]


def test_each_seed_is_a_case_and_runs_that_raised_have_solved_none(write, tmp_path):
    for seed in range(3):
        write(f"sgd-{seed}", seed=seed, losses=[8.0 + seed, 1.0 + seed])
        write(f"adam-{seed}", optimiser="adam", seed=seed, status="error")

    cases = profiles.common(grouped(find([tmp_path])))

    assert (cases.number, cases.problems) == (3, 1)
    assert cases.costs["sgd"].tolist() == [2.0, 2.0, 2.0]
    assert cases.costs["adam"].tolist() == [INF, INF, INF]


def test_of_the_same_runs_the_newest_with_a_result_counts(write, tmp_path):
    for objective in ("bowl", "valley"):
        for day, losses in ((1, [8.0, 1.0]), (2, [8.0, 4.0, 1.0])):
            started = {"started": f"2026-11-0{day}T00:00:00+0000"}
            write(f"{objective}-{day}", objective=objective, losses=losses, result=started, status="converged")
        write(f"{objective}-killed", objective=objective, losses=[8.0], status=None)
        write(f"{objective}-adam", objective=objective, optimiser="adam", losses=[8.0, 1.0])

    assert profiles.common(grouped(find([tmp_path]))).costs["sgd"].tolist() == [3.0, 3.0]


def test_a_solver_that_ran_on_few_cases_is_left_out_and_named(write, tmp_path):
    for objective in ("one", "two", "three", "four"):
        write(f"{objective}-sgd", objective=objective, losses=[8.0, 1.0])
        write(f"{objective}-adam", objective=objective, optimiser="adam", losses=[8.0, 1.0])
    write("one-special", objective="one", optimiser="special", losses=[8.0, 1.0])

    cases = profiles.common(grouped(find([tmp_path])))

    assert cases.number == 4
    assert set(cases.costs) == {"sgd", "adam"}
    assert cases.left_out == {"special": 1}


@pytest.mark.parametrize("names", [["sgd"], ["sgd", "adam"]])
def test_one_solver_or_one_case_makes_no_profile(write, tmp_path, names):
    for name in names:
        write(name, optimiser=name, losses=[8.0, 1.0])

    assert profiles.common(grouped(find([tmp_path]))) is None


def test_a_solver_with_many_cases_of_its_own_hides_nobody(write, tmp_path):
    for objective in ("bowl", "valley"):
        for optimiser in ("sgd", "adam"):
            write(f"{objective}-{optimiser}", objective=objective, optimiser=optimiser, losses=[100.0, 0.0])
    for number in range(5):
        write(f"alone-{number}", objective=f"alone{number}", optimiser="lbfgs", losses=[100.0, 0.0])

    cases = profiles.common(grouped(find([tmp_path])))

    assert set(cases.costs) == {"sgd", "adam"} and cases.number == 2
    assert cases.left_out == {"lbfgs": 5}


def test_costs_close_together_have_two_labels_or_more():
    costs = {"A": numpy.array([90.0, 100.0]), "B": numpy.array([95.0, 110.0])}

    figure = profiles.picture(costs, {"A": {}, "B": {}}, "Title", "evaluations")
    FigureCanvasAgg(figure).draw()

    axis = figure.axes[1].xaxis
    begin, end = axis.get_view_interval()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    labels = [tick.label1.get_text() for tick in ticks if begin <= tick.get_loc() <= end and tick.label1.get_text()]
    assert labels == ["80", "100", "120", "140"]


def test_a_run_that_was_refused_takes_no_place_of_a_good_one(write, tmp_path):
    for optimiser in ("sgd", "adam"):
        for seed in range(2):
            began = {"started": "2026-01-01"}
            write(f"{optimiser}-{seed}", optimiser=optimiser, seed=seed, losses=[8.0, 1.0], result=began)
    refused = {"exit_code": 2, "message": "no observer 'consol'", "started": "2026-01-02"}
    write("typo", seed=0, status="error", result=refused)

    cases = profiles.common(grouped(find([tmp_path])))

    assert cases.costs["sgd"].tolist() == [2.0, 2.0]


def test_of_many_solvers_those_are_drawn_who_are_the_measure_of_others():
    costs = {f"s{number}": numpy.array([20.0 + number] * 3 + [INF]) for number in range(9)}
    costs["brief"] = numpy.array([INF, 2.0, INF, INF])  # which solves least, and that first

    drawn = profiles.foremost(costs, 3)

    assert list(drawn) == ["s0", "s1", "brief"]
    assert profiles.ratios(drawn)["s0"].tolist() == [1.0, 10.0, 1.0, INF]
