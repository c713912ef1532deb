"""The features of the FID (Heusel et al. 2017) and the logits of the Inception score, as their reference programs make
them: pictures 0..255, TensorFlow 1's bilinear resize to 299, (x - 128) / 128, the network of 5 December 2015.
"""

import pickle
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion.evaluation.features.extractor import extracted
from diffusion.files import file_hash
from diffusion.models.inception import Inception

SHA256 = "6726825d"  # its first digits, as the file's name has them
FILE = f"pt_inception-2015-12-05-{SHA256}.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"


class InceptionFeatures:
    """The 2048 pooled features.

    path  a local copy of the weights; without it they are fetched once, into torch's hub folder, and their checksum
          is verified

    Raises OSError, with what to do, where the weights cannot be had; ValueError where the file holds others.
    """

    def __init__(self, path: str | None = None, *, name: str = "inception", device: str | torch.device = "cpu"):
        file = fetched() if path is None else Path(path).expanduser()
        if not file.is_file():
            raise OSError(f"Inception weights {file}: no such file. {advice()}")
        self.network, self.device = load(file).to(device), device
        self.name, self.hash = name, file_hash(file)

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 2048"]:
        """Grey pictures are taken as RGB."""
        return extracted(lambda part: self.network(prepared(part)), images, self.device, size=50)

    @torch.no_grad()
    def logits(self, features: Float[Tensor, "n 2048"]) -> Float[Tensor, "n 1008"]:
        """Of the features, without the last layer's bias, as in the program of Salimans et al. 2016."""
        return features @ self.network.fc.weight.T.cpu()


def prepared(images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b 3 299 299"]:
    """As the network was trained on them."""
    return (resized(images.expand(-1, 3, -1, -1).float(), 299) - 128) / 128


def resized(x: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c size size"]:
    """TensorFlow 1's bilinear resize: pixel i of the result lies at i * (old size / size), the edge is repeated, and
    nothing is smoothed before it shrinks. PyTorch's places pixel centres instead."""
    for axis in (-2, -1):
        old = x.shape[axis]
        at = torch.arange(size, device=x.device) * (old / size)
        left = at.floor().long()
        weight = (at - left).view(-1, *[1] * (-1 - axis))
        low, high = x.index_select(axis, left), x.index_select(axis, (left + 1).clamp(max=old - 1))
        x = low + (high - low) * weight
    return x


def fetched() -> Path:
    """The published file, from torch's hub folder or from the network."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL, str(file), hash_prefix=SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            raise OSError(f"the Inception weights cannot be fetched ({error}). {advice()}") from error
    return file


def load(file: Path) -> Inception:
    """The network with the file's weights, frozen."""
    network = Inception()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        missing, unknown = network.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} does not hold the weights of {FILE}: {str(error).partition(chr(10))[0]}") from None
    wrong = unknown + [name for name in missing if not name.endswith("num_batches_tracked")]  # a count, never used
    if wrong:
        raise ValueError(f"{file} does not hold the weights of {FILE}: {len(wrong)} tensors are missing or unknown, "
                         f"first {wrong[0]}")
    return network.requires_grad_(False).eval()


def advice() -> str:
    return (f"Fetch {URL} where there is a network and name the file with path=FILE, or evaluate on the model's own "
            "CLIP instead (evaluation=frechet), which needs no download")
