"""Which curves a run draws: their tags, what they mean, and their values at a row of a block."""

import math
from collections.abc import Iterator, Mapping

import torch

from gradopt.contracts import Block, Run, tested_gradient
from gradopt.observers.events import Margin, log10
from gradopt.result import Result, Results

SUCCESS = "final/success"

DESCRIPTIONS: Mapping[str, str] = {
    "opt/loss": "The loss; of many starts the median of those that go on.",
    "opt/best_loss": "The lowest loss so far, of all starts. Not drawn with constraints, which such a point may miss.",
    "opt/log10_gap": "log10 of the lowest loss so far over the known minimum, down to the minimum's rounding; with "
    "constraints, which a lower loss may miss, of how far the loss of the step is from it, on either side.",
    "opt/log10_best": "log10 of the lowest loss so far, while it is positive, where the minimum is not known.",
    "opt/full_loss": "The loss over all data, at the steps where it is evaluated.",
    "opt/gradient_norm": "Largest absolute entry of the gradient; with bounds, of the part that can move inside them; "
    "with constraints of the Lagrangian's gradient, or of that of the loss alone where the optimiser does not tell it.",
    "opt/log10_gradient_norm": "log10 of it.",
    "opt/step_norm": "Largest absolute change of an unknown in the step.",
    "opt/learning_rate": "Of the first parameter group.",
    "con/violation": "By how much the worst constraint is missed, as a part of the unknowns' own size.",
    "con/log10_violation": "log10 of it, while a constraint is missed.",
    "ms/going": "Starts that have not ended.",
    "ms/loss_q10": "A tenth of the starts, whether they go on or have ended, have a lower loss.",
    "ms/loss_median": "Half of the starts, whether they go on or have ended, have a lower loss.",
    "ms/loss_q90": "A tenth of the starts, whether they go on or have ended, have a higher loss or no finite one.",
    "ms/log10_q10": "log10 of that quantile over the known minimum, or of itself where none is known.",
    "ms/log10_median": "log10 of the median over the known minimum, or of itself where none is known.",
    "ms/log10_q90": "log10 of that quantile over the known minimum, or of itself where none is known.",
    "ms/converged_share": "Share of the starts that ended with success.",
    "ms/basins": "Local minima that the starts ended in.",
    "time/evaluations": "Losses evaluated so far, of all starts together.",
    "time/steps_per_s": "Steps per second since the point before.",
    "time/evaluations_per_s": "Evaluations per second since the point before, of all starts together.",
    "final/loss": "The loss of the result.",
    SUCCESS: "1 for a success, -1 for a failure or an error, 0 for neither, such as a used-up budget.",
    "final/steps": "Steps made; of many starts those of the best.",
    "final/evaluations": "Losses evaluated, of all starts together.",
    "final/seconds": "Time taken.",
}
"""By tag; beside them `x/NAME` for each of a few unknowns, and `metrics/NAME` and `final/NAME` for the objective's
metrics.
"""

QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}

BAND = {
    "Many starts": {
        "log10 loss: median of all starts, 10 % to 90 %": Margin(*(f"ms/log10_{q}" for q in ("median", "q10", "q90")))
    }
}
"""Of `ms/` curves, for `events.margin_charts`."""

EVERY_STEP = 32
"""Twice as many steps are drawn one by one, later ones at this many points for each doubling: under 1000 a run."""


class Schedule:
    """Which rows are drawn: the first one, and those at or behind the next step that is due."""

    def __init__(self) -> None:
        self._next = -math.inf

    def rows(self, block: Block) -> Iterator[int]:
        """Of a block."""
        while self._next <= block.last_step:
            row = int(max(0, self._next - block.first_step))
            step = block.first_step + row
            stride = 1 << max(0, (step // EVERY_STEP).bit_length() - 1)
            self._next = (step // stride + 1) * stride
            yield row


class Curves:
    """The values of a run's curves. Blocks are to be seen in order."""

    def __init__(self, run: Run) -> None:
        self._minimum = run.minimum
        self._first = run.step
        self._best = torch.full((1,), math.inf, dtype=torch.float64)
        self._lowest = self._best
        self._before: tuple[float, float, float] | None = None

    def see(self, block: Block) -> None:
        """Turn to a block."""
        losses = block["best_loss" if "best_loss" in block.columns else "full_loss"][:, 0]
        finite = torch.where(losses.isfinite(), losses, math.inf)
        self._lowest = torch.cummin(torch.cat([self._best, finite]), dim=0).values[1:]
        self._best = self._lowest[-1:]

    def at(self, block: Block, row: int) -> dict[str, float]:
        """By tag, at a row of the block it was turned to. Not all are finite: there may be no lowest loss yet, or no
        logarithm of what is not positive.
        """
        counted = "all_evaluations" if "all_evaluations" in block.columns else "evaluations"
        names = ("loss", tested_gradient(block.columns), counted)
        loss, gradient_norm, evaluations = (block[name][row, 0].item() for name in names)
        values = {"opt/loss": loss}
        if "violation" in block.columns:
            violation = block["violation"][row, 0].item()
            values |= {"con/violation": violation, "con/log10_violation": log10(violation)}
            if self._minimum is not None:
                full = block["full_loss"][row, 0].item()
                values["opt/log10_gap"] = self._log10(self._minimum + abs(full - self._minimum))
        else:
            best = self._lowest[row].item()
            values |= {
                "opt/best_loss": best,
                "opt/log10_best" if self._minimum is None else "opt/log10_gap": self._log10(best),
            }
        if block["full_loss"] is not block["loss"] and block.measured[row]:
            values["opt/full_loss"] = block["full_loss"][row, 0].item()
        values |= {"opt/gradient_norm": gradient_norm, "opt/log10_gradient_norm": log10(gradient_norm)}
        if block.first_step + row > self._first:  # there is no step before the first row
            values["opt/step_norm"] = block["step_norm"][row, 0].item()
        values["opt/learning_rate"] = block["learning_rate"][row, 0].item()
        if "losses" in block.columns:
            values |= {"ms/going": block["going"][row, 0].item(), **dict(self._spread(block, row))}
        values["time/evaluations"] = evaluations
        values |= self._rates(block.first_step + row, evaluations, block["seconds"][row, 0].item())
        return values

    def log10(self, losses: torch.Tensor) -> torch.Tensor:
        """Of positive losses over the known minimum; those that are not are left out."""
        gaps = losses.double() - (self._minimum or 0.0)
        return gaps[(gaps > 0) & gaps.isfinite()].log10()

    def _log10(self, loss: float) -> float:
        if self._minimum is None:
            return log10(loss)
        rounding = torch.finfo(torch.float64).eps * abs(self._minimum)
        return log10(max(loss - self._minimum, rounding))

    def _spread(self, block: Block, row: int) -> Iterator[tuple[str, float]]:
        ordered = block["losses"][row].nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf).sort().values
        quantiles = {name: ordered[round(share * (len(ordered) - 1))].item() for name, share in QUANTILES.items()}
        logarithms = {name: self._log10(quantile) for name, quantile in quantiles.items()}
        yield from ((f"ms/loss_{name}", quantile) for name, quantile in quantiles.items())
        if all(map(math.isfinite, logarithms.values())):  # TensorBoard draws no band that lacks a side at some step
            yield from ((f"ms/log10_{name}", logarithm) for name, logarithm in logarithms.items())

    def _rates(self, step: int, evaluations: float, seconds: float) -> Mapping[str, float]:
        if self._before is None:
            self._before = (step, evaluations, seconds)
            return {}
        made = step - self._before[0], evaluations - self._before[1], seconds - self._before[2]
        if made[2] <= 0:
            return {}
        self._before = (step, evaluations, seconds)
        return {"time/steps_per_s": made[0] / made[2], "time/evaluations_per_s": made[1] / made[2]}


def final(result: Result | Results) -> dict[str, float]:
    """The values at the end of a run by tag, of many starts those of the best one; evaluations are of all."""
    best = result.best_start if isinstance(result, Results) else result
    values = {
        "final/loss": best.fun,
        SUCCESS: 1.0 if best.status.success else -1.0 if best.status.failure else 0.0,
        "final/steps": float(best.nit),
        "final/evaluations": float(torch.as_tensor(result.nfev).sum()),
        "final/seconds": best.seconds,
        **{f"metrics/{name}": value for name, value in best.metrics.items()},
    }
    if isinstance(result, Results):
        values |= {"ms/converged_share": result.success.double().mean().item(), "ms/basins": float(len(result.minima))}
    return values
