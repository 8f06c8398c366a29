"""A polynomial of one unknown: the first objective."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gradopt.contracts import Bound, Objective
from gradopt.mistakes import Mistake


class Polynomial(Objective):
    """A polynomial of one unknown, by default y = 5x^3 + 2x^2 + 4x + 8 from x = 2.

    Args:
        coefficients: From the highest power down to the constant.
        x0: The start.
        bounds: [lower, upper] for x; null on either side, or for the whole, leaves it free.
    """

    def __init__(
        self,
        coefficients: Sequence[float] = (5.0, 2.0, 4.0, 8.0),
        x0: float = 2.0,
        bounds: Sequence[float | None] | None = None,
    ) -> None:
        super().__init__()
        if not coefficients or not all(math.isfinite(c) for c in coefficients):
            raise Mistake(f"coefficients must be one finite number or more, got {list(coefficients)}")
        if bounds is not None and len(bounds) != 2:
            raise Mistake(f"bounds must be [lower, upper] or null, got {list(bounds)}")
        self.coefficients = tuple(float(c) for c in coefficients)
        self.x = nn.Parameter(torch.tensor(float(x0)))
        self._bounds = bounds

    def forward(self, batch: None = None) -> Tensor:
        """The value by Horner's rule: one multiplication and one addition a coefficient."""
        value = self.coefficients[0] + 0.0 * self.x if len(self.coefficients) == 1 else self.coefficients[0]
        for coefficient in self.coefficients[1:]:
            value = value * self.x + coefficient
        return value  # type: ignore[return-value]

    def bounds(self) -> Mapping[str, tuple[Bound, Bound]]:
        """The interval, if there is one."""
        return {} if self._bounds is None else {"x": (self._bounds[0], self._bounds[1])}

    def unbounded_below(self) -> str | None:
        """The proof that descent from here falls for ever: beyond here no stationary point, and the loss goes to -inf.

        All real roots of the derivative lie inside Cauchy's bound 1 + max |a_i / a_n|, so outside of it the sign of the
        derivative never changes. For up to a cubic the roots themselves are known.
        """
        if self._bounds is not None and None not in self._bounds:
            return None
        terms = self.coefficients[next((i for i, c in enumerate(self.coefficients) if c), 0) :]
        degree = len(terms) - 1
        if degree < 1:
            return None
        slopes = [c * (degree - i) for i, c in enumerate(terms[:-1])]
        roots = _real_roots(slopes)
        x = self.x.item()
        for side, falls in ((-1, terms[0] * (-1) ** degree < 0), (1, terms[0] < 0)):
            bound = None if self._bounds is None else self._bounds[0 if side < 0 else 1]
            if falls and bound is None and all((x - root) * side > 0 for root in roots):
                end = "-infinity" if side < 0 else "+infinity"
                kind = "odd" if degree % 2 else "even"
                none = (
                    "it has no stationary point at all"
                    if not roots
                    else f"it has no stationary point beyond x = {x:.3g}"
                )
                return (
                    f"a polynomial of {kind} degree ({degree}) with leading coefficient {terms[0]:g} goes to -infinity "
                    f"as x goes to {end}, and {none}"
                )
        return None

    def describe(self) -> str:
        """The formula."""
        degree = len(self.coefficients) - 1
        text = ""
        for power, coefficient in zip(range(degree, -1, -1), self.coefficients, strict=True):
            if coefficient == 0 and degree > 0:
                continue
            sign = "-" if coefficient < 0 else "+"
            size = abs(coefficient)
            factor = "" if size == 1 and power else f"{size:.15g}"
            text += f" {sign} {factor}{'' if power == 0 else 'x' if power == 1 else f'x^{power}'}"
        text = text.removeprefix(" + ").replace(" - ", "-", 1) if text.startswith(" - ") else text.removeprefix(" + ")
        where = "" if self._bounds is None else f", x in [{_side(self._bounds[0], '-')}, {_side(self._bounds[1], '')}]"
        return f"y = {text or '0'}{where}"


def _side(bound: float | None, sign: str) -> str:
    return f"{sign}inf" if bound is None else f"{bound:g}"


def _real_roots(coefficients: Sequence[float]) -> list[float]:
    """Real roots up to degree 2 exactly; for higher degrees both ends of Cauchy's bound, which enclose them all."""
    if len(coefficients) <= 1:
        return []
    a, *rest = coefficients
    if len(coefficients) == 2:
        return [-rest[0] / a]
    if len(coefficients) == 3:
        b, c = rest
        discriminant = b * b - 4 * a * c
        if discriminant < 0:
            return []
        root = math.sqrt(discriminant)
        return sorted([(-b - root) / (2 * a), (-b + root) / (2 * a)])
    radius = 1 + max(abs(c / a) for c in rest)
    return [-radius, radius]
