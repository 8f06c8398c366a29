"""What a run leaves as pictures, read back from its directory and by TensorBoard's own readers."""

import io
import logging
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gradopt
from gradopt.observers import pictures
from gradopt.observers.pictures import Pictures
from gradopt.observers.tensorboard import TensorBoard
from gradopt.pictures.figures import BLACK, BLUE, RED
from tests import functions as f
from tests.dashboards import get, server, until
from tests.installed import gradopt as command


def minimise(place, function=f.parabola, x0=(0.0,), *, observers=None, lr=0.1, steps=30, **options):
    return gradopt.minimise(
        function,
        None if "starts" in options else list(x0),
        optimiser="sgd",
        optimiser_options={"lr": lr},
        stop=gradopt.Stop(max_steps=steps),
        observers=[TensorBoard(), Pictures()] if observers is None else observers,
        directory=place,
        **options,
    )


def read(place):
    accumulator = EventAccumulator(os.fspath(place), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def images(place):
    """PNG files in the events, by tag."""
    events = read(place)
    return {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[2]
        for tag in events.Tags()["tensors"]
        if tag.startswith("pictures/")
    }


def shows(png, colour):
    """Whether a colour covers some pixels of a picture."""
    wanted = tuple(bytes.fromhex(colour[1:]))
    found = dict((shade, number) for number, shade in Image.open(png).convert("RGB").getcolors(1_000_000))
    return found.get(wanted, 0) > 30


class Bowl:
    """A bowl of two unknowns that notes where it is evaluated."""

    def __init__(self, lower=-torch.inf, wait=0.0):
        self.points, self.lower, self.wait = [], lower, wait

    def __call__(self, x):
        time.sleep(self.wait)
        self.points.append(x.detach().clone())
        return ((x - torch.tensor([1.0, 3.0], dtype=x.dtype)) ** 2).sum()


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
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_files_and_the_images_in_tensorboard_are_the_same_pictures(number, tmp_path):
    minimise(tmp_path, x0=[0.0] * number)

    found = images(tmp_path)
    assert set(found) == {"pictures/graph", "pictures/convergence", "pictures/landscape"}
    for tag, content in found.items():
        assert (tmp_path / f"{tag.removeprefix('pictures/')}.png").read_bytes() == content
        assert len(content) < 250_000
    assert shows(tmp_path / "convergence.png", BLUE) and shows(tmp_path / "convergence.png", RED)
    assert shows(tmp_path / "landscape.png", RED if number == 2 else BLUE)  # the path over contours, else the loss


def test_starts_of_one_or_two_unknowns_lie_over_the_loss_and_others_in_a_row(tmp_path):
    def wells(x):
        return ((x**2 - 1) ** 2).sum()

    for number in (1, 2, 3):
        place = tmp_path / str(number)
        starts = torch.linspace(-1.5, 1.4, 12 * number, dtype=torch.float64).reshape(12, number).flip(0)
        results = minimise(place, wells, starts=starts, bounds=(-2.0, 2.0), lr=0.02)

        assert {"starts.png", "convergence.png", "graph.png"} <= {one.name for one in place.iterdir()}
        assert set(images(place)) == {"pictures/graph", "pictures/convergence", "pictures/starts"}
        assert len(results.minima) >= 2 or not results.success.any()
        assert shows(place / "starts.png", BLUE if results.success.any() or number == 1 else BLACK)


@pytest.mark.parametrize("optimiser", ["multi_start", "tiktak"])
def test_the_local_searches_of_one_run_are_drawn_as_many_starts_are(optimiser, tmp_path):
    for number in (1, 2, 3):
        place = tmp_path / str(number)
        result = gradopt.minimise(
            lambda x: ((x**2 - 1) ** 2 + 0.01 * x).sum(),
            [0.2] * number,
            bounds=(-1.5, 1.5),
            optimiser=optimiser,
            optimiser_options={"max_evaluations": 300},
            observers=[Pictures()],
            directory=place,
        )

        assert len(result.minima) >= (2 if optimiser == "multi_start" else 1)
        assert {"pictures/starts", "pictures/landscape"} <= set(images(place))
        assert shows(place / "starts.png", BLUE) and shows(place / "starts.png", RED) == (len(result.minima) > 1)


@pytest.mark.parametrize(
    ("lr", "steps", "end"), [(0.1, 300, "result"), (0.1, 3, "best point"), (1.1, 300, "best point")]
)
def test_the_end_of_a_run_without_success_is_called_the_best_point(lr, steps, end, tmp_path, monkeypatch):
    seen = []

    def watched(scene, seconds, landscape=pictures.landscape):
        seen.append(scene.end)
        return landscape(scene, seconds)

    monkeypatch.setattr(pictures, "landscape", watched)

    result = minimise(tmp_path, x0=[0.0, 1.0], lr=lr, steps=steps)

    assert result.success == (end == "result")
    assert seen == [end]


@pytest.mark.parametrize(("given", "tolerance"), [(None, 2.0**-26), (1e-3, 1e-3)])
def test_the_gap_is_drawn_to_the_tolerance_of_the_run(given, tolerance, tmp_path, monkeypatch):
    seen = []

    def watched(*arguments, convergence=pictures.convergence):
        seen.append(arguments[-1])
        return convergence(*arguments)

    monkeypatch.setattr(pictures, "convergence", watched)

    gradopt.minimise(
        lambda x: (x**2).sum(),
        [2.0, 1.0],
        constraints=gradopt.Constraint(lambda x: x.prod(), lower=1.0),
        stop=gradopt.Stop(constraint_tolerance=given),
        observers=[Pictures()],
        directory=tmp_path,
    )

    assert seen == [tolerance]


@pytest.mark.parametrize("number", [2, 3])
def test_an_unknown_that_bounds_fix_is_left_out(number, tmp_path):
    lower, upper = [-2.0] * number, [2.0] * number
    lower[0] = upper[0] = 0.5
    starts = torch.linspace(-1.5, 1.4, 12 * number, dtype=torch.float64).reshape(12, number)
    starts[:, 0] = 0.5

    minimise(tmp_path, x0=starts[0].tolist(), bounds=(lower, upper))
    minimise(tmp_path / "many", starts=starts, bounds=(lower, upper))

    assert shows(tmp_path / "landscape.png", BLUE if number == 2 else RED)
    assert shows(tmp_path / "many" / "starts.png", BLUE)


def test_looking_round_counts_as_nothing_and_stays_inside_the_bounds(tmp_path):
    watched, plain = Bowl(), Bowl()
    bounds = ([0.5, -1.0], [2.0, 2.0])

    with_pictures = minimise(tmp_path, watched, [2.0, 2.0], bounds=bounds)
    without = minimise(None, plain, [2.0, 2.0], bounds=bounds, observers=[])

    assert (tmp_path / "landscape.png").is_file()
    assert len(watched.points) > len(plain.points) + 200
    assert with_pictures.nfev == without.nfev
    assert torch.equal(with_pictures.x, without.x)
    assert torch.equal(with_pictures.history["loss"], without.history["loss"])
    points = torch.stack(watched.points)
    assert bool(((points >= torch.tensor(bounds[0])) & (points <= torch.tensor(bounds[1]))).all())


def test_constraints_are_looked_at_without_a_trace(tmp_path):
    def constrained(place, observers):
        disc = gradopt.Constraint(lambda x: (x**2).sum().reshape(1), upper=2.0, name="disc")
        return gradopt.minimise(Bowl(), [0.5, 0.5], constraints=[disc], observers=observers, directory=place)

    class Looks(Pictures):
        def close(self, result, error):
            points = torch.tensor([[1.0, 1.0], [2.0, 3.0]])
            self.seen = self._run.constraint_values(points).tolist(), self._run.constraints.upper.tolist()
            super().close(result, error)

    looks = Looks()
    with_pictures, without = constrained(tmp_path, [looks]), constrained(None, [])

    assert looks.seen == ([[2.0], [13.0]], [2.0])
    assert (tmp_path / "landscape.png").is_file()
    assert torch.equal(with_pictures.x, without.x)
    assert with_pictures.nfev == without.nfev
    assert torch.equal(with_pictures.history["violation"], without.history["violation"])


class Looking:
    """Evaluates the loss and the constraints at many points, and counts how often they are called for it."""

    def __init__(self, counts):
        self.counts = counts

    def open(self, run):
        self.run = run

    def record(self, block, metrics):
        pass

    def close(self, result, error):
        points = torch.rand(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.counts.clear()
        self.points, self.losses = points, self.run.losses(points)
        self.calls = len(self.counts)
        self.values = self.run.constraint_values(points)


@pytest.mark.parametrize("kind", ["plain", "branching", "keeping", "random"])
def test_many_points_are_looked_at_at_once_where_the_loss_allows_it(kind):
    counts, kept = [], []
    looking = Looking(counts)

    def loss(x):
        counts.append(None)
        if kind == "keeping":
            kept.append(x.detach().clone())
        if kind == "branching" and x[0] > 0.5:
            return 2 * x[0] + x[1] ** 2
        return (torch.rand(()) * 0 if kind == "random" else 0.0) + x[0] + x[1] ** 2

    def disc(x):
        return (x**2).sum()

    gradopt.minimise(loss, [0.5, 0.5], constraints=[gradopt.Constraint(disc, upper=2.0)], observers=[looking])

    x, y = looking.points.T
    torch.testing.assert_close(looking.losses, x * torch.where((x > 0.5) & (kind == "branching"), 2, 1) + y**2)
    torch.testing.assert_close(looking.values, (x**2 + y**2).unsqueeze(1))
    assert looking.calls < 20 if kind == "plain" else looking.calls >= 1000
    assert not kept or torch.stack(kept).isfinite().all()


def test_an_objective_with_parameters_and_buffers_is_left_at_its_result(tmp_path):
    class Normalised(gradopt.Objective):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(2, affine=False)
            self.x = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
            self.data = torch.tensor([[1.0, 2.0], [3.0, 5.0]])

        def forward(self, batch=None):
            return (self.norm(self.data) @ self.x - 1.0).square().sum()

    def run(place, observers):
        objective = Normalised()
        result = gradopt.minimise(
            objective,
            optimiser="sgd",
            optimiser_options={"lr": 0.01},
            stop=gradopt.Stop(max_steps=5),
            observers=observers,
            directory=place,
        )
        return objective, result

    drawn, result = run(tmp_path, [Pictures()])
    plain, _ = run(None, [])

    assert torch.equal(drawn.x, result.x)
    assert drawn.norm.num_batches_tracked == plain.norm.num_batches_tracked
    assert torch.equal(drawn.norm.running_mean, plain.norm.running_mean)
    assert (tmp_path / "landscape.png").is_file()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (Bowl(wait=0.02), "would take longer"),
        (Bowl(wait=0.35), "a step takes 0.3"),
        (lambda x: (x**2).sum() + torch.randn(()), "the loss at the start was"),
    ],
    ids=["slow", "slower", "random"],
)
def test_no_landscape_where_it_would_take_long_or_show_nothing(function, reason, tmp_path, caplog):
    caplog.set_level(logging.INFO, "gradopt")

    minimise(tmp_path, function, [1.0, 2.0], steps=4)

    assert not (tmp_path / "landscape.png").exists()
    assert (tmp_path / "convergence.png").is_file()
    assert reason in caplog.text


def test_a_loss_that_is_not_finite_everywhere_leaves_gaps(tmp_path):
    minimise(tmp_path, lambda x: (x - torch.log(x)).sum(), [0.2, 0.3], lr=0.02)
    minimise(tmp_path / "one", lambda x: (x - torch.log(x)).sum(), [0.1], lr=0.02)

    assert shows(tmp_path / "landscape.png", RED)
    assert shows(tmp_path / "one" / "landscape.png", BLUE)


def test_a_sweep_gets_its_graphs_alone_unless_it_asks(tmp_path):
    run = gradopt.Run(os.fspath(tmp_path), {}, {}, None, {}, 1.0, sweep=os.fspath(tmp_path), graph=graph_of_a_parabola)

    observer = Pictures()
    observer.open(run)

    assert [one.name.startswith("events.out.tfevents.0.") for one in tmp_path.iterdir()] == [True]
    Pictures(in_sweeps=True).open(run)
    assert (tmp_path / "graph.png").is_file()


def graph_of_a_parabola():
    x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    return (x**2).sum(), {"x": x}


def test_a_graph_that_nobody_could_read_is_in_tensorboard_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gradopt")

    def long(x):
        for _ in range(150):
            x = torch.sin(x) + 1
        return x.sum()

    minimise(tmp_path, long, observers=[Pictures()])

    assert len(read(tmp_path).Graph().node) == 303
    assert not (tmp_path / "graph.png").exists()
    assert "its 303 boxes could not be read" in caplog.text


def test_without_matplotlib_one_line_says_how_to_get_it(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    caplog.set_level(logging.INFO, "gradopt")

    minimise(tmp_path)

    lines = [one.getMessage() for one in caplog.records if one.getMessage().startswith("pictures")]
    assert lines == ["pictures: only the graph, as matplotlib is missing: pip install 'gradopt[pictures]'"]
    assert (tmp_path / "graph.png").is_file() and not (tmp_path / "convergence.png").exists()


def test_matplotlib_is_not_imported_before_the_run_ends():
    text = "import sys, gradopt.observers.pictures; print('matplotlib' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_names_are_no_formulas_and_pictures_of_a_run_before_are_taken_away(tmp_path):
    def bowl(p):
        return (p["$a_$"] - 1) ** 2 + 3 * (p["b"] - 2) ** 2

    gradopt.minimise(bowl, {"$a_$": 3.0, "b": 0.0}, observers=[Pictures()], directory=tmp_path)
    assert (tmp_path / "landscape.png").is_file()
    gradopt.minimise(bowl, {"$a_$": 1.0, "b": 2.0}, observers=[Pictures()], directory=tmp_path)

    assert {file.name for file in tmp_path.glob("*.png")} == {"graph.png"}  # a run of no step


FULL = """
import logging, resource, sys
import gradopt
from gradopt.observers.pictures import Pictures
from gradopt.observers.tensorboard import TensorBoard
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
result = gradopt.minimise(
    lambda x: (x - 3).square().sum(), [0.0, 0.0], optimiser="sgd", optimiser_options={"lr": 0.1},
    observers=[TensorBoard(), Pictures()], directory=".",
)
print(result.status.value)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to set")
@pytest.mark.parametrize("limit", [7_000, 25_000])
def test_a_full_disk_leaves_whole_pictures_or_none_and_costs_one_warning(limit, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip

    *warnings, status = done.stdout.splitlines()
    assert status == "converged"
    (warning,) = [line for line in warnings if line.startswith("WARNING")]
    assert "File too large" in warning
    for file in tmp_path.glob("*.png"):
        Image.open(file).load()
        assert file.stat().st_size < limit
    assert not list(tmp_path.glob("*.part"))
    assert EventAccumulator(os.fspath(tmp_path)).Reload().Tags()["scalars"] or limit < 10_000


@pytest.mark.parametrize("good", [0, 5, 400])
def test_a_run_that_raises_takes_away_the_pictures_of_the_one_before(good, tmp_path):
    minimise(tmp_path)
    before = (tmp_path / "graph.png").read_bytes()

    def raises(x):
        raises.count += 1
        if raises.count > good:
            raise ArithmeticError("no more")
        return (x**4).sum() * 2

    raises.count = 0
    with pytest.raises(ArithmeticError):
        minimise(tmp_path, raises, [2.0], lr=1e-4, steps=1000)

    left = {file.name: file.read_bytes() for file in tmp_path.glob("*.png")}
    assert set(left) <= {"graph.png"}  # the graph is drawn as soon as there are rows to record
    assert left.get("graph.png") != before


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = minimise(None)

    assert result.nit == 30
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["true", "false"])
def test_the_server_shows_the_graph_and_the_pictures(loader, tmp_path):
    done = command("objective=rosenbrock", "optimiser=adam", "stop.max_steps=200", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with server(tmp_path / "runs", f"--load_fast={loader}") as address:
        run = until(lambda: get(f"{address}/data/runs")[1], len)[0]
        tags = until(lambda: get(f"{address}/data/plugin/images/tags")[1], len)
        found = {tag: image(address, run, tag) for tag in next(iter(tags.values()))}
        graph = fetched(f"{address}/data/plugin/graphs/graph?{urllib.parse.urlencode({'run': run})}").decode()
        _, points = get(f"{address}/data/plugin/scalars/scalars", run=run, tag="opt/loss")

    assert set(found) == {"pictures/graph", "pictures/convergence", "pictures/landscape"}
    assert all(min(Image.open(io.BytesIO(content)).size) > 100 for content in found.values())
    assert 'op: "Variable"' in graph and 'name: "loss"' in graph and 'key: "exponent"' in graph
    assert points[0][1] == 0 and points[-1][1] == 200


def image(address, run, tag):
    (one,) = until(lambda: get(f"{address}/data/plugin/images/images", run=run, tag=tag, sample="0")[1], len)
    return fetched(f"{address}/data/plugin/images/individualImage?{one['query']}")


def fetched(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read()
