"""The share of training spent waiting for data: cached latents, pictures in memory, and files that workers decode.

    python -m benchmarks.data [--steps 60] [--pictures 2000] [--workers 2]

Counted as waiting is everything between the end of one step and the beginning of the next, so the figure is an upper
bound.
"""

import argparse
import tempfile
from pathlib import Path

import hydra

from benchmarks.record import record, rounded
from benchmarks.timing import say
from benchmarks.waiting import UNCOUNTED, Waiting
from diffusion import pipeline
from diffusion.cli import CONFIGS, composed
from diffusion.data.shapes import Shapes
from diffusion.grids import save_png
from diffusion.sampling import device_named


def waited(folder: Path, *overrides: str) -> dict[str, float]:
    """The share of the time between steps, of the stage that the overrides name."""
    asked = [*overrides, "evaluation=none", "compile=false", "sampling_steps=2", "sample_every=null",
             f"paths.runs={folder}/runs", f"paths.cache={folder}/cache",
             "trusted=[diffusion,torch.optim,pytorch_lightning,benchmarks]",
             "+callbacks.waiting={_target_:benchmarks.waiting.Waiting}"]
    cfg, choices = composed(asked)
    pipeline.main(cfg, choices, asked, composed)
    share = Waiting.between / (Waiting.between + Waiting.steps)
    say(f"{' '.join(overrides)}: {100 * share:.2f} % between steps")
    return {"wait_share": share, "seconds_per_step": (Waiting.between + Waiting.steps) / (cfg.steps - UNCOUNTED)}


def files(folder: Path, n: int, side: int) -> Path:
    """n PNGs with captions, as a user's own."""
    pictures = Shapes(train=n, test=1, image_size=side).split("train")
    lines = []
    for i, row in enumerate(pictures.caption_ids[:, 0].tolist()):
        save_png(pictures.images[i], folder / f"{i}.png", {})
        lines.append(f'{{"file_name": "{i}.png", "text": "{pictures.captions[row]}"}}')
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, hydra.initialize_config_dir(CONFIGS, version_base="1.3"):
        folder, own = Path(name), Path(name) / "pictures"
        own.mkdir()
        files(own, asked.pictures, 64)
        steps, streamed = f"steps={asked.steps}", ["data=folder", f"data.source={own}", "+data.memory_gib=0"]
        few = ["data.train=2000", "data.test=100"]
        parents = [f'+parents.{part}.overrides=["steps=20"]' for part in ("autoencoder", "text_encoder")]
        cases = {
            "cached latents": waited(folder, "experiment=latent_shapes", steps, *few, *parents),
            "pictures in memory": waited(folder, "experiment=cifar_autoencoder", "data=shapes", *few, steps),
            "files, decoded by workers": waited(folder, "experiment=cifar_autoencoder", *streamed, steps,
                                                f"workers={asked.workers}"),
            "files, decoded between steps": waited(folder, "experiment=cifar_autoencoder", *streamed, steps,
                                                   "seed=1"),
        }
    record("data", rounded({
        "wait_share": max(case["wait_share"] for name, case in cases.items() if "between" not in name),
        "cases": cases, "steps": asked.steps, "workers": asked.workers, "side_of_files": 64,
    }), device_named("auto"))


if __name__ == "__main__":
    main()
