"""The names of the problems by family and module, `{family: {module: classes}}`. Light: it imports nothing."""

import re

FAMILIES = {
    "mgh": {
        "gradopt_problems.mgh": """
            Rosenbrock FreudensteinRoth PowellBadlyScaled BrownBadlyScaled Beale JennrichSampson HelicalValley Bard
            Gaussian Meyer Gulf Box3D PowellSingular Wood KowalikOsborne BrownDennis Osborne1 BiggsExp6 Osborne2
            Watson ExtendedRosenbrock ExtendedPowellSingular PenaltyI PenaltyII VariablyDimensioned Trigonometric
            BrownAlmostLinear DiscreteBoundaryValue DiscreteIntegral BroydenTridiagonal BroydenBanded LinearFullRank
            LinearRank1 LinearRank1ZeroColumns Chebyquad
        """,
    },
    "nist": {
        "gradopt_problems.nist": """
            Misra1a Misra1b Misra1c Misra1d Chwirut1 Chwirut2 DanWood Lanczos1 Lanczos2 Lanczos3 Gauss1 Gauss2 Gauss3
            Kirby2 Hahn1 Thurber MGH09 MGH10 MGH17 ENSO Nelson Roszman1 Rat42 Rat43 Bennett5 BoxBOD Eckerle4
        """,
    },
    "hs": {
        "gradopt_problems.hs.two": """
            HS001 HS002 HS003 HS004 HS005 HS006 HS007 HS009 HS010 HS011 HS012 HS014 HS015 HS016 HS017 HS018 HS019
            HS020 HS021 HS022 HS023 HS024 HS057
        """,
        "gradopt_problems.hs.three_and_four": """
            HS026 HS027 HS028 HS029 HS030 HS031 HS032 HS033 HS034 HS035 HS036 HS037 HS038 HS039 HS040 HS041 HS042
            HS043 HS044 HS060 HS061 HS062 HS063 HS064 HS065 HS066 HS071 HS072 HS073 HS074 HS075 HS076
        """,
        "gradopt_problems.hs.five_and_more": """
            HS045 HS046 HS047 HS048 HS049 HS050 HS051 HS052 HS053 HS056 HS077 HS078 HS079 HS080 HS081 HS083 HS086
            HS093 HS100 HS101 HS102 HS103 HS104 HS106 HS108 HS110 HS111 HS112 HS113 HS117 HS118
        """,
    },
    "smooth": {
        "gradopt_problems.smooth": """
            Arwhead Bdqrtic Cragglvy Dixmaana Dixmaanb Dixmaane Dixmaani Dqdrtic Edensch Engval1 Fletchcr Genhumps
            Liarwhd Nondia Nondquar Power Quartc Sinquad Tridia Woods Dixon3dq Cosine ChainedRosenbrock
            ChebyshevRosenbrock PerturbedQuadratic Raydan1 Diagonal3 Trid Zakharov Himmelblau MinimalSurface
            LennardJones
        """,
        "gradopt_problems.likelihoods": """
            LogisticRegression SquaredHinge PoissonRegression GammaRegression PseudoHuberRegression StudentRegression
            LogSumExp SoftplusNetwork AnalyticCentre GaussianCovariance
        """,
    },
    "bounded": {
        "gradopt_problems.bounded": """
            Rosenbrock FreudensteinRoth PowellBadlyScaled BrownBadlyScaled Beale HelicalValley Bard Gaussian Gulf
            Box3D PowellSingular Wood KowalikOsborne BrownDennis Osborne1 BiggsExp6 Osborne2 Watson ExtendedRosenbrock
            PenaltyI PenaltyII VariablyDimensioned BrownAlmostLinear DiscreteBoundaryValue BroydenTridiagonal
            BroydenBanded LinearFullRank Chebyquad Torsion Obstacle NonNegative
        """,
    },
    "multimodal": {
        "gradopt_problems.multimodal": """
            Rastrigin Ackley Griewank Schwefel Levy LevyMontalvo Michalewicz StyblinskiTang Salomon CosineMixture Wavy
            Shubert Branin GoldsteinPrice SixHumpCamel ThreeHumpCamel Easom DropWave Schaffer2 Bohachevsky Bird
            Adjiman Forrester GramacyLee Hartmann3 Hartmann6 Shekel5 Shekel7 Shekel10
        """,
    },
}


def problems() -> dict[str, str]:
    """The target of each problem by its name: {"mgh/helical_valley": "gradopt_problems.mgh:HelicalValley"}."""
    return {
        f"{family}/{_snake(name)}": f"{module}:{name}"
        for family, modules in FAMILIES.items()
        for module, names in modules.items()
        for name in names.split()
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])(?!D$)|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
