"""Plugins: found by their entry points, checked one by one, and kept from harming a run that does not select them."""

import functools
import importlib
import importlib.util
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy
from packaging.requirements import Requirement

from gradopt import __version__
from gradopt.hookspecs import Specs
from gradopt.mistakes import Mistake, available, did_you_mean
from gradopt.signatures import Signature, signature

GROUP = "gradopt"
KINDS = ("objective", "optimiser", "schedule", "criterion", "observer")
BUILTIN = "gradopt"
PACKAGES = {
    # Our own, that are not part of gradopt, with their objectives and families of them.
    "gradopt-problems": ("bounded", "hs", "mgh", "multimodal", "nist", "smooth"),
    "gradopt-learning": ("logistic_regression", "mlp"),
    "gradopt-datafit": ("datafit",),
}
TORCH_SCHEDULES = {
    # The names people use, and torch's classes; those that take functions or other schedules cannot be configured.
    "step": "StepLR",
    "multistep": "MultiStepLR",
    "constant": "ConstantLR",
    "linear": "LinearLR",
    "exponential": "ExponentialLR",
    "polynomial": "PolynomialLR",
    "cosine": "CosineAnnealingLR",
    "cosine_restarts": "CosineAnnealingWarmRestarts",
    "cyclic": "CyclicLR",
    "one_cycle": "OneCycleLR",
    "plateau": "ReduceLROnPlateau",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be selected by name."""

    kind: str
    name: str
    target: str
    plugin: str

    def signature(self) -> Signature:
        """Its arguments, read from its source.

        Raises:
            Mistake: The target cannot be read; the message names the plugin.
        """
        try:
            return signature(self.target)
        except (ValueError, SyntaxError, OSError, RecursionError) as error:
            raise Mistake(f"{self} cannot be read from {self.target!r}: {_one_line(error)}") from error

    def load(self) -> Any:
        """Import what the entry names.

        Raises:
            Mistake: The import failed; the message names the plugin and the cause.
        """
        module, _, name = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:
            cause = f"{type(error).__name__}: {_one_line(error)}"
            raise Mistake(f"{self} could not be loaded from {self.target!r}: {cause}") from error
        return found

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of plugin {self.plugin!r}"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A loaded plugin and the distribution it came from."""

    name: str
    distribution: str
    version: str
    entries: tuple[Entry, ...] = ()
    config_path: str | None = None
    presets: frozenset[tuple[str, str]] = frozenset()
    """(group, name) of each YAML file below the config path."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    distribution: str
    version: str
    cause: str
    trace: str = field(repr=False, default="")
    meant: frozenset[tuple[str, str]] = frozenset()
    """(kind, name) of what it had registered when it broke."""


class Staged:
    """What one plugin registers, held back until all of it is known to be good (the `Registrar` of the hooks)."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.entries: list[Entry] = []

    def objective(self, name: str, target: str) -> None:
        """See `Registrar.objective`."""
        self._add("objective", name, target)

    def optimiser(self, name: str, target: str) -> None:
        """See `Registrar.optimiser`."""
        self._add("optimiser", name, target)

    def schedule(self, name: str, target: str) -> None:
        """See `Registrar.schedule`."""
        self._add("schedule", name, target)

    def criterion(self, name: str, target: str) -> None:
        """See `Registrar.criterion`."""
        self._add("criterion", name, target)

    def observer(self, name: str, target: str) -> None:
        """See `Registrar.observer`."""
        self._add("observer", name, target)

    def _add(self, kind: str, name: str, target: str) -> None:
        if not isinstance(target, str) or target.count(":") != 1:
            raise TypeError(f"{kind} {name!r}: the target must be a string 'module:Name', got {target!r}")
        if not isinstance(name, str) or not all(part.replace("-", "_").isidentifier() for part in name.split("/")):
            raise ValueError(
                f"{kind} {name!r} is no usable name: take letters, digits, _ and -, a letter first; / makes families"
            )
        if any(entry.kind == kind and entry.name == name for entry in self.entries):
            raise ValueError(f"{kind} {name!r} is registered twice")
        self.entries.append(Entry(kind, name, target, self.plugin))


class Registry:
    """Everything that can be selected by name.

    Built-in names cannot be taken; two plugins may claim one name, and only selecting it is then an error.
    """

    def __init__(self, *, disabled: frozenset[str] = frozenset(), autoload: bool = True) -> None:
        self._switched_off = disabled
        self._met: set[str] = set()
        self._autoload = autoload
        self.plugins: list[Plugin] = [Plugin(BUILTIN, "gradopt", __version__, tuple(builtin_entries()))]
        self.broken: list[Broken] = []
        self.disabled: list[str] = []
        if autoload:
            for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
                self._add(point)

    def find(self, kind: str, name: str) -> Entry:
        """The entry of that kind and name.

        Raises:
            Mistake: None has it, or two plugins do; broken and disabled plugins are named, as they may have meant to.
        """
        found = [entry for entry in self.entries(kind) if entry.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise Mistake(_ambiguous(f"{kind} {name!r}", [entry.plugin for entry in found]))
        names = sorted({entry.name for entry in self.entries(kind)})
        message = f"there is no {kind} named {name!r}.{did_you_mean(name, names)} {available(names)}."
        raise Mistake(message + self.excuse(kind, name))

    def excuse(self, kind: str = "", name: str = "") -> str:
        """What to add to a message about a missing name: the plugin that meant to offer it, or all that may have."""
        known = [one for one in self.broken if (kind, name) in one.meant]
        text = self._absent(name) if kind == "objective" else ""
        text += "".join(
            f" Plugin {one.name!r} ({one.distribution}) is broken: {one.cause}." for one in known or self.broken
        )
        if self.disabled:
            text += f" Switched off: {', '.join(self.disabled)}."
        if not self._autoload:
            text += " GRADOPT_PLUGIN_AUTOLOAD=0 keeps all plugins from being loaded."
        return text

    def _absent(self, name: str) -> str:
        """The package of ours that has this objective, or its family, if it is not loaded."""
        head = name.partition("/")[0]
        package = next(
            (p for p, of in PACKAGES.items() if head in of or head.startswith(tuple(f"{o}_" for o in of))), None
        )
        if package is None or any(_canonical(plugin.distribution) == _canonical(package) for plugin in self.plugins):
            return ""
        cure = "" if self.disabled or not self._autoload else ": install it, from plugins/ of the repository"
        return f" It belongs to the package {package}, which is not loaded{cure}."

    def never_met(self) -> list[str]:
        """The names that were to be switched off and that no installed plugin has."""
        return sorted(name for name in self._switched_off if _canonical(name) not in self._met)

    def check_preset(self, group: str, name: str) -> None:
        """Refuse a YAML preset that two plugins have: the search path would silently take the first.

        Raises:
            Mistake: They are named.
        """
        owners = [plugin.name for plugin in self.plugins if (group, name) in plugin.presets]
        if len(owners) > 1:
            raise Mistake(_ambiguous(f"preset {group}={name}", owners))

    def entries(self, kind: str) -> Iterator[Entry]:
        """All entries of one kind, built-in ones first."""
        return (entry for plugin in self.plugins for entry in plugin.entries if entry.kind == kind)

    def config_paths(self) -> Iterator[tuple[str, str]]:
        """(plugin, path) of the YAML presets of plugins."""
        return ((p.name, p.config_path) for p in self.plugins if p.config_path is not None)

    def _add(self, point: EntryPoint) -> None:
        name, number = _origin(point.dist)
        off = {_canonical(one) for one in self._switched_off} & {_canonical(point.name), _canonical(name)}
        if off:
            self._met |= off
            self.disabled += [] if point.name in self.disabled else [point.name]
            return
        staged = Staged(point.name)
        try:
            self.plugins.append(self._load(point, staged, name, number))
        except (Exception, SystemExit) as error:
            cause = f"{type(error).__name__}: {_one_line(error)}"
            meant = frozenset((entry.kind, entry.name) for entry in staged.entries)
            self.broken.append(Broken(point.name, name, number, cause, traceback.format_exc(), meant))

    def _load(self, point: EntryPoint, staged: Staged, distribution: str, number: str) -> Plugin:
        if any(plugin.name == point.name for plugin in self.plugins):
            raise ValueError(f"another plugin is named {point.name!r} already")
        if point.dist is not None and (needed := _incompatible(point.dist)):
            raise RuntimeError(f"it needs {needed}, this is gradopt {__version__}")
        module = point.load()
        # A manager of its own checks both the arguments and the names of the hooks, for this plugin only.
        trial = pluggy.PluginManager(GROUP)
        trial.add_hookspecs(Specs)
        trial.register(module, name=point.name)
        trial.check_pending()
        if not trial.get_hookcallers(module):
            raise ValueError(f"{point.value} has no hook; mark gradopt_register with gradopt.hookimpl")
        trial.hook.gradopt_register(registry=staged)
        reserved = {(entry.kind, entry.name) for entry in self.plugins[0].entries}
        for entry in staged.entries:
            if (entry.kind, entry.name) in reserved:
                raise ValueError(f"{entry.kind} {entry.name!r} is a name of gradopt itself; choose another")
        path = next((os.fspath(path) for path in trial.hook.gradopt_config_path() if path is not None), None)
        presets = frozenset() if path is None else frozenset(_presets(config_directory(path)))
        for group, name in sorted(presets):
            # Hydra takes the first file of a name, and a file before what is made from a signature.
            if (group, name) in reserved or group.partition("/")[0] == "schema":
                raise ValueError(f"its preset {group}/{name}.yaml has a name of gradopt itself; choose another")
        return Plugin(point.name, distribution, number, tuple(staged.entries), path, presets)


@functools.cache
def registry() -> Registry:
    """The registry of this process.

    `GRADOPT_DISABLE_PLUGINS` (names of plugins or of their distributions, comma separated) switches plugins off,
    `GRADOPT_PLUGIN_AUTOLOAD=0` all of them.
    """
    names = (name.strip() for name in os.environ.get("GRADOPT_DISABLE_PLUGINS", "").split(","))
    disabled = frozenset(filter(None, names))
    return Registry(disabled=disabled, autoload=os.environ.get("GRADOPT_PLUGIN_AUTOLOAD", "1") != "0")


def builtin_entries() -> Iterator[Entry]:
    """What gradopt itself offers, through the same door as anybody's plugin."""
    staged = Staged(BUILTIN)
    staged.objective("polynomial", "gradopt.objectives.polynomial:Polynomial")
    staged.objective("function", "gradopt.objectives.function:Function")
    staged.objective("quadratic", "gradopt.objectives.quadratic:Quadratic")
    staged.objective("rosenbrock", "gradopt.objectives.rosenbrock:Rosenbrock")
    staged.objective("least_squares", "gradopt.objectives.least_squares:LeastSquares")
    staged.optimiser("lbfgs", "gradopt.optimisers.lbfgs:LBFGS")
    staged.optimiser("trust_region", "gradopt.optimisers.trust_region:TrustRegion")
    staged.optimiser("levenberg_marquardt", "gradopt.optimisers.levenberg_marquardt:LevenbergMarquardt")
    staged.optimiser("augmented_lagrangian", "gradopt.optimisers.augmented_lagrangian:AugmentedLagrangian")
    staged.optimiser("auto", "gradopt.optimisers.auto:Auto")
    staged.optimiser("multi_start", "gradopt.optimisers.multi_start:MultiStart")
    staged.optimiser("tiktak", "gradopt.optimisers.tiktak:TikTak")
    for name, target in torch_optimisers().items():
        staged.optimiser(name, target)
    staged.optimiser("custom", "gradopt.optimisers.custom:custom")
    for name, cls in TORCH_SCHEDULES.items():
        staged.schedule(name, f"torch.optim.lr_scheduler:{cls}")
    staged.criterion("early_stopping", "gradopt.criteria.early_stopping:EarlyStopping")
    staged.observer("tensorboard", "gradopt.observers.tensorboard:TensorBoard")
    staged.observer("history", "gradopt.observers.history:HistoryFile")
    staged.observer("console", "gradopt.observers.console:Console")
    staged.observer("pictures", "gradopt.observers.pictures:Pictures")
    staged.observer("verdict_line", "gradopt.observers.verdict_line:VerdictLine")
    staged.observer("json_lines", "gradopt.observers.json_lines:JsonLines")
    return iter(staged.entries)


def torch_optimisers() -> dict[str, str]:
    """Every optimiser of the installed torch by its lower-case name, read from its source: torch is not imported.

    One whose name is taken by gradopt's own has `torch_` in front of it.
    """
    found = {}
    for name, module in _torch_imports():
        if name[0].isupper() and name != "Optimizer":
            found["torch_lbfgs" if name == "LBFGS" else name.lower()] = f"{module}:{name}"
    return found


def _torch_imports() -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    source = (Path(spec.origin).parent / "optim" / "__init__.py").read_text(encoding="utf-8")
    for line in source.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == "from" and words[1].startswith("torch.optim.") and words[2] == "import":
            yield words[3], words[1]


def _origin(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version; an interrupted installation leaves a distribution without metadata."""
    try:
        return ("?", "?") if distribution is None else (distribution.name or "?", distribution.version or "?")
    except Exception:  # what is raised then differs between versions of Python
        return "?", "?"


def _incompatible(distribution: Distribution) -> str | None:
    """The requirement on gradopt that this version does not meet, if any."""
    for line in distribution.requires or ():
        if not line.lower().startswith(BUILTIN):
            continue
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        meets = requirement.specifier.contains(__version__, prereleases=True)
        if requirement.name.lower() == BUILTIN and applies and not meets:
            return f"gradopt{requirement.specifier}"
    return None


def _ambiguous(title: str, owners: list[str]) -> str:
    names = " and ".join(repr(owner) for owner in owners)
    return f"{title} is ambiguous: plugins {names} both offer it; switch one off with --disable-plugin NAME"


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _presets(directory: Path) -> Iterator[tuple[str, str]]:
    for file in directory.rglob("*.yaml"):
        yield file.parent.relative_to(directory).as_posix(), file.stem


def config_directory(path: str) -> Path:
    """The directory of a config path, found without importing its package.

    Raises:
        FileNotFoundError: There is none; Hydra itself says nothing about that.
    """
    package = path.removeprefix("pkg://")
    if package == path:
        places = [Path(path.removeprefix("file://"))]
        if not places[0].is_absolute():
            raise ValueError(f"its config path {path!r} is neither absolute nor pkg://package.directory")
    else:
        top, *rest = package.replace("/", ".").split(".")
        spec = importlib.util.find_spec(top)
        places = [Path(p).joinpath(*rest) for p in (spec and spec.submodule_search_locations) or ()]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"its config path {path!r} does not exist")
