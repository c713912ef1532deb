"""Losses: pure functions of tensors, one number per sample."""

from diffusion.objectives.diffusion import diffusion_loss

__all__ = ["diffusion_loss"]
