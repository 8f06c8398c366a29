"""From a name in the config to the entry it names and its checked options. Nothing is imported on the way."""

from collections.abc import Mapping
from typing import Any

from gradopt.mistakes import Mistake
from gradopt.plugins import Entry, registry
from gradopt.settings import Settings, check, schema


def selected(kind: str, node: Any) -> tuple[Entry, dict[str, Any]]:
    """The entry a config node names, and its options checked. Nothing is imported.

    Raises:
        Mistake: No such name, or options that do not fit.
    """
    if not isinstance(node, str | Mapping | None):
        raise Mistake(f"{kind} must be a NAME, or {{name: NAME, option: ...}} with options, got {node!r}")
    node = {"name": node} if isinstance(node, str) else dict(node or {})
    name = node.get("name")
    if not isinstance(name, str) or not name or name == "???":  # OmegaConf's word for what is missing
        raise Mistake(f"no {kind} is chosen; say {kind}=NAME (gradopt --help lists them)")
    entry = registry().find(kind, name)
    signature = entry.signature()
    try:
        made = schema(kind, name, signature)
    except Mistake as mistake:
        raise Mistake(f"{mistake} (plugin {entry.plugin!r})") from mistake
    own = entry.target.startswith("torch.optim")
    return entry, check(kind, str(entry), signature, node, made, torch_ranges=own)


def check_names(settings: Settings) -> None:
    """Check every name and option of the config, without importing torch or a plugin's implementation."""
    selected("objective", settings.objective)
    selected("optimiser", settings.optimiser)
    if settings.schedule and settings.schedule.get("name"):
        selected("schedule", settings.schedule)
    for node in settings.criteria:
        selected("criterion", node)
    for node in settings.observers:
        selected("observer", node)
