"""Charts show what there is, of short runs and long ones, and nothing where there is nothing."""

import io
import math
from dataclasses import replace
from itertools import pairwise

import numpy
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from PIL import Image

import gradopt
from gradopt.pictures import convergence as convergence_chart
from gradopt.pictures import landscape as landscape_chart
from gradopt.pictures.basins import of_starts
from gradopt.pictures.convergence import convergence
from gradopt.pictures.feasible import Feasible
from gradopt.pictures.figures import BLUE, GREEN, GREY, ORANGE, RED, _power
from gradopt.pictures.landscape import Scene, Unaffordable, landscape
from gradopt.pictures.scale import Scale, scale
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


@pytest.fixture
def panels(monkeypatch):
    """Draws a convergence, and returns its panels by place, each with its lines by label."""
    seen = []

    def watched(drawing, png=convergence_chart.png):
        seen.append(drawing)
        return png(drawing)

    monkeypatch.setattr(convergence_chart, "png", watched)

    def draw(result, objective="f", minimum=None, **options):
        convergence(result, objective, minimum, **options)
        return [{line.get_label(): line.get_xydata() for line in axes.get_lines()} for axes in seen[-1].axes]

    draw.drawings = seen
    return draw


def test_under_constraints_the_gap_is_the_distance_from_the_minimum_on_either_side(panels):
    losses, missed = [4.0, 0.5, 3.0, 0.75, 1.0], [0.0, 0.3, 0.1, 1e-9, 0.0]
    columns = {"loss": losses, "violation": missed, "evaluations": range(1, 6), "gradient_norm": losses}

    _, below = panels(ended(Status.CONVERGED, **columns), minimum=1.0, tolerance=1e-8)

    gap = below["|loss - known minimum 1|"]
    assert gap.tolist() == [[1.0, 3.0], [2.0, 0.5], [3.0, 2.0], [4.0, 0.25], [5.0, 2.0**-52]]


def test_the_gap_of_a_constrained_run_goes_on_to_its_end(panels):
    found = gradopt.minimise(
        lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2,
        [-1.0, 1.0],
        constraints=[
            gradopt.Constraint(lambda x: (x**2).sum(), upper=1.5),
            gradopt.Constraint(lambda x: x.sum(), upper=1.2),
        ],
        optimiser="augmented_lagrangian",
    )

    _, below = panels(found, tolerance=1.5e-8)

    gap, gradient = below["|loss - loss of the result|"], below["largest entry of the Lagrangian's gradient"]
    assert gradient[-1, 1] < 1e-6 < found.history["gradient_norm"][-1]
    assert found.success and gap[-1, 0] > 0.9 * found.nfev
    assert gap[-1, 1] < 1e-8


def test_without_a_feasible_step_there_is_no_gap(panels):
    columns = {"loss": [3.0, 2.0], "violation": [0.2, 0.1], "evaluations": [1, 2], "gradient_norm": [1.0, 1.0]}

    _, below = panels(replace(ended(Status.INFEASIBLE, **columns), violation=0.1))

    assert set(below) == {"largest gradient entry of the loss alone", "violation"}


def test_a_gap_that_is_none_before_the_end_says_from_where_on(panels):
    columns = {"loss": [3.0, 1, 2, 1], "evaluations": [1, 4, 6, 7], "gradient_norm": [1.0, 1, 1, 1]}

    _, below = panels(ended(Status.CONVERGED, **columns))
    _, known = panels(ended(Status.CONVERGED, **columns), minimum=1.0)

    assert below["lowest loss so far - lowest of this run (0 from evaluation 4 on)"][:, 0].tolist() == [1]
    assert known["lowest loss so far - known minimum 1"][:, 0].tolist() == [1, 4, 6, 7]


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


@pytest.fixture(scope="module")
def four_minima():
    grid = torch.linspace(-4.5, 4.5, 4, dtype=torch.float64)
    return gradopt.minimise(himmelblau, starts=torch.cartesian_prod(grid, grid), bounds=(-5.0, 5.0), optimiser="lbfgs")


def test_the_verdict_of_many_starts_stands_at_the_step_it_names(panels, four_minima):
    best = four_minima.best_start
    assert best.nit < four_minima.nit.max()  # others go on

    above, below = panels(four_minima)

    (mark,) = above[f"start {four_minima.best}, the best, converged at step {best.nit}, loss {best.fun:.6g}"]
    assert mark.tolist() == [best.nit, best.fun]
    drawing = panels.drawings[-1]
    FigureCanvasAgg(drawing).draw()
    assert all(axes.get_legend().get_window_extent().x1 < drawing.bbox.x1 for axes in drawing.axes)
    assert "median of those going on" in above and "largest gradient entry (median of those going on)" in below


def told_of(results):
    return of_starts(results, torch.stack([one["x"] for one in results.minima])).told


def test_minima_that_are_equal_to_the_tolerance_share_their_loss(four_minima):
    losses = [one["fun"] for one in four_minima.minima]
    assert len(losses) == 4 and len(set(losses)) > 1 and max(losses) < 1e-15
    fall = four_minima.history["loss"][0].item() * four_minima.best_start.verdict.evidence["tolerance"]

    assert told_of(four_minima) == [f"0 ± {fall:.0e}"] * 4

    raised = [{**one, "fun": one["fun"] + height} for one, height in zip(four_minima.minima, (0, 0, 1, 2), strict=True)]
    assert told_of(replace(four_minima, minima=raised)) == [f"0 ± {fall:.0e}"] * 2 + ["1", "2"]


@pytest.mark.parametrize("last", [math.nan, math.inf, -math.inf])
def test_the_mark_of_a_run_that_met_no_number_stands_at_its_last_finite_loss(last, panels):
    columns = {"loss": [3.0, 1.0, 2.0, last], "evaluations": [1, 2, 3, 4], "gradient_norm": [1.0] * 4}

    above, _ = panels(replace(ended(Status.NON_FINITE, **columns), fun=1.0))

    assert above["non_finite at step 3, best loss 1"].tolist() == [[3.0, 2.0]]
    assert above["loss"][-1].tolist() == [3.0, 2.0]


def test_a_long_title_is_wrapped_and_hides_no_legend(panels):
    title = "network with 2 layers of 128 units; " * 4 + "batches of 64, 30 epochs"
    columns = {"loss": [3.0, 2.0, 1.0], "evaluations": [1, 2, 3], "gradient_norm": [1.0] * 3}

    panels(ended(Status.CONVERGED, **columns), title)

    drawing = panels.drawings[-1]
    FigureCanvasAgg(drawing).draw()
    assert drawing.get_suptitle().replace("\n", " ") == title
    heading, legend = drawing._suptitle.get_window_extent(), drawing.axes[0].get_legend().get_window_extent()
    assert 0 < heading.x0 < heading.x1 < drawing.bbox.x1
    assert heading.y0 > legend.y1


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


@pytest.fixture
def axes(monkeypatch):
    """Draws a landscape, looks at its figure, and returns the axes of the loss."""
    seen = []

    def watched(drawing, png=landscape_chart.png):
        seen.append(drawing)
        return png(drawing)

    monkeypatch.setattr(landscape_chart, "png", watched)

    def draw(*arguments, **changes):
        landscape(replace(scene(*arguments), **changes), 1.0)
        return seen[-1].axes[0]

    return draw


def told(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def marks(axes):
    """Where start and result stand, by name."""
    found = {}
    for line in axes.get_lines():
        if line.get_label().startswith(("start", "result")):
            (found[line.get_label().split(",")[0]],) = line.get_xydata().tolist()
    return found


@pytest.mark.parametrize("number", [1, 2, 5])
def test_where_a_run_failed_its_end_is_called_the_best_point(number, axes):
    drawn = axes(bowl, [[-3.0] * number], [0.5] * number, end="best point")

    assert [name.split(",")[0] for name in told(drawn)][-2:] == ["start", "best point"]
    assert number < 5 or "to the best point (1)" in drawn.get_xlabel()


def bowl(points):
    return (points - 1.0).square().sum(1)


SIZES = {"1e300": (1e300, 0.0), "1e-300": (1e-300, 0.0), "1e15 and a little": (1.0, 1e15), "-5e306": (1e306, -5e306)}


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize(("factor", "constant"), SIZES.values(), ids=SIZES)
def test_losses_of_any_size_can_be_told_apart_and_their_labels_are_true(factor, constant, number, axes):
    drawn = axes(lambda points: factor * bowl(points) + constant, [[-1.0] * number], [1.0] * number)

    (_, low), (_, high) = marks(drawn)["result"], marks(drawn)["start"]
    if number == 2:
        bar = drawn.figure.axes[1]
        drawn.figure.canvas.draw()
        words = [label.get_text() for label in bar.get_yticklabels() if label.get_text()]
        assert len(set(words)) == len(words) >= 5
        offset = {0.0: "loss", 1e15: "loss - 1e+15", -5e306: "loss + 5e+306"}
        assert bar.get_ylabel() == offset[constant]
        mantissa, _, power = words[-1].rpartition("10" if factor != 1.0 else "none")
        highest = float(mantissa.strip("·") or 1) * 10.0 ** plain(power) if factor != 1.0 else float(words[-1])
        assert 3.0 * factor < highest < 12.5 * factor  # 12.5 in the corner, above all levels
    else:
        assert math.isclose((high - low) * unit(drawn), 4.0 * number * factor, rel_tol=1e-9)
        assert (drawn.get_ylabel() == "loss - 1e+15") == (constant == 1e15)


def unit(axes):
    """The power of ten in the label of the losses."""
    _, _, power = axes.get_ylabel().partition(" / 10")
    return 10.0 ** plain(power)


def plain(raised):
    """The number that raised digits tell."""
    return int(raised.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)


def test_a_scale_shows_what_its_label_says():
    assert scale([0.5, 20.0, math.inf, math.nan]) == Scale()
    assert scale([]) == Scale() == scale([0.0, 0.0])
    assert scale([3e8, -1e7]).label("x") == "x / 10⁸"
    small = scale([-(2.0**20) - 2e-6, -(2.0**20) - 1e-6])
    assert small.label("f") == f"(f + {2.0**20 + 2e-6!r}) / 10⁻⁶"
    assert small.shown([-(2.0**20) - 1e-6]) == pytest.approx([1.0], rel=1e-3)
    assert scale([-1.7e308, 1.7e308]).shown([1.7e308]) == pytest.approx([1.7])
    assert scale([5e-324]).shown([5e-324]).tolist() == pytest.approx([4.94], rel=1e-3)


@pytest.mark.parametrize(("number", "names"), [(2, "x[1]"), (3, ("x[1]", "x[2]")), (4, "3 unknowns")])
def test_unknowns_that_equal_bounds_fix_are_left_out(number, names, axes):
    lower, upper = [0.5] + [-2.0] * (number - 1), [0.5] + [3.0] * (number - 1)
    bounds = tuple(torch.tensor(side, dtype=torch.float64) for side in (lower, upper))

    drawn = axes(bowl, [[0.5] + [-1.0] * (number - 1)], [0.5] + [1.0] * (number - 1), bounds=bounds)

    assert drawn.figure.get_suptitle() == "f; x[0] = 0.5"
    if number == 3:
        assert (drawn.get_xlabel(), drawn.get_ylabel()) == names
        assert len(drawn.collections) >= 2  # the loss is there, as areas and lines
    else:
        assert drawn.get_xlabel().endswith(names)
        loss = next(line for line in drawn.get_lines() if line.get_label() == "loss")
        assert loss.get_ydata().min() == pytest.approx(0.25, abs=1e-3)
    assert marks(drawn)["start"] == pytest.approx([-1.0, 4.25 if number == 2 else -1.0]) or number == 4


def test_where_bounds_fix_every_unknown_there_is_nothing_to_see(axes):
    fixed = (torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))

    with pytest.raises(Unaffordable, match="fix every unknown"):
        axes(bowl, [[1.0, 1.0]], [1.0, 1.0], bounds=fixed)


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("bounds", [None, (-40.0, 1.0), (0.999, 300.0)])
@pytest.mark.parametrize("end", [1.0 - 1e-12, 38.0])
def test_start_and_result_lie_inside_the_axes_at_their_losses(number, bounds, end, axes):
    low, high = bounds or (-math.inf, math.inf)
    first, last = ([min(max(x, low), high)] * number for x in (-3.0, end))

    drawn = axes(bowl, [first, [0.999] * number], last, bounds)

    found = marks(drawn)
    for x, y in found.values():
        assert drawn.get_xlim()[0] <= x <= drawn.get_xlim()[1]
        assert drawn.get_ylim()[0] <= y <= drawn.get_ylim()[1]
    for name, point in {"start": first, "result": last}.items():
        if number == 2:
            assert found[name] == pytest.approx(point)
        else:
            height = bowl(torch.tensor([point], dtype=torch.float64)).item()
            assert found[name][1] * unit(drawn) == pytest.approx(height, rel=1e-9)


def test_a_slice_reaches_the_loss_of_its_result(axes):
    drawn = axes(lambda points: bowl(points) + 1e-19, [[-3.0] * 5], [1.0] * 5)

    loss = next(line for line in drawn.get_lines() if line.get_label() == "loss")
    assert loss.get_ydata().min() == marks(drawn)["result"][1] == pytest.approx(1e-19)
    assert drawn.get_ylim()[0] <= 1e-19


def constraints(function, lower, upper, *names):
    sides = (torch.tensor(side, dtype=torch.float64) for side in (lower, upper))
    return Feasible(function, *sides, names)


def is_inside(area, point):
    return sum(Path(ring).contains_point(point) for ring in area.to_polygons()) % 2 == 1  # a ring in a ring is a hole


def test_constraints_are_drawn_with_their_boundaries(axes):
    def values(points):
        return torch.stack([points.square().sum(1), points.sum(1), points[:, 0] - 9], 1)

    feasible = constraints(values, [-math.inf, 0.5, -math.inf], [2.0, 0.5, 0.0], "disc", "line", "far")
    plain = axes(bowl, [[-1.5, -1.0]], [1.0, 1.0])
    drawn = axes(bowl, [[-1.5, -1.0]], [1.0, 1.0], feasible=feasible)

    assert told(drawn) == ["outside disc <= 2", "line = 0.5", "steps", "start", "result"]
    lines = [path.vertices for one in drawn.collections[len(plain.collections) :] for path in one.get_paths()]
    circle = [line for line in lines if len(line) and numpy.allclose((line**2).sum(1), 2.0, atol=0.02)]
    straight = [line for line in lines if len(line) and numpy.allclose(line.sum(1), 0.5, atol=0.01)]
    assert circle and straight
    hatched = [one for one in drawn.collections if getattr(one, "hatches", [None]) == ["//"]]
    (outside,) = hatched[0].get_paths()
    assert [is_inside(outside, point) for point in ((-1.9, -1.2), (1.2, 1.2), (0.0, 0.9))] == [True, True, False]


@pytest.mark.parametrize(("number", "place"), [(1, 0.5**0.5), (3, 0.853553)])
def test_constraints_are_drawn_on_curves_and_slices(number, place, axes):
    feasible = constraints(
        lambda points: torch.stack([points[:, 0].square(), points[:, 0]], 1),
        [-math.inf, 0.0], [0.5, 0.0], "square", "zero",
    )  # fmt: skip

    drawn = axes(bowl, [[-1.0] * number], [1.0] * number, feasible=feasible)

    assert {"outside square <= 0.5", "zero = 0"} <= set(told(drawn))
    edges = drawn.collections[0].get_paths()[-1].vertices[:, 0]
    assert edges.min() == pytest.approx(place, abs=0.01)
    wall = next(line for line in drawn.get_lines() if line.get_label() == "zero = 0")
    assert wall.get_xdata()[0] == pytest.approx(0.0 if number == 1 else 0.5, abs=1e-9)


def test_constraints_that_are_not_finite_and_a_hundred_in_one_are_drawn(axes):
    def values(points):
        return points[:, :1].sqrt() - torch.arange(100) / 100

    feasible = constraints(values, [0.0] * 100, [math.inf] * 100, *["root"] * 100)

    assert "outside root >= 0" in told(axes(bowl, [[-0.5, 0.5]], [1.5, 1.0], feasible=feasible))


CIRCLE = constraints(lambda points: points.square().sum(1, keepdim=True), [-math.inf], [1.0], "circle")


@pytest.mark.parametrize(
    ("path", "best", "is_shown"),
    [
        ([[1.6, 2.0], [1.7, 1.6]], [1.3, 1.3], True),
        ([[3.0, 0.0], [3.1, 0.2]], [2.9, 0.1], False),
        ([[1.6], [2.0]], [1.5], True),
        ([[9.0], [9.1]], [9.2], False),
    ],
    ids=["near", "far", "near on a curve", "far on a curve"],
)
def test_where_a_missed_constraint_is_kept_is_shown_if_it_is_near(path, best, is_shown, axes):
    drawn = axes(bowl, path, best, feasible=CIRCLE, end="best point")

    nearest = torch.tensor(best) / torch.tensor(best).norm()
    limits = (drawn.get_xlim(), drawn.get_ylim())[: len(best)]
    seen = [low < 0.95 * place < high for (low, high), place in zip(limits, nearest.tolist(), strict=True)]
    assert all(seen) == is_shown
    assert all(high - low < 4.0 for low, high in limits)


def test_a_missed_equality_is_shown_and_nothing_outside_the_bounds_is_looked_at(axes):
    seen = []

    def values(points):
        seen.append(points)
        return points.sum(1, keepdim=True)

    equal = constraints(values, [0.0], [0.0], "line")
    drawn = axes(bowl, [[1.0, 2.0], [1.9, 1.0]], [0.9, 0.9], (-0.5, math.inf), feasible=equal, end="best point")

    assert drawn.get_xlim()[0] < 0 and drawn.get_ylim()[0] < 0
    assert torch.cat(seen).min() >= -0.5


@pytest.mark.parametrize("number", [1, 2])
def test_a_bound_as_near_as_the_path_is_long_is_shown(number, axes):
    drawn = axes(bowl, [[3.0] * number], [2.0] * number, (1.0, math.inf))

    assert drawn.get_xlim()[0] <= 1.0 and drawn.get_xlim()[1] < 4.0


def test_an_unknown_that_has_not_moved_is_shown_as_far_as_the_one_that_has(axes):
    drawn = axes(lambda points: points[:, 0] ** 2 - points[:, 1] ** 2, [[1.0, 0.0]], [0.0, 0.0], end="best point")

    (low, high), (left, right) = drawn.get_ylim(), drawn.get_xlim()
    assert high - low == pytest.approx(right - left)


def test_crowded_levels_are_not_drawn_over_their_shades(axes):
    def lines(losses):
        drawn = axes(losses, [[-3.0, -3.0]], [3.0, 3.0])
        return [one for one in drawn.collections if one.get_facecolor().size == 0]

    assert lines(bowl)
    assert not lines(lambda points: (points.square() - 10 * (2 * math.pi * points).cos()).sum(1))


def test_an_unknown_that_moves_by_little_is_shown_as_far_as_it_moves(axes):
    drawn = axes(lambda points: (points - 1000).square().sum(1), [[1000.0, 1000.01]], [1000.01, 1000.0])

    for low, high in (drawn.get_xlim(), drawn.get_ylim()):
        assert high - low < 0.02
    assert drawn.get_xlabel() == "x[0] - 999.9975"


@pytest.mark.parametrize(("factor", "constant"), SIZES.values(), ids=SIZES)
def test_a_convergence_of_any_size_has_a_true_label(factor, constant, monkeypatch):
    seen = []
    monkeypatch.setattr(convergence_chart, "png", seen.append)
    losses = [factor * loss + constant for loss in (10.0, 4.0, 1.0, 0.5)]

    convergence(ended(Status.CONVERGED, loss=losses, evaluations=[1, 2, 3, 4], gradient_norm=losses), "f", None)

    above = seen[0].axes[0]
    loss, verdict = above.get_lines()
    expected = 9.5 * factor
    assert (loss.get_ydata()[0] - verdict.get_ydata()[0]) * unit(above) == pytest.approx(expected)
    assert above.get_ylabel().startswith("loss - 1000000000000000.5" if constant == 1e15 else "loss / 10")


def test_keys_in_two_rows_lie_below_the_axes_above(monkeypatch):
    seen = []
    monkeypatch.setattr(convergence_chart, "png", seen.append)
    columns = {"loss": [3.0, 2, 1], "gradient_norm": [3.0, 2, 1], "violation": [3.0, 0, 0]}

    convergence(ended(Status.CONVERGED, evaluations=[1, 2, 3], **columns), "f", 1.0)

    above, below = seen[0].axes
    FigureCanvasAgg(seen[0]).draw()
    assert len(below.get_legend().get_texts()) == 3
    assert below.get_legend().get_window_extent().y1 < above.get_window_extent().y0
    assert all(tick == round(tick) for tick in below.get_xticks())


def test_a_loss_that_falls_faster_and_faster_is_seen_to_fall(monkeypatch):
    seen = []
    monkeypatch.setattr(convergence_chart, "png", seen.append)
    losses = [64.0] + [-(10.0**power) for power in range(30)]

    convergence(ended(Status.UNBOUNDED, loss=losses, evaluations=range(31), gradient_norm=losses), "f", None)

    above = seen[0].axes[0]
    heights = above.transData.transform(above.get_lines()[0].get_xydata())[:, 1]
    assert numpy.diff(heights[20:]).max() < -1.0  # pixels a step
    FigureCanvasAgg(seen[0]).draw()
    labels = [label.get_window_extent() for label in above.get_yticklabels()]
    assert len(labels) > 4 and not any(one.overlaps(other) for one, other in pairwise(labels))


@pytest.mark.parametrize("losses", [[2.2, -0.01, -0.2, -1.0, -1.0, -1.0], [1.0, 0.0, -0.75, -1.0, -1.0, -1.0]])
def test_losses_round_zero_are_on_a_plain_axis(losses, monkeypatch):
    seen = []
    monkeypatch.setattr(convergence_chart, "png", seen.append)

    convergence(ended(Status.CONVERGED, loss=losses, evaluations=range(6), gradient_norm=[1.0] * 6), "f", None)

    assert seen[0].axes[0].get_yscale() == "linear"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("height", [30.0, 1e-250, 1e270])
def test_losses_that_fall_to_zero_at_once_are_seen_to_fall(height, monkeypatch):
    seen = []
    monkeypatch.setattr(convergence_chart, "png", seen.append)
    losses = [height, height / 1e4, 0.0, 0.0, 0.0, 0.0]

    convergence(ended(Status.CONVERGED, loss=losses, evaluations=range(6), gradient_norm=losses), "f", None)

    above = seen[0].axes[0]
    FigureCanvasAgg(seen[0]).draw()
    heights = above.transData.transform(above.get_lines()[0].get_xydata())[:, 1]
    assert numpy.diff(heights[:3]).max() < -20.0  # pixels
    labels = [label.get_window_extent() for label in above.get_yticklabels() if label.get_text()]
    assert len(labels) > 3 and not any(one.overlaps(other) for one, other in pairwise(labels))


def test_an_axis_with_one_power_of_ten_has_plain_numbers(monkeypatch):
    seen = []
    monkeypatch.setattr(convergence_chart, "png", seen.append)
    columns = {"loss": [1.0] * 3, "violation": [0.4, 0.3, 0.3], "evaluations": [1, 2, 3], "gradient_norm": [1.0] * 3}

    convergence(replace(ended(Status.INFEASIBLE, **columns), violation=0.3), "f", None)

    below = seen[0].axes[1]
    FigureCanvasAgg(seen[0]).draw()
    labels = [one.get_text() for one in below.get_yticklabels(which="both") if one.get_text()]
    assert {"0.5", "1"} <= set(labels)


def test_an_unknown_of_small_units_covers_a_part_of_its_axis_that_can_be_seen(axes):
    drawn = axes(lambda points: points[:, 0] / 1e9 + points[:, 1], [[0.0, 0.0]], [1e9, 2.0])

    assert unit(drawn) == 1.0
    low, high = drawn.get_ylim()
    assert 2.0 / (high - low) > 0.03
