"""Data from a mixture of two Gaussians on a line, of which all is known as well; its denoiser is far from linear.

    x_t ~ sum_k w_k N(alpha_t mu_k, alpha_t^2 tau_k^2 + sigma_t^2)

On a line the probability-flow ODE keeps the order of points, so it maps each quantile to the same quantile.
"""

import dataclasses

import torch

from diffusion.estimate import Estimate
from diffusion.schedules import NoiseSchedule

WEIGHT = torch.tensor([0.3, 0.7], dtype=torch.float64)
MU = torch.tensor([-1.2, 0.9], dtype=torch.float64)
TAU = torch.tensor([0.5, 0.4], dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class Mixture:
    schedule: NoiseSchedule

    def parts(self, t) -> torch.distributions.Normal:
        alpha, sigma = self.schedule.alpha(t)[..., None], self.schedule.sigma(t)[..., None]
        return torch.distributions.Normal(alpha * MU, (alpha**2 * TAU**2 + sigma**2).sqrt())

    def denoise(self, x_t, t) -> Estimate:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        parts, x = self.parts(t), x_t[..., None]
        share = (WEIGHT.log() + parts.log_prob(x)).softmax(-1)
        means = MU + alpha[..., None] * TAU**2 / parts.variance * (x - parts.mean)
        x0 = (share * means).sum(-1)
        return Estimate(x0, (x_t - alpha * x0) / sigma, torch.full_like(x0, 0.5))

    def log_prob(self, x, t):
        return (WEIGHT.log() + self.parts(t).log_prob(x[..., None])).logsumexp(-1)

    def cdf(self, x, t):
        return (WEIGHT * self.parts(t).cdf(x[..., None])).sum(-1)

    def flow(self, x_t, t, s):
        """The point of the same quantile, by bisection."""
        quantile, width = self.cdf(x_t, t), 10 * self.parts(s).stddev.max() + 10
        low, high = -width * torch.ones_like(x_t), width * torch.ones_like(x_t)
        for _ in range(100):
            middle = (low + high) / 2
            below = self.cdf(middle, s) < quantile
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2
