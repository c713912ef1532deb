"""Two runs against each other, in the terminal: `python -m diffusion.compare A B`.

What differs, the differences of scores with their intervals, and pictures by both models of the same prompts and
noise, in one PNG (out=FILE). Other arguments are those of sample.py, for both: `steps=20 'prompt="a horse"' n=8`.
"""

import argparse
import logging
from pathlib import Path

import hydra

from diffusion.cli import CONFIGS, plain_lines, told

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m diffusion.compare", description=__doc__.split("\n\n")[1])
    for name in ("A", "B"):
        parser.add_argument(name, type=Path, help="a run's folder, or the link to one in a sweep's")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="of sample.py; n=0 draws nothing")
    asked = parser.parse_args(arguments)
    plain_lines()
    with told(), hydra.initialize_config_dir(CONFIGS, version_base="1.3"):
        from diffusion.reporting import pair
        from diffusion.reporting.run import runs_of

        runs = runs_of([asked.A]) + runs_of([asked.B])
        if len(runs) != 2:
            raise ValueError(f"{asked.A} and {asked.B} are {len(runs)} runs: two are compared; python -m "
                             "diffusion.report takes any number")
        cfg = hydra.compose("sample", ["out=compared.png", *asked.options])
        for line in [*pair.configurations(*runs), "", *pair.scores(*runs)]:
            log.info("%s", line)
        if cfg.n != 0:
            pair.draw(*runs, cfg)


if __name__ == "__main__":
    main()
