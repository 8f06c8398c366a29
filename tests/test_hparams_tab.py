"""Which columns the HPARAMS tab of `gradopt board` has."""

from gradopt.hparams_tab import tell_apart
from gradopt.observers import events


def told(*rows):
    """The columns of runs with these hyperparameters."""
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data as parse

    sessions = [parse(events.session_start(row).metadata.plugin_data.content) for row in rows]
    tell_apart(sessions)
    return [
        {name: getattr(value, value.WhichOneof("kind")) for name, value in session.hparams.items()}
        for session in sessions
    ]


def run(optimiser, objective="rosenbrock", **options):
    return {
        "objective": objective,
        "optimiser": optimiser,
        **{name.replace("_", "."): v for name, v in options.items()},
    }


def test_of_several_runs_what_varies_is_a_column_and_numbers_stay_numbers():
    assert told(run("adam", optimiser_lr=0.1), run("sgd", optimiser_lr=0.2)) == [
        {"optimiser": "adam", "optimiser.lr": 0.1},
        {"optimiser": "sgd", "optimiser.lr": 0.2},
    ]


def test_of_one_run_or_of_runs_alike_all_that_was_chosen_is():
    alike = run("adam", optimiser_lr=0.1)

    assert told(alike) == [alike]
    assert told(alike, alike) == [alike, alike]


def test_options_that_not_all_optimisers_have_are_told_with_the_name_where_they_vary():
    rows = told(
        run("adam", optimiser_lr=0.1, optimiser_amsgrad=True),
        run("adam", optimiser_lr=1e-5, optimiser_amsgrad=True),
        run("lbfgs", objective="quadratic", objective_n=3),
        run("lbfgs", objective="quadratic"),
    )

    assert rows == [
        {"objective": "rosenbrock", "optimiser": "adam lr=0.1"},
        {"objective": "rosenbrock", "optimiser": "adam lr=1e-05"},
        {"objective": "quadratic n=3", "optimiser": "lbfgs"},
        {"objective": "quadratic", "optimiser": "lbfgs"},
    ]


def test_no_cell_is_empty_of_which_tensorboard_would_draw_no_line():
    rows = told(run("adam", device="cuda", seed=3), run("adam", fused=True), run("adam"))

    assert rows == [
        {"device": "cuda", "fused": "-", "seed": "3"},
        {"device": "-", "fused": "true", "seed": "-"},
        {"device": "-", "fused": "-", "seed": "-"},
    ]


def test_nothing_is_the_matter_without_runs():
    assert told() == []
