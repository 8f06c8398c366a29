"""The state of a run at the cut after an update: the same whichever engine saves it, and whichever goes on."""

from dataclasses import astuple

import torch
from torch import Tensor

from gradopt.contracts import Evaluation, Optimiser, State
from gradopt.oracle import AutogradOracle


def saved(oracle: AutogradOracle, optimiser: Optimiser, step: int, previous: Tensor | None, seconds: float) -> State:
    """Continuing from it repeats the run bit for bit.

    Args:
        previous: The point before the update, None before the first.
        seconds: The run has lasted so far.
    """
    best = oracle.best
    return {
        "step": step,
        "objective": {name: value.clone() for name, value in oracle.objective.state_dict().items()},
        "optimiser": optimiser.state_dict(),
        "counts": (oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products),
        "best": None if best is None else astuple(best),
        "lowest_loss": oracle.lowest_loss,
        "origin": oracle.origin,
        "previous": previous,
        "seconds": seconds,
        "random": torch.get_rng_state(),
    }


def restore(state: State, oracle: AutogradOracle, optimiser: Optimiser) -> None:
    """Put what is not the engine's own back. Objective and optimiser are built the same way before."""
    oracle.objective.load_state_dict(state["objective"])
    optimiser.load_state_dict(state["optimiser"])
    oracle.num_losses, oracle.num_gradients, oracle.num_hessian_products = state["counts"]
    oracle.best = None if state["best"] is None else Evaluation(*state["best"])
    oracle.lowest_loss = state["lowest_loss"]
    oracle.origin = state["origin"]
    torch.set_rng_state(state["random"])
