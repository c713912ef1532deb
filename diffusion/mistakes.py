"""Errors whose message is all that the user needs: what, where, and what is allowed."""

from diffusion.checkpoint import BadModelFile
from diffusion.config import ConfigError
from diffusion.data.captioned import DataUnavailable
from diffusion.runs import CannotResume
from diffusion.training.finite import NonFinite

MISTAKES = (ConfigError, BadModelFile, DataUnavailable, CannotResume, NonFinite, OSError, ValueError)
