"""Backbones with random weights, what they are given, and the gradients that come of it."""

import torch

from diffusion.conditioning import Conditioning


def randomised(network):
    """Zero-initialised layers would hide mistakes: every parameter is drawn."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(std=0.3)
        for name, parameter in network.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter += 1
    return network


def inputs(network, batch=2, size=8, dtype=torch.float32):
    torch.manual_seed(1)
    x = torch.randn(batch, network.channels, size, size, dtype=dtype)
    label = torch.tensor([3.0, 700.5], dtype=dtype).repeat(batch // 2)
    tokens = torch.randn(batch, 5, network.context_dim, dtype=dtype) if network.context_dim else None
    pooled = torch.randn(batch, network.pooled_dim, dtype=dtype) if network.pooled_dim else None
    return x, label, Conditioning(tokens, None, pooled)


def gradients(forward, network, weight, told):
    network.zero_grad()
    y = forward(*told)
    (y.float() * weight).sum().backward()
    return y.detach().float(), {name: p.grad.clone() for name, p in network.named_parameters()}
