"""It is written for a gradopt of the future."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("future_thing", "gradopt_broken_future:thing")
