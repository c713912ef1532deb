"""Cross-entropy over several attributes at once (the judge): one head each, -1 where an attribute does not apply."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def classification_loss(
    logits: list[Float[Tensor, "b _"]], labels: Int64[Tensor, "b heads"], smoothing: float = 0.0
) -> Float[Tensor, " b"]:
    """Sum over the heads."""
    return torch.stack([
        F.cross_entropy(head.float(), labels[:, i], ignore_index=-1, reduction="none", label_smoothing=smoothing)
        for i, head in enumerate(logits)
    ]).sum(0)


def all_right(logits: list[Float[Tensor, "b _"]], labels: Int64[Tensor, "b heads"]) -> Bool[Tensor, " b"]:
    """Whether every attribute that was asked for (label not -1) is the most probable one."""
    guess = torch.stack([head.argmax(1) for head in logits], 1)
    return ((guess == labels) | (labels == -1)).all(1)
