"""The CLIP score (Hessel et al. 2021): how well pictures agree with their captions, 100 max(cos(image, text), 0).

100 as most tables have it; the paper's factor is 2.5. Numbers of different CLIPs do not compare.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion.evaluation.metrics.intervals import Interval, of_mean


def clip_score(images: Float[Tensor, "n d"], texts: Float[Tensor, "m e"]) -> Interval:
    """Of embeddings, row i of the one with row i of the other. Raises ValueError where they are not pairs."""
    if images.shape != texts.shape:
        raise ValueError(f"embeddings of shape {tuple(images.shape)} and {tuple(texts.shape)} are no pairs")
    return of_mean(100 * F.cosine_similarity(images.double(), texts.double()).clamp(min=0))
