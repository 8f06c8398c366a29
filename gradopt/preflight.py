"""What can be said of an objective before a run: `gradopt check`."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gradopt.assemble import Assembly
from gradopt.constraints.functions import excess
from gradopt.contracts import Evaluation
from gradopt.differences import TOLERANCE, Probe
from gradopt.gradient_check import MAX_NAMED, GradientCheck, blocks, check_constraints, check_gradient, entry
from gradopt.mistakes import Mistake
from gradopt.oracle import AutogradOracle
from gradopt.plurals import counted
from gradopt.stationarity.curvature import sizes

MARKS = {"passed": "+", "warning": "!", "failed": "x"}

ONE_BY_ONE = 50
"""Unknowns up to which each entry of the gradient is checked by itself."""

COARSE = 1e-3
"""Relative moves of the unknowns below which no change of the loss is seen: more is too coarse to compare losses."""

NUM_ROUND = 3
"""Points round the start at which an unknown must have a gradient, if it has none there."""

JUMP = 1e-3
"""Changes of a gradient entry over next to no way, as a part of it, from which on they are a kink."""

UNEVEN = 1e8
"""Ratio of the changes of the loss, when one unknown and when another moves by its own size, that is worth a word."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        sentence: With its numbers, and what to try where it has not passed.
        numbers: The numbers alone, by name.
    """

    name: str
    status: Literal["passed", "warning", "failed"]
    sentence: str
    numbers: Mapping[str, float | str] = field(default_factory=dict[str, float | str])


@dataclass(frozen=True, slots=True)
class Report:
    """What `gradopt.check` found; print it.

    Attributes:
        facts: What was checked: the objective, the optimiser, the device.
    """

    facts: Mapping[str, str]
    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether no check failed; there may be warnings."""
        return not self._names("failed")

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, name: str) -> Finding:
        """The finding of that name.

        Raises:
            KeyError: There is none: it does not apply to this objective.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.facts, *(f"  {finding.name}" for finding in self.findings)))
        lines = [f"{name:<{width}}  {text}" for name, text in self.facts.items()]
        lines.append("")
        lines += [f"{MARKS[one.status]} {one.name:<{width - 2}}  {one.sentence}" for one in self.findings]
        return "\n".join([*lines, "", self._summary()])

    def _summary(self) -> str:
        failed, warned = self._names("failed"), self._names("warning")
        if failed:
            return f"x not ready: {' and '.join(failed)}"
        if warned:
            return f"! ready, with {counted(len(warned), 'warning')}: {', '.join(warned)}"
        return f"+ ready: {counted(len(self.findings), 'check')} passed"

    def _names(self, status: str) -> list[str]:
        return [finding.name for finding in self.findings if finding.status == status]


def examine(assembly: Assembly) -> Report:
    """Check the objective at its start. Parameters, counts and random numbers are left as they were."""
    oracle = assembly.oracle
    point = oracle.read()
    dtype = str(point.dtype).removeprefix("torch.")
    return Report({**assembly.facts, "device": f"{point.device}, {dtype}"}, list(_findings(assembly, oracle, dtype)))


def _findings(assembly: Assembly, oracle: AutogradOracle, dtype: str) -> Iterator[Finding]:
    with Probe(oracle) as probe:
        before = torch.get_rng_state()
        start = _start(oracle)
        is_random = not torch.equal(before, torch.get_rng_state())
        yield _described(start, oracle)
        if math.isfinite(start.loss) and bool(start.gradient.isfinite().all()):
            if oracle.has_full_loss:
                yield _determinism(probe, is_random)
            gradient = _gradient(oracle)
            yield gradient
            if oracle.has_full_loss and gradient.status != "failed":
                yield from _influence(probe, start)
                yield from _kinks(probe, start)
            yield from _resolution(start, dtype)
            yield from _evenness(start)
            if oracle.has_full_loss:
                needed = bool(getattr(assembly.engine.optimiser, "second_derivatives", False))
                yield _second_derivatives(probe, needed)
            if oracle.has_residuals:
                yield _residuals(oracle, start)
        yield from _bounds(oracle, start)
        yield from _constraints(oracle)
        yield from _facts(oracle, start)
        if math.isfinite(start.loss) and bool(start.gradient.isfinite().all()):
            yield from _first_step(assembly, oracle, start)


def _first_step(assembly: Assembly, oracle: AutogradOracle, start: Evaluation) -> Iterator[Finding]:
    """What the optimiser refuses when it sees the objective, as a search does without a box."""
    optimiser, point = assembly.engine.optimiser, oracle.read()
    try:
        with oracle.uncounted():
            optimiser.accepts(start, oracle)
            optimiser.update(start, oracle)
    except Mistake as mistake:
        yield Finding("optimiser", "failed", str(mistake))
    except Exception:  # no step from here, or the objective's own: the run tells
        return
    finally:
        oracle.write(point)


def _start(oracle: AutogradOracle) -> Evaluation:
    """Over all data where there is such a thing, else of the first step's batch."""
    batches = oracle.objective.batches
    if batches is None:
        return oracle.evaluate()
    oracle.micro_batches = batches.at(0)
    return oracle.evaluate_full() or oracle.evaluate()


def _described(start: Evaluation, oracle: AutogradOracle) -> Finding:
    number = start.point.numel()
    unknowns = f"{counted(number, 'unknown')} up to {start.point.abs().max().item():.4g}"
    gradient = start.gradient.abs().max().item()
    numbers = {"loss": start.loss, "gradient": gradient, "unknowns": number}
    if not math.isfinite(start.loss):
        text = f"the loss is {start.loss:g} at the start ({unknowns}): move x0 into the objective's domain"
        return Finding("start", "failed", text, numbers)
    if not bool(start.gradient.isfinite().all()):
        text = (
            f"the loss is {start.loss:.10g}, but its gradient is not finite: move x0, and look for sqrt, abs or a norm "
            "at 0, or a division hidden by where()"
        )
        return Finding("start", "failed", text, numbers)
    return Finding("start", "passed", f"loss {start.loss:.10g}, gradient up to {gradient:.4g}, {unknowns}", numbers)


def _determinism(probe: Probe, is_random: bool) -> Finding:
    point = probe.oracle.read()
    losses = [probe.loss(point) for _ in range(3)]
    spread = max(losses) - min(losses)
    if spread != 0:
        text = (
            f"losses at the same point and seed differ by {spread:.3g}: seed what is random beside torch, or choose an "
            "optimiser that compares no losses, such as adam"
        )
        return Finding("determinism", "warning", text, {"spread": spread})
    if is_random:
        text = (
            "losses from the same seed are the same to the last bit, but the loss draws random numbers and so differs "
            "from step to step: draw them once, or choose an optimiser that compares no losses, such as adam"
        )
        return Finding("determinism", "warning", text, {"spread": 0.0})
    return Finding("determinism", "passed", "losses at the same point are the same to the last bit", {"spread": 0.0})


def _gradient(oracle: AutogradOracle) -> Finding:
    check = check_gradient(oracle, one_by_one=ONE_BY_ONE)
    if check.unjudged:
        return Finding("gradient", "warning", f"cannot be judged: {check.unjudged}")
    if check.is_wrong:
        return Finding("gradient", "failed", check.sentence(), _slopes(check))
    text = f"agrees with differences of the loss to {_discrepancy(check):.1g} of itself"
    return Finding("gradient", "passed", text, _slopes(check))


def _slopes(check: GradientCheck) -> dict[str, float | str]:
    worst = check.worst
    return {"claimed": worst.claimed, "measured": worst.measured, "error": worst.error}


def _discrepancy(check: GradientCheck) -> float:
    """By how much of itself the gradient is another than differences say."""
    worst = check.worst
    return abs(worst.measured - worst.claimed) / (worst.scale or 1.0)


def _influence(probe: Probe, start: Evaluation) -> Iterator[Finding]:
    """The unknowns that have no gradient at the start, nor anywhere it was looked round it."""
    oracle, point = probe.oracle, start.point
    idle, generator = (start.gradient == 0).cpu(), torch.Generator().manual_seed(0)
    if start.pinned is not None:
        idle &= ~start.pinned.cpu()
    for _ in range(NUM_ROUND):
        if not bool(idle.any()):
            return
        there = point + sizes(point, point) * (2 * torch.rand(len(point), generator=generator).to(point) - 1)
        if oracle.lower is not None and oracle.upper is not None:
            there = there.clamp(oracle.lower, oracle.upper)
        try:
            idle &= probe.gradient(there) == 0
        except Exception:  # the objective's own, such as a domain error
            return
    number, numbers = int(idle.sum()), {"idle": float(idle.sum())}
    if not number:
        return
    if number == len(idle):
        text = "the gradient is 0 wherever it was looked round the start: a constant, a plateau, or steps; move x0"
        yield Finding("influence", "warning", text, numbers)
        return
    text = (
        f"the loss does not seem to depend on {_named(oracle, idle)}: no gradient at the start, nor anywhere it was "
        "looked round it; see that it is used, and not cut off by relu or clamp"
    )
    # In a network some have none for good reason, as the weights of a pixel that is always dark.
    yield Finding("influence", "warning" if len(idle) <= ONE_BY_ONE else "passed", text, numbers)


def _kinks(probe: Probe, start: Evaluation) -> Iterator[Finding]:
    """The unknowns in which the gradient jumps at the start: it changes over a short step as much as over a longer."""
    oracle, point, step = probe.oracle, start.point, torch.finfo(start.point.dtype).eps ** 0.5
    way = sizes(point, point) * (
        0.5 + 0.5 * torch.rand(len(point), generator=torch.Generator().manual_seed(1)).to(point)
    )
    inner = torch.ones_like(point, dtype=torch.bool)
    if oracle.lower is not None and oracle.upper is not None:
        inner = (point - step * way >= oracle.lower) & (point + step * way <= oracle.upper)
    try:
        sides = [
            [probe.gradient(point + torch.where(inner, sign * part * step * way, 0.0)) for sign in (1, -1)]
            for part in (1, 1 / 16)
        ]
    except Exception:  # the objective's own, such as a domain error
        return
    jumps = [(ahead - behind).abs() for ahead, behind in sides]
    largest = torch.stack([side.abs() for side in sides[1]]).amax(0)
    kinked = inner & (jumps[1] > 0.5 * jumps[0]) & (jumps[1] > JUMP * largest)
    number = int(kinked.sum())
    if not number:
        return
    names = _named(oracle, kinked)
    jump = (jumps[1] * kinked).max().item()
    text = (
        f"the gradient jumps at the start, by up to {jump:.3g} in {names}: a kink, as abs, relu or a norm has where it "
        "turns; start beside it, or smooth it"
    )
    yield Finding("kinks", "warning", text, {"kinks": float(number), "jump": jump})


def _named(oracle: AutogradOracle, which: Tensor) -> str:
    """The unknowns of a mask, the first of them by name."""
    names = [
        entry(name, index - part[0], shape) for name, part, shape in blocks(oracle) for index in part if which[index]
    ]
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _resolution(start: Evaluation, dtype: str) -> Iterator[Finding]:
    """The smallest relative move that changes the loss by more than its rounding."""
    change = (start.gradient.abs() @ sizes(start.point, start.point)).item()
    eps = torch.finfo(start.point.dtype).eps
    if not change > 0:
        return
    move = max(eps * abs(start.loss) / change, eps)
    numbers = {"move": move, "rounding": eps * abs(start.loss), "change": change}
    if move < COARSE:
        text = f"{dtype} sees the loss change once the unknowns move by {move:.1g} of their size"
        yield Finding("resolution", "passed", text, numbers)
        return
    better = move * torch.finfo(torch.float64).eps / eps
    cure = "use dtype=float64" if better < COARSE else "subtract the constant part of the loss"
    text = (
        f"{dtype} rounds the loss by {numbers['rounding']:.2g}, which hides moves of the unknowns below {move:.2g} of "
        f"their size: {cure}"
    )
    yield Finding("resolution", "warning", text, numbers)


def _evenness(start: Evaluation) -> Iterator[Finding]:
    changes = (start.gradient.abs() * sizes(start.point, start.point)).cpu().double()
    felt = changes[changes > 0]
    if len(felt) < 2:
        return
    ratio = (felt.max() / felt.median()).item()
    if ratio > UNEVEN:
        text = (
            f"moving one unknown by its own size changes the loss {ratio:.1g} times more than moving another: rescale "
            "them, or use lbfgs or trust_region rather than one learning rate for all"
        )
        yield Finding("scale", "warning", text, {"ratio": ratio})


def _second_derivatives(probe: Probe, needed: bool) -> Finding:
    """Hessian products against differences of gradients."""
    oracle, name = probe.oracle, "second derivatives"
    point = oracle.read()
    hessian = probe.hessian()
    if hessian is None:
        if needed:
            return Finding(name, "failed", "this optimiser needs them, and autograd has none here: use lbfgs or adam")
        text = "autograd has none here: differences of gradients stand in, and a minimum's curvature stays unchecked"
        return Finding(name, "warning", text)
    direction = sizes(point, point) * torch.rand(len(point), generator=torch.Generator().manual_seed(0)).to(point)
    image = hessian(direction).cpu().double()
    differences = list(_gradient_differences(probe, point, direction))
    pairs = [(torch.linalg.vector_norm(b - a).item(), a) for a, b in itertools.pairwise(differences)]
    spread, best = min(pairs, key=lambda pair: pair[0] if pair[0] == pair[0] else math.inf)
    scale = max(torch.linalg.vector_norm(image).item(), torch.linalg.vector_norm(best).item())
    gap = torch.linalg.vector_norm(image - best).item()
    numbers = {"gap": gap, "spread": spread, "scale": scale}
    if gap <= TOLERANCE * scale:
        text = f"agree with differences of the gradient to {gap / (scale or 1.0):.1g} of themselves"
        return Finding(name, "passed", text, numbers)
    if gap > 10 * TOLERANCE * scale and gap > 20 * spread:
        functions = ", ".join(probe.custom_functions())
        text = f"the Hessian is wrong by {gap / scale:.1g} of itself, by differences of the gradient: " + (
            f"check the double backward of {functions}, a custom autograd.Function"
            if functions
            else "look for .detach(), .data or no_grad, which hide a part of it"
        )
        return Finding(name, "failed" if needed else "warning", text, numbers)
    return Finding(
        name, "passed", "autograd has them; differences of the gradient are too rough to judge them", numbers
    )


def _gradient_differences(probe: Probe, point: Tensor, direction: Tensor) -> Iterator[Tensor]:
    """Differences of the gradient over four steps, central where the bounds leave room on both sides."""
    lower, upper = probe.oracle.lower, probe.oracle.upper
    step, size = torch.finfo(point.dtype).eps ** (1 / 3), torch.linalg.vector_norm(direction.cpu().double())
    for factor in (1 / 16, 1 / 4, 1.0, 4.0):
        ahead, behind = point + factor * step * direction, point - factor * step * direction
        if lower is not None and upper is not None:
            fits = (
                bool(((ahead >= lower) & (ahead <= upper)).all()),
                bool(((behind >= lower) & (behind <= upper)).all()),
            )
            ahead, behind = ahead if fits[0] else point, behind if fits[1] else point
        length = torch.linalg.vector_norm((ahead - behind).cpu().double()) / size
        yield (probe.gradient(ahead) - probe.gradient(behind)) / length


def _residuals(oracle: AutogradOracle, start: Evaluation) -> Finding:
    linear = oracle.linearised()
    gradient = linear.vjp(linear.residuals).cpu().double()
    whole = start.gradient.cpu().double()
    scale = max(torch.linalg.vector_norm(whole).item(), torch.linalg.vector_norm(gradient).item())
    gap = torch.linalg.vector_norm(gradient - whole).item()
    number = linear.residuals.numel()
    numbers = {"gap": gap, "scale": scale, "residuals": number}
    if gap > TOLERANCE * scale:
        text = (
            f"J'r of the {counted(number, 'residual')} is not the gradient of the loss, but {gap / scale:.2g} of it "
            "away: the loss must be half their sum of squares (leave forward() out), or what robust makes of them"
        )
        return Finding("residuals", "failed", text, numbers)
    which = f"{counted(number, 'residual')}, whose J'r is the gradient of the loss"
    text = f"{which}: optimiser=levenberg_marquardt makes use of them"
    return Finding("residuals", "passed", text, numbers)


def _bounds(oracle: AutogradOracle, start: Evaluation) -> Iterator[Finding]:
    """That the start lies inside and no interval is empty has been seen to already: else there is no oracle."""
    if oracle.lower is None or oracle.upper is None:
        return
    point = oracle.read()
    bounded = int((oracle.lower.isfinite() | oracle.upper.isfinite()).sum())
    fixed = int((oracle.lower == oracle.upper).sum())
    held = int(((point == oracle.lower) | (point == oracle.upper)).sum()) - fixed
    text = f"{bounded} of {counted(len(point), 'unknown')} bounded, the start is inside" + (
        f", {held} on a bound" if held else ""
    )
    if start.pinned is not None:
        text += f"; the derivative of {int(start.pinned.sum())} is infinite there, and holds it"
    if fixed:
        text += f"; {fixed} with lower = upper cannot move: make such a parameter a constant (requires_grad=False)"
    numbers = {"bounded": bounded, "fixed": fixed, "held": held}
    yield Finding("bounds", "warning" if fixed else "passed", text, numbers)


def _constraints(oracle: AutogradOracle) -> Iterator[Finding]:
    """Whether each holds at the start, and its gradient against differences of its value. That its value is finite and
    its limits leave room has been seen to already.
    """
    if oracle.constraints is None:
        return
    values, lower, upper = oracle.linearised_constraints().residuals, oracle.constraints.lower, oracle.constraints.upper
    missed = oracle.constraints.by_name(excess(values, lower, upper).abs())
    for check in check_constraints(oracle, one_by_one=ONE_BY_ONE):
        name, violation = f"constraint {check.constraint}", missed[check.constraint].max().item()
        numbers: dict[str, float | str] = {"violation": violation}
        holds = "holds at the start"
        if violation > 0:
            holds = f"does not hold at the start, by {violation:.3g}: the run has to find a point where it does"
        if check.unjudged:
            yield Finding(name, "warning", f"{holds}; its gradient cannot be judged: {check.unjudged}", numbers)
            continue
        numbers |= _slopes(check)
        if check.is_wrong:
            yield Finding(name, "failed", f"{check.sentence()}; it {holds}", numbers)
            continue
        text = f"{holds}; its gradient agrees with differences of its value to {_discrepancy(check):.1g} of itself"
        yield Finding(name, "warning" if violation > 0 else "passed", text, numbers)


def _facts(oracle: AutogradOracle, start: Evaluation) -> Iterator[Finding]:
    proof = oracle.unbounded_below()
    if proof:
        yield Finding("minimum", "warning", f"there is none: {proof}. Give the unknowns bounds, or check the sign")
        return
    minimum = oracle.objective.minimum()
    if minimum is None:
        return
    numbers = {"minimum": minimum}
    feasible = start.violation <= oracle.violation_tolerance  # a loss may be lower where constraints are missed
    slack = 100 * torch.finfo(start.point.dtype).eps * max(abs(minimum), abs(start.loss))
    if feasible and start.loss < minimum - slack:
        text = f"minimum() says {minimum:.10g}, but the loss at the start is already {start.loss:.10g}"
        yield Finding("minimum", "warning", text, numbers)
    else:
        yield Finding("minimum", "passed", f"the lowest loss there is, {minimum:.10g}, is known", numbers)
