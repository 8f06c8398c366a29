"""What was chosen for a run, by dotted name: the columns that tell it from others."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

GROUPS = ("objective", "optimiser", "schedule")
"""Nodes of a config that are known by their name; their other options are chosen one by one."""

SILENT = "observers"
"""What changes nothing of a run but who watches it."""


def chosen(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The names of objective and optimiser, and what a config holds at these keys, such as `optimiser.lr` or `stop`."""
    found: dict[str, Any] = {}
    for key in ("objective", "optimiser", *keys):
        node: Any = config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if key in GROUPS and isinstance(node, Mapping):
            node = node.get("name")
        found |= dict(leaves({key: node}))
    return {key: value for key, value in found.items() if key != SILENT}


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What a config says, by dotted name; what is None or empty is left out."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            yield f"{prefix}{name}", value
