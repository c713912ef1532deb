"""One training step of our U-Net against diffusers' with the same architecture, weights, batch and 77 tokens.

    python -m benchmarks.train_step [--size tiny|small|base] [--batch 64] [--rounds 5] [--device auto]

A setting counts only if each parameter's gradient agrees with that of the same network in eager float32: a compiler can
drop gradients without a word. (diffusers' U-Net, compiled in bf16 on a CPU, was seen to lose those before each
upsampling, on other machines than those of the results.)
"""

import argparse
import copy
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import diffusers_unet
from benchmarks.record import record, rounded
from benchmarks.timing import convolution_rate, in_turn, matmul_rate, say
from diffusion.acceleration import Acceleration, choose
from diffusion.compiling import WRONG, accelerate
from diffusion.conditioning import Conditioning
from diffusion.machine import has_fast_bf16
from diffusion.memory import keep_freed_memory
from diffusion.models.unet import UNet
from diffusion.sampling import device_named

SMALL = {"widths": [128, 256], "blocks_per_level": 2, "self_attention": [True, True], "cross_attention": [True, True],
         "heads_dim": 32, "context_dim": 512}
BASE = {"widths": [128, 256, 384], "blocks_per_level": 2, "self_attention": [False, True, True],
        "cross_attention": [False, True, True], "heads_dim": 64, "context_dim": 512}
TINY = {"widths": [64], "blocks_per_level": 1, "self_attention": [True], "cross_attention": [True],
        "heads_dim": 32, "context_dim": 32}
# the network and the side of the latents, which have 4 channels; tiny only tries the machinery
SIZES = {"tiny": (TINY, 8), "small": (SMALL, 16), "base": (BASE, 32)}
TOKENS = 77

KINDS = {  # of operations on a CPU, or of kernels on a CUDA device, by their name in the profile; the first that fits
    "optimizer": r"adam|Optimizer|multi_tensor", "attention": r"attention|flash|fmha|sdpa|dot_do|convert_dq",
    "normalisation and activation": r"norm|var_mean|(triton|cpp)_.*silu", "softmax": r"softmax",
    "other compiled kernels": r"[Cc]ompiled|cpp_fused|triton|inductor",
    "convolution": r"conv|fprop|dgrad|wgrad|cudnn|cask",
    "matrix product": r"mm$|matmul|linear|gemm|einsum|nvjet|cutlass|cublas|splitK",
}


@dataclasses.dataclass
class Contestant:
    """A network in one setting, and what calls it: network, x, label, tokens -> y."""

    network: nn.Module
    call: Callable[..., Tensor]
    plan: Acceleration

    def __post_init__(self):
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.0, fused=True)  # moves nothing

    def forward(self, x: Tensor, label: Tensor, tokens: Tensor) -> Tensor:
        with self.plan.autocast(x.device):
            return self.call(self.network, x.contiguous(memory_format=self.plan.memory_format), label, tokens)

    def gradients(self, inputs: tuple[Tensor, ...], weight: Tensor) -> dict[str, Tensor]:
        self.network.zero_grad(set_to_none=True)
        (self.forward(*inputs).float() * weight).mean().backward()
        return {name: p.grad.float().clone() for name, p in self.network.named_parameters() if p.grad is not None}

    def step(self, inputs: tuple[Tensor, ...], target: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        (self.forward(*inputs).float() - target).square().mean().backward()
        self.optimizer.step()


def ours(network: nn.Module, x: Tensor, label: Tensor, tokens: Tensor) -> Tensor:
    return network(x, label, Conditioning(tokens))


def theirs(network: nn.Module, x: Tensor, label: Tensor, tokens: Tensor) -> Tensor:
    return network(x, label, encoder_hidden_states=tokens).sample


def planned(network: nn.Module, plan: Acceleration) -> Contestant:
    """A copy of diffusers' network in this setting, right or wrong."""
    network = copy.deepcopy(network)
    if plan.channels_last:
        network.to(memory_format=torch.channels_last)
    if plan.compile:
        plan.compile_in_place(network)
    return Contestant(network, theirs, plan)


def jittered(network: nn.Module) -> nn.Module:
    """Layers that start at zero would hide the gradients before them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def agreement(gradients: dict[str, Tensor], reference: dict[str, Tensor]) -> dict[str, float]:
    """The worst relative error of a parameter's gradient, and the share of all weights whose gradient is lost."""
    total = torch.stack([g.norm() for g in reference.values()]).norm()
    gradients = {name: gradients.get(name, torch.zeros_like(g)) for name, g in reference.items()}
    errors = {name: ((gradients[name] - g).norm() / g.norm().clamp(min=1e-2 * total)).item()
              for name, g in reference.items()}
    lost = sum(g.numel() for name, g in reference.items() if gradients[name].norm() < 1e-3 * g.norm())
    return {"worst": max(errors.values(), key=lambda e: e if e == e else float("inf")),
            "lost": lost / sum(g.numel() for g in reference.values())}


def by_kind(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """The share of a step's time that each kind of operation takes."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as recorded:
        for _ in range(2):
            step()
    spent: Counter = Counter()
    for event in recorded.key_averages():
        if cuda and event.device_type != DeviceType.CUDA:
            continue  # what launches a kernel is said to have taken its time
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key)), "element-wise and rest")
        spent[kind] += event.self_device_time_total if cuda else event.self_cpu_time_total
    return {kind: time / spent.total() for kind, time in spent.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    keep_freed_memory()
    device = device_named(asked.device)
    config, side = SIZES[asked.size]

    torch.manual_seed(0)
    network = jittered(UNet(4, **config)).to(device)
    peer = diffusers_unet(network, config).to(device).train()
    inputs = (torch.randn(asked.batch, 4, side, side, device=device), 1000 * torch.rand(asked.batch, device=device),
              torch.randn(asked.batch, TOKENS, config["context_dim"], device=device))
    target, weight = torch.randn_like(inputs[0]), torch.randn_like(inputs[0])

    fast = "bf16-mixed" if has_fast_bf16(device) else "32"
    plans = [Acceleration("32"), Acceleration("32", compile=True), Acceleration("bf16-mixed"),
             Acceleration("bf16-mixed", channels_last=True),
             Acceleration("bf16-mixed", channels_last=True, compile=True)]
    if device.type == "cuda":
        quick = Acceleration("bf16-mixed", channels_last=True)
        plans = [Acceleration("32"), quick, dataclasses.replace(quick, compile=True, graphs=True)]
    elif fast == "32":
        plans = [Acceleration("32"), Acceleration("32", channels_last=True), Acceleration("32", compile=True)]
    reference = Contestant(network, ours, Acceleration()).gradients(inputs, weight)
    fast = accelerate(network, lambda: (*inputs[:2], Conditioning(inputs[2])),
                      choose("auto", "auto", device), passes=math.inf)
    mine, default = f"ours, {fast}", f"diffusers, {plans[0]}"
    contestants = {f"diffusers, {plan}": planned(peer, plan) for plan in plans}
    contestants[mine] = Contestant(network, ours, fast)

    expected = contestants[default].gradients(inputs, weight)
    gradients = {}
    for name, contestant in contestants.items():
        for _ in range(3 if contestant.plan.graphs else 1):  # it runs, is recorded, is replayed
            found = contestant.gradients(inputs, weight)
        gradients[name] = agreement(found, reference if name == mine else expected)
        say(f"{name}: gradients {gradients[name]}")

    times = in_turn({name: lambda c=c: c.step(inputs, target) for name, c in contestants.items()}, asked.rounds, device,
                    repeats=10 if device.type == "cuda" else 1)
    with FlopCounterMode(display=False) as counter:
        contestants[default].step(inputs, target)
    peak, product = convolution_rate(device), matmul_rate(device) if device.type == "cuda" else None
    right = {name: t for name, t in times.items() if name != mine and gradients[name]["worst"] < WRONG}
    best = min(right, key=right.get)
    record(f"train_step_{asked.size}_{device.type}", rounded({
        "vs_default": times[default] / times[mine], "vs_best": times[best] / times[mine],
        **({} if product else {"share_of_conv_peak": counter.get_total_flops() / times[mine] / 1e9 / peak}),
        "ours": mine, "default": default, "best": best, "batch": asked.batch, "side": side, "tokens": TOKENS,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop_per_step": counter.get_total_flops() / 1e9, "convolution_gflop_per_second": peak,
        "gflop_per_second": counter.get_total_flops() / times[mine] / 1e9,
        "images_per_second": {name: asked.batch / t for name, t in times.items()},
        "gradients": gradients, "profile": by_kind(lambda: contestants[mine].step(inputs, target), device),
        **({"model_flop_utilisation": counter.get_total_flops() / times[mine] / 1e9 / product,
            "matmul_gflop_per_second": product} if product else {}),
    }), device)


if __name__ == "__main__":
    main()
