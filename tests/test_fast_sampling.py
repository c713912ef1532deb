"""The fastest way of a network in sampling; recordings are tested in test_cuda.py."""

import time

import pytest
import torch
from torch import nn

from diffusion import fast_sampling
from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.evaluation import generation
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.fast_sampling import fast
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.models.attention import keys_kept
from diffusion.models.dit import DiT
from diffusion.models.identity import Identity
from diffusion.models.unet import UNet
from diffusion.parameterizations import V
from diffusion.schedules import Cosine


class Slow(nn.Module):
    """Knows its own compiled versions by name."""

    recordable = True

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.passes = []

    def forward(self, x, label, cond):
        self.passes.append("plain")
        time.sleep(0.01)
        return self.scale * x

    def right(self, x, label, cond):
        self.passes.append("right")
        return self.scale * x

    def wrong(self, x, label, cond):
        self.passes.append("wrong")
        return 0.4 * x

    def slower(self, x, label, cond):
        self.passes.append("slower")
        time.sleep(0.05)
        return self.scale * x


@pytest.mark.parametrize(("version", "taken"), [("right", True), ("wrong", False), ("slower", False)])
def test_a_compiled_network_is_taken_where_it_is_right_and_faster(version, taken, monkeypatch):
    denoiser = Denoiser(Slow(), Cosine(), V())
    monkeypatch.setattr(torch, "compile", lambda network, **options: getattr(network, version))
    x, t = torch.randn(2, 3, 4, 4), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad(), fast(denoiser) as network:
        expected = denoiser.predict(x, t)
        network.try_compiled()
        for _ in range(2):
            assert torch.equal(denoiser.predict(x, t), expected)
        denoiser.network.passes.clear()
        denoiser.predict(x, t)
        assert denoiser.network.passes == [version if taken else "plain"]
        denoiser.predict(x[:1], t)  # another shape was not tried: it would compile anew
        assert denoiser.network.passes[-1] == "plain"
    assert denoiser.fast is None


def test_a_compiler_that_fails_costs_nothing_that_was_drawn(monkeypatch, caplog):
    def broken(*inputs):
        raise RuntimeError("no compiler here")

    denoiser = Denoiser(Slow(), Cosine(), V())
    monkeypatch.setattr(torch, "compile", lambda network, **options: broken)
    x, t = torch.randn(2, 3, 4, 4), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad(), fast(denoiser) as network:
        expected = denoiser.predict(x, t)
        network.try_compiled()
        assert torch.equal(denoiser.predict(x, t), expected)
    assert "no compiler here" in caplog.text


def test_with_gradients_and_without_the_networks_word_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    denoiser = Denoiser(Slow(), Cosine(), V())
    x, t = torch.randn(2, 3, 4, 4), torch.tensor(0.5, dtype=torch.float64)
    with fast(denoiser) as network:
        denoiser.predict(x, t).sum().backward()
        assert denoiser.network.scale.grad is not None and not network.ways
        monkeypatch.setattr(Slow, "recordable", False)
        with torch.no_grad():
            denoiser.predict(x, t)
        network.try_compiled()
        assert not network.untried


def test_it_ends_with_an_error_too_and_nests():
    denoiser = Denoiser(Slow(), Cosine(), V())
    with pytest.raises(KeyboardInterrupt), fast(denoiser) as outer:
        with fast(denoiser) as inner:
            assert inner is outer
        assert denoiser.fast is outer
        raise KeyboardInterrupt
    assert denoiser.fast is None


@pytest.mark.parametrize(("worth", "tried"), [(0.0, True), (1e9, False)])
def test_many_pictures_are_worth_a_try_and_few_are_not(worth, tried, monkeypatch):
    monkeypatch.setattr(generation, "WORTH_TRYING", worth)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: compiled.append(network) or network.right)
    model = LatentDiffusion(Identity(), None, Denoiser(Slow(), Cosine(), V()), (3, 4, 4))
    pictures = generate_many(model, pictures_of([""] * 7, 0), Sampling(steps=3), batch=2)
    alone = generate_many(model, pictures_of([""] * 7, 0), Sampling(steps=3), batch=7)
    assert torch.equal(pictures, alone)
    assert bool(compiled) == tried


@pytest.mark.slow
@pytest.mark.parametrize("network", [
    UNet(3, widths=[32, 64], blocks_per_level=1, self_attention=[False, True], cross_attention=[False, True],
         heads_dim=32, context_dim=16),
    DiT(3, patch=2, width=64, depth=2, heads=2, context_dim=16)], ids=["unet", "dit"])
def test_our_networks_compile_to_the_same_function_prompt_after_prompt(network, monkeypatch, compilable):
    monkeypatch.setattr(fast_sampling, "timed", lambda way, *inputs: (way(*inputs), next(seconds)))
    seconds = iter([1.0, 0.5])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    denoiser, t = Denoiser(network.eval(), Cosine(), V()), torch.tensor(0.5, dtype=torch.float64)
    x, first, second = torch.randn(2, 3, 8, 8), *(Conditioning(tokens) for tokens in torch.randn(2, 2, 5, 16))
    with torch.no_grad(), fast(denoiser) as ways, keys_kept(network) as keys:
        plain = [denoiser.predict(x, t, cond) for cond in (first, second)]
        ways.try_compiled()
        compiled = [denoiser.predict(x, t, cond) for cond in (first, second)]
        assert next(seconds, None) is None
        for _, _, values in (one for _, kept in keys for one in kept.values()):
            values.zero_()
        unlike = denoiser.predict(x, t, second)  # it reads what was kept
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(unlike, plain[1], rtol=1e-2, atol=1e-2)
