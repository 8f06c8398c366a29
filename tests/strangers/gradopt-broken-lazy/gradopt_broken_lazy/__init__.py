"""The modules behind its names cannot be used."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("lazy_import", "gradopt_broken_lazy.problem:Problem")
    registry.objective("lazy_exit", "gradopt_broken_lazy.exits:Problem")
    registry.objective("lazy_absent", "gradopt_broken_lazy.nowhere:Problem")
    registry.objective("lazy_syntax", "gradopt_broken_lazy.syntax:Problem")
    registry.objective("lazy_circle", "gradopt_broken_lazy.circle:Problem")
    registry.objective("lazy_argument", "gradopt_broken_lazy.arguments:name_taken")
    registry.objective("lazy_default", "gradopt_broken_lazy.arguments:odd_default")
    registry.optimiser("lazy_option", "gradopt_broken_lazy.arguments:OptionTaken")
