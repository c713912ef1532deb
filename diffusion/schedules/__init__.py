"""q(x_t | x_0): how data turns to noise. Start reading in `base`."""

from diffusion.schedules.base import NoiseSchedule, per_sample
from diffusion.schedules.ddpm import Cosine, Linear, ScaledLinear
from diffusion.schedules.path import Path
from diffusion.schedules.table import Table

__all__ = ["Cosine", "Linear", "NoiseSchedule", "Path", "ScaledLinear", "Table", "per_sample"]
