"""An exponential moving average whose memory is counted in pictures, whatever the batch (Karras et al. 2022).

    beta_t = 0.5^(batch / h),    h = min(half_life_images, ramp n),    n = (t - 1) batch pictures seen before

So the last h pictures hold half of the weight. While the ramp lasts, what was seen by n_0 has the weight
(n_0 / n)^(ln 2 / ramp) at n: a power function (see `power`), and the initial weights are forgotten at once.
"""

from torch import nn

from diffusion.ema.average import Average


class HalfLifeEMA(Average):
    """The last half_life_images pictures hold half of the weight.

    batch  pictures of one update, over all processes and passes
    ramp   largest half-life as a share of the pictures seen; None: none
    """

    def __init__(self, module: nn.Module, *, batch: int, half_life_images: float = 500_000, ramp: float | None = 0.05):
        super().__init__(module)
        if half_life_images <= 0 or (ramp is not None and ramp <= 0):
            raise ValueError(f"half_life_images = {half_life_images} and ramp = {ramp}: both must be above 0 "
                             "(ramp: null for none)")
        self.batch, self.half_life_images, self.ramp = batch, half_life_images, ramp
        self.facts = {"half_life_images": half_life_images, "ramp": ramp}

    def beta(self, t: int) -> float:
        seen = (t - 1) * self.batch
        half_life = self.half_life_images if self.ramp is None else min(self.half_life_images, self.ramp * seen)
        return 0.5 ** (self.batch / half_life) if half_life else 0.0
