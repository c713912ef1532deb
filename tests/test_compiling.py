"""The fast setting is the plain one, only faster; and a compiler that drops gradients is caught."""

import time

import pytest
import torch
from einops import rearrange, repeat
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from diffusion.acceleration import Acceleration, compiler, cpu_code
from diffusion.compiling import accelerate, gradient_error
from diffusion.conditioning import Conditioning
from diffusion.models.unet import UNet


class Slow(nn.Module):
    """A network that takes a while, and another while when it is "compiled"; it counts compilations."""

    def __init__(self, eager: float, compiled: float):
        super().__init__()
        self.layer, self.seconds, self.compilations = nn.Linear(4, 2), (eager, compiled), 0

    def compile(self, **options):
        self.compilations += 1

    def forward(self, x):
        time.sleep(self.seconds[self.compilations > 0])
        return self.layer(x)


INPUT = (torch.randn(16, 4),)
CANDIDATE = Acceleration(compile=True)


@pytest.mark.parametrize("passes", [4, 10_000])
def test_short_trainings_are_not_compiled(passes):
    network = Slow(0.01, 0.001)
    assert not accelerate(network, lambda: INPUT, CANDIDATE, passes=passes).compile
    assert network.compilations == 0


def test_a_compiled_network_that_is_slower_is_left_and_remembered(tmp_path, caplog):
    caplog.set_level("INFO")
    assert not accelerate(Slow(0.002, 0.02), lambda: INPUT, CANDIDATE, tmp_path, passes=1e6).compile
    assert "slower" in caplog.text
    again = Slow(0.002, 0.02)
    assert not accelerate(again, lambda: INPUT, CANDIDATE, tmp_path, passes=1e6).compile
    assert again.compilations == 0
    assert accelerate(again, lambda: INPUT, CANDIDATE, tmp_path).compile  # what was asked for, or decided before


def test_a_compiled_network_that_is_faster_is_kept(tmp_path):
    assert accelerate(Slow(0.02, 0.002), lambda: INPUT, CANDIDATE, tmp_path, passes=1e6).compile
    assert accelerate(Slow(0.02, 0.002), lambda: INPUT, CANDIDATE, tmp_path, passes=1e6).compile


class Drops(nn.Module):
    """A network whose compiled form forgets the gradient of its first layer, as a miscompiled one did."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.compiled = False

    def compile(self, **options):
        self.compiled = True

    def forward(self, x):
        h = self.first(x)
        return self.last(h.detach() + 0 * h if self.compiled else h)


def test_dropped_gradients_are_seen_and_the_network_stays_eager(tmp_path, caplog):
    caplog.set_level("INFO")
    x = (torch.randn(16, 4),)
    assert gradient_error(Drops(), x, Acceleration())[0] == pytest.approx(1.0)
    got = accelerate(Drops(), lambda: x, Acceleration(compile=True), tmp_path)
    assert not got.compile and "uncompiled" in caplog.text
    again = accelerate(Drops(), lambda: x, Acceleration(compile=True), tmp_path)
    assert not again.compile


class Breaks(Drops):
    """A network that no compiler takes."""

    def forward(self, x):
        if self.compiled:
            raise RuntimeError
        return super().forward(x)


def test_without_a_compiler_a_network_stays_eager_with_its_weights_and_is_tried_again(tmp_path, caplog):
    caplog.set_level("INFO")
    network, x = Breaks(), (torch.randn(16, 4),)
    before = {name: p.clone() for name, p in network.state_dict().items()}
    assert not accelerate(network, lambda: x, Acceleration(compile=True), tmp_path).compile
    assert "not to be had (RuntimeError())" in caplog.text and not list(tmp_path.iterdir())
    assert all(torch.equal(before[name], p) for name, p in network.state_dict().items())


@pytest.mark.slow
def test_compiled_gradients_of_a_real_network_are_right_and_its_weights_are_kept(compilable):
    torch.manual_seed(0)
    network = UNet(4, widths=[32, 32], blocks_per_level=1, self_attention=[False, True], cross_attention=[False, True],
                   heads_dim=16, context_dim=16, pooled_dim=16, norm_groups=8)
    before = {name: p.clone() for name, p in network.state_dict().items()}
    example = (torch.randn(4, 4, 8, 8), torch.linspace(0, 999, 4),
               Conditioning(torch.randn(4, 6, 16), pooled=torch.randn(4, 16)))
    worst, name = gradient_error(network, example, Acceleration(compile=True))
    assert worst < 1e-3, name
    assert all(torch.equal(before[name], p) for name, p in network.state_dict().items())


class NormalisedHeads(nn.Module):
    """Attention whose keys and queries are normalised head by head: its gradients became NaN, see `cpu_code`."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, 64) for _ in "qkv")
        self.norm = nn.RMSNorm(32)

    def forward(self, x):
        q, k, v = (rearrange(layer(x), "b n (h c) -> b h n c", h=2) for layer in (self.q, self.k, self.v))
        q, k = (self.norm(y.float()).to(y.dtype) for y in (q, k))
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v


@pytest.mark.slow
@pytest.mark.skipif(not cpu_code(), reason="the compiler's options cannot be chosen here")
def test_the_compiler_transposes_bfloat16_rightly(compilable):
    torch.manual_seed(0)
    worst, name = gradient_error(NormalisedHeads(), (torch.randn(8, 64, 64),), Acceleration("bf16-mixed", compile=True))
    assert worst < 0.05, name


def test_a_rearrangement_is_one_operation_to_the_compiler():
    """Followed line by line, einops' parser takes most of the time of tracing a network."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def heads(x):
        return rearrange(repeat(x, "b n -> b n two", two=2), "b (h c) two -> b h c two", h=4)

    x, settings = torch.randn(3, 8), compiler()
    assert torch.equal(torch.compile(heads, backend=keep, dynamic=settings["dynamic"])(x), heads(x))
    assert [node.target for node in graphs[0].graph.nodes if node.op == "call_function"] == [repeat, rearrange]


def times(factor: float) -> torch.Tensor:
    """The gradient, compiled, of a function whose written-out gradient is the factor."""
    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sin()

        @staticmethod
        def backward(ctx, dy):
            return factor * dy

    torch._dynamo.reset()
    x = torch.ones(4, requires_grad=True)
    torch.compile(lambda x: Written.apply(x) + 1, **compiler())(x).sum().backward()
    return x.grad


@pytest.mark.slow
def test_what_is_kept_between_runs_is_told_by_its_written_out_gradient():
    with fresh_cache():
        counters.clear()
        for factor in 2.0, 3.0, 2.0:
            assert torch.equal(times(factor), torch.full((4,), factor))
        assert counters["aot_autograd"]["autograd_cache_miss"] == 2
        assert counters["aot_autograd"]["autograd_cache_hit"] == 1
