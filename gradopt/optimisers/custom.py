"""Any optimiser class by its import path, for packages that know nothing of gradopt."""

from typing import Any

import torch

from gradopt.objectives.function import load


def custom(parameters: Any, target: str, options: dict[str, Any] | None = None) -> torch.optim.Optimizer:
    """Any class: optimiser.target=pytorch_optimizer:Lion optimiser.options.lr=0.01."""
    return load(target)(parameters, **(options or {}))
