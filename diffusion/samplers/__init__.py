"""From noise to data: generators (denoise, schedule, x, ts, noise) -> Step, one file per paper.

Progress bars, previews and early stops are `for step in sampler(...)` at the caller; the last x is the end.
"""

from diffusion.samplers.adaptive import adaptive
from diffusion.samplers.ddim import ddim
from diffusion.samplers.ddpm import ddpm, ddpm_large, ddpm_learned
from diffusion.samplers.deis import deis
from diffusion.samplers.dpm_solver import dpmpp_2m, dpmpp_2s, dpmpp_3m, sde_dpmpp_2m
from diffusion.samplers.heun import edm, heun
from diffusion.samplers.unipc import unipc

__all__ = ["adaptive", "ddim", "ddpm", "ddpm_large", "ddpm_learned", "deis", "dpmpp_2m", "dpmpp_2s", "dpmpp_3m", "edm",
           "heun", "sde_dpmpp_2m", "unipc"]
