"""Labels of objectives that are too long for the place they have."""

SHORTEST = 24
"""Characters that a label keeps, however narrow its place is."""


def shortened(label: str, width: int) -> str:
    """With an ellipsis in the middle where it is longer than `width`: the name is at the start of a label, and the
    options that tell it from others at the end.
    """
    width = max(width, SHORTEST)
    if len(label) <= width:
        return label
    tail = (width - 1) // 2
    return f"{label[: width - 1 - tail]}…{label[-tail:]}"
