"""Training at those times where the loss varies most (Nichol & Dhariwal 2021, Section 3.3).

    p(t) ~ sqrt(E[L_t^2]),    each sample weighted by 1 / p(t):  the expected loss stays, its variance falls

p is constant on each of `bins` equal parts of (0, 1]. As in the paper it stays uniform until every part was seen
`horizon` times, and E[L_t^2] is over about the last `horizon` updates.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion.schedules import NoiseSchedule


class LossSecondMoment:
    """A time sampler with a memory. `uniform` is the share of p that stays uniform, whatever the losses are."""

    def __init__(self, *, bins: int = 100, horizon: int = 10, uniform: float = 0.001):
        if bins < 1 or horizon < 1 or not 0 < uniform <= 1:
            raise ValueError(f"time_sampler: bins = {bins} and horizon = {horizon} must be at least 1, and uniform = "
                             f"{uniform} must lie in (0, 1]")
        self.horizon, self.uniform = horizon, uniform
        self.second_moment = torch.zeros(bins, dtype=torch.float64)
        self.seen = torch.zeros(bins, dtype=torch.int64)

    def density(self) -> Float64[Tensor, " bins"]:
        """p in each bin; its mean is 1."""
        root = self.second_moment.sqrt()
        if (self.seen < self.horizon).any() or not root.any():
            return torch.ones_like(root)
        return (1 - self.uniform) * root / root.mean() + self.uniform

    def __call__(
        self, schedule: NoiseSchedule, u: Float[Tensor, " n"]
    ) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
        """t at the quantiles 1 - u of p, and 1 / p(t)."""
        p, bins = self.density(), len(self.seen)
        ends = p.cumsum(0) / bins
        quantile = 1 - u.double()
        k = torch.searchsorted(ends, quantile).clamp(max=bins - 1)
        t = (k + 1 - (ends[k] - quantile) * bins / p[k]) / bins
        return t.clamp(1e-12, 1), 1 / p[k]

    @torch.no_grad()
    def update(self, t: Float[Tensor, " n"], loss: Float[Tensor, " n"]) -> None:
        """Learn from the losses of one whole batch, not weighted by 1 / p; from those that are finite."""
        t, loss = t[loss.isfinite()], loss[loss.isfinite()]
        bins = len(self.seen)
        k = (t.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)
        n = torch.bincount(k, minlength=bins)
        mean = torch.bincount(k, weights=loss.double().square(), minlength=bins) / n.clamp(min=1)
        self.seen += n > 0
        rate = (n > 0) / self.seen.clamp(1, self.horizon)
        self.second_moment += rate * (mean - self.second_moment)

    def state_dict(self) -> dict[str, Tensor]:
        return {"second_moment": self.second_moment, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.second_moment, self.seen = state["second_moment"].clone(), state["seen"].clone()
