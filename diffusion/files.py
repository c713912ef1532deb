"""Files that are written whole or not at all, and named by what they hold."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path


def atomic(path: Path, write: Callable[[str], object]) -> None:
    """Call write(temporary) in the same folder, flush it to the disk and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """UTF-8."""
    atomic(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Mapping, **options) -> None:
    """For people to read, too. options: of json.dumps."""
    write_text(path, json.dumps(content, indent=2, **options) + "\n")


def file_hash(path: Path) -> str:
    """Names a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
