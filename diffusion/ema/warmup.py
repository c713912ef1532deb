"""An exponential moving average with a warm-up.

    beta_t = min(decay, t / (9 + t))

(TensorFlow's ExponentialMovingAverage). The warm-up is 1 - 9 / (9 + t): the average reaches back over a ninth of the
run, however short that is, and the initial weights are forgotten like t^-9.
"""

from torch import nn

from diffusion.ema.average import Average


class EMA(Average):
    """decay: of one update, once warm. Raises ValueError where it is no share."""

    def __init__(self, module: nn.Module, decay: float = 0.9999):
        if not 0 <= decay <= 1:
            raise ValueError(f"ema.decay = {decay}: from 0 to 1")
        super().__init__(module)
        self.decay = decay
        self.facts = {"decay": decay}

    def beta(self, t: int) -> float:
        return min(self.decay, t / (9 + t))
