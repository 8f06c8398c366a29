"""What all problems of this package share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradopt import Objective


class Problem(Objective):
    """A test problem: one vector of unknowns `x`, a source, and the best that is known.

    Args:
        start: The source's starting point, in the default dtype; what lies outside the bounds is moved onto them.
        scale: A factor on it; the sets of the literature take 1, 10 and 100.

    Attributes:
        LOWER, UPPER: Bounds on `x`, None where it is free.
        BEST: The lowest loss that is known. Where it depends on the size, `minimum` is overridden.
        MINIMISER: A point that has it, likewise.
        SOURCE: Where the formula, the start and the minimum come from.
    """

    LOWER: Sequence[float] | float | None = None
    UPPER: Sequence[float] | float | None = None
    BEST: float | None = None
    MINIMISER: Sequence[float] | None = None
    SOURCE = ""

    def __init__(self, start: Sequence[float] | Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.x = nn.Parameter(scale * torch.as_tensor(start, dtype=torch.get_default_dtype()))
        with torch.no_grad():
            for limit, clip in ((self.LOWER, torch.maximum), (self.UPPER, torch.minimum)):
                if limit is not None:
                    self.x.copy_(clip(self.x, torch.as_tensor(limit, dtype=self.x.dtype)))

    def bounds(self) -> dict[str, tuple[Sequence[float] | float | None, Sequence[float] | float | None]]:
        """The box of `x`."""
        return {} if self.LOWER is None and self.UPPER is None else {"x": (self.LOWER, self.UPPER)}

    def minimum(self) -> float | None:
        """The lowest loss that is known."""
        return self.BEST

    def minimiser(self) -> list[float] | None:
        """A point at which the loss is lowest, where one is known in closed form or to many digits."""
        return None if self.MINIMISER is None else list(self.MINIMISER)

    def describe(self) -> str:
        """The name and the size."""
        return f"{type(self).__name__}, n = {self.x.numel()} ({self.SOURCE})"

    def constant(self, name: str, values: Sequence[float] | Tensor) -> None:
        """Keep data that follow the module to its device and dtype."""
        self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()), persistent=False)
