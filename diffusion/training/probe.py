"""How long an update takes on this machine."""

import time

import torch

from diffusion.compiling import as_one
from diffusion.training.base import Training


def seconds_per_update(training: Training, repeats: int = 5) -> float:
    """Of forwards, backwards, clipping and the optimizer, whose learning rate is 0 here: the weights stay what they
    are. For trainings of one network."""
    network, example = training.accelerated()
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = training.optimizer_of(learning)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    device = next(network.parameters()).device

    def update() -> float:
        start = time.perf_counter()
        for _ in range(training.accumulate):
            with training.acceleration.autocast(device):
                out = as_one(network(*inputs))
            out.float().square().mean().backward()
        training.clipped(learning, optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    inputs = example()
    for _ in range(4 if device.type == "cuda" else 1):  # it compiles and finds its memory, is recorded, and replayed
        update()
    return sorted(update() for _ in range(repeats))[repeats // 2]
