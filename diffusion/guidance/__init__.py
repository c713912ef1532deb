"""Guidance makes what a sampler calls of a denoiser and two conditionings: (denoiser, cond, null) -> Denoise, one file
per paper. From a good and a bad estimate of x_0 it goes on past the good one:

    x_0 = x_0(bad) + w (x_0(good) - x_0(bad))        w = 1: off

A Denoise serves one sampling: what a method remembers from step to step is inside it. `cond` and `null` are None where
the model knows no captions.
"""

from diffusion.guidance.apg import apg
from diffusion.guidance.autoguidance import autoguidance
from diffusion.guidance.cfg_pp import cfg_pp
from diffusion.guidance.classifier_free import classifier_free
from diffusion.guidance.thresholding import thresholded

__all__ = ["apg", "autoguidance", "cfg_pp", "classifier_free", "thresholded"]
