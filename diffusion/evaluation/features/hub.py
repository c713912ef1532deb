"""Published image encoders from the hub, or from a local folder in its format, through `transformers`.

A picture is resized to the network's square (bicubic, smoothed where it shrinks, not cropped), scaled to [0, 1] and
normalised by the constants of the network's training.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils import logging as transformers_logging

from diffusion.checkpoint import weights_hash
from diffusion.evaluation.features.extractor import extracted
from diffusion.pixels import to_float
from diffusion.text.clip import PretrainedCLIP


class DinoFeatures:
    """DINOv2's class token after the last norm; the default is the network of FD-DINOv2 (Stein et al. 2023)."""

    def __init__(self, path: str = "facebook/dinov2-large", *, size: int = 224, name: str = "dinov2",
                 device: str | torch.device = "cpu"):
        self.network, self.size, self.device = load(Dinov2Model.from_pretrained, path).to(device), size, device
        self.name, self.hash = name, f"{weights_hash(self.network)}-{size}"

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        def token(part):
            x = prepared(part, self.size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
            return self.network(pixel_values=x).last_hidden_state[:, 0]

        return extracted(token, images, self.device, size=50)


class ClipImageFeatures:
    """CLIP's image embedding, of length 1; the default is the network of CMMD (Jayasumana et al. 2024)."""

    def __init__(self, path: str = "openai/clip-vit-large-patch14-336", *, name: str = "clip_vit_l14",
                 device: str | torch.device = "cpu"):
        self.clip = load(PretrainedCLIP, path).to(device)
        self.name, self.hash = name, weights_hash(self.clip)

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        def embedding(part):
            return self.clip.image_embedding(to_float(part.expand(-1, 3, -1, -1)))

        return extracted(embedding, images, self.clip.device, size=50)


def load(network: Callable[[str], nn.Module], path: str) -> nn.Module:
    """network(path) in float32, frozen. Raises OSError, with what to do, where it cannot be loaded."""
    local = Path(path).expanduser()
    if path.startswith((".", "/", "~")) and not local.is_dir():
        raise OSError(f"image encoder {path}: no such folder")
    transformers_logging.disable_progress_bar()
    try:
        return network(str(local) if local.is_dir() else path).float().requires_grad_(False).eval()
    except OSError as error:
        raise OSError(f"the image encoder {path} cannot be loaded. Fetch it where there is a network and name the "
                      "local folder with path=FOLDER, or evaluate on the model's own CLIP instead "
                      "(evaluation=frechet), which needs no download") from error


def prepared(images: UInt8[Tensor, "b c h w"], size: int, mean: list[float], std: list[float]
             ) -> Float[Tensor, "b 3 size size"]:
    """Grey pictures are taken as RGB."""
    x = images.expand(-1, 3, -1, -1).float() / 255
    x = F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)
