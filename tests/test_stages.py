"""Plans, keys and folders: laws of what may and may not change a run's identity."""

from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf

from diffusion.cli import CONFIGS, composed
from diffusion.config import build, check
from diffusion.paths import writable
from diffusion.refusals import refuse_early, refuse_numbers
from diffusion.stages import plan
from tests.options import names

pytestmark = pytest.mark.usefixtures("hydra")


SMALL = ["data.train=64", "data.test=16"]


def planned(*overrides):
    cfg, choices = composed([*SMALL, *overrides])
    return plan(cfg, choices, [*SMALL, *overrides], composed, build(cfg.data, cfg.trusted))


GROUPS = sorted(p.name for p in Path(CONFIGS).iterdir() if p.is_dir() and p.name not in ("debug", "hydra", "paths"))


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in GROUPS for name in names(group)])
def test_every_option_composes_and_checks(choice):
    extra = ["data.source=x"] if choice == "data=folder" else []
    cfg = compose("train", [choice, *extra])
    check(cfg, cfg.trusted)


@pytest.mark.parametrize("same", ["accumulate=2", "trainer=ddp", "logger=wandb", "paths.runs=elsewhere", "log_every=1",
                                  "sample_every=7", "save_minutes=1", "compile=false", "callbacks=none",
                                  "evaluation=none", "guidance.scale=2", "schedule.T=1000", "ema.decay=0.9999"])
def test_what_cannot_change_the_weights_keeps_the_run(same):
    extra = "+" if same.startswith("schedule.") else ""
    assert planned(extra + same).key == planned().key


@pytest.mark.parametrize("other", ["seed=1", "steps=5", "batch=16", "learning_rate=3e-4", "schedule=linear",
                                   "parameterization=eps", "weighting=min_snr", "+schedule.T=500", "precision=32",
                                   "task.caption_dropout=0.2", "data.seed=5", "autoencoder=kl_f2", "text_encoder=none",
                                   "objective=hybrid", "coupling=optimal_transport", "task.offset_noise=0.1",
                                   "ema=power", "ema=half_life", "ema.decay=0.99"])
def test_what_can_change_the_weights_changes_the_run(other):
    assert planned(other).key != planned().key


def test_a_sweep_over_schedules_shares_its_parents():
    linear, cosine = planned("schedule=linear"), planned("schedule=cosine")
    assert linear.key != cosine.key
    assert {k: p.key for k, p in linear.parents.items()} == {k: p.key for k, p in cosine.parents.items()}


def test_a_parent_keeps_its_own_numbers_and_takes_the_childs_data_and_part():
    stage = planned("steps=7", "seed=3", "autoencoder=kl_f4", "precision=32")
    parent = stage.parents["autoencoder"]
    assert parent.cfg.steps != 7 and parent.cfg.seed == 0 and parent.cfg.precision == 32
    assert parent.cfg.data.train == 64 and parent.cfg.autoencoder == stage.cfg.autoencoder
    assert parent.experiment == "shapes_autoencoder"


@pytest.mark.parametrize("sign", ["", "++"])
def test_a_parent_takes_shared_keys_however_they_are_written(sign):
    parent = planned(f"{sign}precision=32", f"{sign}workers=3").parents["autoencoder"]
    assert (parent.cfg.precision, parent.cfg.workers) == (32, 3)


def test_a_part_that_needs_no_training_is_no_parent():
    assert set(planned("text_encoder=none").parents) == {"autoencoder"}
    assert set(planned("autoencoder=identity").parents) == {"text_encoder"}
    assert set(planned("text_encoder=clip_vit_b32").parents) == {"autoencoder"}


def test_parents_come_first_and_once():
    order = [s.part for s in planned().walk()]
    assert order == ["autoencoder", "text_encoder", "model"]


@pytest.mark.parametrize("backbone", [name for name in names("backbone") if "base" not in name])
def test_a_backbone_takes_its_channels_from_its_neighbours(backbone):
    stage = planned(f"backbone={backbone}")
    refuse_early(stage, build(stage.cfg.data, stage.cfg.trusted))


@pytest.mark.parametrize(("overrides", "says"), [
    (["backbone=dit_tiny", "backbone.patch=3"], r"multiples of 3 \(backbone\.patch\); .* autoencoder= .* 8 x 8 x 8"),
    (["backbone=dit_tiny", "backbone.heads=5"], r"backbone\.width = 192 .* backbone\.heads = 5"),
    (["backbone=dit_tiny", "+backbone.context_dim=7"], r"backbone\.context_dim = 7, but .* text_encoder= gives 128"),
    (["backbone.widths=[32,32,32,32,32]", "backbone.self_attention=[true,true,true,true,true]",
      "backbone.cross_attention=[true,true,true,true,true]"], r"5 levels in backbone\.widths\); .* autoencoder="),
    (["+backbone.context_dim=null"], r"backbone\.cross_attention is on, but backbone\.context_dim is null"),
])
def test_a_backbone_that_does_not_fit_is_refused_before_anything_is_trained(overrides, says):
    stage = planned(*overrides)
    with pytest.raises(ValueError, match=says):
        refuse_early(stage, build(stage.cfg.data, stage.cfg.trusted))


@pytest.mark.parametrize(("overrides", "says"), [
    (["evaluation.samples=1"], "evaluation.samples = 1"), (["data.test=1"], "the test split has 1 picture"),
    (["compile=off"], "compile = off: allowed are auto, true"), (["ema.decay=2"], r"ema\.decay = 2")])
def test_values_that_are_not_allowed_are_refused_before_training(overrides, says):
    stage = planned("experiment=latent_shapes", *overrides)
    with pytest.raises(ValueError, match=says):
        refuse_early(stage, build(stage.cfg.data, stage.cfg.trusted))


@pytest.mark.parametrize("change", [["+backbone.context_dim=null"], ["text_encoder=none"]])
def test_a_transformer_needs_no_tokens(change):
    stage = planned("backbone=dit_tiny", *change)
    refuse_early(stage, build(stage.cfg.data, stage.cfg.trusted))


def test_a_folder_that_cannot_be_written_is_refused_early(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"paths\.runs"):
        writable(tmp_path / "file" / "runs")


def test_a_local_text_encoder_enters_the_key_by_its_weights(tmp_path):
    def key(folder, weights):
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(weights)
        return planned("text_encoder=clip_vit_b32", f"text_encoder.path={folder}").key

    assert key(tmp_path / "a", b"one") == key(tmp_path / "b", b"one") != key(tmp_path / "a", b"two")


@pytest.mark.parametrize(("overrides", "says"), [
    (["steps=1e2"], "steps = 100.0: a whole number"), (["batch=0"], "batch = 0"), (["clip=-1"], "clip = -1"),
    (["sample_every=0"], "sample_every = 0"), (["accumulate=3"], "multiple of 3"),
    (["task.caption_dropout=10"], "caption_dropout = 10: a share"),
    (["experiment=cifar_autoencoder_adversarial", "budget=1h"], "budget: .* learn in turn"),
    (["experiment=cifar_autoencoder_adversarial", "precision=16-mixed"], "two: take bf16-mixed")])
def test_numbers_that_no_training_can_use_are_refused(overrides, says):
    cfg, _ = composed([*overrides])
    with pytest.raises(ValueError, match=says):
        refuse_numbers(cfg)


def test_a_part_that_its_parent_would_not_train_is_refused():
    cfg, choices = composed(["experiment=latent_shapes"])
    OmegaConf.set_struct(cfg, False)
    cfg.autoencoder.widths = [16, 32]  # as an experiment's own file may say

    def parts():
        return plan(cfg, choices, [], composed, build(cfg.data, cfg.trusted)).parents

    with pytest.raises(ValueError, match="autoencoder: the configuration describes another one than shapes"):
        parts()
    cfg.parents.autoencoder.overrides = ["autoencoder.widths=[16,32]"]
    assert parts()["autoencoder"].cfg.autoencoder.widths == [16, 32]
