"""Whole runs at reduced size, in folders of the test's own; for tests with the fixture `hydra`."""

import os
from pathlib import Path

from diffusion import pipeline
from diffusion.cli import composed

ROOT = Path(__file__).parents[1]
SMALL = ["data.train=64", "data.test=16", "compile=false", "precision=32", "evaluation=none", "sampling_steps=2",
         "debug=smoke"]
TINY_UNET = ["backbone.widths=[32,32]"]


def use(folder: Path, monkeypatch) -> None:
    """Runs and caches go there from now on."""
    monkeypatch.setenv("DIFFUSION_RUNS", str(folder / "runs"))
    monkeypatch.setenv("DIFFUSION_CACHE", str(folder / "cache"))


def train(*overrides: str) -> dict:
    """results.json of `train.py SMALL overrides`; a data set of one's own keeps its size."""
    own_data = any(o.startswith("data=") for o in overrides)
    asked = [*(o for o in SMALL if not (own_data and o.startswith("data."))), *overrides]
    cfg, choices = composed(asked)
    return pipeline.main(cfg, choices, asked, composed)


def only(pattern: str) -> Path:
    """The one file under the runs that matches."""
    found = list(Path(os.environ["DIFFUSION_RUNS"]).glob(pattern))
    assert len(found) == 1, found
    return found[0]


def interrupted(step: int) -> list[str]:
    """Overrides that send a signal at this step."""
    return stopped("SignalAt", step)


def ended(step: int) -> list[str]:
    """Overrides that tell the trainer to stop after this step, as early stopping does."""
    return stopped("StopAfter", step)


def stopped(by: str, step: int) -> list[str]:
    return ["trusted=[diffusion,torch.optim,pytorch_lightning,tests]",
            f"+callbacks.stop={{_target_:tests.interrupt.{by},step:{step}}}"]
