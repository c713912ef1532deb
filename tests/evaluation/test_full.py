"""The sample command's full evaluation, on a small pixel model with random weights."""

import json
import os
import subprocess
import sys

import pytest
import torch
from hydra import compose
from PIL import Image
from safetensors.torch import load_file, save_file

from diffusion import checkpoint, sampling
from diffusion.evaluation import reference
from diffusion.evaluation.features import ClipFeatures
from diffusion.evaluation.page import page
from diffusion.loading import load_model
from diffusion.refusals import refuse_diffusion
from tests.small_models import saved
from tests.small_runs import ROOT

pytestmark = pytest.mark.usefixtures("hydra")
DATA = {"_target_": "diffusion.data.shapes.Shapes", "train": 40, "test": 24, "image_size": 16}


@pytest.fixture
def model(tmp_path):
    return saved(tmp_path / "model.safetensors", size=16, data=DATA)


def asked(model, *overrides):
    return [f"ckpt={model}", "evaluation=full", "n=20", "device=cpu", "precision=32",
            "evaluation.sensitivity_pictures=4", *overrides]


def evaluated(model, *overrides):
    """The folder and what results.json says."""
    overrides = asked(model, *overrides)
    folder = sampling.main(compose("sample", overrides), overrides)
    return folder, json.loads((folder / "results.json").read_text())


def assert_same_scores(one, two):
    assert one.keys() == two.keys()
    for name in one:
        for what in [what for what in ("value", "low", "high") if one[name][what] is not None]:
            assert two[name][what] == pytest.approx(one[name][what], rel=0.02, abs=1e-3), (name, what)
        assert {**one[name], "value": 0, "low": 0, "high": 0} == {**two[name], "value": 0, "low": 0, "high": 0}


def test_every_number_has_its_circumstances(model, caplog):
    folder, results = evaluated(model)
    assert folder.parent == model.parent / "evaluation" and len(folder.name) == 10
    assert results["finished"] and results["n"] == 20 and results["steps"] == 2 and results["weights"] == "ema"
    assert results["guidance"] == "classifier_free(scale=3.0, rescale=0.7)"
    assert results["command"].startswith("python sample.py ckpt=") and "evaluation=full" in results["command"]
    scores, test = results["scores"], f"{results['data_fingerprint']}/test"
    samples, real = scores["frechet/clip"], scores["frechet/clip/real"]
    assert (samples["n"], samples["reference_n"], samples["reference"]) == (20, 24, test)
    assert (real["n"], real["reference_n"]) == (12, 12)
    assert samples["features_hash"] == scores["frechet/clip/training"]["features_hash"] == results["extractors"]["clip"]
    own = ("kernel_distance", "cmmd", "precision", "recall", "density", "coverage", "memorised")
    agreement = {"clip_score/clip", "clip_score/clip/real", "retrieval/clip"}
    assert {f"{name}/clip" for name in own} | agreement <= set(scores)
    assert "frechet_infinite/clip" not in scores  # 20 pictures in 128 dimensions lie on no straight line
    for score in scores.values():
        assert score["better"] in ("low", "high")
        assert score["low"] is None or score["low"] <= score["value"] <= score["high"]
    assert scores["memorised/clip"]["reference_n"] == 40 and scores["memorised/clip"]["expected"] == 0.01
    files = {path.name for path in folder.iterdir()}
    assert {"00000.png", "00019.png", "grid.png", "index.html"} <= files and "00020.png" not in files
    assert_page_shows_prompts_as_text(results, Image.open(folder / "00000.png"))
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    caplog.set_level("INFO")
    assert evaluated(model)[0] == folder and "finished before" in caplog.text
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def assert_page_shows_prompts_as_text(results, picture):
    evil = "<script>alert(1)</script> & \"'"
    text = page({**results, "ckpt": evil, "command": evil}, [(evil, picture)], {})
    assert "<script" not in text and text.count("&lt;script&gt;alert(1)") == 4
    assert "src=\"http" not in text and "href" not in text and "data:image/png;base64," in text


def test_what_an_interruption_left_is_gone_on_with(model, caplog):
    caplog.set_level("INFO")
    folder, whole = evaluated(model)
    before = {path.name: path.read_bytes() for path in folder.glob("0*.png")}
    for name in ("00001.png", "00004.png", "results.json"):
        (folder / name).unlink()
    kept = (folder / "00000.png").stat().st_mtime_ns
    _, again = evaluated(model, "batch=1")
    assert "to draw: 2 of 20 pictures x 2 steps" in caplog.text and "left" in caplog.text
    assert (folder / "00000.png").stat().st_mtime_ns == kept
    assert before.keys() == {path.name for path in folder.glob("0*.png")}
    assert_same_scores(whole["scores"], again["scores"])


def test_numbers_do_not_depend_on_the_batch(model):
    _, one = evaluated(model, "batch=20")
    _, two = evaluated(model, "batch=7", f"out={model.parent / 'other'}")
    assert_same_scores(one["scores"], two["scores"])


def test_more_pictures_of_the_same_drawing_begin_with_those_that_are_there(model, caplog):
    caplog.set_level("INFO")
    small, _ = evaluated(model)
    large, _ = evaluated(model, "n=22")
    assert small != large and "to draw: 2 of 22" in caplog.text
    assert all((small / f"{i:05}.png").read_bytes() == (large / f"{i:05}.png").read_bytes() for i in range(20))
    other, _ = evaluated(model, "seed=1")
    assert "to draw: 20 of 20" in caplog.text
    assert (small / "00000.png").read_bytes() != (other / "00000.png").read_bytes()


def cached_reference():
    return next((ROOT / os.environ["DIFFUSION_CACHE"]).glob("reference-clip-test-*.safetensors"))


def test_a_reference_is_made_once_and_can_be_handed_on(model, tmp_path, monkeypatch):
    evaluated(model, "evaluation.training_pictures=0")
    file = cached_reference().rename(tmp_path / "handed_on.safetensors")
    _, first = evaluated(model, "seed=1", "evaluation.training_pictures=0")
    made = cached_reference().stat().st_mtime_ns
    _, second = evaluated(model, "seed=1", "evaluation.training_pictures=0", f"evaluation.reference={file}")
    assert cached_reference().stat().st_mtime_ns == made
    assert_same_scores(first["scores"], second["scores"])
    features = reference.load(file)
    moved = reference.Reference(**{**vars(features), "name": "elsewhere/test", "features": features.features + 1})
    reference.save(moved, file)
    third = evaluated(model, "seed=1", "evaluation.training_pictures=0", f"evaluation.reference={file}")[1]["scores"]
    assert third["frechet/clip"]["reference"] == "elsewhere/test"
    assert third["frechet/clip"]["value"] > 10 * second["scores"]["frechet/clip"]["value"]


def test_a_reference_of_another_network_is_refused(model, tmp_path):
    evaluated(model)
    file, other = cached_reference(), saved(tmp_path / "other.safetensors", size=16, data=DATA, text_seed=1)
    with pytest.raises(ValueError, match=r"features of clip with hash \w+, clip has"):
        evaluated(other, f"evaluation.reference={file}")
    held = reference.load(file)
    with pytest.raises(ValueError, match="of 128 dimensions, clip gives 3"):
        held.check(ClipFeatures(load_model(checkpoint.load(model)).text_encoder), torch.zeros(2, 3))
    save_file(load_file(file), tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="no reference statistics"):
        evaluated(model, f"evaluation.reference={tmp_path / 'plain.safetensors'}")


def test_an_evaluation_that_has_no_meaning_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="takes neither prompt"):
        evaluated(model, "prompt=a red circle")
    blind = saved(tmp_path / "blind.safetensors", size=16, data=DATA, captioned=False)
    with pytest.raises(ValueError, match="no CLIP of its own"):
        evaluated(blind)
    with pytest.raises(ValueError, match=r"n = 19: .* at least 20"):
        evaluated(model, "n=19")
    with pytest.raises(ValueError, match="evaluation=full scores a finished model"):
        refuse_diffusion(compose("train", ["evaluation=full"]), None, None)


@pytest.mark.slow
def test_two_processes_find_what_one_does(model, tmp_path):
    _, one = evaluated(model)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--module",
               "diffusion.cli", "sample", *asked(model, f"out={tmp_path / 'two'}", f"paths.cache={tmp_path / 'new'}")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    two = json.loads(next((tmp_path / "two").glob("*/results.json")).read_text())
    assert_same_scores(one["scores"], two["scores"])
