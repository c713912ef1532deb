"""A network made to answer the question: given x_t at time t, what were x_0 and eps?

    y = network(c_in x_t, label(t), cond),    y -> (x_0, eps) by the parameterization

Reduced precision lives inside `predict` and nowhere else: float32 comes out (float64 for float64 data).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.conditioning import Conditioning
from diffusion.estimate import Estimate
from diffusion.network import Network
from diffusion.parameterizations import Parameterization
from diffusion.schedules import NoiseSchedule, per_sample


class Denoiser(nn.Module):
    """Schedule and parameterization decide what the network is told about t, one number or one per row.

    compute_dtype  of the network's matrix products: torch.bfloat16 or torch.float16 enter autocast
    memory_format  torch.channels_last hands the network its input so
    fast           stands in for the network while pictures are drawn (`fast_sampling.fast`)
    """

    compute_dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    fast: Network | None = None

    def __init__(self, network: Network, schedule: NoiseSchedule, parameterization: Parameterization):
        super().__init__()
        parameterization.check(schedule)
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization

    def predict(
        self,
        x_t: Float[Tensor, "b *d"],
        t: Float[Tensor, ""] | Float[Tensor, " b"],
        cond: Conditioning | None = None,
    ) -> Float[Tensor, "b ..."]:
        """The network's own output: y, with f behind it in the channels where the variance is learned."""
        x = per_sample(self.parameterization.input_scale(self.schedule, t), x_t) * x_t
        if self.memory_format is torch.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        label = self.parameterization.label(self.schedule, t).float()
        label = label.to(x_t.device, non_blocking=True).expand(len(x_t))
        reduced = self.compute_dtype != torch.float32
        # an autocast from outside is switched off when none is wanted here
        with torch.autocast(x.device.type, self.compute_dtype if reduced else None, enabled=reduced):
            y = (self.fast or self.network)(x, label, cond)
        return y.to(torch.promote_types(x_t.dtype, torch.float32))

    def estimate(
        self,
        prediction: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b *d"],
        t: Float[Tensor, ""] | Float[Tensor, " b"],
    ) -> Estimate:
        """What the network's output says about x_0 and eps."""
        y, f = split(prediction, x_t)
        x0 = self.parameterization.to_x0(y, x_t, self.schedule, t)
        eps = self.parameterization.to_eps(y, x_t, self.schedule, t)
        return Estimate(x0, eps, f)

    def forward(
        self,
        x_t: Float[Tensor, "b *d"],
        t: Float[Tensor, ""] | Float[Tensor, " b"],
        cond: Conditioning | None = None,
    ) -> Estimate:
        return self.estimate(self.predict(x_t, t, cond), x_t, t)

    def beside(self, other: "Denoiser") -> "Denoiser":
        """This denoiser itself, moved to the other's device, precision and memory format."""
        self.compute_dtype, self.memory_format = other.compute_dtype, other.memory_format
        device = next((parameter.device for parameter in other.parameters()), None)
        return self.to(device=device, memory_format=self.memory_format)


def split(
    prediction: Float[Tensor, "b ..."], x: Float[Tensor, "b *d"]
) -> tuple[Float[Tensor, "b *d"], Float[Tensor, "b *d"] | None]:
    """y and f. A network that learns the variance has twice x's channels: y, then 2 f - 1 (Nichol & Dhariwal 2021)."""
    if prediction.shape == x.shape:
        return prediction, None
    y, centred = prediction.chunk(2, dim=1)
    return y, (centred + 1) / 2
