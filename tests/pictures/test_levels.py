"""Levels of contours are round numbers at even distances, and none that the grid cannot show."""

import math

import contourpy
import numpy
import pytest

from gradopt.pictures.levels import MOST, levels
from gradopt.pictures.scale import written


def grid(function, number=60, x=(-1.75, 1.55), y=(-0.3, 1.35)):
    """The losses, y changing with the row."""
    across, up = numpy.meshgrid(numpy.linspace(x[0], x[1], number), numpy.linspace(y[0], y[1], number))
    return function(across, up)


def valley(steep):
    return lambda x, y: steep * (y - x**2) ** 2 + (1 - x) ** 2


def chosen(losses, best=0.0):
    found = levels(losses, best)
    assert found is not None
    return found


def pieces(losses, level):
    """The number of lines that a level is drawn as."""
    return len(contourpy.contour_generator(z=losses).lines(level))


@pytest.mark.parametrize("steep", [100.0, 1e4, 1e6])
@pytest.mark.parametrize("number", [30, 60, 160])
def test_levels_of_a_narrow_valley_make_no_islands(steep, number):
    losses = grid(valley(steep), number)

    found = chosen(losses)

    shown = found.scale.shown(losses)
    assert 5 <= len(found.shown) <= MOST
    assert max(pieces(shown, level) for level in found.shown) <= 3
    assert pieces(shown, found.shown[0] / 50) > 3  # where it could not be seen, there would be some


def test_levels_on_a_logarithmic_scale_are_round_and_even():
    found = chosen(grid(valley(100.0)))

    assert found.label == "loss" and found.scale.offset == 0.0
    assert {told.strip("0.") for told in found.told} == {"1", "2", "5"}
    ratios = found.shown[1:] / found.shown[:-1]
    assert ratios.min() == pytest.approx(2.0) and ratios.max() == pytest.approx(2.5)


def test_levels_of_a_bowl_are_even_and_keep_away_from_its_lowest_point():
    found = chosen(grid(lambda x, y: x**2 + y**2 - 0.5), -0.5)

    assert found.label == "loss"
    steps = numpy.diff(found.shown)
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert all(float(told) == pytest.approx(level) for told, level in zip(found.told, found.shown, strict=True))


@pytest.mark.parametrize("lowest", [-1.0316284, 372.5, 1e6 + 1 / 3])
def test_above_a_lowest_loss_that_is_not_zero_levels_are_of_what_lies_above(lowest):
    losses = grid(valley(1e3)) + lowest

    found = chosen(losses, lowest)

    above = lowest - found.scale.offset
    assert 0 <= above < 0.02 * found.shown[0] * 10.0**found.scale.power
    sign = "+" if lowest < 0 else "-"
    assert found.label.startswith(f"loss {sign} ") and math.isclose(float(found.label[7:]), abs(found.scale.offset))
    assert found.told[-1] in {"200", "500", "1000", "2000", "5000"}


def test_what_is_not_finite_and_what_is_huge_leave_the_levels_where_the_path_is():
    losses = grid(valley(100.0))
    losses[:, :6] = numpy.nan
    losses[:12] = 1e200
    losses[:3] = numpy.inf

    found = chosen(losses)

    assert float(found.told[-1]) <= 2000


@pytest.mark.parametrize("losses", [numpy.full((9, 9), 3.0), numpy.full((9, 9), numpy.nan), numpy.full((9, 9), 1e308)])
def test_without_two_losses_there_are_none(losses):
    assert levels(losses, math.nan) is None


def test_a_step_has_levels_although_half_of_it_is_level():
    found = chosen(grid(lambda x, y: numpy.where(x > 0, 1.0 + y**2, 0.0)))

    assert len(found.shown) >= 2


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.02, "0.02"), (500.0, "500"), (1e6, "10⁶"), (2e-7, "2·10⁻⁷"), (5e300, "5·10³⁰⁰"), (0.0, "0"), (-3e8, "-3·10⁸")],
)
def test_numbers_are_written_short(number, text):
    assert written(number) == text
