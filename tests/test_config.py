import json

import pytest
from omegaconf import OmegaConf

from diffusion.config import ConfigError, build, canonical, check, locate
from diffusion.schedules import Cosine


def test_build_calls_the_target():
    assert build({"_target_": "diffusion.schedules.Cosine", "T": 10}) == Cosine(T=10)


def test_parts_are_built_first():
    node = {"_target_": "diffusion.models.discriminator.Discriminator", "widths": [32, 64]}
    built = build({"a": [node], "b": 1})
    assert type(built["a"][0]).__name__ == "Discriminator" and built["b"] == 1


def test_partial_waits_for_its_objects():
    cosine = build({"_target_": "diffusion.training.optim.cosine", "_partial_": True, "warmup": 10})
    assert cosine(9, 100) == 1.0


def test_every_mistake_is_listed_with_its_path():
    cfg = OmegaConf.create({
        "schedule": {"_target_": "diffusion.schedules.Cosine", "TT": 10},
        "backbone": {"_target_": "diffusion.models.autoencoder.KLAutoencoder", "latent_channels": "four"},
        "sampler": {"_target_": "diffusion.samplers.dim"},
        "missing": {"_target_": "diffusion.data.folder.Folder", "source": "x"},
    })
    with pytest.raises(ConfigError) as error:
        check(cfg)
    text = str(error.value)
    assert "4 mistakes" in text
    for part in ("schedule.TT", "backbone.latent_channels = 'four'", "ddim?", "missing.image_size: missing"):
        assert part in text


def test_a_mistake_is_told_where_it_stands_and_not_where_it_is_pointed_to():
    cfg = OmegaConf.create({"schedule": {"_target_": "diffusion.schedules.Cosine", "TT": 10}, "a": {"b": "${schedule}"},
                            "steps": "???"})
    with pytest.raises(ConfigError, match=r"has a mistake\n  schedule\.TT"):
        check(cfg)
    with pytest.raises(ConfigError, match=r"T = 'x'"):
        check(OmegaConf.create({"x": "x", "schedule": {"_target_": "diffusion.schedules.Cosine", "T": "${x}"}}))


def test_integers_fit_where_floats_are_asked_but_booleans_do_not():
    check({"x": {"_target_": "diffusion.schedules.Linear", "beta_start": 0, "beta_end": 1}})
    with pytest.raises(ConfigError, match=r"x\.T = True"):
        check({"x": {"_target_": "diffusion.schedules.Linear", "T": True}})


@pytest.mark.parametrize("target", [
    "os.system", "torch.load", "torch.hub.load", "subprocess.run", "diffusion.checkpoint.os.system",
    "diffusion.config.importlib.import_module", "diffusion.cli.subprocess.run", "diffusion.schedules.base.torch.load",
])
def test_only_what_trusted_packages_define_can_be_called(target):
    with pytest.raises(ConfigError):
        locate(target)
    with pytest.raises(ConfigError):
        build({"_target_": target})


def test_a_default_written_out_is_the_same_run():
    short = {"_target_": "diffusion.schedules.Cosine"}
    assert canonical({**short, "T": 1000, "s": 0.008}) == canonical(short) != canonical({**short, "T": 999})
    widths = {"_target_": "diffusion.models.autoencoder.KLAutoencoder", "widths": [64, 128]}
    assert "widths" not in canonical(widths)


def test_a_whole_number_is_the_same_as_a_float():
    assert canonical({"clip": 1.0, "betas": [0.0, 0.5]}) == {"clip": 1, "betas": [0, 0.5]}
    assert json.dumps(canonical({"clip": 1.0})) == json.dumps(canonical({"clip": 1}))
