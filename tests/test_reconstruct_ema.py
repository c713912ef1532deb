"""Runs that leave snapshots, and the command that makes another width of them."""

import os
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from diffusion import checkpoint, reconstruct_ema, runs, snapshots
from diffusion.callbacks.saving import Interrupted
from diffusion.cli import composed
from diffusion.config import build
from diffusion.loading import load_model
from diffusion.sampling import weights_of
from diffusion.stages import plan
from tests.small_runs import ROOT, SMALL, TINY_UNET, interrupted, only, train, use

pytestmark = pytest.mark.usefixtures("hydra")

POWER = [*TINY_UNET, "backbone.self_attention=[false,false]", "backbone.cross_attention=[false,false]",
         "autoencoder=identity", "text_encoder=none", "ema=power", "ema.snapshot_every=2", "lr=constant",
         "callbacks=none"]


def command(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "diffusion.reconstruct_ema", *arguments], cwd=cwd, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_the_command_writes_the_same_model_with_another_average(tmp_path):
    asked = [*SMALL, *POWER]
    cfg, choices = composed(asked)
    data = build(cfg.data, cfg.trusted)
    stage = plan(cfg, choices, asked, composed, data)
    runs.run(stage, data)
    before, stored = checkpoint.load(stage.folder), load_file(stage.folder / "averages" / "4.safetensors")
    assert before.facts.pop("ema") == {"sigma_rel": 0.05}
    for name, p in load_model(before, "ema").denoiser.network.named_parameters():
        assert torch.equal(p.half(), stored[f"0.05/{name}"])

    reconstruct_ema.main(OmegaConf.create({"ckpt": str(stage.folder), "sigma_rel": 0.08, "step": None, "out": None}))
    after = checkpoint.load(stage.folder / "ema_0.08.safetensors")
    facts = after.facts.pop("ema")
    assert (facts["sigma_rel"], facts["step"]) == (0.08, 4) and 0 < facts["profile_error"] < 1
    assert (after.kind, after.parts, after.facts) == (before.kind, before.parts, before.facts)
    assert after.tensors.keys() == before.tensors.keys()
    for part in after.tensors.keys() - {"ema"}:
        assert all(torch.equal(after.tensors[part][name], tensor) for name, tensor in before.tensors[part].items())
    made = snapshots.reconstruct(stage.folder, 0.08).tensors
    for name, p in load_model(after, "ema").denoiser.network.named_parameters():
        assert torch.equal(p, made[name])

    early = tmp_path / "early.safetensors"
    reconstruct_ema.main(OmegaConf.create({"ckpt": str(stage.folder), "sigma_rel": 0.1, "step": 2, "out": str(early)}))
    assert weights_of(checkpoint.load(early), "ema") == "ema weights (sigma_rel 0.1) of step 2"
    assert weights_of(checkpoint.load(early), "raw") == "raw weights of step 4"


def test_help_comes_before_anything_heavy():
    code = ("import runpy, sys; sys.argv = ['reconstruct_ema', '--help']\n"
            "try: runpy.run_module('diffusion.reconstruct_ema', run_name='__main__')\n"
            "except SystemExit: pass\n"
            "print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "sigma_rel" in done.stdout and done.stdout.rstrip().endswith("False"), done.stdout + done.stderr


def left_behind(pattern: str = "latent_shapes/*/model.safetensors") -> dict[int, bytes]:
    return {step: path.read_bytes() for step, path in snapshots.saved(only(pattern).parent).items()}


@pytest.mark.slow
def test_snapshots_depend_neither_on_interruptions_nor_on_extensions(tmp_path, monkeypatch):
    train(*POWER, "steps=5")
    whole = left_behind()
    assert list(whole) == [2, 4, 5]
    use(tmp_path / "interrupted", monkeypatch)
    with pytest.raises(Interrupted):
        train(*POWER, "steps=5", *interrupted(3))
    assert list(left_behind("latent_shapes/*/last.ckpt")) == [2]
    train(*POWER, "steps=5", "resume=must")
    assert left_behind() == whole
    use(tmp_path / "extended", monkeypatch)
    train(*POWER, "steps=3")
    short = only("latent_shapes/*/model.safetensors").parent
    assert list(snapshots.saved(short)) == [2, 3]
    longer = train(*POWER, "steps=5", f"extend_from={short}")
    assert left_behind(f"latent_shapes/{longer['key']}/model.safetensors") == whole


@pytest.mark.slow
def test_anew_means_without_the_old_snapshots():
    train(*POWER, "steps=3", "accumulate=2")
    (only("latent_shapes/*/averages") / "1.safetensors").write_bytes(b"")
    train(*POWER, "steps=3", "accumulate=2", "resume=never")
    assert list(left_behind()) == [2, 3]


@pytest.mark.slow
def test_a_mistake_is_told_without_a_stack(tmp_path):
    train(*POWER)
    run = only("latent_shapes/*/model.safetensors").parent
    for mistake, says in (("step=3", "nearest to this"), (f"out={run}/model.safetensors", "name another")):
        refused = command(f"ckpt={run}", "sigma_rel=0.1", mistake, cwd=tmp_path)
        assert refused.returncode == 1 and says in refused.stdout, refused.stdout + refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr
    done = command(f"ckpt={run}", "sigma_rel=0.2", cwd=tmp_path)
    assert done.returncode == 0 and f"{run.name}/ema_0.2.safetensors" in done.stdout, done.stdout + done.stderr
