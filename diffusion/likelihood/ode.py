"""The probability-flow ODE and the change of log-density along it (Song et al. 2021b, Eq. 13 and 39).

In x / sqrt(alpha^2 + sigma^2) every path preserves the variance, and with l as the variable the ODE is

    dx / dl = -alpha sigma v / 2,    v = alpha eps - sigma x_0,    alpha^2 = sigmoid(l),  sigma^2 = sigmoid(-l)

    log p_high(x) = log p_low(x_low) - int_low^high tr(d/dx (dx / dl)) dl

for every schedule, and gentle at both ends. The trace is Hutchinson's, tr J = E[p^T J p] where E[p p^T] = I, or exact.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from diffusion.estimate import Denoise
from diffusion.schedules import NoiseSchedule
from diffusion.schedules.path import vp


def log_density(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x0: Float[Tensor, "b *d"],
    probes: Float[Tensor, "k b *d"],
    low: float,
    high: float,
    *,
    steps: int,
) -> Float[Tensor, " b"]:
    """log p(x_0), p the density of x_high / alpha: the model's data with noise of the size e^(-high / 2) on it.

    The model is the one that is sampled: it starts from N(0, 1) on vp and from N(0, sigma^2) elsewhere. The classical
    Runge-Kutta method takes equal steps in l, of order 4 with four evaluations each. The same probes serve all steps.
    """

    def slope(x: Tensor, log_snr: float) -> tuple[Tensor, Tensor]:
        """dx / dl and its trace."""
        t = schedule.t_of(log_snr)
        size = torch.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
        alpha, sigma = (part(torch.tensor(log_snr, dtype=torch.float64)) for part in (vp.alpha, vp.sigma))

        def field(x: Tensor) -> Tensor:
            clean, eps, _ = denoise(size * x, t)
            return -alpha * sigma / 2 * (alpha * eps - sigma * clean)

        return trace(field, x, probes)

    h = (low - high) / steps
    log_alpha = F.logsigmoid(torch.tensor(high, dtype=torch.float64)).item() / 2
    x, change = math.exp(log_alpha) * x0, 0.0
    for i in range(steps):
        log_snr = high + i * h
        k1, d1 = slope(x, log_snr)
        k2, d2 = slope(x + h / 2 * k1, log_snr + h / 2)
        k3, d3 = slope(x + h / 2 * k2, log_snr + h / 2)
        k4, d4 = slope(x + h * k3, log_snr + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        change = change + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    t = schedule.t_of(low)
    size = torch.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    std = (schedule.prior(t, torch.ones(1, dtype=torch.float64)) / size).item()
    prior = -((x / std) ** 2 + math.log(2 * math.pi)) / 2 - math.log(std)
    return reduce(prior, "b ... -> b", "sum") + change + x0[0].numel() * log_alpha


def trace(
    field: Callable[[Tensor], Tensor], x: Float[Tensor, "b *d"], probes: Float[Tensor, "k b *d"]
) -> tuple[Float[Tensor, "b *d"], Float[Tensor, " b"]]:
    """The field at x, and per row the mean of p^T (d field / dx) p over the probes (Hutchinson 1990)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = field(x)
        products = [torch.autograd.grad(value, x, p, retain_graph=True)[0] * p for p in probes]
    return value.detach(), sum(reduce(product, "b ... -> b", "sum") for product in products) / len(probes)


def rademacher(z: Float[Tensor, "*k"]) -> Float[Tensor, "*k"]:
    """Probes of +1 and -1 from standard normals z: of all with E[p p^T] = I the least variance, none on a diagonal."""
    return torch.where(z < 0, -1.0, 1.0).to(z)


def exact(x: Float[Tensor, "b *d"]) -> Float[Tensor, "k b *d"]:
    """The d probes sqrt(d) e_i, whose mean is the trace itself: for data of few dimensions."""
    d = x[0].numel()
    basis = math.sqrt(d) * torch.eye(d, dtype=x.dtype, device=x.device)
    return basis.reshape(d, 1, *x.shape[1:]).expand(d, *x.shape)
