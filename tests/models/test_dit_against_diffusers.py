"""Without text the DiT is diffusers' DiT, with text its PixArt: outputs, and gradients through every layer."""

import pytest
import torch
from einops import rearrange
from torch import nn

from diffusion.models.dit import WAVES
from diffusion.models.embeddings import sinusoidal, sinusoidal_2d
from tests.small_dit import CONFIGS, made, told


def diffusers_state(network):
    """Names and layouts as in diffusers: patches by a convolution, the numbers of an output patch channels last."""
    p, state = network.patch, {}
    for name, value in network.state_dict().items():
        if name.startswith("proj_in."):
            name = name.replace("proj_in.", "pos_embed.proj.")
            value = rearrange(value, "d (c p q) -> d c p q", p=p, q=p) if value.ndim == 2 else value
        elif name.startswith("proj_out."):
            value = rearrange(value, "(c p q) ... -> (p q c) ...", p=p, q=p)
        for ours, theirs in {"blocks.": "transformer_blocks.", "to_out.": "to_out.0.", "mlp.0.": "ff.net.0.proj.",
                             "mlp.3.": "ff.net.2."}.items():
            name = name.replace(ours, theirs)
        state[name] = value
    return state


def at_positions(theirs, network, x):
    """diffusers shrinks or stretches its grid where the size is not the one it was built for."""
    height, width = (side // network.patch for side in x.shape[2:])
    embed = theirs.pos_embed
    embed.height, embed.width = height, width
    embed.pos_embed = sinusoidal_2d(height, width, network.proj_in.out_features).to(x)[None]
    return theirs.double().eval()


def assert_same(network, x, label, cond, z):
    """Outputs, and the gradient of the input, which has passed every layer."""
    y = network(x, label, cond)
    torch.testing.assert_close(y, z)
    weight = torch.randn_like(y)
    expected, = torch.autograd.grad((z * weight).sum(), x)
    torch.testing.assert_close(torch.autograd.grad((y * weight).sum(), x)[0], expected)


def test_without_text_it_is_diffusers_dit():
    """There each block embeds the time itself; here they share one embedding."""
    pytest.importorskip("diffusers")
    from diffusers import DiTTransformer2DModel
    from diffusers.models.embeddings import Timesteps

    ours = made(**CONFIGS["no text"])
    x, label, cond = told(ours, height=8)
    x = x.requires_grad_()
    theirs = DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=4, in_channels=4, num_layers=2,
                                   sample_size=8, patch_size=2, norm_eps=1e-6)
    state = {}
    for name, value in diffusers_state(ours).items():
        if name.startswith("time_embedding."):
            rest = name.removeprefix("time_embedding.")
            state |= {f"transformer_blocks.{i}.norm1.emb.timestep_embedder.{rest}": value for i in range(2)}
        else:
            name = name.replace("modulation_out.linear.", "proj_out_1.").replace("proj_out.", "proj_out_2.")
            state[name.replace("modulation.linear.", "norm1.linear.")] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all("class_embedder" in name for name in missing)
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj = Timesteps(WAVES, flip_sin_to_cos=True, downscale_freq_shift=0)
        nn.init.zeros_(block.norm1.emb.class_embedder.embedding_table.weight)
    theirs = at_positions(theirs, ours, x)
    assert_same(ours, x, label, cond, theirs(x, label, class_labels=torch.zeros(2, dtype=torch.long)).sample)


def test_with_text_it_is_diffusers_pixart():
    """PixArt's blocks share their modulation up to a constant of each; at a single time ours are those constants."""
    pytest.importorskip("diffusers")
    from diffusers import PixArtTransformer2DModel

    ours = made(**CONFIGS["text"], out_channels=8)
    x, label, cond = told(ours)
    x, label = x.requires_grad_(), label[:1].expand(2)
    theirs = PixArtTransformer2DModel(num_attention_heads=4, attention_head_dim=4, in_channels=4, out_channels=8,
                                      num_layers=2, sample_size=8, patch_size=2, cross_attention_dim=12)
    state = {name: value for name, value in diffusers_state(ours).items()
             if "modulation" not in name and not name.startswith("time_embedding.")}
    emb = ours.time_embedding(sinusoidal(label[:1], WAVES).double())
    for i, block in enumerate(ours.blocks):
        state[f"transformer_blocks.{i}.scale_shift_table"] = block.modulation(emb)[:, 0, 0]
    state["scale_shift_table"] = ours.modulation_out(emb)[:, 0, 0]
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("adaln_single.") for name in missing)
    for parameter in theirs.adaln_single.parameters():
        nn.init.zeros_(parameter)
    theirs = at_positions(theirs, ours, x)
    z = theirs(x, encoder_hidden_states=cond.tokens, encoder_attention_mask=cond.mask, timestep=label).sample
    assert_same(ours, x, label, cond, z)
