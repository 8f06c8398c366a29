import math

import pytest

from gradopt.comparison.groups import grouped, quantiles
from gradopt.comparison.profiles import common
from gradopt.comparison.records import find


def names(place, **options):
    return [(group.problem.name, group.solver, len(group.records)) for group in grouped(find([place]), **options)]


def test_runs_that_differ_in_their_seed_alone_are_one_group(write, tmp_path):
    for seed in range(3):
        write(f"sgd-{seed}", seed=seed, observers=["console"] * seed, engine=f"engine {seed}", threads=seed)
    write("adam", optimiser="adam")

    assert sorted(names(tmp_path)) == [("bowl", "adam", 1), ("bowl", "sgd", 3)]


def test_labels_name_the_options_that_differ_and_no_others(write, tmp_path):
    write("1", options={"lr": 0.1, "momentum": 0.9}, objective_options={"n": 2})
    write("2", options={"lr": 0.01, "momentum": 0.9}, objective_options={"n": 2})
    write("3", optimiser="adam", options={"lr": 0.01, "betas": [0.9, 0.999]}, objective_options={"n": 2})
    write("4", optimiser="adam", options={"lr": 0.01, "betas": [0.9, 0.999]}, objective_options={"n": 2}, on_saddle="x")

    assert sorted(solver for _, solver, _ in names(tmp_path)) == [
        *("adam on_saddle=stop", "adam on_saddle=x", "sgd lr=0.01 on_saddle=stop", "sgd lr=0.1 on_saddle=stop"),
    ]


def test_a_budget_is_a_difference_to_optimisers_whose_runs_it_has_ended(write, tmp_path):
    for optimiser, status in (("lbfgs", "converged"), ("sgd", "max_steps")):
        write(f"{optimiser}-1", optimiser=optimiser, status="converged", stop={"max_steps": None})
        write(f"{optimiser}-2", optimiser=optimiser, status=status, stop={"max_steps": 3000}, seed=1)

    assert sorted(names(tmp_path)) == [("bowl", "lbfgs", 2), ("bowl", "sgd", 1), ("bowl", "sgd stop.max_steps=3000", 1)]


@pytest.mark.parametrize(
    ("differently", "label"),
    [
        ({"dtype": "float32"}, ["bowl dtype=float32", "bowl dtype=float64"]),
        ({"objective_options": {"bounds": [-2, 2]}}, ["bowl", "bowl bounds=[-2,2]"]),
        ({"starts": 64}, ["bowl", "bowl starts.number=64"]),
        ({"objective": "valley"}, ["bowl", "valley"]),
    ],
)
def test_another_dtype_bound_or_objective_is_another_problem(write, tmp_path, differently, label):
    write("1", objective_options={"bounds": None})
    write("2", **differently)

    assert [problem for problem, _, _ in names(tmp_path)] == label


def test_how_starts_are_drawn_says_nothing_where_there_is_one(write, tmp_path):
    write("1", starts={"number": None, "sampler": "auto"})
    write("2", starts={"number": None, "sampler": "sobol"})

    assert names(tmp_path) == [("bowl", "sgd", 2)]


def test_an_option_that_an_older_run_does_not_know_makes_no_difference(write, tmp_path):
    write("1", options={"lr": 0.1})
    write("2", options={"lr": 0.1, "novel": True})

    assert names(tmp_path) == [("bowl", "sgd", 2)]


def test_runs_without_a_config_are_each_one_of_their_own(write, tmp_path):
    for name in ("first", "second"):
        (write(name) / ".hydra" / "config.yaml").unlink()

    assert names(tmp_path) == [("?", "? first", 1), ("?", "? second", 1)]


def test_the_best_comes_first(write, tmp_path):
    write("1", optimiser="failing", losses=[8.0, 0.0], status="diverged")
    write("2", optimiser="poor", losses=[8.0, 4.0])
    write("3", optimiser="slow", losses=[8.0, 4.0, 2.0, 1.0, 1e-9], status="converged")
    write("4", optimiser="quick", losses=[8.0, 1e-8], status="converged")  # higher, but solved too, and with less work
    write("5", optimiser="raising", status="error")

    assert [solver for _, solver, _ in names(tmp_path)] == ["quick", "slow", "poor", "failing", "raising"]


def test_the_tolerance_says_what_is_solved(write, tmp_path):
    write("1", optimiser="exact", losses=[8.0, 4.0, 2.0, 0.0])
    write("2", optimiser="near", losses=[8.0, 0.01])

    assert [solver for _, solver, _ in names(tmp_path)] == ["exact", "near"]
    assert [solver for _, solver, _ in names(tmp_path, tolerance=0.01)] == ["near", "exact"]


def test_a_known_minimum_is_the_lowest_loss_unless_a_run_has_gone_below(write, tmp_path):
    write("1", losses=[8.0, 3.0], result={"minimum": 1.0})
    write("2", objective="wrong", losses=[8.0, 0.5], result={"minimum": 1.0})

    problems = {group.problem.name: group.problem for group in grouped(find([tmp_path]))}

    assert (problems["bowl"].lowest, problems["bowl"].known, problems["bowl"].start) == (1.0, True, 8.0)
    assert (problems["wrong"].lowest, problems["wrong"].known) == (0.5, False)


def test_a_loss_without_a_floor_is_no_measure_for_others(write, tmp_path):
    write("1", losses=[8.0, 3.0])
    write("2", optimiser="adam", losses=[8.0, -1e9], status="unbounded")

    assert grouped(find([tmp_path]))[0].problem.lowest == 3.0


def test_quantiles_are_values_of_runs():
    assert quantiles(range(1, 12)) == (2.0, 6.0, 10.0)
    assert quantiles([1e-20, 1e-3]) == (1e-20, 1e-20, 1e-3)
    assert quantiles([1.0, math.inf, math.nan]) == (1.0, 1.0, math.inf)
    assert all(math.isnan(value) for value in quantiles([math.nan]))


def test_runs_that_were_refused_are_groups_of_their_own_and_runs_that_raised_are_not(write, tmp_path):
    for seed in range(3):
        write(f"good-{seed}", seed=seed, losses=[8.0, 1.0], status="converged")
    write("raised", seed=3, status="error", result={"exit_code": 1, "message": "ValueError: no"})
    for name, message in (("typo-1", "no observer 'consol'"), ("typo-2", "no observer 'consol'"), ("other", "no x0")):
        write(name, observers=[name], status="error", result={"exit_code": 2, "message": message})

    found = grouped(find([tmp_path]))

    members = [sorted(record.directory.name for record in group.records) for group in found]
    assert members[0] == ["good-0", "good-1", "good-2", "raised"]
    assert sorted(members[1:]) == [["other"], ["typo-1", "typo-2"]]
    assert {group.solver for group in found} == {"sgd"}
    assert found[0].quantiles("loss") == (1.0, 1.0, 1.0)


def solved_after(place):
    return {group.solver: group.quantiles("cost")[1] for group in grouped(find([place]))}


def test_each_seed_that_starts_elsewhere_is_measured_by_its_own_lowest_loss_as_in_the_profiles(write, tmp_path):
    for seed in range(5):
        write(f"adam-{seed}", optimiser="adam", seed=seed, losses=[8.0 + seed, 0.5 + seed, 0.1 + seed])
        write(f"sgd-{seed}", seed=seed, losses=[8.0 + seed, 4.0 + seed])

    found = grouped(find([tmp_path]))

    assert [(group.solver, group.quantiles("cost")) for group in found] == [
        ("adam", (3.0, 3.0, 3.0)),
        ("sgd", (math.inf, math.inf, math.inf)),
    ]
    assert common(found).costs["adam"].tolist() == [3.0] * 5


def test_seeds_that_change_neither_loss_nor_start_are_measured_by_the_lowest_of_all(write, tmp_path):
    for seed in range(3):
        write(f"adam-{seed}", optimiser="adam", seed=seed, losses=[8.0, 1.0 + seed])
        write(f"sgd-{seed}", seed=seed, losses=[8.0, 4.0, 3.0 - seed])

    found = grouped(find([tmp_path]))

    by_solver = {group.solver: [group.problem.cost(record) for record in group.records] for group in found}
    assert by_solver == {"adam": [2.0, math.inf, math.inf], "sgd": [math.inf, math.inf, 3.0]}
    assert {solver: its.tolist() for solver, its in common(found).costs.items()} == by_solver


@pytest.mark.parametrize("status", ["diverged", "non_finite", "stalled", "error", "interrupted", None])
def test_a_run_that_has_failed_or_not_ended_is_not_measured_by_itself(write, tmp_path, status):
    write("1", losses=[8.0, 4.0, 5.0], status=status)
    write("2", optimiser="adam", losses=[8.0, 4.0, 5.0], status="diverged")

    assert solved_after(tmp_path) == {"sgd": math.inf, "adam": math.inf}


def test_it_has_solved_what_others_or_the_minimum_measure(write, tmp_path):
    write("1", losses=[8.0, 0.0, 9.0], status="diverged")
    write("2", optimiser="adam", losses=[8.0, 4.0, 1e-9])
    write("3", objective="known", losses=[8.0, 0.0, 9.0], status="diverged", result={"minimum": 0.0})

    groups = grouped(find([tmp_path]))

    assert {(group.problem.name, group.solver): group.quantiles("cost")[1] for group in groups} == {
        ("bowl", "adam"): 3.0,
        ("bowl", "sgd"): 2.0,
        ("known", "sgd"): 2.0,
    }
