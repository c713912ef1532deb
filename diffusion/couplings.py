"""Which noise a training picture is mixed with. A coupling reorders eps over the batch: (x_0, eps) -> eps."""

import torch
from jaxtyping import Float
from torch import Tensor


def independent(x0: Float[Tensor, "b *d"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """Each picture has its own noise: p(x_0) p(eps)."""
    return eps


def optimal_transport(
    x0: Float[Tensor, "b *d"], eps: Float[Tensor, "b *d"], *, group: int = 32
) -> Float[Tensor, "b *d"]:
    """Within every `group` rows, the pairs of least sum ||x_0 - eps||^2 (Tong et al. 2024, Pooladian et al. 2023).

    Paths cross less, so few sampling steps go further. With captions a bias remains: noise then tells a little about
    the caption in training, and does not in sampling.

    Raises ValueError where the rows are no multiple of `group` (then the result would depend on how a batch is split),
    and without scipy.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError:
        raise ValueError("coupling=optimal_transport needs the package scipy: pip install 'diffusion[ot]'") from None

    if len(x0) % group:
        raise ValueError(f"coupling.group = {group} does not divide the {len(x0)} rows trained at once: choose "
                         "one that divides batch / (processes x accumulate)")
    order = []
    for start in range(0, len(x0), group):
        rows = slice(start, start + group)
        # ||x_0 - eps||^2 up to terms that no pairing changes
        inner = x0[rows].flatten(1).double() @ eps[rows].flatten(1).double().T
        order.append(start + torch.from_numpy(linear_sum_assignment(inner.cpu().numpy(), maximize=True)[1]))
    return eps[torch.cat(order).to(eps.device)]
