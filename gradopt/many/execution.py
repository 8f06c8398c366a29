"""An assembly of many starts, run to its end, with everybody who listens."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradopt import devices
from gradopt.conclusion import known_minimum
from gradopt.contracts import Attempt, Block, Evaluation, Observer, Run
from gradopt.execution import Blocks, Watchers, check_observers, limits, prepare
from gradopt.many.assembly import StartsAssembly
from gradopt.many.conclusion import concluded
from gradopt.observers.history import History
from gradopt.plurals import counted
from gradopt.result import Results
from gradopt.soundings import Soundings
from gradopt.verdicts import Verdicts

MAX_ASKED = 1001
"""Starts the median is taken of; of more, evenly chosen ones stand for all."""


def execute(
    assembly: StartsAssembly,
    observers: Sequence[Observer],
    form: Callable[[Sequence[Tensor]], Any],
    *,
    directory: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    chosen: Mapping[str, Any] | None = None,
    sweep: str | None = None,
    thread_count: int | str = "auto",
) -> Results:
    """Run the loop with observers to the end, and put the objective's parameters at the best point of all.

    Observers are given what the starts have in common, as if it were a run of one: see `Summaries`.

    Args:
        form: From tensors shaped like the parameters, with a leading axis, to the form of the starts.
        config, chosen, sweep: See `Run`.
    """
    oracle, history = assembly.oracle, History()
    check_observers(observers)
    prepare(directory)
    attempt = Attempt(None if directory is None else str(directory), config or {}, chosen or {}, sweep)
    watchers = Watchers([history, *observers], attempt)
    begin, opened = oracle.read(), False
    summaries = Summaries(len(begin))
    engine: Any = assembly.engine  # whose oracle is one of many starts
    size = sum(parameter.numel() for parameter in oracle.parameters)
    with ExitStack() as stack:
        stack.enter_context(assembly.interrupt)
        count = stack.enter_context(devices.threads(thread_count, size))
        result: Results | None = None
        error: BaseException | None = None
        try:
            verdicts = Verdicts(assembly.criteria, len(begin))
            blocks = Blocks(engine, assembly.criteria, verdicts=verdicts)
            for block in blocks:
                if not opened:
                    run = _run(assembly, block, attempt, count)
                    watchers.open(replace(run, starts=begin))
                    opened = True
                watchers.record(summaries.of(block), dict)
            result = concluded(assembly, blocks.last, blocks.ending, begin, history, form, directory)
            result = replace(result, **blocks.times(_parts(blocks.stopwatch.seconds, engine.stopwatch.seconds)))
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            watchers.close(result, error)


def _parts(seconds: Mapping[str, float], built: Mapping[str, float]) -> dict[str, float]:
    """Of what the steps are made, where programs have been built in between."""
    return {"steps": seconds["steps"] - sum(built.values()), **built} if built else {}


class Summaries:
    """Blocks of many starts as those of a run of one: a column holds the median of the starts that go on.

    Beside it `best_loss` is the lowest loss of all starts so far, `all_evaluations` what all have made, `going` the
    number of those that go on, and `losses` those of evenly chosen starts, whether they go on or have ended.
    """

    def __init__(self, number: int) -> None:
        self._best = torch.full((1,), torch.inf, dtype=torch.float64)
        self._stride = -(-number // MAX_ASKED)
        self._losses = torch.full((1, -(-number // self._stride)), torch.nan, dtype=torch.float64)
        self._evaluations = torch.zeros(number, dtype=torch.float64)

    def of(self, block: Block) -> Block:
        """The block's rows."""
        assert block.starts is not None
        going = block.starts.live.nonzero().flatten()
        some = going[:: max(1, -(-len(going) // MAX_ASKED))]
        columns = {
            name: block[name][:, some].nanmedian(1, keepdim=True).values
            for name in ("loss", "gradient_norm", "step_norm")
        }
        columns |= {name: block[name][:, some[:1]] for name in ("learning_rate", "evaluations", "seconds")}
        columns["full_loss"], columns["full_gradient_norm"] = columns["loss"], columns["gradient_norm"]
        lowest = block["loss"].amin(1)
        if not bool(lowest.isfinite().all()):
            lowest = torch.where(block["loss"].abs() < torch.inf, block["loss"], torch.inf).amin(1)
        best = torch.cat([self._best, lowest]).cummin(0).values[1:]
        self._best = best[-1:]
        columns["best_loss"] = best.unsqueeze(1)
        columns["going"] = torch.full_like(columns["best_loss"], float(len(going)))
        columns["all_evaluations"] = self._evaluations_of_all(block, going)
        columns["losses"] = self._each(block, going)
        return Block(block.first_step, columns, block.measured)

    def _evaluations_of_all(self, block: Block, going: Tensor) -> Tensor:
        """Shape (rows, 1). Of starts that have ended those until then: what is made of them later counts for nobody."""
        assert block.starts is not None
        counts, index = block["evaluations"], block.starts.index[going]
        ended = self._evaluations.sum() - self._evaluations[index].sum()
        self._evaluations[index] = counts[-1, going]
        return (counts @ block.starts.live.to(counts) + ended).unsqueeze(1)

    def _each(self, block: Block, going: Tensor) -> Tensor:
        assert block.starts is not None
        index = block.starts.index[going]
        chosen = index % self._stride == 0
        losses = self._losses.repeat(len(block), 1)
        losses[:, index[chosen] // self._stride] = block["loss"][:, going[chosen]]
        self._losses = losses[-1:]
        return losses


def _run(assembly: StartsAssembly, block: Block, attempt: Attempt, count: int) -> Run:
    oracle, here = assembly.oracle, assembly.oracle.last
    named = dict(zip(oracle.names, (p.detach().clone() for p in oracle.parameters), strict=True))
    losses = block["loss"][0]
    lowest = int(losses.nan_to_num(nan=torch.inf).argmin())
    start = Evaluation(
        losses[lowest].item(), block["gradient_norm"][0, lowest].item(), here.point[lowest], here.gradient[lowest]
    )
    number, n = here.point.shape
    facts = dict(assembly.facts)
    facts["start"] = (
        f"{counted(number, 'start')} of {counted(n, 'unknown')}, losses from {losses[lowest].item():.6g}, median "
        f"{losses.nanmedian().item():.6g}"
    )
    dtype = str(here.point.dtype).removeprefix("torch.")
    facts["device"] = f"{here.point.device}, {dtype}, {counted(count, 'thread')}"
    soundings = Soundings(oracle)
    return Run(
        attempt.directory,
        attempt.config,
        facts,
        start,
        named,
        assembly.budget,
        *limits(oracle, block),
        step=block.first_step,
        minimum=known_minimum(oracle.objective),
        sweep=attempt.sweep,
        chosen=attempt.chosen,
        bounds=None if oracle.lower is None or oracle.upper is None else (oracle.lower, oracle.upper),
        graph=soundings.graph,
        losses=soundings.losses,
    )
