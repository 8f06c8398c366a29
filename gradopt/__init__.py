"""gradopt minimises a differentiable objective with gradients, and says truthfully how it ended."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradopt import optim as optim
    from gradopt.api import Progress as Progress
    from gradopt.api import Stop as Stop
    from gradopt.api import check as check
    from gradopt.api import least_squares as least_squares
    from gradopt.api import minimise as minimise
    from gradopt.api import steps as steps
    from gradopt.contracts import Attempt as Attempt
    from gradopt.contracts import Band as Band
    from gradopt.contracts import Block as Block
    from gradopt.contracts import Constraint as Constraint
    from gradopt.contracts import Evaluation as Evaluation
    from gradopt.contracts import Judgement as Judgement
    from gradopt.contracts import Objective as Objective
    from gradopt.contracts import Oracle as Oracle
    from gradopt.contracts import Run as Run
    from gradopt.hookspecs import hookimpl as hookimpl
    from gradopt.mistakes import Mistake as Mistake
    from gradopt.preflight import Finding as Finding
    from gradopt.preflight import Report as Report
    from gradopt.result import Result as Result
    from gradopt.result import Results as Results
    from gradopt.settings import Starts as Starts
    from gradopt.verdict import Status as Status
    from gradopt.verdict import Verdict as Verdict

__version__ = "0.1.0"

# Loaded when first used: `import gradopt` and a plugin's `from gradopt import hookimpl` must not import torch.
_HOMES = {
    "Attempt": "contracts",
    "Band": "contracts",
    "Block": "contracts",
    "Constraint": "contracts",
    "Evaluation": "contracts",
    "Finding": "preflight",
    "Judgement": "contracts",
    "Mistake": "mistakes",
    "Objective": "contracts",
    "Oracle": "contracts",
    "Progress": "api",
    "Report": "preflight",
    "Result": "result",
    "Results": "result",
    "Run": "contracts",
    "Starts": "settings",
    "Status": "verdict",
    "Stop": "api",
    "Verdict": "verdict",
    "check": "api",
    "hookimpl": "hookspecs",
    "least_squares": "api",
    "minimise": "api",
    "steps": "api",
}
_MODULES = ("optim",)
__all__ = ["__version__", *_MODULES, *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll] - derived


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"gradopt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'gradopt' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gradopt.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
