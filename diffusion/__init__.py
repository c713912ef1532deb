"""Train text-to-image diffusion models from scratch. The notation, once, for every file:

    pixels --autoencoder--> z = x_0 --schedule--> x_t = alpha_t x_0 + sigma_t eps --network--> y = a_t x_0 + b_t eps
                                              text --CLIP--> tokens ---^     parameterization: y -> x_0
    noise --sampler--> x_0 --autoencoder--> pixels                           guidance: two denoisings -> one

    t               0 = data, 1 = noise; a step goes from t to s < t (flow-matching papers run the other way; DDPM's
                    step i is t = i / T)
    alpha_t sigma_t x_t = alpha_t x_0 + sigma_t eps (DDPM's alpha_t is 1 - beta_t, DDIM's is alpha-bar; ours is
                    sqrt(alpha-bar))
    log_snr, l      log(alpha_t^2 / sigma_t^2): +inf at t = 0, -inf allowed at t = 1 (DPM-Solver's lambda is half of
                    it; EDM's ln sigma is minus half of it, at alpha = 1)
    eps, v, u       noise; v = alpha eps - sigma x_0 (Salimans & Ho); u = alpha' x_0 + sigma' eps (flow matching)
    x0              what every denoiser returns its estimate of (EDM writes D(x; sigma))
    w               guidance x0(null) + w (x0(c) - x0(null)); 1 = off (Ho & Salimans' w is our w - 1)

Begin in `schedules/base.py`. Public names load when they are first used.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "Conditioning": "conditioning", "Denoiser": "denoiser", "EMA": "ema", "LatentDiffusion": "latent",
    "NoiseSchedule": "schedules", "Sampling": "latent", "classifier_free": "guidance", "ddim": "samplers",
    "ddpm": "samplers", "diffusion_loss": "objectives.diffusion", "load": "checkpoint", "load_model": "loading",
    "load_sampling": "loading",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
