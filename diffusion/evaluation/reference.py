"""What samples are compared with: the features of a split, with the names of the data and of the network they come
from.

Extracting them is the dear part, so they are kept under a name made of their content. The same file can be handed on:
`evaluation.reference=FILE` gives others the same reference.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusion import processes
from diffusion.data.captioned import CaptionedDataset
from diffusion.data.hashing import digest
from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import chunks, share
from diffusion.evaluation.features import FeatureExtractor
from diffusion.evaluation.metrics.frechet import Moments, moments_of
from diffusion.files import atomic

CHUNK = 250  # pictures that are read together


@dataclasses.dataclass(frozen=True)
class Reference:
    """Features to compare with, and where they come from.

    name        data fingerprint/split
    extractor   the network's name, and hash that of its weights
    labels      of the data's heads, one row a picture
    """

    name: str
    extractor: str
    hash: str
    features: Float[Tensor, "n d"]
    labels: Int64[Tensor, "n heads"]
    moments: Moments

    def __len__(self) -> int:
        return len(self.features)

    def check(self, extract: FeatureExtractor, features: Float[Tensor, "m d"] | None = None) -> None:
        """Raise ValueError where features of this extractor cannot be compared with these."""
        own = f"the reference {self.name} holds features of {self.extractor}"
        if self.hash != extract.hash:
            raise ValueError(f"{own} with hash {self.hash}, {extract.name} has {extract.hash}: take the network it was "
                             "made with, or leave evaluation.reference out")
        if features is not None and features.shape[1] != self.features.shape[1]:
            raise ValueError(f"{own} of {self.features.shape[1]} dimensions, {extract.name} gives {features.shape[1]}")


def features_of(images: UInt8[Tensor, "n c h w"] | OnDemand, extract: Callable[[Tensor], Tensor], *,
                progress: Callable[[int], None] = lambda done: None) -> Float[Tensor, "n d"]:
    """Of all pictures, on every process; each process extracts its share, nothing twice, nothing for padding.

    progress(n) is called after each n pictures.
    """
    parts = []
    for index in chunks(share(len(images), processes.rank(), processes.world()), CHUNK):
        parts.append(extract(images[index.start : index.stop]).float())
        progress(len(index))
    return torch.cat([part for of_process in processes.all_values(parts) for part in of_process])


def reference_of(data: CaptionedDataset, split: str, extract: FeatureExtractor, cache: Path, *, most: int | None = None,
                 mirror: bool = False, progress: Callable[[int], None] = lambda done: None) -> Reference:
    """The reference of a split (or of `most` pictures picked from it, or of mirror images); from the cache where it was
    made before."""
    pictures = data.split(split) if most is None else data.split(split).pick(most, 0)
    name = f"{data.fingerprint()}/{split}"
    name += ("" if most is None else f" {len(pictures)}") + (" mirrored" if mirror else "")
    key = digest([name, extract.name, extract.hash, "reference 1"])
    path = cache / f"reference-{extract.name}-{split}-{key}.safetensors"
    if all(processes.all_values(path.exists())):
        return load(path)
    seen = (lambda part: extract(part.flip(-1))) if mirror else extract
    features = features_of(pictures.images, seen, progress=progress)
    made = Reference(name, extract.name, extract.hash, features, pictures.labels, moments_of(features))
    save(made, path)
    return made


def save(reference: Reference, path: Path) -> None:
    """One safetensors file, whole or not at all."""
    tensors = {"features": reference.features, "labels": reference.labels, "mean": reference.moments.mean,
               "covariance": reference.moments.covariance}
    told = {"name": reference.name, "extractor": reference.extractor, "hash": reference.hash}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic(path, lambda temporary: save_file(tensors, temporary, metadata={"reference": json.dumps(told)}))


def load(path: str | Path) -> Reference:
    """Raises FileNotFoundError, or ValueError where the file is something else."""
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"evaluation.reference = {path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["reference"])
            tensors = {name: file.get_tensor(name) for name in ("features", "labels", "mean", "covariance")}
    except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds no reference statistics ({error}): they are the files "
                         "reference-*.safetensors in paths.cache") from None
    moments = Moments(len(tensors["features"]), tensors["mean"], tensors["covariance"])
    return Reference(**told, features=tensors["features"], labels=tensors["labels"], moments=moments)
