"""Whole runs at reduced size: exact resume, processes, what is finished and held, what sampling gives."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from diffusion import checkpoint
from diffusion.assembly import sampling_of
from diffusion.callbacks.saving import Interrupted
from diffusion.checkpoint import BadModelFile
from diffusion.cli import composed
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.loading import load_model
from diffusion.run_folder import alone
from diffusion.runs import CannotResume
from diffusion.stages import Stage
from tests.small_runs import ROOT, SMALL, TINY_UNET, ended, interrupted, only, train, use

pytestmark = pytest.mark.usefixtures("hydra")

TASKS = {
    "diffusion": ["experiment=latent_shapes", *TINY_UNET, "+backbone.dropout=0.1"],
    "diffusion that remembers losses": [
        "experiment=latent_shapes", *TINY_UNET, "objective=hybrid", "task.offset_noise=0.1",
        "time_sampler=loss_second_moment", "+time_sampler.bins=2", "+time_sampler.horizon=1"],
    "diffusion that learns its weights": ["experiment=latent_shapes", *TINY_UNET, "objective=uncertainty"],
    "autoencoder": ["experiment=shapes_autoencoder"],
    "adversarial": ["experiment=shapes_autoencoder", "task=autoencoder_adversarial", "task.adversarial_start=1",
                    "task.perceptual_weight=0", "task.discriminator.widths=[32,32]"],
    "contrastive": ["experiment=shapes_clip"],
    "judge": ["experiment=shapes_judge", "++judge.blocks_per_level=1"],
}


@pytest.mark.parametrize("task", [pytest.param(task, marks=pytest.mark.slow if " " in task else ()) for task in TASKS])
def test_an_interrupted_run_ends_bit_equal_to_one_that_was_not(task, tmp_path, monkeypatch):
    experiment = TASKS[task][0].split("=")[1]
    train(*TASKS[task], "steps=5")
    whole = load_file(only(f"{experiment}/*/model.safetensors"))
    use(tmp_path / "second", monkeypatch)
    with pytest.raises(Interrupted, match="step 3 of 5"):
        train(*TASKS[task], "steps=5", *interrupted(3))
    assert (only(f"{experiment}/*/last.ckpt")).exists()
    train(*TASKS[task], "steps=5", "resume=must")
    parts = load_file(only(f"{experiment}/*/model.safetensors"))
    assert whole.keys() == parts.keys()
    different = [name for name in whole if not torch.equal(whole[name], parts[name])]
    assert not different


def test_a_run_that_is_interrupted_twice_logs_what_one_that_was_not_does(tmp_path, monkeypatch):
    def lines() -> list[dict[str, str]]:
        with open(only("latent_shapes/*/metrics.csv"), newline="") as file:
            return [{k: v for k, v in row.items() if "per_second" not in k} for row in csv.DictReader(file)]

    asked = *TASKS["diffusion"], "steps=8", "log_every=2"
    train(*asked)
    whole = lines()
    use(tmp_path / "second", monkeypatch)
    for step in (3, 6):  # between two lines, and at one
        with pytest.raises(Interrupted):
            train(*asked, *interrupted(step))
    train(*asked)
    assert lines() == whole and len(whole) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("task", ["diffusion", "adversarial"])
def test_an_extended_run_ends_bit_equal_to_a_longer_one(task, tmp_path, monkeypatch):
    experiment = TASKS[task][0].split("=")[1]
    train(*TASKS[task], "lr=constant", "steps=5")
    whole = load_file(only(f"{experiment}/*/model.safetensors"))
    use(tmp_path / "second", monkeypatch)
    train(*TASKS[task], "lr=constant", "steps=3")
    short = only(f"{experiment}/*/model.safetensors")
    extended = train(*TASKS[task], "lr=constant", "steps=5", f"extend_from={short.parent}")
    parts = load_file(short.parent.parent / extended["key"] / "model.safetensors")
    assert not [name for name in whole if not torch.equal(whole[name], parts[name])]
    with pytest.raises(ValueError, match="has 3 steps already, steps = 3"):
        train(*TASKS[task], "lr=constant", "steps=3", f"extend_from={short.parent}")
    with pytest.raises(ValueError, match="that run has another batch, another optimizer; only steps and lr may differ"):
        train(*TASKS[task], "steps=9", "batch=4", "learning_rate=1", f"extend_from={short.parent}")


def test_a_run_starts_from_the_weights_of_another():
    train("experiment=shapes_clip")
    first = only("shapes_clip/*/model.safetensors")
    still = ["optimizer.lr=0", "optimizer.weight_decay=0", "seed=1"]
    second = train("experiment=shapes_clip", *still, f"init_from={first}")
    one, two = load_file(first), load_file(first.parent.parent / second["key"] / "model.safetensors")
    assert not [name for name in one if not torch.equal(one[name], two[name])]
    assert second["key"] != train("experiment=shapes_clip", *still)["key"]
    with pytest.raises(BadModelFile, match="kind clip; this needs one of kind autoencoder"):
        train("experiment=shapes_autoencoder", f"init_from={first}")
    with pytest.raises(ValueError, match=r"init_from = .*does not fit this configuration: size mismatch"):
        train("experiment=shapes_clip", "+text_encoder.width=64", f"init_from={first}")


LOGGED = ["steps=4", "log_every=1", "lr.warmup=0"]


def logged() -> list[dict[str, float]]:
    """Losses and gradient norms of every step so far."""
    with open(only("latent_shapes/*/metrics.csv"), newline="") as file:
        return [{k: float(row[k]) for k in ("train/loss", "train/gradient_norm")} for row in csv.DictReader(file)]


def assert_same_training(one, two):
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=2e-3)
    assert one[0]["train/loss"] != pytest.approx(one[3]["train/loss"], rel=2e-3)  # it did learn in between


def test_accumulation_changes_no_number_but_rounding():
    train(*TASKS["diffusion"][:2], *LOGGED)
    one = logged()
    train(*TASKS["diffusion"][:2], *LOGGED, "accumulate=2", "resume=never")
    assert_same_training(one, logged())


def test_a_run_goes_on_with_another_accumulation():
    train(*TASKS["diffusion"][:2], *LOGGED)
    one = logged()
    with pytest.raises(RuntimeError, match="after 2 of 4 steps"):
        train(*TASKS["diffusion"][:2], *LOGGED, "resume=never", *ended(2))
    train(*TASKS["diffusion"][:2], *LOGGED, "accumulate=2", "resume=must")
    assert_same_training(one, logged())


def test_an_extended_run_keeps_the_step_its_discriminator_began_at():
    adversarial = [o for o in TASKS["adversarial"] if "adversarial_start" not in o]
    train(*adversarial, "lr=constant", "steps=4", "log_every=1")
    run = only("shapes_autoencoder/*/model.safetensors").parent
    extended = train(*adversarial, "lr=constant", "steps=24", "log_every=1", f"extend_from={run}")
    with open(run.parent / extended["key"] / "metrics.csv", newline="") as file:
        assert all(row["train/adversarial"] for row in csv.DictReader(file))


def test_the_same_command_again_says_that_it_is_done(caplog):
    caplog.set_level("INFO")
    train("experiment=shapes_clip")
    before = only("shapes_clip/*/model.safetensors").stat().st_mtime_ns
    train("experiment=shapes_clip")
    assert only("shapes_clip/*/model.safetensors").stat().st_mtime_ns == before
    assert "finished before" in caplog.text


def test_beginning_anew_says_so_and_puts_aside_what_was_there(caplog):
    caplog.set_level("INFO")
    train("experiment=shapes_clip")
    before = only("shapes_clip/*/model.safetensors").read_bytes()
    caplog.clear()
    train("experiment=shapes_clip", "resume=never")
    assert "4 steps, about" in caplog.text and "finished" not in caplog.text
    assert only("shapes_clip/*/before/*/model.safetensors").read_bytes() == before
    assert only("shapes_clip/*/before/*/results.json") and only("shapes_clip/*/results.json")


def test_a_training_that_something_else_ends_is_not_finished():
    with pytest.raises(RuntimeError, match="after 2 of 4 steps"):
        train("experiment=shapes_clip", *ended(2))
    told = only("shapes_clip/*/log.txt").read_text()
    assert "ended: RuntimeError" in told
    assert "Traceback" in told and "in train" in told  # where it ended, beside the reason
    assert not list(Path(os.environ["DIFFUSION_RUNS"]).glob("shapes_clip/*/results.json"))
    assert train("experiment=shapes_clip", "resume=must")["finished"]


def test_a_likelihood_is_refused_before_training():
    with pytest.raises(ValueError, match="evaluation=likelihood scores a finished model"):
        train("evaluation=likelihood")
    assert not list(Path(os.environ["DIFFUSION_RUNS"]).glob("*/*"))


def test_resume_must_needs_something_to_go_on_from():
    with pytest.raises(CannotResume):
        train("experiment=shapes_autoencoder", "resume=must")


def test_watching_does_not_change_the_training():
    train(*TASKS["diffusion"][:2], "steps=4", "callbacks=none")
    quiet = load_file(only("latent_shapes/*/model.safetensors"))
    train(*TASKS["diffusion"][:2], "steps=4", "validate_every=1", "sample_every=2", "resume=never")
    watched = load_file(only("latent_shapes/*/model.safetensors"))
    assert all(torch.equal(quiet[name], watched[name]) for name in quiet)
    assert len(list(only("latent_shapes/*/samples").glob("samples_*.png"))) == 2


def test_a_run_holds_what_it_should_and_its_model_file_stands_alone(tmp_path):
    results = train(*TASKS["diffusion"][:2], "evaluation=judged", "evaluation.samples=4")
    run = only("latent_shapes/*/model.safetensors").parent
    assert {"config.yaml", "plan.yaml", "metrics.csv", "model.safetensors", "results.json"} <= {
        p.name for p in run.iterdir()}
    assert json.loads((run / "results.json").read_text()) == results
    for name in ("prompts_right_seen", "prompts_right_heldout", "psnr", "frechet", "frechet_reconstruction",
                 "frechet_clip", "minutes"):
        assert isinstance(results[name], float)
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"step", "train/loss", "train/gradient_norm", "train/lr", "train/images_per_second", "validation/loss_raw",
            "validation/loss_ema"} <= set(header) and any(h.startswith("train/loss_log_snr_") for h in header)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    out = tmp_path / "pictures"
    command = [sys.executable, str(ROOT / "sample.py"), f"ckpt={alone}", 'prompt="a red circle"', "n=2", "steps=2",
               "guidance=apg", "guidance.scale=5", f"out={out}", "device=cpu", "precision=32"]
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = Image.open(out / "00001.png").text["parameters"]
    assert text.startswith("a red circle\n") and "Steps: 2" in text and "Seed: 0" in text and "Index: 1" in text
    assert "Guidance: apg(scale=5, eta=0.0, " in text


def test_a_picture_depends_on_its_prompt_seed_and_index_only():
    train(*TASKS["diffusion"][:2])
    file = checkpoint.load(only("latent_shapes/*/model.safetensors"))
    cfg, _ = composed([*SMALL, "sampler=ddpm"])
    model, sampling = load_model(file), sampling_of(cfg)
    wanted = pictures_of(["a red circle", "a blue ring", "a red circle"], seed=3, n=2)
    assert wanted[4] == ("a red circle", 3, 2)
    together = generate_many(model, wanted, sampling)
    one_by_one = generate_many(model, wanted, sampling, batch=1)
    alone = generate_many(model, wanted[3:4], sampling)
    for a, b in ((together, one_by_one), (together[3:4], alone)):
        assert (a.int() - b.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, monkeypatch):
    """The whole pipeline, all stages, with a process group of two."""
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, *TINY_UNET, *LOGGED]
    curves, keys = [], []
    for name, more in (("one", []), ("two", ["trainer=ddp", "trainer.accelerator=cpu"])):
        use(tmp_path / name, monkeypatch)
        done = subprocess.run([*command, *more], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        curves.append(logged())
        keys.append(only("latent_shapes/*").name)
    assert keys[0] == keys[1]
    assert_same_training(*curves)


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["trainer=cpu", "trainer=ddp"])
def test_a_sweep_writes_its_table_and_trains_parents_once(processes, tmp_path, monkeypatch):
    use(tmp_path, monkeypatch)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, *TINY_UNET, "schedule=linear,cosine", processes,
               "trainer.accelerator=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    table = next((tmp_path / "runs/sweeps").glob("*/table.md")).read_text()
    assert "schedule=linear" in table and "schedule=cosine" in table
    assert len(list((tmp_path / "runs/shapes_autoencoder").iterdir())) == 1
    assert len(list((tmp_path / "runs/latent_shapes").iterdir())) == 2


def test_commands_that_share_a_finished_run_wait_for_each_other(tmp_path, caplog):
    caplog.set_level("INFO")
    stage = Stage("model", "one", OmegaConf.create({"paths": {"runs": str(tmp_path)}}), (), {}, "data", "key")
    stage.folder.mkdir(parents=True)
    order = []

    def other():
        with alone(stage):
            order.append("other")

    thread = threading.Thread(target=other)
    with alone(stage):
        thread.start()
        for _ in range(500):
            if "this one waits" in caplog.text:
                break
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
