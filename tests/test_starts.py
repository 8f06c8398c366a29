"""Samplers of starts."""

import pytest
import torch

from gradopt import Mistake, starts

LOWER, UPPER = torch.tensor([-1.0, 0.0, 5.0], dtype=torch.float64), torch.tensor([1.0, 10.0, 6.0], dtype=torch.float64)


@pytest.mark.parametrize("sampler", [starts.sobol, starts.latin_hypercube, starts.uniform])
def test_points_lie_in_the_box_and_the_seed_decides_them(sampler):
    points = sampler(64, LOWER, UPPER, seed=3)

    assert points.shape == (64, 3) and points.dtype == torch.float64
    assert bool(((points >= LOWER) & (points <= UPPER)).all())
    assert torch.equal(points, sampler(64, LOWER, UPPER, seed=3))
    assert not torch.equal(points, sampler(64, LOWER, UPPER, seed=4))


def test_a_latin_hypercube_has_one_point_in_each_slice():
    parts = (starts.latin_hypercube(50, LOWER, UPPER) - LOWER) / (UPPER - LOWER)

    for column in (parts * 50).floor().T:
        assert column.sort().values.tolist() == list(range(50))


def test_sobol_points_fill_the_box_evenly():
    parts = (starts.sobol(64, LOWER, UPPER) - LOWER) / (UPPER - LOWER)

    for column in (parts * 8).floor().T:
        assert column.unique(return_counts=True)[1].tolist() == [8] * 8


def test_normal_starts_with_its_centre_and_scales_with_it():
    centre = torch.tensor([100.0, 0.0], dtype=torch.float64)
    points = starts.normal(4000, centre, spread=0.5)

    assert torch.equal(points[0], centre)
    assert points.std(0).tolist() == pytest.approx([50.0, 0.5], rel=0.1)


def test_auto_takes_the_box_where_there_is_one():
    box, centre = (LOWER, UPPER), (LOWER + UPPER) / 2

    assert torch.equal(starts.draw(8, "auto", centre, box), starts.sobol(8, *box))
    half = (LOWER, torch.full_like(UPPER, torch.inf))
    assert torch.equal(starts.draw(8, "auto", centre, half), starts.normal(8, centre).clamp(*half))


def test_a_sampler_in_a_box_needs_one():
    with pytest.raises(Mistake, match="two of them, or use sampler=normal"):
        starts.draw(8, "sobol", LOWER, None)
