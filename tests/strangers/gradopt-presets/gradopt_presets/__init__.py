"""A good plugin with YAML presets."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("bowl", "gradopt_presets.bowl:Bowl")


@hookimpl
def gradopt_config_path():
    return "pkg://gradopt_presets.configs"
