"""Moving averages of a module's parameters. Start reading in `average`; each kind is a law for the decay.

    EMA          a constant decay, after a warm-up
    HalfLifeEMA  a half-life counted in pictures
    PowerEMA     power functions of the time trained, from which `post_hoc` makes other widths after training
"""

from diffusion.ema.average import Average
from diffusion.ema.half_life import HalfLifeEMA
from diffusion.ema.power import PowerAverage, PowerEMA, gamma_of, sigma_rel_of
from diffusion.ema.warmup import EMA

__all__ = ["EMA", "Average", "HalfLifeEMA", "PowerAverage", "PowerEMA", "gamma_of", "sigma_rel_of"]
