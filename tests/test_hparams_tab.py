"""Which columns the HPARAMS tab of `gradopt board` has."""

import os

from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data as parse
from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb

from gradopt.hparams_tab import FIRST, Context, tell_apart
from gradopt.observers import events
from gradopt.observers.event_file import EventFile


def told(*rows):
    """The columns of runs with these hyperparameters."""
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


def experiment(place):
    """What the tab is told of the runs in a directory: the columns, and the hyperparameters by run."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.data.provider import ListHyperparametersResult
    from tensorboard.plugins.base_plugin import TBContext

    read = EventMultiplexer().AddRunsFromDirectory(os.fspath(place))
    read.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(read, os.fspath(place))))
    here = RequestContext(), "experiment"
    nothing = ListHyperparametersResult(hyperparameters=[], session_groups=[])
    content = context.hparams_metadata(*here)
    sessions = {run: tags[SESSION_START_INFO_TAG] for run, tags in content.items() if SESSION_START_INFO_TAG in tags}
    rows = {run: dict(parse(session).hparams) for run, session in sessions.items()}
    return context.experiment_from_metadata(*here, True, content, nothing), rows


def write(place, *values):
    place.mkdir()
    with EventFile(place) as file:
        file.write(values)


def test_the_metrics_that_every_run_has_come_first(tmp_path):
    for optimiser in ("adam", "sgd"):
        tags = ("con/violation", *sorted(FIRST), "metrics/mine")
        points = [events.described_scalar(tag, 1.0) for tag in tags]
        write(tmp_path / optimiser, events.session_start(run(optimiser), group=optimiser), *points)

    found, rows = experiment(tmp_path)

    assert [info.name for info in found.hparam_infos] == ["optimiser"]
    assert [list(row) for row in rows.values()] == [["optimiser"], ["optimiser"]]
    assert [info.name.tag for info in found.metric_infos] == [*FIRST, "con/violation", "metrics/mine"]


def test_columns_that_another_program_has_chosen_are_left_alone(tmp_path):
    theirs = hparams_config_pb([HParam("theirs")], [Metric("loss")]).value[0]
    write(tmp_path / "theirs", theirs)
    write(tmp_path / "ours", events.session_start(run("adam")))
    write(tmp_path / "other", events.session_start(run("sgd")))

    found, rows = experiment(tmp_path)

    assert [info.name for info in found.hparam_infos] == ["theirs"]
    assert set(rows["ours"]) == set(rows["other"]) == {"objective", "optimiser"}
