"""Powers of the step, such as beta^t in bias corrections, carried from row to row."""

from gradopt.engines.native.step import Step
from gradopt.engines.native.values import Constant, Leaf, Pointwise, Value, ordered

REBASED = 256
"""Steps after which a power is computed anew."""

HELPER = """\
static double carried(double power, double factor, long count)
{
    while (count-- > 0) power *= factor;
    return power;
}
"""


class Powers:
    """Replaces pow(base, exponent), where the exponent grows by the same amount each step, by one multiplication.

    At steps that REBASED divides it is pow(), behind them a product of up to REBASED - 1 factors: within
    REBASED * 2^-53 of the power, and the same at a step whichever row a block begins with.
    """

    def __init__(self, step: Step) -> None:
        self._counters = {
            old
            for new, old in step.replaced.items()
            if isinstance(new, Pointwise)
            and new.operation == "add"
            and new in step.scalars
            and new.operands[0] is old
            and isinstance(new.operands[1], Constant)
            and new.operands[1].number == 1
        }
        self._scalars = step.scalars
        self._count = 0

    def carried(self, value: Pointwise, exponent: str) -> str | None:
        """The power in C, given its exponent in C; None where it must be computed at every row."""
        base, power = value.operands
        counters = [leaf for leaf in ordered([power]) if isinstance(leaf, Leaf)]
        if (
            value not in self._scalars
            or not isinstance(base, Constant)
            or not base.number > 0
            or len(counters) != 1
            or counters[0] not in self._counters
        ):
            return None
        slope = _slope(power, counters[0])
        if slope is None:
            return None
        name, number = f"w{self._count}", float(base.number)
        self._count += 1
        factor, past = (number**slope).hex(), f"(long) p{counters[0].slot} % {REBASED}"
        start = f"pow({number.hex()}, {exponent} - {slope.hex()} * ({past}))"
        return f"({name} = row && {past} ? {name} * {factor} : carried({start}, {factor}, {past}))"

    def declared(self) -> list[str]:
        """The variables, before the rows."""
        return [f"double w{number} = 0;" for number in range(self._count)]


def _slope(value: Value, counter: Leaf) -> float | None:
    """By how much a number grows with the counter; None if it does not grow along a straight line."""
    if value is counter:
        return 1.0
    if isinstance(value, Constant):
        return 0.0
    if not isinstance(value, Pointwise):
        return None
    slopes = [_slope(operand, counter) for operand in value.operands]
    match value.operation, slopes, value.operands:
        case "add", [float(one), float(other)], _:
            return one + other
        case "sub", [float(one), float(other)], _:
            return one - other
        case "cast", [float(one)], _:
            return one
        case "mul", [float(one), float()], [_, Constant(number=factor)]:
            return one * factor
        case "mul", [float(), float(other)], [Constant(number=factor), _]:
            return other * factor
    return None
