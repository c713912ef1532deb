"""A model draws pictures: what is computed once, and what does not change them."""

import torch

from diffusion.denoiser import Denoiser
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.models.attention import Attention
from diffusion.models.identity import Identity
from diffusion.models.unet import UNet
from diffusion.parameterizations import V
from diffusion.schedules import Cosine
from diffusion.text.clip import SmallCLIP
from tests.networks import randomised

STEPS = 5


def model():
    torch.manual_seed(0)
    encoder = SmallCLIP(width=64, layers=1, vision_width=64, vision_layers=1, patch=16)
    network = randomised(UNet(3, widths=[8], blocks_per_level=1, self_attention=[True], cross_attention=[True],
                              heads_dim=8, context_dim=64, norm_groups=4))
    return LatentDiffusion(Identity(), encoder, Denoiser(network, Cosine(), V()), (3, 8, 8)).eval()


def drawn(of, prompts):
    torch.manual_seed(1)
    return of.generate(prompts, torch.randn_like, Sampling(steps=STEPS))


def test_keys_and_values_of_a_prompt_are_computed_once_and_not_once_per_step():
    with_text = model()
    layers = [m for m in with_text.denoiser.network.modules() if isinstance(m, Attention) and m.to_k.in_features == 64]
    counts = [0] * len(layers)
    for i, layer in enumerate(layers):
        layer.to_k.register_forward_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
    drawn(with_text, ["red", "blue"])
    assert counts == [1] * len(layers)
    drawn(with_text, ["red", "blue"])
    assert counts == [2] * len(layers)


def test_keys_are_those_of_the_prompt_and_the_weights_of_the_moment():
    changed, fresh = model(), model()
    drawn(changed, ["red", "blue"])
    for of in (changed, fresh):
        with torch.no_grad():
            for parameter in of.denoiser.network.parameters():
                parameter.mul_(1.1)
    assert torch.equal(drawn(changed, ["red", "cyan"]), drawn(fresh, ["red", "cyan"]))
    assert not torch.equal(drawn(changed, ["red", "blue"]), drawn(fresh, ["red", "cyan"]))
