"""The main job with each part exchanged, at reduced size: hub models and own pictures through local folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusion import checkpoint
from diffusion.data.shapes import Shapes
from diffusion.grids import to_image
from diffusion.loading import load_model
from diffusion.text import tokenizer
from diffusion.text.clip import SmallCLIP
from tests.hub_layout import write
from tests.small_runs import ROOT, TINY_UNET, only, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hydra")]
NO_ATTENTION = ["backbone.self_attention=[true,false]", "backbone.cross_attention=[false,false]"]


@pytest.fixture
def clip_folder(tmp_path):
    torch.manual_seed(0)
    clip = SmallCLIP(tokenizer.learn(["a red circle"], 600), width=64, layers=1, vision_width=64, vision_layers=1)
    clip.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def picture_folder(tmp_path):
    """Two classes of drawn pictures, one folder each."""
    split = Shapes(train=48, test=4).split("train")
    for i, picture in enumerate(split.images):
        folder = tmp_path / "pictures" / ("first" if i % 2 else "second")
        folder.mkdir(parents=True, exist_ok=True)
        to_image(picture).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("variation", [
    ["text_encoder=none", *NO_ATTENTION],
    ["autoencoder=identity", "backbone=unet_tiny", "weighting=min_snr"],
    ["autoencoder=kl_f2", "schedule=scaled_linear", "parameterization=eps", "time_sampler=grid"],
    ["parameterization=x0", "sampler=ddpm", "discretization=uniform", "guidance=none"],
    ["objective=hybrid", "sampler=ddpm_learned"],
    ["coupling=optimal_transport", "coupling.group=2", "schedule=rectified_flow", "parameterization=velocity"],
    ["logger=tensorboard"],
    ["logger=wandb", "logger.wandb.offline=true"],
    ["precision=bf16-mixed", "lr=linear", "optimizer.weight_decay=0"],
    ["ema=half_life", "ema.half_life_images=100"],
    ["+backbone.pooled_dim=null", "evaluation=frechet", "evaluation.samples=4"],
], ids=lambda overrides: overrides[0])
def test_the_main_job_with(variation):
    train(*TINY_UNET, "sample_every=2", *variation)
    file = checkpoint.load(only("latent_shapes/*/model.safetensors"))
    assert file.kind == "latent_diffusion"
    assert ("text_encoder" in file.tensors) != ("text_encoder=none" in variation)


@pytest.mark.parametrize("change", [[], ["+backbone.context_dim=null", "+backbone.qk_norm=true"]],
                         ids=["text", "pooled only"])
def test_the_main_job_with_a_transformer(change):
    train("backbone=dit_tiny", "backbone.width=32", "backbone.depth=2", "backbone.heads=2", *change)
    model = load_model(checkpoint.load(only("latent_shapes/*/model.safetensors")))
    assert type(model.denoiser.network).__name__ == "DiT"
    assert (model.denoiser.network.context_dim is None) == bool(change)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("experiment", ["latent_cifar", "pixel_cifar", "edm_cifar", "flow_cifar", "dit_cifar"])
def test_the_experiments_on_cifar10(experiment, tmp_path):
    source = write(tmp_path / "cifar10", {"train": 64, "test": 20})
    train(f"experiment={experiment}", "data=cifar10", f"data.source={source}")
    assert only(f"{experiment}/*/samples/grid.png").exists()


def test_a_pretrained_clip_is_named_not_copied(clip_folder):
    train(*TINY_UNET, "text_encoder=clip_vit_b32", f"text_encoder.path={clip_folder}")
    file = checkpoint.load(only("latent_shapes/*/model.safetensors"))
    assert "text_encoder" not in file.tensors and file.facts["text_encoder_hash"]
    assert load_model(file).text_encoder.path == str(clip_folder)
    other = SmallCLIP(tokenizer.learn(["another"], 600), width=64, layers=1, vision_width=64, vision_layers=1)
    other.save_pretrained(clip_folder)
    with pytest.raises(checkpoint.BadModelFile, match="hash"):
        load_model(file)


def test_a_run_guided_by_an_earlier_one():
    train(*TINY_UNET)
    guide = only("latent_shapes/*/model.safetensors").parent
    guided = ["guidance=autoguidance", f"guidance.guide={guide}"]
    results = train(*TINY_UNET, "steps=5", "sample_every=2", *guided)
    file = checkpoint.load(guide.parent / results["key"])
    assert file.parts["guidance"]["guide"] == str(guide) == results["sampling"]["guidance"]["guide"]
    assert len(list((file.path.parent / "samples").glob("samples_*.png"))) > 1
    with pytest.raises(ValueError, match="another autoencoder"):
        train(*TINY_UNET, "seed=1", "data.seed=5", *guided)


def test_own_pictures_from_a_folder(picture_folder):
    train(*TINY_UNET, "data=folder", f"data.source={picture_folder}", "data.image_size=32")
    assert only("latent_shapes/*/samples/grid.png").exists()


def test_pictures_that_do_not_fit_in_memory_give_the_same_model(picture_folder):
    own = ["experiment=shapes_autoencoder", "data=folder",
           f"data.source={picture_folder}", "data.image_size=32"]
    train(*own)
    kept = load_file(only("shapes_autoencoder/*/model.safetensors"))
    train(*own, "+data.memory_gib=0", "workers=2", "resume=never")
    decoded = load_file(only("shapes_autoencoder/*/model.safetensors"))
    assert all(torch.equal(kept[name], decoded[name]) for name in kept)


def test_prepare_fetches_or_says_what_is_missing(tmp_path, clip_folder):
    command = [sys.executable, "-m", "diffusion.prepare"]
    good = subprocess.run([*command, f"text_encoder.path={clip_folder}", "text_encoder=clip_vit_b32", "evaluation=full",
                           "evaluation/features=[clip_vit_l14]",
                           f"evaluation.features.clip_vit_l14.path={clip_folder}"], cwd=tmp_path,
                          capture_output=True, text=True, env=environment(tmp_path))
    assert good.returncode == 0 and "ready" in good.stdout, good.stdout + good.stderr
    assert "features clip_vit_l14: weights" in good.stdout
    bad = subprocess.run([*command, "experiment=latent_cifar", f"data.source={tmp_path}/nothing"], cwd=tmp_path,
                         capture_output=True, text=True, env=environment(tmp_path))
    assert bad.returncode == 1 and "latent_shapes" in bad.stdout + bad.stderr


@pytest.mark.parametrize("mistake, says", [
    (["schedule=liner"], "scaled_linear"),
    (["backbone.width=[32]"], "backbone.width"),
    (["+backbone.levels=3"], "backbone.levels: unknown argument"),
    (["backbone.widths=[32,32,32,32,32]", "backbone.self_attention=[true,true,true,true,true]",
      "backbone.cross_attention=[true,true,true,true,true]"], "autoencoder="),
    (["text_encoder=none"], "backbone.cross_attention"),
    (["sampler=ddpm_learned"], "objective=hybrid"),
    (["objective=uncertainty", "time_sampler=loss_second_moment"], "take one of the two"),
    (["coupling=optimal_transport", "coupling.group=3"], "coupling.group = 3"),
    (["paths.runs=/proc/nowhere"], "paths.runs"),
    (["precision=64"], "allowed are auto"),
    (["steps=1e3"], "steps = 1000.0: a whole number"),
    (["steps=0", "clip=0"], "clip = 0: a number above 0"),
    (["+trainer.max_steps=2", "+trainer.gradient_clip_val=1"], "trainer.gradient_clip_val: take clip="),
    (["trainer.num_nodes=2"], "torchrun --nnodes=2"),
    (["+guidance.interval=[5,-5]"], "the noisier (lower) one first"),
    (["accumulate=3"], "it must be a multiple of 3"),
    (["data.image_size=36"], "text_encoder.patch = 8 does not divide"),
    (["experiment=cifar_autoencoder_adversarial", "data=shapes", "task.adversarial_start=4"], "would never start"),
    pytest.param(["trainer.accelerator=gpu"], "0 CUDA devices are here",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")),
    (["resume=maybe"], "auto, must and never"),
    (["guidance=cfg_pp", "sampler=dpmpp_2m"], "take sampler=ddim"),
    (["guidance=autoguidance"], "guidance.guide=FILE"),
    (["experiment=latent_cifar", "data.source=/nowhere"], "DIFFUSION_CIFAR10"),
])
def test_a_mistake_is_told_before_anything_is_trained(mistake, says, tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), "debug=smoke", "compile=false", *mistake],
                          cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path))
    assert done.returncode != 0 and says in done.stdout + done.stderr, done.stdout + done.stderr
    assert not list(Path(tmp_path).rglob("model.safetensors"))


def environment(folder) -> dict:
    return {**os.environ, "DIFFUSION_RUNS": str(folder / "runs"), "DIFFUSION_CACHE": str(folder / "cache")}
