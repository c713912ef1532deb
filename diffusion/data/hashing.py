"""Names made from content: short digests of values and of files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from diffusion.files import write_text


def digest(value) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def files_digest(root: Path, files: Iterable[Path], cache: Path | None = None) -> str:
    """Of the files' bytes and their paths below root: the same after a move or a copy of the folder.

    cache  folder that remembers each file's digest, so that one whose size and time of change are what they were is not
           read again
    """
    memory = None if cache is None else cache / f"digests-{digest(str(root.resolve()))}.json"
    before = json.loads(memory.read_text()) if memory is not None and memory.exists() else {}
    now = {}
    for path in files:
        name, stat = path.relative_to(root).as_posix(), path.stat()
        size, changed, content = before.get(name, (None, None, None))
        if (size, changed) != (stat.st_size, stat.st_mtime_ns):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        now[name] = [stat.st_size, stat.st_mtime_ns, content]
    if memory is not None and not now.items() <= before.items():
        write_text(memory, json.dumps(before | now))
    return digest({name: content for name, (_, _, content) in now.items()})
