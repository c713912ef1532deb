"""The DiT starts at zero, hears what it is told, and learns it; refuses what does not fit; keeps its gradients."""

import math

import jaxtyping
import pytest
import torch

from diffusion import checkpoint
from diffusion.acceleration import compiler
from diffusion.conditioning import Conditioning
from diffusion.config import build
from diffusion.denoiser import Denoiser
from diffusion.models import dit
from diffusion.models.attention import Attention
from diffusion.models.dit import DiT, patchify, unpatchify
from diffusion.models.embeddings import sinusoidal_2d
from diffusion.objectives.diffusion import diffusion_loss
from diffusion.parameterizations import V
from diffusion.schedules import Cosine
from tests.networks import gradients, inputs, randomised
from tests.small_dit import CONFIGS, MASK, SMALL, made, told


def test_positions_are_waves_of_row_and_column_and_all_distinct():
    e, w = sinusoidal_2d(3, 5, 16), [10_000 ** (-k / 4) for k in range(4)]
    for i in range(3):
        for j in range(5):
            waves = [f(w_k * position) for position in (i, j) for f in (math.cos, math.sin) for w_k in w]
            torch.testing.assert_close(e[5 * i + j], torch.tensor(waves))
    e = sinusoidal_2d(32, 32, 192)
    assert (torch.cdist(e, e) + 10 * torch.eye(32 * 32)).min() > 1


@pytest.mark.parametrize(("size", "params"), [((384, 12, 6), 33), ((768, 12, 12), 130), ((1024, 24, 16), 458),
                                              ((1152, 28, 16), 675)], ids=["S", "B", "L", "XL"])
def test_the_papers_sizes_have_the_papers_parameters(size, params):
    """Peebles & Xie 2023, table 1 and section 5, in millions, with classes and a learnt variance."""
    width, depth, heads = size
    with torch.device("meta"):
        network = DiT(4, patch=2, width=width, depth=depth, heads=heads, context_dim=None, out_channels=8)
    classes = 1001 * width
    assert abs(sum(p.numel() for p in network.parameters()) + classes - params * 1e6) < 0.6e6


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_starts_at_zero_and_every_parameter_learns(config):
    network = DiT(4, **config)
    assert not network(*told(network, dtype=torch.float32)).any()
    network = made(**config)
    network(*told(network)).square().sum().backward()
    for name, parameter in network.named_parameters():
        if name.endswith("to_k.bias") and not config.get("qk_norm"):
            assert parameter.grad.abs().max() < 1e-12  # it adds the same to all logits of a query
        else:
            assert parameter.grad.abs().max() > 1e-6, name


def test_blocks_start_as_the_identity():
    block = DiT(4, **SMALL).blocks[0]
    x = torch.randn(2, 6, 16)
    assert torch.equal(block(x, torch.randn(2, 16), torch.randn(2, 3, 12)), x)


def test_all_it_is_told_matters_but_masked_tokens():
    network = randomised(DiT(7, **SMALL, pooled_dim=10, out_channels=4)).double()
    x, label, cond = told(network)
    x, image = x[:, :4], x[:, 4:]
    base = Conditioning(cond.tokens, cond.mask, cond.pooled, image)
    y = network(x, label, base)

    def change(label=label, **parts):
        return (network(x, label, Conditioning(**{**vars(base), **parts})) - y).abs().amax((1, 2, 3))

    assert (change(label=label + 1) > 1e-4).all()
    for name in ("pooled", "image"):
        assert (change(**{name: getattr(base, name) + 1}) > 1e-4).all()
    seen, hidden = MASK[..., None], ~MASK[..., None]
    assert (change(tokens=base.tokens + seen) > 1e-4).all()
    assert not change(tokens=base.tokens + 100 * hidden).any()
    concatenated = torch.cat([x, image], dim=1)
    torch.testing.assert_close(network(concatenated, label, Conditioning(cond.tokens, MASK, cond.pooled)), y)


def test_rows_are_independent():
    network = made(**CONFIGS["all of it"])
    x, label, cond = told(network)
    alone = torch.cat([network(x[i:i + 1], label[i:i + 1], cond[i:i + 1]) for i in range(2)])
    torch.testing.assert_close(network(x, label, cond), alone)


def test_only_their_position_tells_patches_apart(monkeypatch):
    network = made(**SMALL)
    x, label, cond = told(network)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))

    def shuffled(x):
        return unpatchify(patchify(x, 2)[:, order], 2, height=4)

    y = network(shuffled(x), label, cond)
    assert (y - shuffled(network(x, label, cond))).abs().max() > 1e-2
    monkeypatch.setattr(dit, "sinusoidal_2d", lambda *sizes: torch.zeros(1, 16))
    torch.testing.assert_close(network(shuffled(x), label, cond), shuffled(network(x, label, cond)))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_and_back(patch):
    x = torch.randn(2, 3, 8, 12)
    tokens = patchify(x, patch)
    assert tokens.shape == (2, 96 // patch**2, 3 * patch**2)
    assert torch.equal(unpatchify(tokens, patch, height=8), x)
    assert torch.equal(tokens[:, 12 // patch + 1], x[:, :, patch:2 * patch, patch:2 * patch].flatten(1))  # second row


def test_the_size_of_queries_and_keys_does_not_matter_with_qk_norm():
    torch.manual_seed(0)
    x, tokens = 3 * torch.randn(2, 5, 16).double(), 3 * torch.randn(2, 4, 12).double()
    for qk_norm in (True, False):
        attention = randomised(Attention(16, heads=4, context_dim=12, bias=True, qk_norm=qk_norm)).double()
        y = attention(x, tokens)
        with torch.no_grad():
            for scale, linear in ((30, attention.to_q), (7, attention.to_k)):
                linear.weight *= scale
                linear.bias *= scale
        assert torch.allclose(attention(x, tokens), y, rtol=1e-4, atol=1e-4) == qk_norm


def test_training_and_sampling_attend_alike():
    """With gradients attention is written out, without it is fused."""
    network = made(**CONFIGS["all of it"])
    y = network(*told(network))
    with torch.no_grad():
        torch.testing.assert_close(network(*told(network)), y)


def test_gradient_checkpointing_changes_nothing():
    plain, saving = made(**SMALL, dropout=0.2), made(**SMALL, dropout=0.2, gradient_checkpointing=True)
    found = []
    for network in (plain, saving):
        torch.manual_seed(2)
        network(*told(network)).square().sum().backward()
        found.append([p.grad for p in network.parameters()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_bf16_is_float32_but_for_rounding_and_the_memory_format_is_nothing(qk_norm):
    network = made(**SMALL, qk_norm=qk_norm).float()
    x, label, cond = told(network, dtype=torch.float32)
    y = network(x, label, cond)
    assert torch.equal(network(x.contiguous(memory_format=torch.channels_last), label, cond), y)
    for grad in (True, False):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
            fast = network(x, label, cond).float()
        assert 1e-5 * y.norm() < (fast - y).norm() < 0.03 * y.norm()


@pytest.mark.parametrize(("change", "words"), [
    ({"heads": 3}, ["backbone.width = 16", "backbone.heads = 3"]),
    ({"width": 18, "heads": 2}, ["backbone.width = 18", "no multiple of 4"]),
    ({"patch": 0}, ["backbone.patch is 0", "positive"]),
    ({"depth": 0}, ["backbone.depth is 0"]),
    ({"mlp_ratio": 0.0}, ["backbone.mlp_ratio is 0"]),
])
def test_sizes_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError) as error:
        DiT(4, **(SMALL | change))
    assert all(word in str(error.value) for word in words)


def test_inputs_that_do_not_fit_are_refused():
    network = DiT(4, **SMALL, pooled_dim=10)
    x, label, cond = told(network, dtype=torch.float32)
    wrong = {
        r"4 x 7 positions; both must be multiples of 2 \(backbone\.patch\)": (x[..., :7], cond),
        r"backbone\.channels is 4": (x[:, :3], cond),
        r"conditioning\.tokens has nothing": (x, Conditioning(pooled=cond.pooled)),
        r"backbone\.pooled_dim asks for 10": (x, Conditioning(cond.tokens)),
    }
    for words, (x, cond) in wrong.items():
        with pytest.raises(ValueError, match=words):
            network(x, label, cond)


def test_a_model_file_rebuilds_it(tmp_path):
    node = {"_target_": "diffusion.models.dit.DiT", "channels": 4, **CONFIGS["all of it"]}
    network, path = randomised(build(node)), tmp_path / "model.safetensors"
    checkpoint.save(path, "latent_diffusion", {"network": node}, {}, {"network": network.state_dict()})
    again = checkpoint.load(path).module("network")
    given = told(network, dtype=torch.float32)
    assert torch.equal(again(*given), network(*given))


def test_learns_what_its_tokens_say():
    """Two pictures, two captions. From noise alone, t = 1, only the caption can tell which picture it was."""
    torch.manual_seed(0)
    pictures, captions = torch.randn(2, 4, 4, 4), torch.randn(2, 3, 12)
    denoiser = Denoiser(DiT(4, **SMALL | {"width": 32}), Cosine(), V())
    optimizer = torch.optim.Adam(denoiser.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        which = torch.arange(32) % 2
        loss = diffusion_loss(denoiser, pictures[which], torch.rand(32), torch.randn(32, 4, 4, 4),
                              Conditioning(captions[which])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    with torch.no_grad():
        x0 = denoiser(torch.randn(2, 4, 4, 4), torch.ones(2), Conditioning(captions)).x0
    distances = torch.cdist(x0.flatten(1), pictures.flatten(1))
    assert (distances.diag() < 0.5 * distances.flip(1).diag()).all()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"gradient_checkpointing": True}, {"qk_norm": True}],
                         ids=["plain", "checkpointed", "qk_norm"])
def test_fast_is_plain(change, monkeypatch):
    """Compiled, bf16, channels_last: one graph, and every parameter has eager float32's gradient."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would break the graph
    torch.manual_seed(0)
    network = randomised(DiT(4, patch=2, width=64, depth=2, heads=2, context_dim=48, pooled_dim=24, **change))
    x, label, cond = inputs(network, batch=8, size=16)
    given = x, label, Conditioning(cond.tokens, torch.rand(8, 5) < 0.7, cond.pooled)
    given[2].mask[:, 0] = True
    weight = torch.randn(x.shape)
    plain, expected = gradients(network, network, weight, given)

    x = x.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(network, fullgraph=True, **compiler())
    with torch.autocast("cpu", torch.bfloat16):
        fast, found = gradients(compiled, network, weight, (x, *given[1:]))
    assert (fast - plain).norm() < 0.05 * plain.norm()
    largest = max(g.norm() for g in expected.values())
    for name, g in expected.items():
        if g.norm() > 1e-4 * largest:
            assert (found[name] - g).norm() < 0.1 * g.norm(), name
