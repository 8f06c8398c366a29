"""Problems of Hock and Schittkowski: nonlinear programmes with bounds, equalities and inequalities.

W. Hock, K. Schittkowski, Test Examples for Nonlinear Programming Codes, Lecture Notes in Economics and Mathematical
Systems 187, Springer 1981; the numbers are the book's. `equalities()` are zero and `inequalities()` are not negative at
a feasible point. A start of the book outside the bounds is moved onto them. Minima are computed anew to all digits: the
book's last digits are off in hs072, hs075, hs093 and hs111; where it is further off, the docstring says so.
"""

from typing import ClassVar

from torch import Tensor

from gradopt import Constraint
from gradopt_problems.problem import Problem


class HS(Problem):
    """A problem of the collection.

    Attributes:
        START: The book's.
    """

    SOURCE = "Hock, Schittkowski 1981"
    START: ClassVar[tuple[float, ...]] = ()

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(self.START, scale)

    def equalities(self) -> Tensor | None:
        """What must be zero, or None."""
        return None

    def inequalities(self) -> Tensor | None:
        """What must not be negative, or None."""
        return None

    def constraints(self) -> list[Constraint]:
        """Those of the two that there are."""
        sides = ((self.equalities, 0.0), (self.inequalities, None))
        return [Constraint(function, 0.0, upper) for function, upper in sides if function() is not None]
