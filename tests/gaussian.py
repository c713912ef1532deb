"""Data N(mu, tau^2), of which all is known: the denoiser, the marginals, and the ODE's map from t to s.

x_t ~ N(alpha_t mu, var_t),   var_t = alpha_t^2 tau^2 + sigma_t^2
E[x_0 | x_t] = mu + alpha_t tau^2 / var_t (x_t - alpha_t mu)
x_s - alpha_s mu = sqrt(var_s / var_t) (x_t - alpha_t mu)
"""

import dataclasses

import torch

from diffusion.estimate import Estimate
from diffusion.schedules import NoiseSchedule


@dataclasses.dataclass(frozen=True)
class Gaussian:
    schedule: NoiseSchedule
    mu: float = 0.7
    tau: float = 0.5

    def variance(self, t):
        return self.schedule.alpha(t) ** 2 * self.tau**2 + self.schedule.sigma(t) ** 2

    def denoise(self, x_t, t) -> Estimate:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        x0 = self.mu + alpha * self.tau**2 / self.variance(t) * (x_t - alpha * self.mu)
        return Estimate(x0, (x_t - alpha * x0) / sigma, torch.full_like(x0, 0.5))

    def flow(self, x_t, t, s):
        """Where the probability-flow ODE takes x_t."""
        scale = (self.variance(s) / self.variance(t)).sqrt()
        return self.schedule.alpha(s) * self.mu + scale * (x_t - self.schedule.alpha(t) * self.mu)
