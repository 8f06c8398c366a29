"""The nonlinear regression problems of the NIST Statistical Reference Datasets (StRD; public domain).

https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml. Residuals are model - y, so that twice the loss is NIST's
residual sum of squares; parameters, their standard errors and that sum are certified to 11 digits. NIST's own
descriptions give the models.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, exp

from gradopt_problems.problem import Problem


class NIST(Problem):
    """A regression problem from one of NIST's two starts (1 is the harder one).

    Attributes:
        LEVEL: NIST's level of difficulty: Lower, Average or Higher.
        CERTIFIED, STANDARD_ERRORS: Of the parameters. RSS: The residual sum of squares.
    """

    SOURCE = "NIST StRD"

    def __init__(self, start: Literal[1, 2] = 1) -> None:
        data = _data()[type(self).__name__]
        super().__init__(data[f"start{start}"])
        rows = torch.tensor(data["rows"], dtype=torch.float64)
        self.constant("y", rows[:, 0])
        self.constant("t", rows[:, 1:].squeeze(1))
        self.LEVEL: str = data["level"]
        self.CERTIFIED: list[float] = data["certified"]
        self.STANDARD_ERRORS: list[float] = data["stderr"]
        self.RSS: float = data["rss"]

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        """The curve at x with parameters b."""
        raise NotImplementedError

    def residuals(self) -> Tensor:
        return self.model(self.x, self.t) - self.y

    def minimum(self) -> float:
        return self.RSS / 2

    def minimiser(self) -> list[float]:
        return self.CERTIFIED


class _Exponentials(NIST):
    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * exp(-b[1] * x) + b[2] * exp(-b[3] * x) + b[4] * exp(-b[5] * x)


class _Gaussians(NIST):
    def model(self, b: Tensor, x: Tensor) -> Tensor:
        peaks = b[2] * exp(-(((x - b[3]) / b[4]) ** 2)) + b[5] * exp(-(((x - b[6]) / b[7]) ** 2))
        return b[0] * exp(-b[1] * x) + peaks


class _Cubics(NIST):
    def model(self, b: Tensor, x: Tensor) -> Tensor:
        top = b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3
        return top / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


class _Chwirut(NIST):
    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return exp(-b[0] * x) / (b[1] + b[2] * x)


class Misra1a(NIST):
    """Misra1a: dental research: monomolecular adsorption, n = 2, m = 14."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * (1 - exp(-b[1] * x))


class Misra1b(NIST):
    """Misra1b: dental research: monomolecular adsorption, n = 2, m = 14."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * (1 - (1 + b[1] * x / 2) ** -2)


class Misra1c(NIST):
    """Misra1c: dental research: monomolecular adsorption, n = 2, m = 14."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


class Misra1d(NIST):
    """Misra1d: dental research: monomolecular adsorption, n = 2, m = 14."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * b[1] * x / (1 + b[1] * x)


class Chwirut1(_Chwirut):
    """Chwirut1: ultrasonic calibration, 214 observations, n = 3, m = 214."""


class Chwirut2(_Chwirut):
    """Chwirut2: ultrasonic calibration, 54 observations, n = 3, m = 54."""


class DanWood(NIST):
    """DanWood: radiated energy of a carbon filament lamp, n = 2, m = 6."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * x ** b[1]


class Lanczos1(_Exponentials):
    """Lanczos1: three exponentials, generated to 14 digits, n = 6, m = 24."""


class Lanczos2(_Exponentials):
    """Lanczos2: three exponentials, generated to 6 digits, n = 6, m = 24."""


class Lanczos3(_Exponentials):
    """Lanczos3: three exponentials, generated to 5 digits, n = 6, m = 24."""


class Gauss1(_Gaussians):
    """Gauss1: two well-separated Gaussians on a decaying baseline, n = 8, m = 250."""


class Gauss2(_Gaussians):
    """Gauss2: two slightly blended Gaussians on a decaying baseline, n = 8, m = 250."""


class Gauss3(_Gaussians):
    """Gauss3: two strongly blended Gaussians on a decaying baseline, n = 8, m = 250."""


class Kirby2(NIST):
    """Kirby2: scanning electron microscope line width, n = 5, m = 151."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2)


class Hahn1(_Cubics):
    """Hahn1: thermal expansion of copper, n = 7, m = 236."""


class Thurber(_Cubics):
    """Thurber: electron mobility of semiconductors, n = 7, m = 37."""


class MGH09(NIST):
    """MGH09: kowalik and Osborne's function, n = 4, m = 11."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


class MGH10(NIST):
    """MGH10: meyer's thermistor, n = 3, m = 16."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * exp(b[1] / (x + b[2]))


class MGH17(NIST):
    """MGH17: osborne's first function, n = 5, m = 33."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] + b[1] * exp(-x * b[3]) + b[2] * exp(-x * b[4])


class ENSO(NIST):
    """ENSO: monthly averages of atmospheric pressure differences, n = 9, m = 168."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        turn = 2 * math.pi * x
        year = b[1] * torch.cos(turn / 12) + b[2] * torch.sin(turn / 12)
        first = b[4] * torch.cos(turn / b[3]) + b[5] * torch.sin(turn / b[3])
        second = b[7] * torch.cos(turn / b[6]) + b[8] * torch.sin(turn / b[6])
        return b[0] + year + first + second


class Nelson(NIST):
    """Nelson: dielectric breakdown strength; residuals of log y, n = 3, m = 128."""

    def residuals(self) -> Tensor:
        b, t = self.x, self.t
        return b[0] - b[1] * t[:, 0] * exp(-b[2] * t[:, 1]) - torch.log(self.y)


class Roszman1(NIST):
    """Roszman1: quantum defects of iodine, n = 4, m = 25."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] - b[1] * x - torch.atan(b[2] / (x - b[3])) / math.pi


class Rat42(NIST):
    """Rat42: pasture growth, n = 3, m = 9."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] / (1 + exp(b[1] - b[2] * x))


class Rat43(NIST):
    """Rat43: onion growth, n = 4, m = 15."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] / (1 + exp(b[1] - b[2] * x)) ** (1 / b[3])


class Bennett5(NIST):
    """Bennett5: superconductivity magnetisation, n = 3, m = 154."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * (b[1] + x) ** (-1 / b[2])


class BoxBOD(NIST):
    """BoxBOD: biochemical oxygen demand, n = 2, m = 6."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] * (1 - exp(-b[1] * x))


class Eckerle4(NIST):
    """Eckerle4: circular interference transmittance, n = 3, m = 35."""

    def model(self, b: Tensor, x: Tensor) -> Tensor:
        return b[0] / b[1] * exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


@cache
def _data() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "nist_strd.json").read_text(encoding="utf-8"))
