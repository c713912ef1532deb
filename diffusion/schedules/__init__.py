"""q(x_t | x_0): how data turns to noise. Start reading in `base`."""

from diffusion.schedules.base import NoiseSchedule, per_sample
from diffusion.schedules.ddpm import Cosine, Linear, ScaledLinear
from diffusion.schedules.edm import EDM
from diffusion.schedules.flow import CosineFlow, RectifiedFlow
from diffusion.schedules.laplace import Laplace
from diffusion.schedules.path import Path
from diffusion.schedules.shifted import Shifted
from diffusion.schedules.sigmoid import Sigmoid
from diffusion.schedules.table import Table
from diffusion.schedules.vp_sde import ContinuousVP
from diffusion.schedules.zero_terminal import ZeroTerminal

__all__ = ["EDM", "ContinuousVP", "Cosine", "CosineFlow", "Laplace", "Linear", "NoiseSchedule", "Path", "RectifiedFlow",
           "ScaledLinear", "Shifted", "Sigmoid", "Table", "ZeroTerminal", "per_sample"]
