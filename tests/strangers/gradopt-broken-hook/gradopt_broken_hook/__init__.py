"""It implements a hook that gradopt does not have."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("hook_thing", "gradopt_broken_hook:thing")


@hookimpl
def gradopt_make_tea(sugar):
    return sugar
