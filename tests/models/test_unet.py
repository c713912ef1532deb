"""The U-Net is diffusers' U-Net, refuses what does not fit, and keeps its gradients when compiled."""

import jaxtyping
import pytest
import torch

from benchmarks.peers import UNET, UNUSED, diffusers_unet, renamed
from diffusion.acceleration import compiler
from diffusion.conditioning import Conditioning
from diffusion.models.embeddings import sinusoidal
from diffusion.models.unet import UNet
from tests.networks import gradients, inputs, randomised

ONE = {"self_attention": [False, True], "cross_attention": [False, True]}
BOTH = {"self_attention": [True, True], "cross_attention": [True, True]}
SELF = {"cross_attention": [False, False], "context_dim": None}
SMALL = ONE | {"widths": [16, 32], "blocks_per_level": 1, "heads_dim": 8, "context_dim": 12, "norm_groups": 8}
CONFIGS = {
    "two levels": SMALL,
    "pooled": SMALL | {"pooled_dim": 10},
    "all attend, two blocks": SMALL | BOTH | {"blocks_per_level": 2},
    "self only": SMALL | SELF | {"self_attention": [True, True]},
    "self, then both": SMALL | {"self_attention": [True, True], "cross_attention": [False, True]},
    "no attention": SMALL | SELF | {"self_attention": [False, False]},
    "cross only": SMALL | {"self_attention": [False, False]},
    "three levels, as Stable Diffusion": SMALL | {
        "widths": [16, 32, 32], "blocks_per_level": 2, "self_attention": [True, True, False],
        "cross_attention": [True, True, False], "transformer_depth": 2, "out_channels": 8},
    "three widths": SMALL | {
        "widths": [8, 16, 40], "self_attention": [False, True, True],
        "cross_attention": [False, True, True], "pooled_dim": 6},
    "one level": SMALL | {"widths": [16], "self_attention": [True], "cross_attention": [True]},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_unet_is_diffusers_unet(config):
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    ours = randomised(UNet(4, **config)).double()
    theirs = diffusers_unet(ours, config).double()
    x, label, cond = inputs(ours, dtype=torch.float64)
    weight = torch.randn(len(x), ours.out_channels, *x.shape[2:], dtype=x.dtype)

    y = ours(x, label, cond)
    tokens = cond.tokens if ours.context_dim else x.new_zeros(len(x), 1, UNUSED)
    z = theirs(x, label, encoder_hidden_states=tokens, class_labels=cond.pooled).sample
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)

    (y * weight).sum().backward()
    (z * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(
            parameter.grad, gradients[renamed(name, UNET)], rtol=1e-5, atol=1e-5,
            msg=lambda m, n=name: f"{n}: {m}")


def test_mask_hides_tokens_as_diffusers_does():
    pytest.importorskip("diffusers")
    ours = randomised(UNet(4, **SMALL)).double()
    x, label, cond = inputs(ours, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False, False], [True, True, True, True, False]])
    theirs = diffusers_unet(ours, SMALL).double()
    z = theirs(x, label, encoder_hidden_states=cond.tokens, encoder_attention_mask=mask).sample
    torch.testing.assert_close(ours(x, label, Conditioning(cond.tokens, mask)), z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [8, 32, 320])
def test_sinusoidal_is_diffusers(dim):
    pytest.importorskip("diffusers")
    from diffusers.models.embeddings import Timesteps

    t = torch.linspace(0, 1000, 23)
    expected = Timesteps(dim, flip_sin_to_cos=True, downscale_freq_shift=0)(t)
    torch.testing.assert_close(sinusoidal(t, dim), expected, rtol=0, atol=1e-4)  # float32 angles up to 1000


def test_starts_at_zero():
    network = UNet(4, **SMALL)
    assert not network(*inputs(network)).any()


def test_rows_are_independent():
    network = randomised(UNet(4, **CONFIGS["pooled"])).double()
    x, label, cond = inputs(network, dtype=torch.float64)
    both = network(x, label, cond)
    alone = torch.cat([network(x[i:i + 1], label[i:i + 1], cond[i:i + 1]) for i in range(2)])
    torch.testing.assert_close(both, alone)


def test_image_is_more_channels():
    network = randomised(UNet(7, **SMALL, out_channels=4))
    x, label, cond = inputs(network)
    told = Conditioning(cond.tokens, image=x[:, 4:])
    torch.testing.assert_close(network(x[:, :4], label, told), network(x, label, cond))


def test_training_and_sampling_attend_alike():
    """With gradients attention is written out, without it is fused."""
    network = randomised(UNet(4, **SMALL)).double()
    told = inputs(network, dtype=torch.float64)
    y = network(*told)
    with torch.no_grad():
        torch.testing.assert_close(network(*told), y)


def test_gradient_checkpointing_changes_nothing():
    plain = randomised(UNet(4, **SMALL, dropout=0.2)).double()
    saving = UNet(4, **SMALL, dropout=0.2, gradient_checkpointing=True).double()
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for network in (plain, saving):
        torch.manual_seed(2)
        network(*inputs(network, dtype=torch.float64)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("change", "words"), [
    ({"self_attention": [True]}, ["backbone.self_attention has 1", "backbone.widths has 2"]),
    ({"cross_attention": [True] * 3}, ["backbone.cross_attention has 3"]),
    ({"widths": []}, ["backbone.widths is empty"]),
    ({"widths": [16, 36]}, ["backbone.widths[1] = 36", "backbone.norm_groups = 8"]),
    ({"heads_dim": 5}, ["backbone.widths[1] = 32", "backbone.heads_dim = 5"]),
    ({"context_dim": None}, ["backbone.context_dim is null"]),
    ({"cross_attention": [False, False]}, ["backbone.context_dim is 12"]),
    ({"blocks_per_level": 0}, ["backbone.blocks_per_level"]),
])
def test_sizes_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError) as error:
        UNet(4, **(SMALL | change))
    assert all(word in str(error.value) for word in words)


def test_inputs_that_do_not_fit_are_refused():
    network = UNet(4, **CONFIGS["pooled"])
    x, label, cond = inputs(network)
    wrong = {
        "multiples of 2": (x[..., :7], cond),
        "backbone.channels is 4": (x[:, :3], cond),
        "conditioning.tokens has nothing": (x, Conditioning(pooled=cond.pooled)),
        "conditioning.tokens has 11 channels": (x, Conditioning(cond.tokens[..., :11], pooled=cond.pooled)),
        "backbone.pooled_dim asks for 10": (x, Conditioning(cond.tokens)),
    }
    for words, (x, cond) in wrong.items():
        with pytest.raises(ValueError, match=words):
            network(x, label, cond)
    with pytest.raises(ValueError, match=r"backbone\.context_dim asks for 12"):
        network(x, label)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"gradient_checkpointing": True}], ids=["plain", "checkpointed"])
def test_fast_is_plain(change, monkeypatch):
    """Compiled, bf16, channels_last: one graph, and every parameter has eager float32's gradient."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would break the graph
    torch.manual_seed(0)
    config = ONE | {"widths": [32, 64], "blocks_per_level": 1, "heads_dim": 32, "context_dim": 48,
                    "pooled_dim": 24}
    network = randomised(UNet(4, **config, **change)).to(memory_format=torch.channels_last)
    x, label, cond = inputs(network, batch=8, size=16)
    told = x, label, Conditioning(cond.tokens, torch.rand(8, 5) < 0.7, cond.pooled)
    told[2].mask[:, 0] = True
    weight = torch.randn(x.shape)
    plain, expected = gradients(network, network, weight, told)

    compiled = torch.compile(network, fullgraph=True, **compiler())
    with torch.autocast("cpu", torch.bfloat16):
        fast, found = gradients(compiled, network, weight, told)
    assert (fast - plain).norm() < 0.05 * plain.norm()
    largest = max(g.norm() for g in expected.values())
    for name, g in expected.items():
        assert found[name].any(), f"{name} has no gradient"
        if g.norm() > 1e-4 * largest:
            assert (found[name] - g).norm() < 0.1 * g.norm(), name
