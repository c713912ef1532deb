"""Runs side by side on one HTML page that opens offline: `python -m diffusion.report RUN [RUN ...]`.

What differs, scores with intervals, pictures of the same noise, curves, cost and commands. A sweep's folder stands for
its runs; `train.py -m` writes the page there by itself.
"""

import argparse
import logging
from pathlib import Path

from diffusion.cli import plain_lines, told

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m diffusion.report", description=__doc__.split("\n\n")[1])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a sweep's: runs/sweeps/TIME")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the folder, if it is one")
    parser.add_argument("--trust", nargs="+", default=[], metavar="PACKAGE", help="packages of your own in the runs")
    asked = parser.parse_args(arguments)
    plain_lines()
    with told():
        from diffusion.paths import relative
        from diffusion.reporting.page import write

        out = asked.out or (Path(asked.runs[0]) if len(asked.runs) == 1 else Path()) / "report.html"
        runs = write(asked.runs, out, asked.trust)
        log.info("%d run%s in %s (%.1f MB)", len(runs), "s" * (len(runs) != 1), relative(out),
                 out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
