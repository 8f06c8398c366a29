"""Its hook registers one objective and then raises."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("halfway_thing", "gradopt_broken_halfway:thing")
    raise KeyError("the second half")
