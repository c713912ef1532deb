"""The autoencoder's loss (Rombach et al. 2022, section 3.1 and appendix G; Esser et al. 2021, Eqs. 6-7):

    d(x, x')  +  w_p ||f(x) - f(x')||^2  +  w_KL KL(q(z|x) || N(0, I))  +  lambda w_adv (-D(x'))

d is the mean absolute (l1) or squared (l2) error; lambda balances the adversarial gradient against the reconstruction's
at the decoder's last layer.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Pixels = Float[Tensor, "b c h w"]


def l1(x: Pixels, reconstruction: Pixels) -> Float[Tensor, " b"]:
    """Mean absolute error per picture."""
    return (x - reconstruction).abs().flatten(1).mean(1)


def l2(x: Pixels, reconstruction: Pixels) -> Float[Tensor, " b"]:
    """Mean squared error per picture."""
    return (x - reconstruction).square().flatten(1).mean(1)


def hinge_discriminator(real: Float[Tensor, "b 1 h w"], fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(x'))], halved (Lim & Ye 2017)."""
    return (F.relu(1 - real) + F.relu(1 + fake)).flatten(1).mean(1) / 2


def hinge_generator(fake: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """-E[D(x')]."""
    return -fake.flatten(1).mean(1)


def adaptive_weight(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: Tensor, *, largest: float = 1e4,
    reduce: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Float[Tensor, ""]:
    """lambda = ||grad_L reconstruction|| / (||grad_L adversarial|| + 1e-6), L the decoder's last layer (Eq. 7).

    `reduce` averages a gradient over processes.
    """
    wanted = reduce(torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0]).norm()
    given = reduce(torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0]).norm()
    return (wanted / (given + 1e-6)).clamp(0, largest).detach()
