"""Its entry point has the name of gradopt itself."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("name_thing", "gradopt_broken_name:thing")
