"""From noise to data: generators (denoise, schedule, x, ts, noise) -> Step, one file per paper.

Progress bars, previews and early stops are `for step in sampler(...)` at the caller; the last x is the end.
"""

from diffusion.samplers.ddim import ddim
from diffusion.samplers.ddpm import ddpm, ddpm_large

__all__ = ["ddim", "ddpm", "ddpm_large"]
