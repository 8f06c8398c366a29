"""Importing it fails, reading it does not."""

import a_module_that_nobody_has


class Problem(a_module_that_nobody_has.Objective):
    """It needs something that is not there."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.size = size
