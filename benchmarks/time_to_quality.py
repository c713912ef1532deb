"""How long until pictures are good: `train.py experiment=latent_cifar budget=...` against the recipe of diffusers'
documentation, on the same CIFAR-10, scored alike.

    python -m benchmarks.time_to_quality [--rival pixels|latents] [--minutes 30 60] [--ours 10 30] [--n 1000]

Quality: of n pictures, the share that the judge recognises as their class, and the Frechet distance on the judge's
features to the test split. Our clock is the command's: start-up, autoencoder, text encoder, caches, compiling, updates.
The rival's is that of its updates and, on latents, of our autoencoder and its latents. Neither counts the judge, or
the n pictures that are scored. pairs: for each run of the rival, the shortest of ours that is as good in both; null
where none is. rival_minutes, our_minutes: the rival's shortest.

Either side can run alone (`--minutes` or `--ours` without numbers): the result, and its figure, keep what was measured
before by the same judge on a machine of the same make and speed. Beside them lie pictures of each run, eight of each
class.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hydra
import torch
from torch import Tensor

from benchmarks.record import RESULTS, machine, record, rounded
from benchmarks.rival import Rival
from benchmarks.timing import convolution_rate, say
from diffusion import pipeline
from diffusion.acceleration import choose
from diffusion.checkpoint import load
from diffusion.cli import CONFIGS, composed
from diffusion.config import build
from diffusion.data.latent_cache import moments
from diffusion.data.pictures import MOST, chunks, mirrored
from diffusion.evaluation.features import JudgeFeatures
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.evaluation.scores import distance, judged_right
from diffusion.grids import labelled
from diffusion.latent import Sampling
from diffusion.loading import load_model
from diffusion.memory import keep_freed_memory
from diffusion.pixels import to_float, to_uint8
from diffusion.reporting.figure import write_figure
from diffusion.reporting.plot import Line, Plot
from diffusion.sampling import device_named

SHOWN = 8  # pictures of each class
RIVAL_SCALE = 2.0  # of guidance; ours is the default, 3
Runs = dict[str, dict[str, Any]]  # by the minutes that were asked for


def finished(experiment: str, folder: str | None = None) -> Path:
    """The folder of an experiment that is trained unless it was before."""
    asked = [f"experiment={experiment}", *([f"paths.runs={folder}"] if folder else [])]
    cfg, choices = composed(asked)
    return Path(cfg.paths.runs) / experiment / pipeline.main(cfg, choices, asked, composed)["key"]


class Contest:
    """The data, the prompts, and what the judge says of pictures."""

    def __init__(self, judge: str | None, n: int, device: torch.device):
        cfg, _ = composed(["experiment=latent_cifar"])
        self.judge = load(judge or finished("cifar_judge"), "judge").module("judge").to(device).eval()
        data = build(cfg.data, cfg.trusted)
        self.data, self.train, self.device = data, data.split("train"), device
        self.prompts, self.features = data.prompts("classes", n, 1), JudgeFeatures(self.judge)
        self.reference = self.features(data.split("test").images)

    def scored(self, pictures: Tensor, run: str) -> dict[str, float]:
        """What they are worth; some of them are kept to be looked at."""
        of_class = self.prompts.labels[:, 0]
        rows = [(name, pictures[of_class == i][:SHOWN]) for i, name in enumerate(self.data.heads["class"])]
        RESULTS.mkdir(exist_ok=True)
        labelled(rows, SHOWN).save(RESULTS / f"time_to_quality_{self.device.type}_{run}.png", optimize=True)
        found = distance(self.features(pictures), self.reference)
        right = judged_right(self.judge, pictures, self.prompts.labels).float().mean().item()
        return {"class_agreement": right, "frechet": found.value, "frechet_low": found.low, "frechet_high": found.high}

    def ours(self, minutes: float, steps: int) -> dict[str, Any]:
        """Our command in an empty folder."""
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            asked = ["experiment=latent_cifar", f"budget={minutes}min", f"paths.runs={folder}/runs",
                     f"paths.cache={folder}/cache", "evaluation=none", "sample_every=null"]
            subprocess.run([sys.executable, "-m", "diffusion.cli", "train", *asked], check=True, stdout=sys.stderr)
            took = (time.perf_counter() - began) / 60
            path, = Path(folder).glob("runs/latent_cifar/*/model.safetensors")
            file = load(path, "latent_diffusion")
            model = load_model(file).to(self.device)
        model.accelerate(choose("auto", False, self.device))
        pictures = generate_many(model, pictures_of(self.prompts.captions, 1), Sampling(steps=steps))
        return {"minutes": took, "steps": file.facts["steps"], **self.scored(pictures, f"ours_{minutes:g}")}

    def rival(self, minutes: float, latents: bool, steps: int) -> dict[str, Any]:
        """The rival's updates, on pixels or on the latents of our autoencoder."""
        torch.manual_seed(0)
        began, train, autoencoder = time.perf_counter(), self.train, None
        shape = self.data.channels, self.data.image_size, self.data.image_size
        if latents:
            with tempfile.TemporaryDirectory() as folder:
                autoencoder = load(finished("cifar_autoencoder", folder), "autoencoder").module("autoencoder")
            autoencoder, shape = autoencoder.to(self.device).eval(), autoencoder.latent_shape(self.data.image_size)
            kept = moments(autoencoder, train.images, choose("auto", False, self.device), mirror=True)

        def fetch(n: int) -> tuple[Tensor, Tensor]:
            rows, flip = torch.randint(len(train), (n,)), torch.rand(n) < 0.5
            classes = train.labels[rows, 0].to(self.device)
            if autoencoder is None:
                return to_float(mirrored(train.images[rows], flip)).to(self.device), classes
            mean, std = kept[rows, flip.long()].float().unbind(1)
            return (mean + std * torch.randn_like(mean)).to(self.device), classes

        rival = Rival(shape[0], shape[1], len(self.data.heads["class"]), self.device)
        rival.train(60 * minutes - (time.perf_counter() - began), fetch)
        took = (time.perf_counter() - began) / 60
        say(f"rival: {rival.updates} updates of {rival.parameters:,} parameters in {took:.1f} minutes")
        began = time.perf_counter()
        drawn = rival.sample(self.prompts.labels[:, 0], steps=steps, scale=RIVAL_SCALE)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            parts = [drawn] if autoencoder is None else [autoencoder.decode(z) for z in chunks(drawn, MOST)]
        pictures = torch.cat([to_uint8(x).cpu() for x in parts])
        return {"minutes": took, "steps": rival.updates, "parameters": rival.parameters, "seconds_to_sample": seconds,
                **self.scored(pictures, f"{'latents' if latents else 'pixels'}_{minutes:g}")}


def earlier(path: Path, same: dict[str, Any], speed: float) -> dict[str, Any]:
    """A result from before, where it was measured in the same way and the machine's convolutions were as fast, to a
    fifth."""
    found = json.loads(path.read_text()) if path.exists() else {}
    alike = all(found.get(key) == value for key, value in same.items())
    return found if alike and abs(math.log(found.get("convolution_gflops", 0.001) / speed)) < math.log(1.2) else {}


def overtaken(ours: Runs, rival: dict[str, Runs]) -> list[dict[str, Any]]:
    """Per run of the rival, the minutes of the shortest of ours that is as good."""
    return [{"rival": kind, "rival_minutes": theirs["minutes"],
             "our_minutes": min((run["minutes"] for run in ours.values() if as_good(run, theirs)), default=None)}
            for kind, theirs in sorted(((kind, run) for kind, runs in rival.items() for run in runs.values()),
                                       key=lambda one: one[1]["minutes"])]


def as_good(run: dict[str, Any], other: dict[str, Any]) -> bool:
    return run["class_agreement"] >= other["class_agreement"] and run["frechet"] <= other["frechet"]


def curve(score: str, ours: Runs, rival: dict[str, Runs]) -> Plot:
    """A score over minutes."""
    everyone = {"ours": ours, **{f"diffusers' recipe, {kind}": runs for kind, runs in rival.items()}}
    lines = [Line(label, colour, sorted((run["minutes"], run[score]) for run in runs.values()), dots=True)
             for (label, runs), colour in zip(everyone.items(), (4, 3, 2), strict=False) if runs]
    words = {"class_agreement": "recognised as their class", "frechet": "Frechet distance (judge)"}
    return Plot(f"{words[score]} over time", "minutes of training", words[score], lines, log_y=score == "frechet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", choices=("pixels", "latents"), default="pixels")
    parser.add_argument("--minutes", type=float, nargs="*", default=[30, 60])
    parser.add_argument("--ours", type=float, nargs="*", default=[10, 30])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--judge", default=None, help="a judge's run; without it cifar_judge is trained, off the clock")
    asked = parser.parse_args()
    keep_freed_memory()
    device = device_named(asked.device)
    with hydra.initialize_config_dir(CONFIGS, version_base="1.3"):
        contest = Contest(asked.judge, asked.n, device)
        name, speed = f"time_to_quality_{device.type}", convolution_rate(device)
        same = {"n": asked.n, "steps": asked.steps, "rival_guidance": RIVAL_SCALE, "judge": contest.features.hash}
        for minutes in asked.ours:
            add(name, same, speed, device, "ours", minutes, contest.ours(minutes, asked.steps))
        for minutes in asked.minutes:
            add(name, same, speed, device, asked.rival, minutes,
                contest.rival(minutes, asked.rival == "latents", asked.steps))


def add(name: str, same: dict[str, Any], speed: float, device: torch.device, kind: str, minutes: float,
        run: dict[str, Any]) -> None:
    """Write the result anew, with one run more: after each, so that none is lost with a later one."""
    before = earlier(RESULTS / f"{name}.json", same | {"machine": machine(device)}, speed)
    ours, rival = before.get("ours", {}), before.get("rival", {})
    (ours if kind == "ours" else rival.setdefault(kind, {}))[f"{minutes:g}"] = run
    pairs = overtaken(ours, rival)
    first = pairs[0] if pairs else {"rival_minutes": None, "our_minutes": None}
    record(name, rounded({"rival_minutes": first["rival_minutes"], "our_minutes": first["our_minutes"], "pairs": pairs,
                          "ours": ours, "rival": rival, **same, "convolution_gflops": speed}), device)
    for score in ("class_agreement", "frechet"):
        write_figure(RESULTS / f"{name}_{score}.svg", curve(score, ours, rival))


if __name__ == "__main__":
    main()
