"""Numbers of things, in words."""


def counted(number: int, noun: str) -> str:
    """A number and a noun.

    >>> counted(1, "evaluation"), counted(0, "step")
    ('1 evaluation', '0 steps')
    """
    return f"{number} {noun}{'s' * (number != 1)}"
