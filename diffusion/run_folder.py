"""The folder of a run: in the hands of one command at a time, with a log of what was said there."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from diffusion import processes, snapshots
from diffusion.callbacks.saving import Interrupted
from diffusion.files import write_text
from diffusion.paths import relative
from diffusion.stages import Stage, config_yaml

log = logging.getLogger(__name__)
LEFT = ("config.yaml", "plan.yaml", "metrics.csv", "last.ckpt", "model.safetensors", "results.json", "samples",
        "evaluation", "tensorboard", "wandb", snapshots.FOLDER)
LOCK = ".lock"  # held by whoever writes into a run's folder


def put_aside(folder: Path) -> None:
    """What a run left in its folder, into before/TIME/ there: it begins anew, and nothing is lost."""
    left = [path for path in map(folder.joinpath, LEFT) if path.exists()]
    if left:
        before = folder / "before" / time.strftime("%Y-%m-%d_%H-%M-%S")
        before.mkdir(parents=True)
        for path in left:
            path.rename(before / path.name)
        log.info("what was in %s is now in %s", relative(folder), relative(before))


@contextlib.contextmanager
def alone(stage: Stage, wait: bool = True) -> Iterator[None]:
    """In the stage's folder: the first process holds its lock. Another command waits for it, or is refused."""
    if processes.rank() > 0:
        yield
        return
    stage.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(stage.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise BlockingIOError(f"{relative(stage.folder)} is in use by another run of the same configuration"
                                  ) from None
        log.info("another command works in %s: this one waits", relative(stage.folder))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def opened(stage: Stage) -> Iterator[None]:
    """The stage's folder, for this run alone, with its configuration."""
    with alone(stage, wait=False):
        if processes.rank() == 0:
            for leftover in stage.folder.rglob(".*.tmp"):
                leftover.unlink()
            if stage.cfg.resume == "never":
                put_aside(stage.folder)
            write_text(stage.folder / "config.yaml", config_yaml(stage.cfg))
        yield


@contextlib.contextmanager
def logged(stage: Stage) -> Iterator[None]:
    """log.txt in the stage's folder: what is said meanwhile, of the first process all of it, and the stack of what
    ends it."""
    handler = logging.FileHandler(stage.folder / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.setLevel(logging.ERROR if processes.rank() > 0 else logging.NOTSET)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Interrupted as error:
        if processes.rank() == 0:
            log.error("%s ended: %s", stage.part, error)
        raise
    except BaseException as error:
        log.error("%s ended: %s: %s", stage.part, type(error).__name__, error)
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "at", (), sys.exc_info()))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
