"""The autoencoder is diffusers', whitening is undone by decoding, and no autoencoder is the same path."""

import jaxtyping
import pytest
import torch

from benchmarks.peers import AUTOENCODER, diffusers_autoencoder, renamed
from diffusion.acceleration import compiler
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.gaussian import Gaussian
from diffusion.models.identity import Identity

SMALL = {"widths": (16, 32), "norm_groups": 8}
CONFIGS = {
    "two levels": SMALL,
    "three levels, two blocks": SMALL | {"widths": (16, 24, 40), "blocks_per_level": 2, "latent_channels": 6},
    "no attention": SMALL | {"mid_attention": False},
    "one level, gray": SMALL | {"widths": (16,), "image_channels": 1},
}


def randomised(network):
    """Zero-initialised layers would hide mistakes: every parameter is drawn."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.3)
    return network


def pictures(network, batch=2, size=16, dtype=torch.float64):
    return torch.randn(batch, network.image_channels, size, size, dtype=dtype).clamp(-1, 1)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_autoencoder_is_diffusers_autoencoder(config):
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    ours = randomised(KLAutoencoder(**config)).double()
    theirs = diffusers_autoencoder(ours, config).double()
    x = pictures(ours)
    noise = torch.randn(2, *ours.latent_shape(16), dtype=x.dtype)
    weight = torch.randn_like(x)

    q, p = ours.posterior(x), theirs.encode(x).latent_dist
    torch.testing.assert_close((q.mean, q.log_var), (p.mean, p.logvar), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(q.kl().sum((1, 2, 3)), p.kl(), rtol=1e-5, atol=1e-5)
    y, z = ours.reconstruct(q.sample(noise)), theirs.decode(p.mean + p.std * noise).sample
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)

    ((y * weight).sum() + q.kl().sum()).backward()
    ((z * weight).sum() + p.kl().sum()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        if not name.endswith("to_k.bias"):  # softmax does not see it: its gradient is rounding
            assert parameter.grad.abs().max() > 1e-6, name
        torch.testing.assert_close(
            parameter.grad, gradients[renamed(name, AUTOENCODER)], rtol=1e-5, atol=1e-5,
            msg=lambda m, n=name: f"{n}: {m}")


def test_the_posterior_starts_narrow():
    torch.manual_seed(0)
    network = KLAutoencoder(**SMALL)
    with torch.no_grad():
        posterior = network.posterior(pictures(network, batch=8, dtype=torch.float32))
    assert (posterior.log_var.exp().sqrt() < 0.5 * posterior.mean.std()).float().mean() > 0.9


def whitened(config=SMALL):
    torch.manual_seed(0)
    network = randomised(KLAutoencoder(**config)).double()
    network.set_statistics(torch.randn(4), torch.rand(4) + 0.5)
    return network


def test_decode_undoes_whitening():
    network = whitened()
    raw = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network.decode(network.whiten(raw)), network.reconstruct(raw))


def test_encode_whitens_the_posterior():
    network, noise = whitened(), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    x = pictures(network)
    q = network.posterior(x)
    torch.testing.assert_close(network.encode(x), network.whiten(q.mean))
    torch.testing.assert_close(network.encode(x, noise), network.whiten(q.sample(noise)))


def test_measured_statistics_make_unit_latents():
    network = whitened()
    raw = network.posterior(pictures(network, batch=8)).mean.detach()
    network.set_statistics(raw.mean((0, 2, 3)), raw.std((0, 2, 3)))
    z = network.whiten(raw)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4).double(), rtol=0, atol=1e-6)


def test_statistics_are_saved_with_the_weights():
    network = whitened()
    other = KLAutoencoder(**SMALL).double()
    other.load_state_dict(network.state_dict())
    x = pictures(network)
    assert torch.equal(other.encode(x), network.encode(x))


def test_latent_shape_is_the_shape_of_latents():
    for config in CONFIGS.values():
        network = KLAutoencoder(**config)
        assert network.encode(pictures(network, dtype=torch.float32)).shape[1:] == network.latent_shape(16)


def test_posterior_under_autocast_is_float32():
    network = KLAutoencoder(**SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.posterior(pictures(network, dtype=torch.float32)).log_var.dtype == torch.float32


def test_gaussian_is_the_torch_distribution():
    torch.manual_seed(0)
    q = Gaussian(*torch.randn(2, 3, 4, 8, 8, dtype=torch.float64))
    normal = torch.distributions.Normal(q.mean, (q.log_var / 2).exp())
    standard = torch.distributions.Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    torch.testing.assert_close(q.kl(), torch.distributions.kl_divergence(normal, standard))
    noise = torch.randn_like(q.mean)
    torch.testing.assert_close(normal.log_prob(q.sample(noise)),
                               standard.log_prob(noise) - q.log_var / 2)


def test_identity_is_no_autoencoder():
    identity = Identity(image_channels=3)
    x, noise = torch.randn(2, 2, 3, 8, 8)
    assert torch.equal(identity.posterior(x).sample(noise), x)
    for z in (identity.encode(x), identity.encode(x, noise), identity.whiten(x), identity.reconstruct(x)):
        assert torch.equal(z, x)
    assert torch.equal(identity.decode(identity.encode(x)), x)
    assert identity.latent_shape(8) == x.shape[1:] and identity.factor == 1
    assert not list(identity.parameters())


def test_identity_has_the_interface_of_the_autoencoder():
    noun = {"sigma_data", "factor", "latent_channels", "latent_shape", "posterior", "reconstruct", "encode",
            "whiten", "decode", "set_statistics"}
    for autoencoder in (Identity(4), KLAutoencoder(3, 4)):
        assert noun <= set(dir(autoencoder))
    buffers = [{name: b.shape for name, b in n.named_buffers()} for n in (Identity(4), KLAutoencoder(3, 4))]
    assert buffers[0] == buffers[1]


@pytest.mark.parametrize(("change", "words"), [
    ({"widths": (16, 36)}, ["autoencoder.widths[1] = 36", "autoencoder.norm_groups = 8"]),
    ({"widths": ()}, ["autoencoder.widths is empty"]),
    ({"blocks_per_level": 0}, ["autoencoder.blocks_per_level is 0"]),
])
def test_sizes_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError) as error:
        KLAutoencoder(**(SMALL | change))
    assert all(word in str(error.value) for word in words)


def test_inputs_that_do_not_fit_are_refused():
    network = KLAutoencoder(**SMALL)
    for shape in ((1, 3, 15, 16), (1, 4, 16, 16)):
        with pytest.raises(ValueError, match=r"autoencoder\.image_channels"):
            network.posterior(torch.zeros(shape))
    with pytest.raises(ValueError, match="multiple of 2"):
        network.latent_shape(15)
    with pytest.raises(ValueError, match="4 finite numbers"):
        network.set_statistics(torch.zeros(3), torch.ones(4))
    with pytest.raises(ValueError, match="positive"):
        network.set_statistics(torch.zeros(4), torch.tensor([1.0, 0, 1, 1]))
    with pytest.raises(ValueError, match="autoencoder=identity"):
        Identity().set_statistics(torch.zeros(3), torch.ones(3))


@pytest.mark.slow
def test_fast_is_plain(monkeypatch):
    """Compiled, bf16, channels_last: one graph each, and every parameter has eager float32's gradient."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would break the graph
    torch.manual_seed(0)
    network = randomised(KLAutoencoder(widths=(32, 64))).to(memory_format=torch.channels_last)
    x = pictures(network, batch=8, size=32, dtype=torch.float32)
    weight, noise = torch.randn(8, 3, 32, 32), torch.randn(8, 4, 16, 16)

    def forward(x, noise):
        posterior = network.posterior(x)
        return network.reconstruct(posterior.sample(noise)), posterior.kl().float()

    def gradients():
        network.zero_grad()
        y, kl = forward(x, noise)
        ((y.float() * weight).sum() + kl.sum()).backward()
        return y.detach().float(), {name: p.grad.clone() for name, p in network.named_parameters()}

    plain, expected = gradients()
    network.encoder.compile(fullgraph=True, **compiler())
    network.decoder.compile(fullgraph=True, **compiler())
    with torch.autocast("cpu", torch.bfloat16):
        fast, found = gradients()
    assert (fast - plain).norm() < 0.05 * plain.norm()
    largest = max(g.norm() for g in expected.values())
    for name, g in expected.items():
        assert found[name].any(), f"{name} has no gradient"
        if g.norm() > 1e-4 * largest:
            assert (found[name] - g).norm() < 0.1 * g.norm(), name
