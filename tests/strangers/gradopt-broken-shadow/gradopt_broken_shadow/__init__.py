"""Its presets take a name of gradopt's own."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("shadow_thing", "gradopt_broken_shadow:thing")


@hookimpl
def gradopt_config_path():
    return "pkg://gradopt_broken_shadow.configs"
