"""Snapshots of power-function averages in a run's folder, and other widths made of them after training.

averages/<step>.safetensors holds the shadows of each tracked width as "<sigma_rel>/<parameter>", in float16 as in the
paper: weights lie far inside its range (6e-5 .. 65504), and its 11 significant bits round them eight times less than
bfloat16's 8.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.ema.post_hoc import Profile, coefficients
from diffusion.ema.power import gamma_of
from diffusion.files import atomic

FOLDER = "averages"


class Reconstruction(NamedTuple):
    """Float32 averages at a step; of how many stored ones; error: what the profile misses, relative in L2."""

    tensors: dict[str, Tensor]
    step: int
    stored: int
    error: float


def write(run: Path, step: int, averages: Mapping[float, Mapping[str, Tensor]]) -> None:
    """One snapshot, whole or not at all: sigma_rel -> parameter -> average."""
    flat = {f"{width}/{name}": tensor.detach().to(torch.float16).cpu().contiguous()
            for width, shadows in averages.items() for name, tensor in shadows.items()}
    atomic(run / FOLDER / f"{step}.safetensors", lambda temporary: save_file(flat, temporary))


def saved(run: Path) -> dict[int, Path]:
    """Step -> file, in order."""
    return dict(sorted((int(path.stem), path) for path in (run / FOLDER).glob("[0-9]*.safetensors")))


def take_over(source: Path, target: Path, every: int) -> None:
    """Copy another run's snapshots at this cadence: those that a longer run would have had."""
    for step, path in saved(source).items():
        if step % every == 0:
            atomic(target / FOLDER / path.name, lambda temporary, path=path: shutil.copyfile(path, temporary))


def reconstruct(run: Path, sigma_rel: float, step: int | None = None) -> Reconstruction:
    """The average of this width at a step that has a snapshot (default: the last), made of the snapshots up to there.

    Raises FileNotFoundError where there are no snapshots, ValueError where width or step cannot be had.
    """
    gamma, files = gamma_of(sigma_rel), saved(run)
    if not files:
        raise FileNotFoundError(f"{run / FOLDER} holds no snapshots of averages: train with ema=power, which saves "
                                "them")
    step = max(files) if step is None else step
    if step not in files:
        near = sorted(sorted(files, key=lambda s: abs(s - step))[:2])
        raise ValueError(f"step = {step}: the {len(files)} snapshots are from step {min(files)} to {max(files)}; the "
                         f"nearest to this are {' and '.join(map(str, near))}")
    files = {at: path for at, path in files.items() if at <= step}
    stored = [(at, width) for at, path in files.items() for width in _widths(path)]
    c, error = coefficients([Profile(at, gamma_of(float(width))) for at, width in stored], Profile(step, gamma))
    weights = dict(zip(stored, c.tolist(), strict=True))
    total: dict[str, Tensor] = {}
    for at, path in files.items():
        for key, tensor in load_file(path).items():
            width, _, name = key.partition("/")
            total.setdefault(name, torch.zeros(tensor.shape)).add_(tensor, alpha=weights[at, width])
    if not all(tensor.isfinite().all() for tensor in total.values()):
        raise ValueError(f"{run / FOLDER}: a weight did not fit float16 (at most 65504): no width can be made of these")
    return Reconstruction(total, step, len(stored), error)


def _widths(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        names = file.keys()
    return sorted({name.partition("/")[0] for name in names})
