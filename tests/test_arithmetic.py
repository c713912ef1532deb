import logging

import pytest
from torch.utils.flop_counter import FlopCounterMode

from diffusion import pipeline, runs, stages
from diffusion.arithmetic import flop_per_step
from diffusion.cli import composed
from diffusion.compiling import as_one
from diffusion.config import build
from tests.small_runs import SMALL, TINY_UNET

pytestmark = pytest.mark.usefixtures("hydra")
ADVERSARIAL = ("experiment=shapes_autoencoder", "task=autoencoder_adversarial", "task.perceptual_weight=0")


def described(*overrides):
    asked = [*SMALL, *overrides]
    cfg, choices = composed(asked)
    return cfg, choices, asked, build(cfg.data, cfg.trusted)


def counted(*overrides, processes: int = 1) -> float:
    cfg, _, _, data = described(*overrides)
    return flop_per_step(cfg, data, processes)


@pytest.mark.parametrize("asked", [
    ("experiment=shapes_autoencoder",), ("experiment=shapes_judge",), ("experiment=shapes_clip",),
    ("experiment=latent_shapes", "autoencoder=identity", "text_encoder=none",
     "backbone.self_attention=[false,true]", "backbone.cross_attention=[false,false]", "backbone.widths=[32,64]"),
    ("experiment=latent_shapes", "backbone=dit_tiny", "autoencoder=identity", "text_encoder=none"),
], ids=lambda asked: f"{asked[0]} {'dit' if 'backbone=dit_tiny' in asked else ''}")
def test_it_is_what_an_update_computes(asked):
    cfg, choices, asked, data = described(*asked, "batch=4", "optimizer=adamw")
    stage = stages.plan(cfg, choices, asked, composed, data)
    network, example = runs.assembled(stage, data).accelerated()
    with FlopCounterMode(display=False) as counter:
        as_one(network(*example())).square().mean().backward()
    # less than counted: nothing is differentiated by the pictures
    assert 0.9 < counter.get_total_flops() / flop_per_step(cfg, data) < 1.02


def test_it_follows_batch_size_widths_and_pictures():
    asked = "experiment=latent_shapes", "optimizer=adamw", "batch=8"
    small = counted(*asked)
    assert counted(*asked[:2], "batch=24") == 3 * small == 6 * counted(*asked, processes=2)
    assert counted(*asked, *TINY_UNET) < small
    assert counted(*asked, "data.image_size=64") > 3.9 * small
    assert counted(*ADVERSARIAL) > counted("experiment=shapes_autoencoder")


def test_muons_products_are_the_same_for_every_batch_and_process():
    def muons(*asked, **split) -> float:
        return counted("experiment=latent_shapes", *asked, **split) - counted(
            "experiment=latent_shapes", "optimizer=adamw", *asked, **split)

    assert muons("batch=8") == muons("batch=24") == muons("batch=8", processes=2) > muons("batch=8", *TINY_UNET) > 0


def test_the_plan_tells_what_overrides_cost(monkeypatch, caplog):
    monkeypatch.setattr("diffusion.machine.convolution_speed", lambda device: 450e9)

    def told(*overrides) -> str:
        cfg, choices, asked, data = described("experiment=shapes_judge", "steps=1000", "trainer=cpu", *overrides)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            pipeline.announce(stages.plan(cfg, choices, asked, composed, data), None, data)
        return next(line for line in caplog.messages if "steps, about" in line).partition("about ")[2]

    seconds = 1000 * counted("experiment=shapes_judge", "batch=128") / 225e9
    assert told("batch=128").startswith(pipeline.duration(seconds))
    assert told("batch=512").startswith(pipeline.duration(4 * seconds))
    assert told("batch=1").startswith("5s "), "Python takes its time, too"
