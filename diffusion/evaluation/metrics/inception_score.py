"""The Inception score (Salimans et al. 2016): exp(E KL(p(y | x) || p(y))), from a classifier's logits."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.evaluation.metrics.intervals import Interval, groups, of_mean


def inception_score(logits: Float[Tensor, "n classes"], splits: int = 10) -> Interval:
    """The mean over random splits. It grows with the pictures in a split (5000 in the paper), so that numbers of
    different n do not compare; the interval is for its mean at this size."""
    return of_mean(torch.tensor([score(logits[rows]) for rows in groups(len(logits), splits)]))


def score(logits: Float[Tensor, "n classes"]) -> float:
    """Of one split."""
    p = logits.double().softmax(1)
    divergence = (torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))).sum(1)
    return divergence.mean().exp().item()
