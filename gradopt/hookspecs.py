"""What a plugin package may implement. Entry points of group `gradopt` name a light module with these hooks.

The module is imported at every start of the program: it must not import torch. It hands over strings such as
`"my_package.problems:Foo"`; what they name is imported only when it is selected.
"""

from typing import Protocol

import pluggy

hookspec = pluggy.HookspecMarker("gradopt")
hookimpl = pluggy.HookimplMarker("gradopt")


class Registrar(Protocol):
    """What `gradopt_register` is given. A name is what the user types after `objective=`, `optimiser=`, ...

    Every target is `"module:Name"`: a class, or a function. Its typed arguments become the options on the command line,
    read from the source without importing it: `int`, `float`, `bool`, `str`, lists, tuples and dicts of them, `... |
        None`;
    anything else is passed through as given. The first line of its docstring is shown by `--help`.
    """

    def objective(self, name: str, target: str) -> None:
        """An `Objective` class, or a function of the unknowns giving the loss; its first argument's default is x0."""

    def optimiser(self, name: str, target: str) -> None:
        """A `torch.optim.Optimizer` class, or an `Optimiser`; its first argument (the parameters) is no option."""

    def schedule(self, name: str, target: str) -> None:
        """A `torch.optim.lr_scheduler.LRScheduler` class; its first argument (the optimiser) is no option."""

    def criterion(self, name: str, target: str) -> None:
        """A `Criterion` class, selected by `criteria=[name]`."""

    def observer(self, name: str, target: str) -> None:
        """An `Observer` class, selected by `observers=[..., name]`."""


class Specs:
    """The hooks. Implement either or both, each marked with `gradopt.hookimpl`."""

    @hookspec
    def gradopt_register(self, registry: Registrar) -> None:
        """Called once, when the plugin is loaded: register what the package offers."""

    @hookspec
    def gradopt_config_path(self) -> str | None:
        """A directory of YAML presets, `pkg://my_package.configs` or an absolute path, laid out as `configs/` is."""
        return None
