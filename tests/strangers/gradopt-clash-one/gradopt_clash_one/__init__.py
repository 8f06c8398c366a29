"""Clash one: its objective has the name of another plugin's."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("clash", "gradopt_clash_one.problem:clash")
    registry.objective("clash_one", "gradopt_clash_one.problem:clash")


@hookimpl
def gradopt_config_path():
    return "pkg://gradopt_clash_one.configs"
