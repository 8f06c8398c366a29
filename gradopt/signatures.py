"""The arguments of a class or function, read from its source without importing it.

Importing costs seconds (torch) and may fail (a plugin's missing dependency); a config must be checked before either.
"""

import ast
import functools
import importlib.machinery
import importlib.util
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIRED = object()
"""Default of an argument that must be given."""

DYNAMIC = object()
"""Default that is an expression only Python can evaluate: the argument is left out unless it is given."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: `annotation` is its source text, "" if there is none."""

    name: str
    annotation: str
    default: Any


@dataclass(frozen=True, slots=True)
class Signature:
    """Arguments in order, `self` left out; `summary` is the first line of the docstring, "" if there is none."""

    arguments: tuple[Argument, ...]
    summary: str
    is_class: bool
    bases: tuple[str, ...] = ()


def signature(target: str) -> Signature:
    """Read the signature of "module:Name".

    A class without an `__init__` of its own takes that of its first base that can be found in a source file;
    a dataclass takes its fields. Names a module imports from another are followed.

    Raises:
        ValueError: `target` has no colon, or no source file defines it.
    """
    module, colon, name = target.partition(":")
    if not colon or not name:
        raise ValueError(f"{target!r} is not of the form 'module:Name'")
    return _signature(module, name)


@functools.cache
def _signature(module: str, name: str) -> Signature:
    source = _source(module)
    text = _definition(source, name)
    if text is None:
        for origin, original in _imported_from(source, module, name):
            return _signature(origin, original)
        raise ValueError(f"module {module!r} does not define {name!r} ({source_file(module)})")
    node = ast.parse(text).body[0]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return Signature(tuple(_arguments(node.args)), _summary(node), is_class=False)
    assert isinstance(node, ast.ClassDef)
    bases = tuple(ast.unparse(base) for base in node.bases)
    return Signature(_class_arguments(node, module, bases), _summary(node), is_class=True, bases=bases)


def source_file(module: str) -> Path:
    """The file of a module, found without importing it or its parent packages.

    Raises:
        ValueError: There is none (also for modules without Python source).
    """
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            spec = None
            break
        spec = importlib.machinery.PathFinder.find_spec(part, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"there is no module {module!r} with a Python source file")
    return Path(spec.origin)


@functools.cache
def _source(module: str) -> str:
    return source_file(module).read_text(encoding="utf-8")


def _definition(source: str, name: str) -> str | None:
    """The text of the top-level class or function `name`: cutting it out first is 20 times faster than parsing all."""
    found = re.search(rf"^(?:class|def|async def) {re.escape(name)}\b", source, re.MULTILINE)
    if found is None:
        return None
    decorators = re.search(r"(?:^@.*\n)+\Z", source[: found.start()], re.MULTILINE)
    start = decorators.start() if decorators else found.start()
    # The definition ends before the next line that starts a statement in the first column.
    rest = re.compile(r"^(?=[^\s#)\]}\"'])", re.MULTILINE).search(source, source.index("\n", found.start()))
    for end in _statement_ends(source, rest.start() if rest else len(source)):
        text = _without_bodies(source[start:end])
        try:
            ast.parse(text)
        except SyntaxError:  # the cut fell inside a string or bracket: take one statement more
            continue
        return text
    return None


def _without_bodies(text: str) -> str:
    """A class cut off behind the signature of its `__init__`: parsing the rest of torch's classes takes 100 ms."""
    head = re.search(r"^    def __init__\(.*?\)(?: *->[^:]*)?:$", text, re.MULTILINE | re.DOTALL)
    return text if head is None else f"{text[: head.end()]} ...\n"


def _statement_ends(source: str, first: int) -> Iterator[int]:
    yield first
    for found in re.compile(r"^(?=\S)", re.MULTILINE).finditer(source, first + 1):
        yield found.start()
    yield len(source)


def _imported_from(source: str, module: str, name: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) != name:
                continue
            package = module if source_file(module).name == "__init__.py" else module.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            yield ".".join(filter(None, [package if node.level else "", node.module])), alias.name


def _class_arguments(node: ast.ClassDef, module: str, bases: tuple[str, ...]) -> tuple[Argument, ...]:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return tuple(_arguments(statement.args))[1:]
    fields: tuple[Argument, ...] = ()
    for base in bases:
        try:
            fields = _signature(module, base).arguments
        except ValueError:
            continue
        break
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        own = tuple(_fields(node))
        names = {argument.name for argument in own}
        return tuple(argument for argument in fields if argument.name not in names) + own
    return fields


def _fields(node: ast.ClassDef) -> Iterator[Argument]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            if "ClassVar" not in annotation:
                default = REQUIRED if statement.value is None else _literal(statement.value)
                yield Argument(statement.target.id, annotation, default)


def _arguments(arguments: ast.arguments) -> Iterator[Argument]:
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
        yield Argument(argument.arg, annotation.strip("'\""), REQUIRED if default is None else _literal(default))


def _literal(node: ast.expr) -> Any:
    with suppress(ValueError):  # no literal: it may still be a field or arithmetic
        return ast.literal_eval(node)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        "field"
    ):  # dataclasses.field(default_factory=...)
        for keyword in node.keywords:
            if keyword.arg == "default":
                return _literal(keyword.value)
            if keyword.arg == "default_factory" and isinstance(keyword.value, ast.Lambda):
                return _literal(keyword.value.body)
            if keyword.arg == "default_factory" and ast.unparse(keyword.value) in {"list", "dict"}:
                return [] if ast.unparse(keyword.value) == "list" else {}
    if isinstance(node, ast.BinOp) and not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node)):
        # Constants only (1.0 / 3): the names are empty, so nothing but arithmetic can happen.
        return eval(compile(ast.Expression(node), "<default>", "eval"), {"__builtins__": {}})
    return DYNAMIC


def _summary(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    # torch writes `__doc__ = r"""...` in some classes and decorates others: only a plain docstring is read.
    return (ast.get_docstring(node) or "").strip().partition("\n")[0]
