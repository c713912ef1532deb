"""The maximum mean discrepancy (Gretton et al. 2012): the squared distance of two samples' means in a kernel's space,

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

Without the pairs of a picture with itself it is unbiased (their Eq. 3), and so may be negative.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.evaluation.metrics.intervals import GROUPS, Interval, groups, jackknife, of_squared_distance

Kernel = Callable[[Float64[Tensor, "n d"], Float64[Tensor, "m d"]], Float64[Tensor, "n m"]]


def squared_discrepancy(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], kernel: Kernel, count: int = GROUPS,
                        paired: bool = False) -> Interval:
    """Unbiased, of all pairs, with an interval by the jackknife over `count` groups. O((n + m)^2 d) operations; the
    kernel is never held for more than one group against a whole set.

    paired  x_i and y_i belong together, such as a picture and its reconstruction: their own kernel is left out, too
    """
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    parts_x = [x[rows].double() for rows in groups(len(x), count)]
    parts_y = [y[rows].double() for rows in groups(len(y), count)]
    xx, yy, xy = (sums(kernel, *pair) for pair in ((parts_x, parts_x), (parts_y, parts_y), (parts_x, parts_y)))

    def biased(keep: Tensor) -> float:
        n, m = (sum(len(part) for part, kept in zip(parts, keep) if kept) for parts in (parts_x, parts_y))
        inside = keep[:, None] & keep
        return (xx[inside].sum() / n**2 + yy[inside].sum() / m**2 - 2 * xy[inside].sum() / (n * m)).item()

    value = biased(torch.ones(count, dtype=torch.bool))
    _, variance = jackknife(value, [biased(torch.arange(count) != group) for group in range(count)])
    bias = own_pairs(kernel, parts_x, parts_x, xx) + own_pairs(kernel, parts_y, parts_y, yy)
    if paired:
        bias -= 2 * own_pairs(kernel, parts_x, parts_y, xy)
    return of_squared_distance(value, bias, variance, count)


def sums(kernel: Kernel, x: Sequence[Tensor], y: Sequence[Tensor]) -> Float64[Tensor, "g g"]:
    """Of the kernel over the pairs of each two groups."""
    everything, sizes = torch.cat(list(y)), [len(part) for part in y]
    by_column = torch.stack([kernel(part, everything).sum(0) for part in x])
    return torch.stack([some.sum(1) for some in by_column.split(sizes, 1)], 1)


def own_pairs(kernel: Kernel, x: Sequence[Tensor], y: Sequence[Tensor], pairs: Float64[Tensor, "g g"]) -> float:
    """What the pairs of row i with row i add to the mean of the kernel over all pairs."""
    n = sum(len(part) for part in x)
    if n < 2:
        raise ValueError(f"an unbiased discrepancy needs at least 2 pictures, there are {n}")
    total, own = pairs.sum().item(), sum(kernel(*both).trace().item() for both in zip(x, y, strict=True))
    return total / n**2 - (total - own) / (n * (n - 1))
