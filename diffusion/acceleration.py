"""The fast setting of networks on this machine: bf16, channels_last, torch.compile. `compiling` tries the last."""

import dataclasses
import logging
import platform
import shutil
import sys

import einops
import torch
from torch import nn

from diffusion.machine import has_fast_bf16

log = logging.getLogger(__name__)
DTYPES = {"32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclasses.dataclass(frozen=True)
class Acceleration:
    """What a probe of the machine decided; kept in plan.yaml and obeyed on resume."""

    precision: str = "32"
    channels_last: bool = False
    compile: bool = False
    graphs: bool = False  # CUDA graphs of what is compiled: one launch for all kernels of a pass

    @property
    def dtype(self) -> torch.dtype:
        """The type that autocast computes in."""
        return DTYPES[self.precision]

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which networks run; everything else stays in float32."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype is not torch.float32)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return ", ".join([self.precision, *(["channels_last"] if self.channels_last else []),
                          "compiled" if self.compile else "eager", *(["CUDA graphs"] if self.graphs else [])])

    def uncompiled(self, device: torch.device) -> "Acceleration":
        """The same for eager networks: on a CPU without channels_last, in which their normalisation is slow."""
        return dataclasses.replace(self, compile=False, graphs=False,
                                   channels_last=self.channels_last and device.type == "cuda")

    def compile_in_place(self, network: nn.Module) -> None:
        network.compile(**compiler(self.graphs))


def compiler(graphs: bool = False) -> dict[str, object]:
    """What torch.compile is given: for one size of batch, in right and fast code, traced quickly."""
    trace_quickly()
    return {"dynamic": False, **({"mode": "reduce-overhead"} if graphs else {"options": cpu_code()})}


def trace_quickly() -> None:
    """Each rearrangement is one operation to the compiler: torch 2.13 would follow einops' parser through every call,
    most of its tracing. And a trace with written-out gradients (autograd.Function) is kept between runs."""
    import torch._functorch.config

    for operation in (einops.rearrange, einops.repeat):
        torch.compiler.allow_in_graph(operation)
    torch._functorch.config.autograd_cache_allow_custom_autograd_functions = True


def cpu_code() -> dict[str, str]:
    """Options for the compiler of a CPU's code, with one instruction for a product and a sum. GCC 12, where it clones
    functions for constant arguments (-O3), breaks the transposition of 32 x 32 numbers in bf16 within some kernels: NaN
    in gradients (torch 2.13, AVX512)."""
    from torch._inductor import list_options  # slow to import

    if (sys.platform, platform.machine()) != ("linux", "x86_64") or "cpp.march" not in list_options():
        return {}
    return {"cpp.march": "native -fno-ipa-cp-clone -ffp-contract=fast"}


COMPILERS = "c++", "g++", "clang++"


def choose(precision: str | int, compile: bool | str, device: torch.device) -> Acceleration:
    """`precision` is auto, 32, bf16-mixed or 16-mixed; `compile` is auto, true or false. Auto asks to try.

    Raises ValueError for another value, and for a precision that the device does not have.
    """
    if compile not in ("auto", True, False):
        raise ValueError(f"compile = {compile}: allowed are auto, true and false")
    fast, precision = has_fast_bf16(device), str(precision)
    if precision == "auto":
        precision = "bf16-mixed" if fast else "32"
    if precision not in DTYPES:
        raise ValueError(f"precision = {precision}: allowed are auto, {', '.join(DTYPES)}")
    if precision == "16-mixed" and device.type != "cuda":
        raise ValueError(f"precision = 16-mixed needs a CUDA device, this is {device.type}: take bf16-mixed or 32")
    cuda = device.type == "cuda"
    if compile == "auto":
        compiler = cuda or any(map(shutil.which, COMPILERS))
        if fast and not compiler:
            log.info("no C++ compiler: networks run uncompiled")
        compile = fast and precision != "32" and compiler
    # uncompiled on a CPU, normalisation is slow in channels_last
    return Acceleration(precision, fast and precision != "32" and (bool(compile) or cuda), bool(compile),
                        bool(compile) and cuda)
