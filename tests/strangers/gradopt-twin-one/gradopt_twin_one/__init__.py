"""Twin one: its entry point has the name of another's."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("twin_one", "gradopt_twin_one.problem:twin_one")
