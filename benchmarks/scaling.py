"""How costs grow: an update's with pictures, tokens, parameters, processes and resolution, memory with the data.

    python -m benchmarks.scaling [--size small] [--rounds 3] [--pictures 500 2000 8000] [--device auto]

Each exponent k is that of the last step up, to the largest size: seconds ~ size^k; smaller sizes are held up by what
costs the same at every size. The size of a resolution is the side of a picture, so 2 is what convolutions cost.
Processes share out the machine's cores, or its GPUs. Memory is the most that an autoencoder's training held, its
program and activations included.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.data import files
from benchmarks.record import record, rounded
from benchmarks.timing import in_turn, say
from benchmarks.train_step import SIZES, TOKENS, Contestant, ours
from diffusion.acceleration import Acceleration, choose
from diffusion.loggers import Csv
from diffusion.memory import keep_freed_memory
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.unet import UNet
from diffusion.sampling import device_named

BATCHES, TOKEN_COUNTS, WIDER = (8, 16, 32, 64), (1, 19, 77, 154, 308), (1, 2, 3, 4)
BATCH = 16                   # where something else is varied
SIDES = (32, 64, 128, 256)   # of pictures, which latents have a quarter of
PARTS = ("an update", "encoding", "decoding")
AUTOENCODER = {"widths": [32, 64, 64], "mid_attention": False}
DENOISER = {"widths": [64, 128, 128], "blocks_per_level": 1, "self_attention": [False, True, True],
            "cross_attention": [False, True, True], "heads_dim": 32, "context_dim": 64}
PICTURES = 4                 # of each side at once
SIDE_OF_FILES = 128
STANDARD_ERROR = 2  # where progress goes
SHORT = ("evaluation=none", "compile=false", "sample_every=null", "log_every=10")


def update(config: Mapping[str, Any], plan: Acceleration, device: torch.device, *, batch: int = BATCH, side: int = 16,
           tokens: int = TOKENS) -> Callable[[], None]:
    """One of a U-Net, forwards, backwards and AdamW."""
    contestant = Contestant(UNet(4, **config).to(device, memory_format=plan.memory_format), ours, plan)
    inputs = (torch.randn(batch, 4, side, side, device=device), torch.rand(batch, device=device),
              torch.randn(batch, tokens, config["context_dim"], device=device))
    return partial(contestant.step, inputs, torch.randn_like(inputs[0]))


def wider(config: Mapping[str, Any], times: int) -> dict[str, Any]:
    return {**config, "widths": [times * width for width in config["widths"]]}


def parameters(config: Mapping[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(4, **config).parameters())


def coded(way: Callable[[Tensor], Any], x: Tensor, plan: Acceleration) -> Callable[[], Any]:
    """Pictures to latents or back, as training's data and samples go."""
    @torch.no_grad()
    def call() -> Any:
        with plan.autocast(x.device):
            return way(x)

    return call


def by_resolution(part: str, plan: Acceleration, device: torch.device) -> dict[int, Callable[[], Any]]:
    """A call of this part per side."""
    autoencoder = KLAutoencoder(**AUTOENCODER).to(device, memory_format=plan.memory_format).eval()

    def call(side: int) -> Callable[[], Any]:
        latent = side // autoencoder.factor
        if part == "an update":
            return update(DENOISER, plan, device, batch=PICTURES, side=latent)
        way, shape = {"encoding": (autoencoder.encode, (3, side, side)),
                      "decoding": (autoencoder.decode, (4, latent, latent))}[part]
        x = torch.randn(PICTURES, *shape, device=device).contiguous(memory_format=plan.memory_format)
        return coded(way, x, plan)

    return {side: call(side) for side in SIDES}


def timed(calls: Mapping[int, Callable[[], Any]], rounds: int, device: torch.device) -> dict[int, float]:
    found = in_turn({str(size): call for size, call in calls.items()}, rounds, device)
    return {int(size): s for size, s in found.items()}


def exponent(seconds: Mapping[int, float]) -> float:
    """Of the last step up."""
    (n, before), (m, after) = sorted(seconds.items())[-2:]
    return math.log(after / before) / math.log(m / n)


def trained(*overrides: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """results.json and the rows of metrics.csv of the training command, in a process of its own, so that its memory is
    its own too."""
    with tempfile.TemporaryDirectory() as folder:
        paths = f"paths.runs={folder}", f"paths.cache={folder}/cache"
        command = [sys.executable, "-m", "diffusion.cli", "train", "experiment=cifar_autoencoder"]
        subprocess.run([*command, *SHORT, *paths, *overrides], check=True, stdout=STANDARD_ERROR)
        run, = Path(folder).glob("cifar_autoencoder/*")
        return json.loads((run / "results.json").read_text()), list(Csv(run).rows.values())


def with_processes(count: int, device: torch.device) -> float:
    """Pictures a second of an autoencoder's training in so many processes, the same batch shared out."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    _, rows = trained("data=shapes", "data.train=512", "data.test=100", "trainer=ddp", f"trainer.devices={count}",
                      f"trainer.accelerator={accelerator}", "steps=60")
    rates = [row["train/images_per_second"] for row in rows if "train/images_per_second" in row]
    return statistics.median(rates[1:])  # the first waits for memory


def memory(source: Path, streaming: bool) -> float:
    """GiB that a training on these files held at most."""
    results, _ = trained("trainer=cpu", "data=folder", f"data.source={source}", f"data.image_size={SIDE_OF_FILES}",
                         f"+data.memory_gib={0 if streaming else 64}", "steps=20", "batch=4")
    return results["peak_memory_gib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, nargs="*", default=[500, 2000, 8000])
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    keep_freed_memory()
    device = device_named(asked.device)
    plan, (config, side) = choose("auto", False, device), SIZES[asked.size]
    torch.manual_seed(0)
    make = partial(update, plan=plan, device=device, side=side)
    wide = [wider(DENOISER, times) for times in WIDER]
    axes = {  # made when they are timed, and freed then
        "images": lambda: {batch: make(config, batch=batch) for batch in BATCHES},
        "tokens": lambda: {count: make(config, tokens=count) for count in TOKEN_COUNTS},
        "parameters": lambda: {parameters(some): make(some) for some in wide},
        **{f"resolution, {part}": partial(by_resolution, part, plan, device) for part in PARTS},
    }
    seconds = {name: timed(calls(), asked.rounds, device) for name, calls in axes.items()}
    processes = {count: with_processes(count, device) for count in (1, 2)
                 if device.type != "cuda" or count <= torch.cuda.device_count()}
    held: dict[str, dict[int, float]] = {"in memory": {}, "streaming": {}}
    for n in asked.pictures:
        with tempfile.TemporaryDirectory() as folder:
            source = files(Path(folder), n, SIDE_OF_FILES)
            for kind in held:
                held[kind][n] = memory(source, kind == "streaming")
                say(f"{n} pictures {kind}: {held[kind][n]:.2f} GiB")
    record(f"scaling_{asked.size}_{device.type}", rounded({
        "exponents": {name: exponent(found) for name, found in seconds.items()},
        "seconds": seconds, "images_per_second_by_processes": processes,
        "peak_memory_gib_by_pictures": held, "side_of_files": SIDE_OF_FILES, "ours": str(plan), "batch": BATCH,
    }), device)


if __name__ == "__main__":
    main()
