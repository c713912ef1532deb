"""The contrastive loss of CLIP (Radford et al. 2021, Fig. 3) for captions that repeat.

Targets are uniform over all pairs of the same content: a batch of a class-captioned set holds many pictures that one
caption describes, and none of them is a negative.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def contrastive_loss(
    image: Float[Tensor, "b e"],
    text: Float[Tensor, "b e"],
    content: Int64[Tensor, " b"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, " b"]:
    """Cross-entropy from pictures to captions and back, their mean. `image` and `text` have length 1."""
    logits = scale * image @ text.T
    same = (content[:, None] == content[None, :]).to(logits.dtype)
    target = same / same.sum(1, keepdim=True)  # symmetric: rows and columns count the same content
    to_text = -(target * torch.log_softmax(logits, 1)).sum(1)
    to_image = -(target * torch.log_softmax(logits.T, 1)).sum(1)
    return (to_text + to_image) / 2


def retrieval(image: Float[Tensor, "n e"], text: Float[Tensor, "m e"], answer: Int64[Tensor, " n"]) -> float:
    """Share of pictures whose nearest of the m captions is the right one."""
    return ((image @ text.T).argmax(1) == answer).float().mean().item()
