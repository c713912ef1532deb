"""Many small kernels as one launch, where Python hands them over more slowly than a CUDA device works them off."""

from collections.abc import Callable

import torch
from torch import Tensor

WARMUP = 2  # calls before the recording: libraries choose their kernels in the first


class Replayed:
    """A function of CUDA tensors of fixed shapes that returns nothing, draws nothing and works in place on others that
    stay where they are: recorded as a CUDA graph at its third call. It keeps a copy of its inputs, and the memory of
    what it computes between."""

    def __init__(self, function: Callable[..., None]):
        self.function, self.calls = function, 0
        self.inputs: list[Tensor] = []
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> None:
        self.calls += 1
        if self.calls <= WARMUP:
            self.function(*inputs)
            return
        if self.graph is None:
            self.inputs, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
            # a stream of its own, for torch's lies on the device of the first recording; only this thread's calls count
            with torch.cuda.device(inputs[0].device), torch.cuda.graph(
                    graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
                self.function(*self.inputs)
            self.graph = graph
        torch._foreach_copy_(self.inputs, inputs)
        self.graph.replay()
