"""Its hook asks for an argument that gradopt does not give."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry, weather):
    registry.objective("signature_thing", "gradopt_broken_signature:thing")
