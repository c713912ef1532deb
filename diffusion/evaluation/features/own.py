"""Two networks that are always at hand: the model's own CLIP and the judge."""

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from diffusion.checkpoint import weights_hash
from diffusion.data.pictures import at_once
from diffusion.evaluation.features.extractor import extracted
from diffusion.pixels import to_float
from diffusion.text.clip import CLIP


class ClipFeatures:
    """The image tower's embedding."""

    name = "clip"

    def __init__(self, clip: CLIP):
        self.clip = clip.eval()
        self.hash = weights_hash(clip)

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return extracted(lambda part: self.clip.image_embedding(to_float(part)), images, self.clip.device,
                         at_once(images))


class JudgeFeatures:
    """The judge's pooled activations."""

    name = "judge"

    def __init__(self, judge: nn.Module):
        self.judge = judge.eval()
        self.hash = weights_hash(judge)

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        device = next(self.judge.parameters()).device
        return extracted(lambda part: self.judge.features(to_float(part)), images, device,
                         at_once(images))
