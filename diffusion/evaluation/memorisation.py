"""Does the model repeat its training pictures? Their distances to samples, with held-out pictures as control.

    memorised = the share of samples x with  min_j |f(x) - f(train_j)|  below the 1st percentile of the same distance of
                test pictures

The threshold is itself the quantile of m test pictures: as the share of n samples, it scatters as if they were
n m / (n + m), which the interval counts.

A model that draws from the data's distribution, and knows no more of the training pictures than of others, gives 1 %.
A greater share says that samples crowd around training pictures: whether as copies, or because typical pictures have
near neighbours and the model draws little else, is for the eye; so the nearest pairs are shown.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diffusion.data.pictures import chunks
from diffusion.evaluation.metrics.intervals import Interval, wilson

EXPECTED = 0.01  # of held-out pictures


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Nearest first."""

    distances: Float[Tensor, "n k"]
    index: Int64[Tensor, "n k"]


@dataclasses.dataclass(frozen=True)
class Memorised:
    """share of samples nearer to a training picture than `threshold`; neighbours of the samples, and of the test
    pictures (`control`)."""

    share: Interval
    threshold: float
    neighbours: Neighbours
    control: Neighbours


def nearest(views: Sequence[Float[Tensor, "n d"]], training: Float[Tensor, "m d"], k: int) -> Neighbours:
    """The k nearest of the training pictures. `views`: of the same pictures, such as they are and mirrored, of which
    the nearer counts."""
    parts, centre = [], training.mean(0)
    for part in chunks(torch.stack(list(views), 1), 256):
        # by matrix products, which round less around 0; then exactly, so that a copy has distance 0
        distance = torch.stack([torch.cdist(view, training - centre) for view in (part - centre).unbind(1)]).amin(0)
        near = distance.topk(min(k, len(training)), largest=False).indices
        exact = (part[:, :, None] - training[near][:, None]).norm(dim=-1).amin(1)
        distance, order = exact.sort(1)
        parts.append((distance, near.gather(1, order)))
    return Neighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def memorised(samples: Sequence[Float[Tensor, "n d"]], test: Sequence[Float[Tensor, "p d"]],
              training: Float[Tensor, "m d"], k: int = 8) -> Memorised:
    """From the features of samples and held-out pictures, each as one or several views."""
    neighbours = nearest(samples, training, k)
    control = nearest(test, training, k)
    threshold = control.distances[:, 0].quantile(EXPECTED).item()
    # a threshold of 0, where test pictures are training pictures, too, is that of copies
    share, n, m = (neighbours.distances[:, 0] <= threshold).double().mean().item(), len(samples[0]), len(test[0])
    return Memorised(wilson(share, n * m / (n + m)), threshold, neighbours, control)
