"""What a run leaves to be drawn from: its model file, and the line to type next."""

import shlex

import pytest
import torch
from hydra import compose

from diffusion import checkpoint, sampling
from diffusion.assembly import sampling_of
from diffusion.checkpoint import BadModelFile
from diffusion.cli import composed
from tests.small_runs import SMALL, TINY_UNET, only, train

pytestmark = pytest.mark.usefixtures("hydra")
DIFFUSION = ["experiment=latent_shapes", *TINY_UNET]


def test_a_backbone_of_ones_own_package_is_trained_drawn_and_named(caplog, tmp_path):
    caplog.set_level("INFO")
    own = "backbone._target_=tests.own_backbone.OwnUNet"
    train(*DIFFUSION, own, "trusted=[diffusion,torch.optim,pytorch_lightning,tests]",
          "evaluation=frechet", "evaluation.samples=2")
    told = typed_next(caplog)
    assert told[-1] == "trust=[tests]"
    asked = [*told, "n=1", "device=cpu", f"out={tmp_path / 'out'}"]
    assert (sampling.main(compose("sample", asked)) / "00000.png").exists()
    with pytest.raises(BadModelFile, match="trust="):
        sampling.main(compose("sample", asked[:2]))


@pytest.mark.parametrize("other", [[], ["+guidance.rescale=0.7", "sampling_steps=3"], ["+sampler.eta=0.5"],
                                   ["sampler=edm", "discretization=karras", "guidance=none"]], ids=str)
def test_the_line_to_type_next_draws_as_this_command_did(other, caplog):
    caplog.set_level("INFO")
    train(*DIFFUSION, "guidance.scale=5")  # what the model file says
    caplog.clear()
    train(*DIFFUSION, *other)
    told = compose("sample", typed_next(caplog))
    again, wanted = (described(sampling.sampling_from(checkpoint.load(told.ckpt), told)),
                     described(sampling_of(composed([*SMALL, *DIFFUSION, *other])[0])))
    assert again == wanted


def described(drawing) -> list:
    parts = [(part.func, part.keywords) for part in (drawing.sampler, drawing.discretization, drawing.guidance)]
    return [*parts, drawing.steps, drawing.threshold]


def typed_next(caplog) -> list[str]:
    """The overrides of the command that a run tells one to type."""
    line = next(line for line in caplog.text.splitlines() if "next: python sample.py" in line)
    return shlex.split(line.partition("sample.py")[2])


def test_files_of_the_wrong_kind_are_refused_by_name(tmp_path):
    train("experiment=shapes_clip")
    path = only("shapes_clip/*/model.safetensors")
    with pytest.raises(checkpoint.BadModelFile, match=r"kind clip.*latent_diffusion"):
        checkpoint.load(path, "latent_diffusion")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(checkpoint.BadModelFile, match="no readable safetensors"):
        checkpoint.load(broken)
    with pytest.raises(FileNotFoundError, match="no such file"):
        checkpoint.load(tmp_path / "nothing.safetensors")


def test_a_model_file_cannot_call_what_is_not_a_model(tmp_path):
    path = tmp_path / "evil.safetensors"
    checkpoint.save(path, "latent_diffusion", {"network": {"_target_": "os.system", "command": "touch " + str(
        tmp_path / "pwned")}}, {}, {"raw": {"w": torch.zeros(1)}})
    with pytest.raises(checkpoint.BadModelFile, match="not in a trusted package"):
        checkpoint.load(path).describe("network")
    assert not (tmp_path / "pwned").exists()
