"""Folders and files as they are asked for and told."""

import os
import tempfile
from pathlib import Path


def writable(folder: str | Path, option: str = "paths.runs") -> None:
    """Raises PermissionError, early, where something could not be kept; `option` chooses another folder."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"{folder.absolute()} is not writable ({error.strerror}): choose another folder with "
                              f"{option}=FOLDER") from None


def relative(path: Path) -> str:
    """As one would type it here."""
    try:
        return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)
    except ValueError:
        return str(path)
