"""Sampling as fast as the machine allows: the same pass of a network, thousands of times.

On a CUDA device a pass is recorded once and then replayed: a step of sampling is hundreds of small kernels, and Python
hands them over more slowly than the device works them off. Where much is left to draw, the network is compiled too, if
that is measured to be faster; pictures stay what they are, up to rounding.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.acceleration import compiler
from diffusion.compiling import first_line
from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.models.attention import keys_kept, keys_told, refresh_keys
from diffusion.network import Network

log = logging.getLogger(__name__)
Pass = Callable[[Tensor, Tensor, Conditioning | None], Tensor]
WARMUP = 2  # passes before a recording: libraries choose their kernels in the first
WORTH_TRYING = 120  # seconds of drawing ahead: compiling takes half a minute, and saves a quarter to a half
WRONG = {True: 0.05, False: 1e-3}  # relative error of a compiled pass, in autocast (rounding is a hundredth) or not


class Recording:
    """network(x, label, cond) at the shapes and in the autocast of the first call, as a CUDA graph; no gradients. Keys
    and values of the tokens are computed once per prompt, outside the graph."""

    def __init__(self, network: Network, run: Pass, x: Tensor, label: Tensor, cond: Conditioning | None):
        self.told = cond
        self.x, self.label = x.clone(), label.clone()
        self.cond = None if cond is None else cond.map(torch.clone)
        # weights that autocast has cast and kept would be gone at the next replay
        inside = torch.autocast("cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), False)
        with torch.cuda.device(x.device), inside, keys_kept(network) as self.keys:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARMUP):
                    run(self.x, self.label, self.cond)
            torch.cuda.current_stream().wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=aside):  # torch's own lies on the device of the first recording
                self.y = run(self.x, self.label, self.cond)

    def __call__(self, x: Tensor, label: Tensor, cond: Conditioning | None) -> Tensor:
        if cond is not self.told:
            self.cond.zip(cond, Tensor.copy_)
            refresh_keys(self.keys)
            self.told = cond
        self.x.copy_(x)
        self.label.copy_(label)
        self.graph.replay()
        return self.y.clone()


class FastNetwork:
    """A network that picks the fastest way to run, once per shape of its inputs: recorded, compiled or neither. Under
    autograd, and if it is not `recordable`, it runs as it is."""

    def __init__(self, network: Network):
        self.network = network
        self.ways: dict[tuple, Pass] = {}
        self.untried: set[tuple] = set()

    def __call__(
        self, x: Float[Tensor, "b *d"], label: Float[Tensor, " b"], cond: Conditioning | None
    ) -> Float[Tensor, "b ..."]:
        if torch.is_grad_enabled() or not getattr(self.network, "recordable", False):
            return self.network(x, label, cond)
        parts = () if cond is None else tuple((name, v.shape) for name, v in vars(cond).items() if v is not None)
        key = x.shape, x.dtype, parts, torch.is_autocast_enabled(x.device.type)
        if key not in self.ways:
            self.ways[key] = self._way(self.network, x, label, cond)
        if key in self.untried:
            self.untried.remove(key)
            self.ways[key] = self._better(self.ways[key], x, label, cond)
        return self.ways[key](x, label, cond)

    def try_compiled(self) -> None:
        """At the next pass of every shape seen so far: taken where it is right and faster."""
        self.untried = set(self.ways)

    def _way(self, run: Pass, x: Tensor, label: Tensor, cond: Conditioning | None) -> Pass:
        if not x.is_cuda:
            return run
        with torch.cuda.stream(torch.cuda.current_stream(x.device)):  # a recording that fails leaves another one behind
            return Recording(self.network, run, x, label, cond)

    def _better(self, way: Pass, *inputs) -> Pass:
        """The compiled way, or this one."""
        autocast = torch.is_autocast_enabled(inputs[0].device.type)
        quick = torch.compile(self.network, **compiler())

        def compiled(x: Tensor, label: Tensor, cond: Conditioning | None) -> Tensor:
            with keys_told(self.network, None if cond is None else cond.tokens):
                return quick(x, label, cond)

        began = time.perf_counter()
        try:
            other = self._way(compiled, *inputs)
            other(*inputs)  # it compiles here
        except Exception as error:  # no compiler, or one that fails: what was drawn so far must not be lost
            log.warning("the network could not be compiled, it goes on uncompiled: %s", first_line(error))
            return way
        y, seconds = timed(way, *inputs)
        z, compiled_seconds = timed(other, *inputs)
        error = ((z - y).float().norm() / y.float().norm()).item()
        taken = error < WRONG[autocast] and compiled_seconds < seconds
        log.info("a pass takes %.3g s, compiled %.3g s (relative difference %.1g, tried in %.0f s): %s", seconds,
                 compiled_seconds, error, time.perf_counter() - began, "compiled" if taken else "uncompiled")
        return other if taken else way


def timed(way: Pass, x: Tensor, label: Tensor, cond: Conditioning | None) -> tuple[Tensor, float]:
    """What a pass gives, and the seconds of the quicker of two after a first."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        y = way(x, label, cond)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        seconds.append(time.perf_counter() - start)
    return y, min(seconds[1:])


@contextlib.contextmanager
def fast(denoiser: Denoiser) -> Iterator[FastNetwork]:
    """Inside, the denoiser's network runs its fastest way. Its weights must not change meanwhile."""
    if denoiser.fast is not None:
        yield denoiser.fast
        return
    denoiser.fast = FastNetwork(denoiser.network)
    try:
        yield denoiser.fast
    finally:
        denoiser.fast = None
