"""Rows from the hub or from a local folder in the hub's layout, through the `datasets` library, and their
fingerprint.

The hub is asked once, with a short timeout, before `datasets` would retry for half a minute; without an
answer its local cache must do.
"""

import contextlib
import re
from pathlib import Path

import datasets
import huggingface_hub

from diffusion.data.captioned import DataUnavailable
from diffusion.data.hashing import digest, files_digest

TIMEOUT = 5  # seconds
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")

ADVICE = """What can be done:
  - run `python -m diffusion.prepare` with the same arguments once where there is network; share its HF_HOME
  - data.source=FOLDER for a local copy in the hub's layout{variable}
  - experiment=latent_shapes trains without any download"""


def load_rows(source: str, *, variable: str | None = None) -> tuple[dict[str, datasets.Dataset], str]:
    """The splits and a fingerprint of their content: of the files' bytes (folder) or the revision (hub).

    variable  the environment variable that also sets the source, for the message
    """
    advice = ADVICE.format(variable=f", or {variable}=FOLDER in the environment" if variable else "")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder, advice)
    if not HUB_NAME.fullmatch(source):
        raise DataUnavailable(f"the data folder {source} does not exist (seen from {Path.cwd()})\n{advice}")
    return _from_hub(source, advice)


def _from_folder(folder: Path, advice: str) -> tuple[dict[str, datasets.Dataset], str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not _hidden(f, folder))
    if all(file.suffix == ".md" for file in files):
        raise DataUnavailable(f"the data folder {folder} holds no data files\n{advice}")
    # A README may say which file is which split, so it counts. The cache of `datasets` (5.2) does not tell
    # folders of one name apart and hands out the rows of the first: each content gets its own cache.
    fingerprint = files_digest(folder, files)
    cache = Path(datasets.config.HF_DATASETS_CACHE) / f"local-{fingerprint}"
    try:
        splits = datasets.load_dataset(str(folder.resolve()), cache_dir=str(cache))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = _last_cause(error)
        raise DataUnavailable(f"the data folder {folder} cannot be read: {reason}\n{advice}") from error
    return dict(splits), fingerprint


def _from_hub(name: str, advice: str) -> tuple[dict[str, datasets.Dataset], str]:
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=TIMEOUT)
        problem = None
    except Exception as error:  # whatever the hub's client raises: no network, no such name, no permission
        problem = error
    with _offline() if problem else contextlib.nullcontext():
        try:
            splits = dict(datasets.load_dataset(name))
        except Exception as error:
            reason = _last_cause(problem or error)
            cache = datasets.config.HF_DATASETS_CACHE
            raise DataUnavailable(
                f"data set {name!r}: the hub gives {reason}, the local cache ({cache}) has no copy, "
                f"and no folder of this name is seen from {Path.cwd()}\n{advice}"
            ) from error
    return splits, digest({split: rows._fingerprint for split, rows in splits.items()})


@contextlib.contextmanager
def _offline():
    """`datasets` looks into its cache only."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _last_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
