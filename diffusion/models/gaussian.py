"""A diagonal Gaussian: q(z | x) = N(mean, exp(log_var)), what an encoder answers (Kingma & Welling 2014)."""

import dataclasses
import math

from jaxtyping import Float
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Every element is independent; log_var = -inf is a point mass."""

    mean: Float[Tensor, "b c h w"]
    log_var: Float[Tensor, "b c h w"]

    def sample(self, noise: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """mean + std noise: differentiable in both moments."""
        return self.mean + (self.log_var / 2).exp() * noise

    def kl(self) -> Float[Tensor, "b c h w"]:
        """KL(self || N(0, I)) per element, in nats: (mean^2 + var - 1 - log var) / 2."""
        return (self.mean.square() + self.log_var.exp() - 1 - self.log_var) / 2

    def entropy(self) -> Float[Tensor, "b c h w"]:
        """Differential, per element, in nats: (log(2 pi e) + log var) / 2."""
        return (math.log(2 * math.pi) + 1 + self.log_var) / 2
