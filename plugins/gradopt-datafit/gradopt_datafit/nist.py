"""Model functions of the NIST data sets in this package, with NIST's first starting values as defaults."""

import torch
from torch import Tensor


def thurber(
    x: Tensor,
    b1: float = 1000.0,
    b2: float = 1000.0,
    b3: float = 400.0,
    b4: float = 40.0,
    b5: float = 0.7,
    b6: float = 0.3,
    b7: float = 0.03,
) -> Tensor:
    """A cubic over a cubic: the mobility of electrons in a semiconductor against the logarithm of their density."""
    return (b1 + x * (b2 + x * (b3 + x * b4))) / (1 + x * (b5 + x * (b6 + x * b7)))


def eckerle4(x: Tensor, b1: float = 1.0, b2: float = 10.0, b3: float = 500.0) -> Tensor:
    """A peak, (b1 / b2) exp(-((x - b3) / b2)^2 / 2): the transmittance of a filter against the wavelength."""
    return b1 / b2 * torch.exp(-0.5 * ((x - b3) / b2) ** 2)
