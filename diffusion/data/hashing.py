"""Names made from content: short digests of values and of files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest(value) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """Of the files' bytes and their paths below root: the same after a move or a copy of the folder."""
    contents = {}
    for path in files:
        with path.open("rb") as file:
            contents[path.relative_to(root).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest(contents)
