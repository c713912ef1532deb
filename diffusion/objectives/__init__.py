"""Losses, one number per sample: functions of tensors, or modules where a loss has parameters of its own."""

from diffusion.objectives.diffusion import diffusion_loss
from diffusion.objectives.hybrid import Hybrid
from diffusion.objectives.uncertainty import Uncertainty

__all__ = ["Hybrid", "Uncertainty", "diffusion_loss"]
