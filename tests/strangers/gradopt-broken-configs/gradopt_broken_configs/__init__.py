"""Its config path does not exist."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("configs_thing", "gradopt_broken_configs:thing")


@hookimpl
def gradopt_config_path():
    return "pkg://gradopt_broken_configs.presets"
