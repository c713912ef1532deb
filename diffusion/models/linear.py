"""A linear layer whose bias is added by what comes after it, where it is compiled for a CPU: a matrix product with a
bias would first write it to every row, and then read it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def linear(x: Float[Tensor, "*b n"], weight: Float[Tensor, "m n"], bias: Float[Tensor, " m"]) -> Float[Tensor, "*b m"]:
    """weight x + bias"""
    if x.device.type == "cpu" and torch.compiler.is_compiling():
        y = F.linear(x, weight)
        return y + bias.to(y.dtype)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """torch's."""

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        return linear(x, self.weight, self.bias)
