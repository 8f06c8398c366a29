"""What gradopt is told about this package. It is imported at every start of gradopt, so it must not import torch."""

from gradopt import hookimpl
from gradopt_problems.names import problems


@hookimpl
def gradopt_register(registry):  # noqa: ANN001, ANN201
    """Offer every problem under its family: `objective=mgh/helical_valley`."""
    for name, target in problems().items():
        registry.objective(name, target)
