"""Charts show what there is, of short runs and long ones, and nothing where there is nothing."""

import io

import pytest
import torch
from PIL import Image

import gradopt
from gradopt.pictures.convergence import convergence
from gradopt.pictures.figures import BLUE, GREEN, GREY, ORANGE, RED, _power
from gradopt.pictures.landscape import Scene, Unaffordable, landscape
from gradopt.result import Result
from gradopt.verdict import Status, Verdict


def covered(png, colour):
    """The columns of pixels that hold a colour, as shares of the width."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    wanted = tuple(bytes.fromhex(colour[1:]))
    pixels = picture.load()
    found = {x for x in range(picture.width) for y in range(picture.height) if pixels[x, y] == wanted}
    return sorted(x / picture.width for x in found)


def ended(status, **columns):
    history = {name: torch.as_tensor(column, dtype=torch.float64) for name, column in columns.items()}
    x = torch.zeros(1)
    return Result(x, history["loss"][-1].item(), x, Verdict(status, "", {}), 3, 3, 3, 0, 1.0, history=history)


def test_a_run_of_a_million_steps_is_drawn_to_its_end():
    steps = torch.arange(1_000_000, dtype=torch.float64)
    losses = 1 + 1 / (1 + steps)

    png = convergence(ended(Status.MAX_STEPS, loss=losses, evaluations=steps + 1, gradient_norm=losses), "f", 1.0)

    columns = covered(png, BLUE)
    assert columns[0] < 0.25 and columns[-1] > 0.9
    assert covered(png, ORANGE)


def test_the_ends_of_epochs_are_joined_however_many_batches_lie_between():
    rows = torch.arange(10_000, dtype=torch.float64)
    full = torch.where(rows % 3333 == 0, 1.0 / (1 + rows), torch.nan)
    values = {"loss": 1 / (1 + rows), "evaluations": rows + 1, "gradient_norm": 1 / (1 + rows)}

    png = convergence(ended(Status.MAX_EPOCHS, full_loss=full, **values), "f", None)

    assert covered(png, BLUE)[-1] > 0.9
    assert covered(png, GREY)


@pytest.mark.parametrize(
    ("status", "colour"), [(Status.CONVERGED, GREEN), (Status.MAX_STEPS, ORANGE), (Status.UNBOUNDED, RED)]
)
def test_the_verdict_is_marked(status, colour):
    png = convergence(ended(status, loss=[3.0, 2, 1], evaluations=[1, 2, 3], gradient_norm=[0, 0, 0]), "f", None)

    assert covered(png, colour)[-1] > 0.9


def test_one_point_and_no_history_make_no_chart():
    assert convergence(ended(Status.CONVERGED, loss=[3.0], evaluations=[1], gradient_norm=[0]), "f", None) is None
    assert convergence(Result(0, 0.0, 0, Verdict(Status.CONVERGED, "", {}), 0, 0, 0, 0, 0.0), "f", None) is None


def test_losses_that_are_not_finite_leave_the_rest():
    losses = [3.0, float("nan"), 2.0, float("inf"), float("-inf")]

    png = convergence(ended(Status.NON_FINITE, loss=losses, evaluations=range(5), gradient_norm=losses), "f", None)

    assert covered(png, BLUE)


@pytest.mark.parametrize(("value", "text"), [(1e-3, "10⁻³"), (1.0, "10⁰"), (-1e12, "-10¹²"), (0.0, "0"), (20.0, "20")])
def test_powers_of_ten_are_written_so(value, text):
    assert _power(value) == text


def scene(losses, path, best, bounds=None):
    number = len(best)
    limits = None if bounds is None else tuple(torch.tensor([side] * number, dtype=torch.float64) for side in bounds)
    path, best = torch.tensor(path, dtype=torch.float64), torch.tensor(best, dtype=torch.float64)
    return Scene(losses, path, best, limits, [f"x[{index}]" for index in range(number)], "f")


@pytest.mark.parametrize("number", [1, 2, 5])
def test_nothing_is_evaluated_outside_the_bounds_or_far_from_the_path(number):
    seen = []

    def losses(points):
        seen.append(points)
        return points.square().sum(1)

    landscape(scene(losses, [[1.0] * number, [0.5] * number], [-2.0] * number, (-2.0, torch.inf)), 1.0)

    points = torch.cat(seen)
    assert points.min() >= -2.0
    assert points.max() <= 1.0 + 0.25 * 3.0 + 1e-12


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_that_has_not_moved_is_shown_all_the_same(number):
    png = landscape(scene(lambda points: points.square().sum(1), [[0.0] * number], [0.0] * number), 1.0)

    assert Image.open(io.BytesIO(png)).width > 500


def test_a_line_needs_two_points():
    with pytest.raises(Unaffordable, match="there is no line"):
        landscape(scene(lambda points: points.square().sum(1), [[0.0] * 3], [0.0] * 3), 1.0)


def test_a_loss_that_is_the_same_or_infinite_everywhere_is_drawn():
    for value in (1.0, float("nan"), float("inf")):
        png = landscape(scene(lambda points, v=value: torch.full((len(points),), v), [[0.0] * 2], [1.0] * 2), 1.0)

        assert covered(png, RED)


def test_an_observer_may_not_look_outside_the_bounds():
    class Looks:
        def open(self, run):
            self.run = run

        def record(self, block, metrics):
            self.points = block.points

        def close(self, result, error):
            with pytest.raises(ValueError, match="1 of 2 points lie outside the bounds"):
                self.run.losses(torch.tensor([[0.5], [1.5]]))
            self.seen = self.run.losses(torch.tensor([[0.5], [1.0]])).tolist()

    looks = Looks()
    gradopt.minimise(lambda x: (x**2).sum(), [0.5], bounds=(-1.0, 1.0), observers=[looks], optimiser="sgd")

    assert looks.seen == [0.25, 1.0]
    assert [step for step, _ in looks.points] == sorted({step for step, _ in looks.points})
