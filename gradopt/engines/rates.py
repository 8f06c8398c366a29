"""The learning rates of the updates to come."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradopt.engines.purity import Refusal
from gradopt.optimisers.torch import TorchOptimiser, copied

LOOK_AHEAD = 1000
"""Updates for which a schedule is looked at before a run."""


class Rates:
    """A schedule that is asked ahead, and then set to the update that has been reached.

    It reads nothing but the number of updates; what reads the loss has no rates ahead.
    """

    def __init__(self, optimiser: TorchOptimiser) -> None:
        self._optimiser = optimiser
        self._options = self._other_options()
        self._before: tuple[Any, ...] | None = None
        self._asked = 1

    @property
    def are_asked(self) -> bool:
        """Whether there is a schedule, which takes time for each of them."""
        return self._optimiser.scheduler is not None

    def check(self) -> None:
        """Look ahead, and leave everything as it is.

        Raises:
            Refusal: As `ahead`.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that no step was made before
            self.ahead(LOOK_AHEAD)
        self.settle(0)

    def ahead(self, count: int) -> Tensor:
        """Learning rates of the next updates, up to `count` of them, by parameter group: shape (updates, groups), in
        float64. Fewer where the schedule ends.

        Raises:
            Refusal: The schedule changes something besides.
        """
        self._before, table = self._state(), [self._rates()]
        if self._optimiser.scheduler is None:
            return torch.tensor(table, dtype=torch.float64).expand(count, -1)
        while len(table) < count:
            try:
                self._optimiser.advance_schedule()
            except ValueError:  # OneCycleLR beyond its end; whoever gets there is told so
                break
            if self._other_options() != self._options:
                self.settle(0)
                raise Refusal("the schedule changes more than the learning rate")
            table.append(self._rates())
        self._asked = len(table)
        return torch.tensor(table, dtype=torch.float64)

    def settle(self, updates: int) -> None:
        """Set the schedule, which has been asked ahead, to where it is after this many updates."""
        optimiser = self._optimiser
        if optimiser.scheduler is None:
            optimiser.num_updates += updates
        elif updates != self._asked - 1:
            assert self._before is not None, "settle() comes after ahead()"
            schedule, optimiser.num_updates, rates = self._before
            optimiser.scheduler.load_state_dict(schedule)
            for group, rate in zip(optimiser.optimizer.param_groups, rates, strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].copy_(rate)
                else:
                    group["lr"] = rate
            for _ in range(updates):
                optimiser.advance_schedule()

    def _rates(self) -> list[float]:
        return [float(group.get("lr", math.nan)) for group in self._optimiser.optimizer.param_groups]

    def _state(self) -> tuple[Any, ...]:
        scheduler = self._optimiser.scheduler
        groups = self._optimiser.optimizer.param_groups
        rates = [copied(group.get("lr")) for group in groups]
        return None if scheduler is None else copied(scheduler.state_dict()), self._optimiser.num_updates, rates

    def _other_options(self) -> Sequence[dict[str, Any]]:
        groups = self._optimiser.optimizer.param_groups
        return [{k: v for k, v in group.items() if k not in ("params", "lr", "initial_lr")} for group in groups]
