"""What `--help` and `gradopt plugins` print: read from sources, so that it answers before anything is imported."""

import textwrap
from collections.abc import Iterator, Sequence

from gradopt.mistakes import Mistake
from gradopt.plugins import Entry, registry
from gradopt.settings import options
from gradopt.signatures import DYNAMIC, REQUIRED

KEYS = {
    "device": "cpu, cuda, cuda:N, mps or auto (default cpu)",
    "dtype": "float64 or float32 (default float64)",
    "seed": "of all random numbers (default 0)",
    "engine": "auto, eager, native, compiled or cuda_graph: who executes the steps (default auto)",
    "threads": "auto, or a number: auto takes one for small problems",
    "on_saddle": "stop or escape: what to do at a saddle point or maximum (default stop)",
    "starts": "many at once: starts=64",
    "starts.sampler": "auto, sobol, latin_hypercube, uniform (in the bounds) or normal (round the start)",
    "starts.spread": "of normal, in units of the start's size (default 1)",
    "stop.max_steps": "the budgets; without any of them 10000 steps",
    "stop.max_evaluations": "",
    "stop.max_seconds": "",
    "stop.max_epochs": "(objectives with batches)",
    "stop.target": "the loss that is good enough",
    "stop.gradient_tolerance": "of the scaled first-order test (default eps^0.6 of the dtype)",
    "criteria": "plugin criteria by name: criteria=[early_stopping] or criteria=[{name: ..., option: ...}]",
    "observers": "who watches (default [console,tensorboard,history,pictures])",
}
GROUPS = {"objective": "objective", "optimiser": "optimiser", "schedule": "schedule"}
LISTS = {"criterion": "criteria", "observer": "observers"}


def manual(arguments: Sequence[str]) -> str:
    """The help: everything that can be chosen, one line each, and the options of what `arguments` chose."""
    lines = [
        "usage: gradopt [key=value ...]      run: python -m gradopt objective=polynomial optimiser=adam",
        "       gradopt -m key=a,b ...       one run for each combination",
        "       gradopt check [key=value ...]  examine the objective before a run: gradient, scale, dtype, ...",
        "       gradopt compare [RUNS ...]   a table and pictures of runs, best first (default: runs/)",
        "       gradopt board [DIR]          TensorBoard of them, and an address that opens on the useful view",
        "       gradopt plugins              list plugins, and what is wrong with broken ones",
        "",
    ]
    for kind, key in {**GROUPS, **LISTS}.items():
        lines.append(f"{key}={'[NAME, ...]' if kind in LISTS else 'NAME'}")
        lines += _choices(kind)
        lines.append("")
    lines.append("other keys")
    lines += [f"  {name:<26} {text}".rstrip() for name, text in KEYS.items()]
    lines.append("")
    chosen = list(_chosen(arguments))
    for entry in chosen:
        lines.append(f"options of {entry.kind}={entry.name}")
        lines += [f"  {line}" for line in _options(entry)]
        lines.append("")
    if not chosen:
        lines.append("options of one choice: gradopt optimiser=adam --help; the whole config: gradopt --cfg job")
    lines.append("switches: -m (multirun), --cfg job, --config-dir DIR, --disable-plugin NAME, --version")
    lines.append("          --quiet (print the verdict alone), --json (one JSON object a line, for programs)")
    return "\n".join(lines) + "\n"


def plugin_list() -> str:
    """Every plugin with its distribution, version and what it adds; broken ones with the cause."""
    found = registry()
    lines = []
    for plugin in found.plugins:
        lines.append(f"{plugin.name}  ({plugin.distribution} {plugin.version})")
        for kind in ("objective", "optimiser", "schedule", "criterion", "observer"):
            names = [entry.name for entry in plugin.entries if entry.kind == kind]
            if names:
                lines += textwrap.wrap(
                    ", ".join(names), 100, initial_indent=f"  {kind + ':':<11}", subsequent_indent=" " * 13
                )
        if plugin.config_path:
            lines.append(f"  configs:   {plugin.config_path}")
    for broken in found.broken:
        lines.append(f"{broken.name}  ({broken.distribution} {broken.version})  BROKEN: {broken.cause}")
    lines += [f"{name}  switched off" for name in found.disabled]
    return "\n".join(lines) + "\n"


def _choices(kind: str) -> Iterator[str]:
    """A line for each name, a paragraph for each family such as mgh/..."""
    families: dict[str, list[str]] = {}
    for entry in registry().entries(kind):
        family, slash, member = entry.name.partition("/")
        if slash:
            families.setdefault(family, []).append(member)
        else:
            yield f"  {entry.name:<18} {_summary(entry)}"
    for family, members in families.items():
        yield from textwrap.wrap(
            ", ".join(members), 100, initial_indent=f"  {family + '/...':<18} ", subsequent_indent=" " * 21
        )


def _summary(entry: Entry) -> str:
    try:
        summary = entry.signature().summary
    except Mistake as mistake:
        return f"(cannot be read: {mistake})"
    if not summary and entry.target.startswith("torch."):
        return f"torch.optim.{entry.target.rpartition(':')[2]}"
    return summary


def _chosen(arguments: Sequence[str]) -> Iterator[Entry]:
    for argument in arguments:
        key, _, name = argument.partition("=")
        if key in GROUPS:
            yield from (entry for entry in registry().entries(key) if entry.name == name)


def _options(entry: Entry) -> Iterator[str]:
    try:
        arguments = options(entry.kind, entry.signature())
    except Mistake as mistake:
        yield str(mistake)
        return
    for argument in arguments:
        default = ""
        if argument.default is REQUIRED:
            default = "  (required)"
        elif argument.default is not DYNAMIC:
            default = f" = {argument.default!r}"
        annotation = f": {argument.annotation}" if argument.annotation else ""
        yield f"{entry.kind}.{argument.name}{annotation}{default}"
