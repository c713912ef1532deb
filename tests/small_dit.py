"""Transformers of a few channels with random weights, and inputs for them."""

import torch

from diffusion.conditioning import Conditioning
from diffusion.models.dit import DiT
from tests.networks import inputs, randomised

SMALL = {"patch": 2, "width": 16, "depth": 2, "heads": 4, "context_dim": 12}
CONFIGS = {
    "text": SMALL,
    "no text": SMALL | {"context_dim": None},
    "pooled only": SMALL | {"context_dim": None, "pooled_dim": 10},
    "all of it": SMALL | {"patch": 1, "pooled_dim": 10, "qk_norm": True, "mlp_ratio": 2.5, "out_channels": 8},
}
MASK = torch.tensor([[True, True, False, False, False], [True, True, True, True, False]])


def told(network, height=4, width=8, dtype=torch.float64):
    """Two pictures that are not square, two times, all that the network can hear, and a mask."""
    x, label, cond = inputs(network, size=8, dtype=dtype)
    mask = MASK if network.context_dim else None
    return x[:, :, :height, :width], label, Conditioning(cond.tokens, mask, cond.pooled)


def made(**config):
    torch.manual_seed(0)
    return randomised(DiT(4, **config)).double()
