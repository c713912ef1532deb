"""The config folder is the list: a file added to configs/schedule is tested the day it appears."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion.config import build

CONFIGS = Path(__file__).parents[1] / "configs"


def names(group: str) -> list[str]:
    """What one types after `group=`."""
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def options(group: str, **given) -> list:
    """What each file of a group builds, as parameters named by the files; `given` is what they interpolate."""
    files = sorted((CONFIGS / group).glob("*.yaml"))
    assert files, f"configs/{group} is empty"
    return [pytest.param(build(OmegaConf.create({**given, "option": OmegaConf.load(file)}).option), id=file.stem)
            for file in files]
