"""It takes a name of gradopt's own."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("reserved_thing", "gradopt_broken_reserved:thing")
    registry.objective("polynomial", "gradopt_broken_reserved:thing")
