"""The sample command with each guidance, on a small pixel model with random weights."""

import inspect
import subprocess
import sys
import time

import numpy as np
import pytest
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from PIL import Image

from diffusion import checkpoint, sampling
from diffusion.config import ConfigError, build, locate
from diffusion.grids import GAP, LABEL
from diffusion.latent import LatentDiffusion
from diffusion.loading import load_sampling
from diffusion.refusals import refuse_diffusion
from tests.options import CONFIGS as FOLDER
from tests.options import names
from tests.small_models import saved

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture
def model(tmp_path):
    return saved(tmp_path / "model.safetensors")


def asked(model, *overrides):
    return compose("sample", [f"ckpt={model}", "prompt=a red circle", "n=2", "device=cpu", "precision=32",
                              f"out={model.parent}/out", *overrides])


def drawn(model, *overrides):
    """The pictures as numbers, and the parameters in the last one's file."""
    out = sampling.main(asked(model, *overrides))
    files = [Image.open(out / f"{i:05}.png") for i in range(2)]
    return np.stack([np.asarray(file, dtype=int) for file in files]), files[-1].text["parameters"]


def chosen(model, *overrides):
    """The guidance of a command: its function's name and its arguments."""
    guidance = sampling.sampling_from(checkpoint.load(model), asked(model, *overrides)).guidance
    return guidance.func.__name__, guidance.keywords


def test_a_key_alone_changes_this_key_of_the_models_own_guidance(model):
    own = {"scale": 3.0, "rescale": 0.7}
    assert chosen(model) == ("classifier_free", own)
    assert chosen(model, "guidance.scale=5") == ("classifier_free", {**own, "scale": 5})
    assert chosen(model, "guidance.interval=[-2,4]") == ("classifier_free", {**own, "interval": [-2, 4]})


@pytest.mark.parametrize("option", names("guidance"))
def test_a_chosen_guidance_takes_nothing_from_the_models_own(model, option):
    node = {k: v for k, v in OmegaConf.load(FOLDER / "guidance" / f"{option}.yaml").items() if v is not None}
    name = node.pop("_target_").rpartition(".")[2]
    del node["_partial_"]
    assert chosen(model, f"guidance={option}") == (name, node)
    assert chosen(model, f"guidance={option}", "guidance.scale=0.25") == (name, {**node, "scale": 0.25})


@pytest.mark.parametrize("option", names("guidance"))
def test_every_argument_of_every_guidance_can_be_given(option):
    target = locate(OmegaConf.load(FOLDER / "guidance" / f"{option}.yaml")["_target_"])
    arguments = set(inspect.signature(target).parameters) - {"denoiser", "cond", "null"}
    assert arguments <= set(OmegaConf.load(FOLDER / "sample.yaml").guidance)


def test_a_key_that_no_guidance_has_is_refused(model):
    with pytest.raises(ConfigCompositionException, match=r"guidance\.scal"):
        asked(model, "guidance.scal=5")


def test_a_key_that_this_guidance_has_not_is_refused_with_what_is_allowed(model):
    with pytest.raises(ConfigError, match=r"guidance\.rescale: unknown argument of apg.*norm_threshold"):
        drawn(model, "guidance=apg", "guidance.rescale=0.5")
    with pytest.raises(ConfigError, match=r"guidance\.eta: unknown argument of classifier_free.*interval"):
        drawn(model, "guidance.eta=0.5")
    with pytest.raises(ConfigError, match=r"guidance\.scale = 'much'"):
        drawn(model, "guidance.scale=much")


def test_pictures_tell_their_guidance(model):
    pictures, texts = zip(*(drawn(model, *overrides) for overrides in (
        [], ["guidance=none"], ["guidance=apg", "guidance.scale=5"], ["guidance=cfg_pp"])), strict=True)
    assert "CFG scale: 3.0, Guidance: classifier_free(scale=3.0, rescale=0.7)" in texts[0]
    assert "CFG scale: 1.0, Guidance: classifier_free(scale=1.0)" in texts[1]
    assert "Guidance: apg(scale=5, eta=0.0, norm_threshold=5.0, momentum=-0.5)" in texts[2]
    assert "Guidance: cfg_pp(scale=0.6)" in texts[3]
    assert not any("CFG scale" in text for text in texts[2:])
    assert len({picture.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize("wrong", ["steps=2.5", "steps=0", "n=1.5", "batch=-1", "steps=many"])
def test_what_counts_must_be_whole(model, wrong):
    with pytest.raises(ValueError, match=f"{wrong.replace('=', ' = ')}: a whole number"):
        sampling.main(asked(model, wrong))


def test_cfg_pp_with_a_sampler_that_would_lose_it_is_refused(model):
    with pytest.raises(ValueError, match=r"dpmpp_2m does not step .* take sampler=ddim"):
        drawn(model, "guidance=cfg_pp", "sampler=dpmpp_2m")


def test_guided_by_its_own_file_a_model_draws_what_it_draws_alone(model):
    alone, _ = drawn(model, "guidance=none")
    guided, text = drawn(model, "guidance=autoguidance", f"guidance.guide={model}", "guidance.scale=3")
    assert abs(guided - alone).max() <= 1
    assert f"Guidance: autoguidance(scale=3, guide={model})" in text


@pytest.mark.parametrize("guide", [
    {"seed": 1}, {"seed": 1, "captioned": False}, {"seed": 1, "schedule": "RectifiedFlow"},
], ids=repr)
def test_another_model_of_the_same_latents_and_captions_guides(model, guide):
    file = saved(model.parent / "guide.safetensors", **guide)
    alone, _ = drawn(model, "guidance=none")
    guided, _ = drawn(model, "guidance=autoguidance", f"guidance.guide={file}")
    assert abs(guided - alone).max() > 5


@pytest.mark.parametrize("guide, says", [
    ({"text_seed": 1}, "the same text encoder"), ({"image_channels": 1}, r"shape \[1, 8, 8\]"),
    ({"whitened": 2.0}, "another autoencoder"), ({"schedule": "Linear"}, "cannot follow"),
], ids=["text", "shape", "autoencoder", "schedule"])
def test_a_guide_that_does_not_fit_is_refused_with_the_reason(model, guide, says):
    file = saved(model.parent / "guide.safetensors", seed=1, **guide)
    with pytest.raises(ValueError, match=says):
        drawn(model, "guidance=autoguidance", f"guidance.guide={file}")


def test_a_guide_is_asked_for_where_none_is_given(model):
    with pytest.raises(ValueError, match=r"guidance\.guide=FILE"):
        drawn(model, "guidance=autoguidance")
    with pytest.raises(FileNotFoundError, match=r"guidance\.guide = .*nothing"):
        drawn(model, "guidance=autoguidance", "guidance.guide=nothing")


def test_the_threshold_is_the_models_own_unless_the_command_says_otherwise(model):
    plain, thresholded = drawn(model, "guidance.scale=9"), drawn(model, "guidance.scale=9", "threshold=0.5")
    assert "Threshold: 0.5" in thresholded[1] and "Threshold" not in plain[1]
    assert not np.array_equal(plain[0], thresholded[0])
    own = saved(model.parent / "own.safetensors", threshold=0.5)
    assert np.array_equal(drawn(own, "guidance.scale=9")[0], thresholded[0])
    assert np.array_equal(drawn(own, "guidance.scale=9", "threshold=false")[0], plain[0])


@pytest.mark.parametrize("overrides, heard", [
    (["guidance.scale=3"], True), (["guidance=none"], False), (["guidance=apg"], True), (["guidance=cfg_pp"], True),
    (["guidance=cfg_pp", "guidance.scale=1"], True), (["guidance=autoguidance"], False),
], ids=str)
def test_a_negative_prompt_that_is_not_heard_is_told(model, caplog, overrides, heard):
    guide = [f"guidance.guide={model}"] if "guidance=autoguidance" in overrides else []
    without, with_negative = (drawn(model, *overrides, *guide, *more)[0] for more in ([], ["negative=a blue ring"]))
    assert np.array_equal(without, with_negative) != heard
    assert ("negative has no effect" in caplog.text) != heard


@pytest.mark.parametrize("wrong, says", [
    (["guidance=cfg_pp", "guidance.scale=3"], "between 0"), (["guidance=cfg_pp", "sampler=heun"], "take sampler=ddim"),
    (["guidance=apg", "guidance.momentum=1"], "momentum"), (["guidance=autoguidance"], "guidance.guide=FILE"),
    (["+sampler.eta=2"], "eta must lie"), (["threshold=0.995"], "for pixels"), (["threshold=99"], "as a share"),
    (["discretization=leading", "sampling_steps=1001"], "picks from"),
], ids=str)
def test_what_sampling_would_refuse_is_refused_before_training(wrong, says):
    with pytest.raises(ValueError, match=says):
        before_training(*wrong)


def before_training(*overrides):
    cfg = compose("train", list(overrides))
    refuse_diffusion(cfg, build(cfg.data), None)


def test_a_guide_is_compared_before_training(tmp_path):
    guided = ["guidance=autoguidance", f"guidance.guide={saved(tmp_path / 'guide.safetensors', size=16)}"]
    alike = [*guided, "autoencoder=identity", "data.image_size=16", "text_encoder=clip_tiny"]
    for schedule in ("cosine", "linear"):
        before_training(*alike, f"schedule={schedule}")
    with pytest.raises(ValueError, match="cannot follow"):
        before_training(*alike, "schedule=rectified_flow")
    with pytest.raises(ValueError, match=r"this guide has latents of shape \[3, 16, 16\], the model of \[8, 8, 8\]"):
        before_training(*guided)


def test_what_was_drawn_before_an_interruption_is_there(model, monkeypatch):
    own, calls = LatentDiffusion.generate, []

    def generate(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(self, *args)

    monkeypatch.setattr(LatentDiffusion, "generate", generate)
    with pytest.raises(KeyboardInterrupt):
        drawn(model, "n=7", "batch=2")
    assert sorted(path.name for path in (model.parent / "out").iterdir()) == [f"{i:05}.png" for i in range(4)]


def test_a_grid_shows_as_many_as_one_looks_at(model, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sampling, "IN_GRID", 6)
    many = sampling.main(asked(model, "prompt=[a,b]", "n=4"))
    assert "8 pictures" in caplog.text and "6 of them together" in caplog.text
    assert Image.open(many / "grid.png").width == LABEL + 3 * (64 + GAP)
    few = Image.open(many / "grid.png").height
    monkeypatch.setattr(sampling, "IN_GRID", 1)
    assert 2 * Image.open(sampling.main(asked(model, "prompt=[a,b]", "n=4")) / "grid.png").height == few


@pytest.mark.slow
def test_processes_share_the_pictures(model):
    one = sampling.main(asked(model, "n=5"))
    two = model.parent / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--module",
               "diffusion.cli", "sample", f"ckpt={model}", "prompt=a red circle", "n=5", "device=cpu", "precision=32",
               f"out={two}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in two.iterdir()} and len(names) == 6
    for name in names:
        a, b = (np.asarray(Image.open(folder / name), dtype=int) for folder in (one, two))
        assert abs(a - b).max() <= 1


def test_a_seed_that_would_not_be_heard_is_refused(model):
    command = [f"ckpt={model}", "evaluation=frechet", "evaluation.seed=7"]
    with pytest.raises(ValueError, match="here seed= names"):
        sampling.main(compose("sample", command), command)


def test_a_model_file_tells_how_it_is_drawn(model):
    own = load_sampling(checkpoint.load(model))
    assert (own.sampler.func.__name__, own.steps, own.threshold) == ("ddim", 2, None)
    assert own.guidance.keywords == {"scale": 3.0, "rescale": 0.7}


def test_the_command_loads_nothing_of_the_trainer():
    look = "import sys, diffusion.sampling; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0


@pytest.mark.parametrize("mistake, says", [
    ([], "ckpt=FILE is missing"), (["device=gpu"], "allowed are auto, cpu, cuda"), (["steps=0"], "steps = 0"),
    (["evaluation=frechet", "prompt=horse"], "it takes neither prompt"), (["out=/proc/nowhere"], "out=FOLDER")])
def test_a_mistake_is_told_and_leaves_nothing(mistake, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = saved(tmp_path / "model.safetensors")
    asked = [f"ckpt={model}"] if mistake else []
    prompt = [] if any(o.startswith(("prompt", "evaluation")) for o in mistake) else ["prompt=a"]
    with pytest.raises((ValueError, PermissionError), match=says):
        sampling.main(compose("sample", [*asked, *prompt, *mistake]))
    assert not (tmp_path / "samples").exists()


def test_prompts_from_a_file_are_its_lines(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffa red circle\r\n\n  a blue\u2028square \n", encoding="utf-8")
    cfg = OmegaConf.create({"prompt": None, "prompts_file": str(file)})
    assert sampling.prompts_from(cfg, conditional=True) == ["a red circle", "a blue\u2028square"]
    with pytest.raises(ValueError, match="another encoding than UTF-8"):
        sampling.prompts_from(OmegaConf.create({"prompt": "caf\udce9", "prompts_file": None}), conditional=True)


def test_commands_of_one_second_draw_into_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda format: "samples/now")
    cfg = OmegaConf.create({"out": None})
    assert [str(sampling.folder_of(cfg)) for _ in range(3)] == ["samples/now", "samples/now_2", "samples/now_3"]
