"""How far a long piece of work is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from diffusion import processes

log = logging.getLogger(__name__)


def duration(seconds: float) -> str:
    """95 -> "1m35s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


@contextlib.contextmanager
def progress(total: int, what: str, every: float = 20.0) -> Iterator[Callable[[int], None]]:
    """Within, call it with the number of pictures that are done beyond the last call. The first process tells.

    every  seconds between two plain lines
    """
    if processes.rank() > 0:
        yield lambda n: None
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit="picture", leave=False, dynamic_ncols=True) as bar:
            yield bar.update
    else:
        began = last = time.perf_counter()
        done = 0

        def tell(n: int) -> None:
            nonlocal done, last
            done, now = done + n, time.perf_counter()
            if now - last > every and done < total:
                last = now
                log.info("%s: %d of %d, %s left", what, done, total, duration((now - began) * (total - done) / done))

        yield tell
