"""What a run leaves as pictures, read back from its directory and by TensorBoard's own readers."""

import os

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gradopt
from gradopt.observers.pictures import Pictures
from gradopt.observers.tensorboard import TensorBoard
from tests import functions as f


def read(place):
    accumulator = EventAccumulator(os.fspath(place), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def minimise(place, function=f.parabola, x0=(0.0,), *, observers=None, **options):
    stop = options.pop("stop", gradopt.Stop(max_steps=30))
    return gradopt.minimise(
        function,
        list(x0),
        optimiser="sgd",
        optimiser_options={"lr": 0.1},
        stop=stop,
        observers=[TensorBoard(), Pictures()] if observers is None else observers,
        directory=place,
        **options,
    )


class Watching:
    """Reads the events as a live TensorBoard does, while the run goes on."""

    def __init__(self, place):
        self.accumulator = EventAccumulator(os.fspath(place), size_guidance={"scalars": 0, "tensors": 0})

    def open(self, run):
        self.accumulator.Reload()
        self.graph = self.accumulator.Tags()["graph"]

    def record(self, block, metrics):
        pass

    def close(self, result, error):
        pass


def test_the_graph_is_there_from_the_start_and_a_reader_goes_on_to_the_last_step(tmp_path):
    watching = Watching(tmp_path)

    minimise(tmp_path, observers=[TensorBoard(), Pictures(), watching])
    watching.accumulator.Reload()

    assert watching.graph is True
    steps = [event.step for event in watching.accumulator.Scalars("opt/loss")]
    assert steps == list(range(31))
    names = [node.name for node in watching.accumulator.Graph().node]
    assert names[0] == "x" and names[-1] == "loss"
    assert (tmp_path / "graph.svg").is_file() and (tmp_path / "graph.png").is_file()


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = minimise(None)

    assert result.nit == 30
    assert not list(tmp_path.iterdir())
