"""What distinguishes runs: configurations as flat dicts of leaves, and only the leaves that differ."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = "–"


def flat(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """{"schedule": {"_target_": "x.Cosine", "T": 500}} -> {"schedule": "x.Cosine", "schedule.T": 500}."""
    leaves = {}
    for key, value in node.items():
        here = path if key == "_target_" else f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            leaves |= flat(value, here)
        elif key != "_partial_":
            leaves[here] = value
    return leaves


def differences(configurations: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted path -> the value in each configuration, ABSENT where there is none; equal ones are left out."""
    leaves = [flat(configuration) for configuration in configurations]
    paths = dict.fromkeys(path for some in leaves for path in some)
    rows = {path: [some.get(path, ABSENT) for some in leaves] for path in paths}
    return {path: values for path, values in rows.items() if any(value != values[0] for value in values)}


def shown(value: Any) -> str:
    """A leaf for people: a class without its package, a list without spaces."""
    if isinstance(value, str):
        return value.rpartition(".")[2] if re.fullmatch(r"[a-z_]\w*(\.[A-Za-z_]\w*)+", value) else value
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def labels(names: Sequence[str]) -> list[str]:
    """Short and distinct: the jobs of a sweep without the overrides that all of them share."""
    parts = [re.split(r",(?=[\w.+~@/]+=)", name) for name in names]
    shared = set(parts[0]).intersection(*parts[1:])
    short = [",".join(part for part in some if part not in shared) for some in parts]
    return short if all(short) and len(set(short)) == len(short) else list(names)
