"""Where an optimizer's moments lie in memory."""

import torch


def lay_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Moments that lie in memory as their parameters do: torch's fused kernels walk both alike, and a run that goes on
    may have its weights in another memory format."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
