import math

import numpy
import pytest

from gradopt.comparison.groups import grouped
from gradopt.comparison.records import ERROR, TORN, UNFINISHED, find, read
from gradopt.mistakes import Mistake


def test_runs_are_found_at_any_depth_once_and_in_the_order_of_jobs(write, tmp_path):
    for name in ("sweep/10-sgd", "sweep/2-sgd", "single"):
        write(name)

    found = find([tmp_path / "runs", tmp_path / "runs" / "sweep", tmp_path / "runs" / "single"])

    assert [record.directory.name for record in found] == ["single", "2-sgd", "10-sgd"]


def test_a_summary_of_seeds_is_no_run(write, tmp_path):
    write("sweep/0-sgd")
    write("sweep/_summary/sgd")

    assert [record.directory.name for record in find([tmp_path])] == ["0-sgd"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "there is no directory 'nowhere', and no runs/ here: make a run first"),
        ("empty", "there is no run in 'empty': no result.json, history.npy or .hydra in it or below"),
        ("file.txt", "there is no directory 'file.txt', that is a file: name the directory of a run"),
    ],
)
def test_a_place_without_runs_is_a_mistake(tmp_path, monkeypatch, place, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()

    with pytest.raises(Mistake) as caught:
        find([tmp_path.__class__(place)])

    assert str(caught.value).startswith(said)


def test_numbers_are_the_results_where_there_is_one(write):
    record = read(write("one", losses=[5.0, 3.0, 4.0], result={"minimum": 1.0}, status="converged"))

    assert (record.loss, record.steps, record.evaluations, record.seconds) == (3.0, 2, 3, 0.2)
    assert (record.status, record.fails, record.minimum, record.seed) == ("converged", False, 1.0, 0)


def test_a_killed_run_has_the_numbers_of_its_history(write):
    record = read(write("killed", losses=[5.0, 3.0, 4.0], status=None))

    assert record.status == UNFINISHED
    assert (record.loss, record.steps, record.evaluations, record.seconds) == (3.0, 2, 3, 0.2)


@pytest.mark.parametrize("text", ["", '{"status": "conv', "[1, 2]", '{"status": 3}'])
def test_a_result_that_cannot_be_read_is_torn(write, text):
    directory = write("torn", losses=[5.0, 3.0])
    (directory / "result.json").write_text(text)

    record = read(directory)

    assert (record.status, record.fails, record.loss) == (TORN, True, 3.0)


@pytest.mark.parametrize("size", [0, 100, 1030])
def test_a_history_cut_off_by_a_kill_is_none(write, size):
    directory = write("cut", losses=[5.0, 3.0, 1.0])
    content = (directory / "history.npy").read_bytes()
    (directory / "history.npy").write_bytes(content[: min(size, len(content) - 8)])

    assert read(directory).trace is None


def test_numbers_that_json_does_not_have_are_read(write):
    assert read(write("bottomless", status="unbounded", result={"fun": "-Infinity"})).loss == -math.inf
    assert math.isnan(read(write("nan", status="non_finite", result={"fun": "NaN"})).loss)
    error = read(write("error", status="error", result={"message": "on fire"}))
    assert (error.status, error.fails, error.message) == (ERROR, True, "on fire")
    assert math.isnan(error.loss)


def test_a_trace_holds_the_best_loss_so_far(write):
    trace = read(write("one", losses=[math.nan, 5.0, 7.0, 3.0, 4.0, 2.0, 2.0])).trace

    assert trace.loss.tolist() == [5.0, 3.0, 2.0, 2.0]
    assert trace.evaluations.tolist() == [2, 4, 6, 7]
    assert trace.first == 5.0
    numpy.testing.assert_equal(trace.at("evaluations", numpy.array([1, 2, 3, 4, 99])), [math.nan, 5, 5, 3, 2])
    assert trace.cost(3.0) == 4
    assert trace.cost(1.0) == math.inf


def test_of_a_constrained_run_only_points_that_meet_the_constraints_count(write):
    directory = write("constrained", losses=[1.0, 5.0, 4.0], violation=[0.5, 1e-9, 0.0])

    assert read(directory).trace.loss.tolist() == [5.0, 4.0]


def test_what_meets_the_constraints_within_their_tolerance_alone_lies_as_far_above_the_minimum(write, tmp_path):
    losses, violation = [1.0, 2.0 - 2**-25, 2.0 - 2**-30], [0.5, 1e-9, 1e-10]
    run = read(write("near", losses=losses, violation=violation, result={"minimum": 2.0, "fun": 2.0}))
    other = read(write("wrong", losses=losses, violation=violation, result={"minimum": 3.0}))

    assert run.trace.loss.tolist() == [2.0 + 2**-25, 2.0 + 2**-30]
    assert other.trace.loss.tolist() == [losses[1], losses[1]]  # none of this problem
    (group,) = grouped([run])
    assert group.quantiles("cost")[1] == 2, "measured by the way from a start that lies below the minimum"


def test_without_a_config_that_can_be_read_there_is_what_the_command_line_said(write):
    directory = write("bare", result={"overrides": ["objective=bowl", "+optimiser.lr=0.1", "seed=3"]})
    (directory / ".hydra" / "config.yaml").unlink()

    assert read(directory).config == {"objective.name": "bowl", "optimiser.lr": "0.1", "seed": "3"}


def test_of_many_starts_the_evaluations_of_all_count(write):
    starts = {"number": 4, "total": {"nit": 8, "nfev": 12}}
    directory = write("many", losses=[5.0, 3.0, 4.0], result={"starts": starts})
    plain = numpy.load(directory / "history.npy")
    table = numpy.zeros(3, dtype=[*plain.dtype.descr, ("all_evaluations", "<f8")])
    for name in plain.dtype.names:
        table[name] = plain[name]
    table["all_evaluations"] = [4, 8, 12]
    numpy.save(directory / "history.npy", table)

    whole = read(directory)
    (directory / "result.json").unlink()
    killed = read(directory)

    assert (whole.evaluations, whole.steps, killed.evaluations) == (12, 2, 12)
    assert whole.cost(3.0) == 8


def test_real_runs_are_read(sweep):
    records = find([sweep / "runs"])

    assert [record.directory.name for record in records] == [
        *("0-sgd", "1-sgd", "2-sgd"),
        *("3-adam", "4-adam", "5-adam"),
    ]
    for record in records:
        assert record.status == "max_steps"
        assert record.steps == 40
        assert record.config["optimiser.lr"] == 0.01
        assert record.trace.loss[-1] == record.loss
