"""A good plugin that has no YAML at all: typed arguments are enough."""

from gradopt import hookimpl


@hookimpl
def gradopt_register(registry):
    registry.objective("valley", "gradopt_hills.problems:Valley")
    registry.objective("ripple", "gradopt_hills.problems:ripple")
    registry.optimiser("signdescent", "gradopt_hills.optimisers:SignDescent")
    registry.criterion("enough", "gradopt_hills.watching:Enough")
    registry.observer("tally", "gradopt_hills.watching:Tally")
