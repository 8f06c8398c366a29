"""Twin two: its entry point has the name of another's."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("twin_two", "gradopt_twin_two.problem:twin_two")
