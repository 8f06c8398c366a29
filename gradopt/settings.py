"""The config: its typed dataclasses, and those made from the signatures of plugins. No torch here."""

import ast
import copy
import dataclasses
import functools
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, cast, get_args, get_origin

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradopt.mistakes import Mistake, did_you_mean
from gradopt.signatures import DYNAMIC, REQUIRED, Argument, Signature

DTYPES = ("float32", "float64")
ENGINES = ("auto", "eager", "native", "compiled", "cuda_graph")
ON_SADDLE = ("stop", "escape")
SAMPLERS = ("auto", "sobol", "latin_hypercube", "uniform", "normal")
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

LISTS = {"criterion": "criteria", "observer": "observers"}
"""Kinds of which a config lists any number, and where."""

NOT_OPTIONS = {"optimiser": 1, "schedule": 1}
"""Leading arguments that gradopt fills in itself: the parameters of an optimiser, the optimiser of a schedule."""

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
TORCH_RANGES = {
    # torch checks these in its constructors, which would first have to be imported.
    "lr": (">= 0",),
    "weight_decay": (">= 0",),
    "momentum": (">= 0",),
    "eps": (">= 0",),
    "betas": (">= 0", "< 1"),
    "rho": (">= 0", "<= 1"),
    "lr_decay": (">= 0",),
    "history_size": (">= 1",),
    "max_iter": (">= 1",),
    "step_size": (">= 1",),
    "T_max": (">= 1",),
    "T_0": (">= 1",),
    "total_iters": (">= 1",),
    "total_steps": (">= 1",),
}


@dataclass
class Stop:
    """When a run ends. The defaults always end.

    Attributes:
        gradient_tolerance: Of the scaled first-order test; null: eps^0.6 of the dtype (4e-10 in float64, 7e-5 in
            float32).
        constraint_tolerance: Up to which constraints count as kept: the part of their own size by which the unknowns
            would have to move; null: eps^0.5 of the dtype (1e-8 in float64, 3e-4 in float32).
        target: The loss that is good enough.
        max_steps, max_evaluations, max_seconds, max_epochs: Budgets; null: no such limit. Without any, 10 000 steps
            and 20 000 evaluations.
    """

    gradient_tolerance: Optional[float] = None  # noqa: UP045 - OmegaConf reads the annotation
    constraint_tolerance: Optional[float] = None  # noqa: UP045
    target: Optional[float] = None  # noqa: UP045
    max_steps: Optional[int] = None  # noqa: UP045
    max_evaluations: Optional[int] = None  # noqa: UP045
    max_seconds: Optional[float] = None  # noqa: UP045
    max_epochs: Optional[int] = None  # noqa: UP045

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str) and "${" not in value:  # an interpolation is a number later
                raise Mistake(f"stop.{name} must be a number, got {value!r}")
        for name, least in (("gradient_tolerance", 0), ("max_steps", 0), ("max_evaluations", 1), ("max_epochs", 1)):
            value = getattr(self, name)
            if isinstance(value, float) and name != "gradient_tolerance" and not value.is_integer():
                raise Mistake(f"stop.{name} must be a whole number, got {value}")
            if isinstance(value, int | float) and not value >= least:
                raise Mistake(f"stop.{name} must be {least} or more, got {value}")
        if isinstance(self.constraint_tolerance, int | float) and not 0 < self.constraint_tolerance < 1:
            raise Mistake(f"stop.constraint_tolerance must be above 0 and below 1, got {self.constraint_tolerance}")
        if isinstance(self.max_seconds, int | float) and not self.max_seconds > 0:
            raise Mistake(f"stop.max_seconds must be above 0, got {self.max_seconds}")
        if isinstance(self.target, int | float) and not math.isfinite(self.target):
            raise Mistake(f"stop.target must be finite, got {self.target}")

    def bounded(self) -> "Stop":
        """The same, with the default budgets if there is none at all."""
        if (self.max_steps, self.max_evaluations, self.max_seconds, self.max_epochs) == (None,) * 4:
            return dataclasses.replace(self, max_steps=10_000, max_evaluations=20_000)
        return self


@dataclass
class Starts:
    """Many starts, to be drawn.

    Attributes:
        number: Of starts.
        sampler: sobol, latin_hypercube or uniform in the bounds, normal round x0; auto: sobol where every unknown has
            two bounds, else normal.
        spread: Of normal: the standard deviation of an unknown in units of |x0|, or of 1 where that is less.
        seed: The same seed draws the same starts.
    """

    number: int
    sampler: str = "auto"
    spread: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        number: Any = self.number  # from a config, whatever it says
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise Mistake(f"starts.number must be a whole number of 1 or more, got {number!r}")
        if self.sampler not in SAMPLERS:
            near = did_you_mean(str(self.sampler), SAMPLERS)
            raise Mistake(f"starts.sampler={self.sampler} is not one of {', '.join(SAMPLERS)}.{near}")
        if not self.spread > 0:
            raise Mistake(f"starts.spread must be above 0, got {self.spread}")


@dataclass
class Settings:
    """The whole config of one run; `objective`, `optimiser` and `schedule` are checked against their plugins'
    signatures.
    """

    objective: Any = MISSING
    optimiser: Any = MISSING
    schedule: Any = None
    device: str = "cpu"
    dtype: str = "float64"
    seed: int = 0
    engine: str = "auto"
    threads: Any = "auto"
    on_saddle: str = "stop"
    starts: Any = None
    stop: Stop = field(default_factory=Stop)
    criteria: list[Any] = field(default_factory=list[Any])
    observers: list[Any] = field(default_factory=lambda: ["console", "tensorboard", "history", "pictures"])

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise Mistake(f"seed={self.seed} is not in the range 0 to 2^63 - 1")
        for name, allowed in (("dtype", DTYPES), ("engine", ENGINES), ("on_saddle", ON_SADDLE)):
            value = getattr(self, name)
            if value not in allowed:
                raise Mistake(f"{name}={value} is not one of {', '.join(allowed)}.{did_you_mean(str(value), allowed)}")
        if not DEVICE.fullmatch(self.device):
            near = did_you_mean(self.device, ("auto", "cpu", "cuda", "mps"))
            raise Mistake(f"device={self.device} is not one of auto, cpu, cuda, cuda:N, mps.{near}")
        if self.starts is not None and not isinstance(self.starts, Starts):
            self.starts = _starts(self.starts, self.seed)
        most = 8 * (os.cpu_count() or 1)
        if self.threads != "auto" and not (isinstance(self.threads, int) and 1 <= self.threads <= most):
            raise Mistake(f"threads={self.threads} is neither 'auto' nor a number from 1 to {most}")


def _starts(node: Any, seed: int) -> Starts | None:
    """What `starts=64`, or `starts.number=64 starts.sampler=sobol`, says; None where there is but one."""
    if not isinstance(node, Mapping):
        return Starts(node, seed=seed)
    values = {str(name): value for name, value in cast("Mapping[Any, Any]", node).items()}
    known = [one.name for one in dataclasses.fields(Starts)]
    for name in values:
        if name not in known:
            raise Mistake(
                f"there is no option starts.{name}.{did_you_mean(name, known)} Available: {', '.join(known)}."
            )
    if values.get("number") is None:
        if values.get("sampler", "auto") != "auto":
            raise Mistake("starts.sampler needs a number of starts: say starts.number=64, too")
        return None
    given: dict[str, Any] = {"seed": seed}
    given |= {name: value for name, value in values.items() if value is not None}
    return Starts(**given)


def parse(config: DictConfig) -> Settings:
    """Check a composed config and make it plain.

    Raises:
        Mistake: An unknown key, a wrong type, a value out of range or missing, by name.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Settings), config)
        values: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise Mistake(_first_line(error)) from error
    known = [one.name for one in dataclasses.fields(Settings)]
    for name in values:
        if name not in known:  # `+name=...` adds it in spite of the schema
            raise Mistake(f"there is no option {name!r}.{did_you_mean(name, known)} Available: {', '.join(known)}.")
    values["stop"] = Stop(**values["stop"])
    return Settings(**values)


def check_lists(arguments: Iterable[str]) -> None:
    """Refuse overrides that give something else in the place of a list.

    Raises:
        Mistake: How the list is written.
    """
    for word in arguments:
        name, equals, given = word.partition("=")
        if (
            not equals
            or name.lstrip("+") not in LISTS.values()
            or given.startswith("[")
            or "(" in given
            or "$" in given
        ):
            continue
        right = f"{name}=[{'' if given == 'null' else given}]"
        raise Mistake(f"{name.lstrip('+')} must be a list, got {given or 'nothing'}: say '{right}'")


def schema(kind: str, name: str, signature: Signature) -> type:
    """A dataclass of the options of an entry, for Hydra to type the command line with.

    A dict whose default is None is an empty one here: OmegaConf 2.3 cannot merge an override into None, nor set a key
    of it. `check` makes it None again.

    Raises:
        Mistake: An argument that cannot be an option, such as `name`.
    """
    fields: list[tuple[str, Any, Any]] = [("name", str, field(default=name))]
    for argument in options(kind, signature):
        if argument.name == "name":
            raise Mistake(f"{kind} {name!r} has an argument called 'name', which is the option's own; rename it")
        kept = _type(argument.annotation)
        if argument.default is REQUIRED:
            fields.append((argument.name, kept, field(default=MISSING)))
        elif argument.default is DYNAMIC:
            fields.append((argument.name, Any, field(default=None)))
        else:
            default: Any = argument.default
            if isinstance(default, tuple):
                default = list(cast("tuple[Any, ...]", default))
            kept = Optional[kept] if default is None and kept is not Any else kept  # noqa: UP045
            if default is None and any(get_origin(member) is dict for member in get_args(kept)):
                default = {}
            shared = isinstance(default, list | dict)
            make: Callable[[], Any] = functools.partial(copy.copy, default)
            fields.append((argument.name, kept, field(default_factory=make) if shared else field(default=default)))
    try:
        return dataclasses.make_dataclass(re.sub(r"\W", "_", f"{name}_{kind}").title().replace("_", ""), fields)
    except (TypeError, ValueError) as error:  # a name of ours, a default no YAML file could say
        raise Mistake(f"{kind} {name!r} has an argument that cannot become an option: {error}") from error


def options(kind: str, signature: Signature) -> list[Argument]:
    """The arguments of an entry that are options on the command line, and those gradopt adds to it."""
    arguments = list(signature.arguments)[NOT_OPTIONS.get(kind, 0) :]
    if kind == "objective" and not signature.is_class and arguments:
        first = arguments.pop(0)  # the unknowns: their default is the start
        arguments = [Argument("x0", "Any", first.default), Argument("bounds", "Any", None), *arguments]
    if kind == "optimiser":
        arguments += [
            Argument("clip_norm", "Annotated[float, '> 0'] | None", None),
            Argument("clip_value", "Annotated[float, '> 0'] | None", None),
            Argument("groups", "dict[str, Any] | None", None),
            Argument("elementwise", "bool | None", None),
        ]
    if kind == "schedule":
        arguments = [argument for argument in arguments if argument.name != "last_epoch"]
        arguments.append(Argument("every", "Annotated[int, '>= 1']", 1))
    return arguments


def check(
    kind: str, title: str, signature: Signature, node: Any, schema: type, *, torch_ranges: bool
) -> dict[str, Any]:
    """The options of an entry as keyword arguments: typed, complete and in range.

    Args:
        title: Of the entry, for messages.
        torch_ranges: Also hold the options to the ranges that torch's own classes demand.

    Raises:
        Mistake: What does not fit, by its full name.
    """
    known = [one.name for one in dataclasses.fields(schema) if one.name != "name"]
    for key in map(str, node):
        if key != "name" and key not in known:
            near = did_you_mean(key, known)
            raise Mistake(f"{title} has no option {kind}.{key}.{near} Available: {', '.join(known) or 'none'}.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), node)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise Mistake(f"{title} needs {kind}.{missing[0]}; say {_said(kind, str(node['name']), missing[0])}")
        values: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise Mistake(f"{title}: {_first_line(error, inside=f'{kind}.')}") from error
    values.pop("name", None)
    for argument in options(kind, signature):
        value = values[argument.name]
        ranges = _ranges(argument.annotation) + (TORCH_RANGES.get(argument.name, ()) if torch_ranges else ())
        _hold(f"{kind}.{argument.name}", value, ranges)
        _check_length(f"{kind}.{argument.name}", value, _length(argument.annotation))
        choices = _choices(argument.annotation)
        if choices and value is not None and value not in choices:
            near = did_you_mean(str(value), map(str, choices))
            raise Mistake(f"{kind}.{argument.name}={value} is not one of {', '.join(map(str, choices))}.{near}")
        _check_file(f"{kind}.{argument.name}", argument, value)
        if argument.default is None and value == {}:
            values[argument.name] = None
        if argument.default is DYNAMIC and value is None:
            del values[argument.name]
    return values


def _said(kind: str, name: str, option: str) -> str:
    """How an option is written on the command line: criteria and observers come in lists."""
    if kind in LISTS:
        return f"'{LISTS[kind]}=[{{name: {name}, {option}: ...}}]'"
    return f"{kind}.{option}=..."


def _hold(name: str, value: Any, ranges: Iterable[str]) -> None:
    if isinstance(value, list):
        for index, entry in enumerate(cast("list[Any]", value)):
            _hold(f"{name}[{index}]", entry, ranges)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for text in ranges:
            sign, _, limit = text.partition(" ")
            if not COMPARISONS[sign](value, float(limit)):
                raise Mistake(f"{name} must be {text}, got {value}")


def _check_length(name: str, value: Any, length: int) -> None:
    given = cast("list[Any]", value) if isinstance(value, list) else []
    if given and length not in (0, len(given)):
        raise Mistake(f"{name} must be {length} values, got {given}")


def _check_file(name: str, argument: Argument, value: Any) -> None:
    if not isinstance(value, str):
        return
    path = value.rpartition(":")[0] if argument.name == "target" else value
    if argument.name == "target" and not path:
        raise Mistake(f"{name}={value} is not of the form file.py:name or module:name")
    if ((argument.name == "target" and path.endswith(".py")) or "Path" in argument.annotation) and not Path(
        path
    ).is_file():
        where = "" if Path(path).is_absolute() else f" in {Path.cwd()}"
        raise Mistake(f"{name}={value}: there is no file {path!r}{where}")


def _type(annotation: str) -> Any:
    """The type OmegaConf checks for an annotation's source text; Any where it is beyond OmegaConf."""
    try:
        return _of(ast.parse(annotation, mode="eval").body) if annotation else Any
    except SyntaxError:
        return Any


def _of(node: ast.expr) -> Any:
    text = ast.unparse(node).removeprefix("typing.").removeprefix("collections.abc.")
    plain: Mapping[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "Path": str, "list": list[Any]}
    if text in plain:
        return plain[text]
    if text in {"dict", "tuple"}:
        return dict[str, Any] if text == "dict" else list[Any]
    members = _members(node)
    if len(members) > 1:
        kinds = {ast.unparse(member) for member in members}
        rest = [m for m in members if ast.unparse(m) not in {"None", "Tensor", "torch.Tensor"}]
        inner = _of(rest[0]) if len(rest) == 1 else float if {ast.unparse(m) for m in rest} == {"int", "float"} else Any
        return Optional[inner] if "None" in kinds and inner is not Any else inner  # noqa: UP045
    if not isinstance(node, ast.Subscript):
        return Any
    outer = ast.unparse(node.value).rpartition(".")[2]
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer == "Annotated":
        return _of(parts[0])
    if outer == "Literal":
        return str if all(isinstance(p, ast.Constant) and isinstance(p.value, str) for p in parts) else Any
    if outer in {"list", "List", "Sequence", "Iterable", "tuple", "Tuple"}:
        kinds = {_of(p) for p in parts if ast.unparse(p) != "..."}
        return list[kinds.pop()] if len(kinds) == 1 else list[Any]  # type: ignore[misc]
    if outer in {"dict", "Dict", "Mapping"}:
        return dict[str, _of(parts[1])]  # type: ignore[misc]
    return Any


def _members(node: ast.expr) -> list[ast.expr]:
    """The members of a union, in either spelling; the node itself if it is none."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _members(node.left) + _members(node.right)
    if isinstance(node, ast.Subscript):
        outer = ast.unparse(node.value).rpartition(".")[2]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Optional":
            return [*_members(parts[0]), ast.Constant(None)]
        if outer == "Union":
            return [member for part in parts for member in _members(part)]
    return [node]


def _subscripts(annotation: str, outer: str) -> list[ast.expr]:
    try:
        tree = ast.parse(annotation or "None", mode="eval")
    except SyntaxError:
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).rpartition(".")[2] == outer:
            return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return []


def _ranges(annotation: str) -> tuple[str, ...]:
    """The comparisons in `Annotated[float, ">= 0", "< 1"]`."""
    texts = [p.value for p in _subscripts(annotation, "Annotated")[1:] if isinstance(p, ast.Constant)]
    return tuple(text for text in texts if isinstance(text, str) and text.partition(" ")[0] in COMPARISONS)


def _length(annotation: str) -> int:
    """The number of values of `tuple[float, float]`; 0 where it is free."""
    parts = _subscripts(annotation, "tuple") or _subscripts(annotation, "Tuple")
    return 0 if any(isinstance(p, ast.Constant) and p.value is ... for p in parts) else len(parts)


def _choices(annotation: str) -> tuple[Any, ...]:
    """The values in `Literal["min", "max"]`."""
    return tuple(p.value for p in _subscripts(annotation, "Literal") if isinstance(p, ast.Constant))


def _first_line(error: Exception, inside: str = "") -> str:
    """OmegaConf's own sentence with the full key, without the lines about object types."""
    line = str(error).partition("\n")[0]
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{inside}{key[1]}: {line}" if key and key[1] not in line else line
