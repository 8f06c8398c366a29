"""Where many starts begin: points drawn in a box or round a point."""

import torch
from torch import Tensor

from gradopt.mistakes import Mistake

MOST_SOBOL = 21201
"""Unknowns of a Sobol sequence at most, as Joe and Kuo (2008) have tabulated it."""


def sobol(number: int, lower: Tensor, upper: Tensor, seed: int = 0) -> Tensor:
    """Points of a scrambled Sobol sequence, which fill the box more evenly than chance does; a power of two is best.

    Args:
        lower, upper: Shape (n,), finite.

    Returns:
        Shape (number, n), in the dtype of the box.
    """
    if len(lower) > MOST_SOBOL:
        raise Mistake(f"a Sobol sequence has at most {MOST_SOBOL} unknowns, not {len(lower)}: use latin_hypercube")
    engine = torch.quasirandom.SobolEngine(len(lower), scramble=True, seed=seed)
    return _in_box(engine.draw(number, dtype=torch.float64), lower, upper)


def latin_hypercube(number: int, lower: Tensor, upper: Tensor, seed: int = 0) -> Tensor:
    """Points of which in each unknown exactly one lies in each of `number` equal parts of the box; as `sobol`."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(len(lower), number, generator=generator, dtype=torch.float64).argsort(1)
    inside = torch.rand(len(lower), number, generator=generator, dtype=torch.float64)
    return _in_box(((places + inside) / number).T, lower, upper)


def uniform(number: int, lower: Tensor, upper: Tensor, seed: int = 0) -> Tensor:
    """Independent points, each place of the box as likely as any other; as `sobol`."""
    generator = torch.Generator().manual_seed(seed)
    return _in_box(torch.rand(number, len(lower), generator=generator, dtype=torch.float64), lower, upper)


def normal(number: int, centre: Tensor, spread: float = 1.0, seed: int = 0) -> Tensor:
    """Points round a centre, of which the first is the centre itself.

    Args:
        centre: Shape (n,).
        spread: The standard deviation of an unknown, in units of its size: |centre|, or 1 where that is less.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, len(centre), generator=generator, dtype=torch.float64)
    noise[0] = 0.0
    return centre + (spread * centre.abs().clamp(min=1.0) * noise.to(centre.device)).to(centre)


def draw(
    number: int,
    sampler: str,
    centre: Tensor,
    box: tuple[Tensor, Tensor] | None,
    *,
    spread: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Points by the name of a sampler, inside the bounds; "auto" is sobol in a finite box, else normal.

    Args:
        centre: For normal, shape (n,).
        box: The bounds (lower, upper), shape (n,) each; None where nothing is bounded.

    Raises:
        Mistake: One that needs a box where there is no finite one.
    """
    finite = box is not None and bool((box[0].isfinite() & box[1].isfinite()).all())
    if sampler == "auto":
        sampler = "sobol" if finite else "normal"
    if sampler == "normal":
        points = normal(number, centre, spread, seed)
        return points if box is None else points.clamp(*box)
    if box is None or not finite:
        raise Mistake(
            f"{sampler} draws starts inside the bounds: give every unknown two of them, or use sampler=normal"
        )
    return IN_BOX[sampler](number, *box, seed)


def _in_box(parts: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    parts = parts.to(lower)
    return (lower + parts * (upper - lower)).clamp(lower, upper)  # rounding may step out


IN_BOX = {"sobol": sobol, "latin_hypercube": latin_hypercube, "uniform": uniform}
