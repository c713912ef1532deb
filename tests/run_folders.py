"""Folders as runs leave them behind, without the training: what a report reads."""

import csv
import json
from pathlib import Path

import torch
from omegaconf import OmegaConf

from diffusion import checkpoint
from diffusion.grids import labelled, to_image

PROMPTS = ["a red circle", "<script>document.title = 'owned'</script>"]


def write(folder: Path, *, schedule: str = "Cosine", seed: int = 0, loss: float = 0.5, right: float = 0.5,
          evaluations: tuple[dict, ...] = (), command: str = "python train.py experiment=shapes") -> Path:
    """A finished run; every picture's colour is its own."""
    (folder / "samples").mkdir(parents=True)
    OmegaConf.save({"schedule": {"_target_": f"diffusion.schedules.{schedule}"},
                    "text_encoder": {"_target_": "x.CLIP"},
                    "parameterization": {"_target_": "diffusion.parameterizations.V"}, "seed": seed, "batch": 4,
                    "paths": {"runs": "${oc.env:NOWHERE}"}}, folder / "config.yaml")
    with open(folder / "metrics.csv", "w", newline="") as file:
        rows = [{"step": step, "train/loss": loss / step, "train/images_per_second": 9,
                 "train/loss_log_snr_-inf..0": loss, "train/loss_log_snr_0..inf": loss,
                 "validation/loss_ema": loss, "validation/loss_raw": 2 * loss}
                for step in (10, 20)]
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    results = {"finished": True, "steps": 20, "command": command, "minutes": 2.0, "stage_minutes": 1.0,
               "loss_ema": loss, "prompts_right_seen": right, "samples_per_group": 1000}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "plan.yaml").write_text("device: cpu\n")
    facts = {"example_prompts": PROMPTS, "image_size": 32, "latent_shape": [4, 8, 8], "data_fingerprint": "d"}
    checkpoint.save(folder / "model.safetensors", "latent_diffusion", {}, facts, {"ema": {"x": torch.zeros(1)}})
    pictures = drawn(seed)
    labelled(list(zip(PROMPTS, pictures, strict=True)), columns=3).save(folder / "samples" / "grid.png")
    to_image(torch.cat([torch.cat(list(row), -1) for row in pictures[:, :2].transpose(0, 1)], -2)).save(
        folder / "samples" / "samples_000010.png")
    for i, record in enumerate(evaluations):
        path = folder / "evaluation" / f"{i:010}" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
    return folder


def drawn(seed: int) -> torch.Tensor:
    """Three pictures of each prompt."""
    colours = torch.randint(0, 256, (len(PROMPTS), 3, 3, 1, 1), generator=torch.Generator().manual_seed(seed))
    return colours.to(torch.uint8).expand(-1, -1, -1, 32, 32)


def evaluation(value: float, steps: int = 10, sampler: str = "ddim", **circumstances) -> dict:
    """A record of evaluation=full with one score."""
    score = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 100, "reference_n": 1000, "features": "clip",
             "features_hash": "ab", "reference": "d/test", "better": "low", **circumstances}
    return {"n": score["n"], "seed": 0, "sampler": sampler, "discretization": "trailing", "steps": steps,
            "guidance": "classifier_free(scale=3.0)", "threshold": None, "weights": "ema", "minutes": 1.0,
            "command": f"python sample.py steps={steps}", "scores": {"frechet/clip": score}}


def sweep(folder: Path, runs: dict[str, Path]) -> Path:
    """A sweep's folder: a link and the results of each job."""
    folder.mkdir(parents=True)
    for name, run in runs.items():
        (folder / name).symlink_to(run)
        (folder / f"{name}.json").write_text((run / "results.json").read_text())
    return folder
