"""Labels of objectives and optimisers: cut to the place they have, and in their order."""

import re

SHORTEST = 24
"""Characters that a label keeps, however narrow its place is."""


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[+-]?\d+)?|\d+")
"""As an option has it, or as it stands in a name."""


def natural(label: str) -> list[tuple[float, str]]:
    """What sorts labels with their numbers as numbers: `n=8` comes before `n=16`."""
    numbers = [float(number) for number in NUMBER.findall(label)]
    words = NUMBER.split(label)
    return [part for word, number in zip(words, [*numbers, 0.0], strict=True) for part in ((0.0, word), (number, ""))]


def shortened(label: str, width: int) -> str:
    """With an ellipsis in the middle where it is longer than `width`: the name is at the start of a label, and the
    options that tell it from others at the end.
    """
    width = max(width, SHORTEST)
    if len(label) <= width:
        return label
    tail = (width - 1) // 2
    return f"{label[: width - 1 - tail]}…{label[-tail:]}"
