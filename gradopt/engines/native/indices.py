"""Indices as sums of loop variables: what is known of them when a loop is printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Affine:
    """constant + the sum of factor * atom; an atom is a loop variable, or the text of a quotient or remainder."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, atom: str) -> "Affine":
        """One atom alone."""
        return cls(0, ((atom, 1),))

    def __add__(self, other: "Affine | int") -> "Affine":
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms)
        factors = dict(self.terms)
        for atom, factor in other.terms:
            factors[atom] = factors.get(atom, 0) + factor
        return Affine(self.constant + other.constant, _sorted(factors))

    def __mul__(self, factor: int) -> "Affine":
        if factor == 0:
            return Affine()
        return Affine(self.constant * factor, tuple((atom, one * factor) for atom, one in self.terms))

    def text(self) -> str:
        """The sum in C."""
        parts = [atom if factor == 1 else f"{factor}*{atom}" for atom, factor in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)


Index = tuple[Affine, ...]


class SplitRange(Exception):
    """A loop must be cut in two at `at` for its body to be the same at all its indices."""

    def __init__(self, variable: str, at: int) -> None:
        super().__init__(variable, at)
        self.variable, self.at = variable, at


class SplitStride(Exception):
    """A loop must become `step` loops, one for each remainder, for its body to be the same at all its indices."""

    def __init__(self, variable: str, step: int) -> None:
        super().__init__(variable, step)
        self.variable, self.step = variable, step


@dataclass(slots=True)
class Ranges:
    """Which values the atoms take: from the first up to, not including, the second.

    Attributes:
        loops: Names of the variables that may be split.
    """

    of: dict[str, tuple[int, int]]
    loops: frozenset[str] = frozenset()
    _divisions: dict[str, tuple[Affine, int, str]] = field(default_factory=dict[str, tuple[Affine, int, str]])

    def bounds(self, index: Affine) -> tuple[int, int]:
        """The smallest and the largest value."""
        low = high = index.constant
        for atom, factor in index.terms:
            first, behind = self.of[atom]
            ends = factor * first, factor * (behind - 1)
            low, high = low + min(ends), high + max(ends)
        return low, high

    def below(self, index: Affine, limit: int) -> bool | None:
        """Whether index < limit; None where it depends and cannot be arranged.

        Raises:
            SplitRange: It can be arranged.
        """
        low, high = self.bounds(index)
        if high < limit or low >= limit:
            return high < limit
        if len(index.terms) == 1 and index.terms[0][0] in self.loops:
            variable, factor = index.terms[0]
            gap = limit - index.constant  # factor * variable < gap
            raise SplitRange(variable, -(-gap // factor) if factor > 0 else gap // factor + 1)
        return None

    def multiple(self, index: Affine, step: int) -> bool | None:
        """Whether step divides index; None where it depends and cannot be arranged.

        Raises:
            SplitStride: It can be arranged.
        """
        loose = [(atom, factor) for atom, factor in index.terms if factor % step]
        if not loose:
            return index.constant % step == 0
        if all(atom in self.loops for atom, _ in loose):
            raise SplitStride(loose[0][0], step)
        return None

    def divided(self, index: Affine, divisor: int) -> tuple[Affine, Affine]:
        """Quotient and remainder; index is not negative."""
        whole = Affine(index.constant // divisor, tuple((a, f // divisor) for a, f in index.terms if f % divisor == 0))
        rest = Affine(index.constant % divisor, tuple((a, f) for a, f in index.terms if f % divisor))
        low, high = self.bounds(rest)
        if low >= 0 and high < divisor:
            return whole, rest
        quotient, remainder = f"(({rest.text()}) / {divisor})", f"(({rest.text()}) % {divisor})"
        self.of[quotient] = low // divisor, high // divisor + 1
        self.of[remainder] = 0, divisor
        self._divisions[quotient] = rest, divisor, remainder
        return whole + Affine.of(quotient), Affine.of(remainder)

    def offset(self, index: Index, strides: Sequence[int]) -> Affine:
        """The sum of index * stride; quotients and remainders that belong together become what was divided."""
        total = Affine()
        for one, stride in zip(index, strides, strict=True):
            total = total + one * stride
        while True:
            factors = dict(total.terms)
            for quotient, (rest, divisor, remainder) in self._divisions.items():
                factor = factors.get(remainder)
                if factor is not None and factors.get(quotient) == divisor * factor:
                    del factors[quotient], factors[remainder]
                    total = Affine(total.constant, _sorted(factors)) + rest * factor
                    break
            else:
                return total

    def unflattened(self, flat: Affine, shape: Sequence[int]) -> Index:
        """The index in `shape` of an element counted in C order."""
        index: list[Affine] = []
        for size in reversed(shape[1:]):
            flat, remainder = self.divided(flat, size)
            index.append(remainder)
        return (flat, *reversed(index)) if shape else ()


def flattened(index: Index, shape: Sequence[int], ranges: Ranges) -> Affine:
    """The place of an element counted in C order."""
    return ranges.offset(index, row_major(shape))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def _sorted(factors: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((atom, factor) for atom, factor in factors.items() if factor))
