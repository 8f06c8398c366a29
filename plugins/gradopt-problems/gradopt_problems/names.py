"""The names of the problems by family, `{family: (module, classes)}`. Light: it imports nothing."""

import re

FAMILIES = {
    "mgh": (
        "gradopt_problems.mgh",
        """Rosenbrock FreudensteinRoth PowellBadlyScaled BrownBadlyScaled Beale JennrichSampson HelicalValley Bard
        Gaussian Meyer Gulf Box3D PowellSingular Wood KowalikOsborne BrownDennis Osborne1 BiggsExp6 Osborne2 Watson
        ExtendedRosenbrock ExtendedPowellSingular PenaltyI PenaltyII VariablyDimensioned Trigonometric
        BrownAlmostLinear DiscreteBoundaryValue DiscreteIntegral BroydenTridiagonal BroydenBanded LinearFullRank
        LinearRank1 LinearRank1ZeroColumns Chebyquad""",
    ),
    "nist": (
        "gradopt_problems.nist",
        """Misra1a Misra1b Misra1c Misra1d Chwirut1 Chwirut2 DanWood Lanczos1 Lanczos2 Lanczos3 Gauss1 Gauss2 Gauss3
        Kirby2 Hahn1 Thurber MGH09 MGH10 MGH17 ENSO Nelson Roszman1 Rat42 Rat43 Bennett5 BoxBOD Eckerle4""",
    ),
}


def problems() -> dict[str, str]:
    """The target of each problem by its name: {"mgh/helical_valley": "gradopt_problems.mgh:HelicalValley"}."""
    return {
        f"{family}/{_snake(name)}": f"{module}:{name}"
        for family, (module, names) in FAMILIES.items()
        for name in names.split()
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])(?!D$)|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
