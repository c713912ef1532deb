"""Bits per dimension of whole models: a linear-Gaussian one in closed form, and the sample command's own."""

import json
import math

import pytest
import torch
from hydra import compose
from torch import nn
from torch.distributions import Normal, kl_divergence

from diffusion import checkpoint, sampling
from diffusion.config import ConfigError, build
from diffusion.data.shapes import Shapes
from diffusion.denoiser import Denoiser
from diffusion.evaluation.likelihood import ODE, Bound, Draws, decoder_scale, likelihood_scores, picture_nats
from diffusion.latent import LatentDiffusion
from diffusion.models.gaussian import Gaussian as Posterior
from diffusion.models.identity import Identity
from diffusion.parameterizations import X0
from diffusion.schedules import CosineFlow, NoiseSchedule, RectifiedFlow, ScaledLinear
from diffusion.text import tokenizer
from diffusion.text.clip import SmallCLIP
from tests.gaussian import Gaussian

pytestmark = pytest.mark.usefixtures("hydra")
W, S = 0.5, 0.2  # x = W raw + S noise, raw ~ N(0, 1): the posterior of raw is a Gaussian
SHIFT, SCALE = 0.3, 2.0  # whitening, z = (raw - SHIFT) / SCALE: the data of the denoiser is N(-SHIFT, 1) / SCALE
EXACT = {"gain": W / (W**2 + S**2), "std": S / math.sqrt(W**2 + S**2)}


class Linear(nn.Module):
    """An autoencoder of one pixel with everything linear."""

    def __init__(self, gain: float, std: float):
        super().__init__()
        self.gain, self.std = gain, std
        self.register_buffer("shift", torch.full((1, 1, 1), SHIFT))
        self.register_buffer("scale", torch.full((1, 1, 1), SCALE))

    def posterior(self, x):
        return Posterior(self.gain * x, torch.full_like(x, 2 * math.log(self.std)))

    def whiten(self, raw):
        return (raw - self.shift) / self.scale

    def decode(self, z):
        return W * (z * self.scale + self.shift)


class Exact(nn.Module):
    """The denoiser's network for N(mu, tau^2), which must find t in its label."""

    def __init__(self, schedule, mu: float, tau: float):
        super().__init__()
        self.data = Gaussian(schedule, mu, tau)
        self.anywhere = nn.Parameter(torch.zeros(()))

    def forward(self, x, label, cond):
        return self.data.denoise(x, (label.double() / 1000)[:, None, None, None]).x0.to(x)


class Nodes(Draws):
    """Four rows a picture: posterior and noise at +-1, whose mean is exact for quadratics, and times at midpoints."""

    def normal(self, purpose, like):
        signs = [-1.0, -1.0, 1.0, 1.0] if purpose == "posterior" else [-1.0, 1.0, -1.0, 1.0]
        return torch.tensor(signs * (len(like) // 4)).reshape(-1, 1, 1, 1) * torch.ones_like(like)

    def uniform(self, purpose, like):
        return (self.normal(purpose, like) + 2) / 4

    def times(self, purpose, n):
        return ((torch.arange(n) + 0.5) / n).expand(len(self.index), n)


def linear_model(gain: float, std: float, schedule: NoiseSchedule):
    network = Exact(schedule, -SHIFT / SCALE, 1 / SCALE)
    return LatentDiffusion(Linear(gain, std), None, Denoiser(network, schedule, X0()), (1, 1, 1))


def normal_decoder(x, decoded):
    return -Normal(decoded, S).log_prob(x).flatten(1).sum(1)


METHODS = [ODE(-10.0, 13.0, steps=20), Bound(-10.0, 13.0, draws=50)]
X = torch.tensor([20, 200]) / 127.5 - 1


def nats_of(model, method, decoder=normal_decoder):
    """Of the two pictures, each the mean over its nodes."""
    images = torch.tensor([20, 200], dtype=torch.uint8).repeat_interleave(4).reshape(8, 1, 1, 1)
    nats = picture_nats(model, images, [""] * 8, method, Nodes(0, range(8)), decoder)
    return {part: value.reshape(2, 4).mean(1) for part, value in nats.items()}


@pytest.mark.parametrize("method, schedule", [(METHODS[0], CosineFlow()), (METHODS[1], RectifiedFlow())],
                         ids=["ode", "bound"])
def test_a_latent_model_with_its_exact_posterior_is_tight(method, schedule):
    nats = sum(nats_of(linear_model(**EXACT, schedule=schedule), method).values())
    torch.testing.assert_close(nats, -Normal(0.0, math.sqrt(W**2 + S**2)).log_prob(X), rtol=0, atol=5e-3)


def test_the_gap_of_another_posterior_is_its_divergence():
    gain, std = 1.2, 0.3
    nats = sum(nats_of(linear_model(gain, std, CosineFlow()), METHODS[1]).values())
    gap = nats + Normal(0.0, math.sqrt(W**2 + S**2)).log_prob(X)
    divergence = kl_divergence(Normal(gain * X, std), Normal(EXACT["gain"] * X, EXACT["std"]))
    torch.testing.assert_close(gap, divergence, rtol=0, atol=5e-3)
    assert divergence.min() > 0.05


def test_the_parts_are_what_they_are_called():
    nats = nats_of(linear_model(**EXACT, schedule=CosineFlow()), METHODS[0])
    z_mean, z_std = (EXACT["gain"] * X - SHIFT) / SCALE, EXACT["std"] / SCALE
    prior = Normal(-SHIFT / SCALE, 1 / SCALE)
    density = -(prior.log_prob(z_mean - z_std) + prior.log_prob(z_mean + z_std)) / 2
    torch.testing.assert_close(nats["density"], density, rtol=0, atol=5e-3)
    torch.testing.assert_close(nats["entropy"], -Normal(z_mean, z_std).entropy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [ODE(-10.0, 9.7, steps=20), Bound(-10.0, 9.7, draws=30)], ids=["ode", "bound"])
def test_a_smooth_density_gives_a_level_its_width(method):
    """With noise of one level the 256 answers of p(x_0 | x_high) overlap without a gap: the bound is tight here too."""
    schedule = CosineFlow()
    model = LatentDiffusion(Identity(1), None, Denoiser(Exact(schedule, 0.1, 0.3), schedule, X0()), (1, 1, 1))
    nats = sum(nats_of(model, method, None).values())
    torch.testing.assert_close(nats, -Normal(0.1, 0.3).log_prob(X) + math.log(127.5), rtol=0, atol=1e-2)


def test_ends_are_the_schedules_where_it_stops_short():
    assert ODE(-100.0, 3.0).ends(CosineFlow()) == (-100.0, 3.0)
    low = ScaledLinear().log_snr_range[0]
    assert Bound(-100.0, 13.3).ends(ScaledLinear()) == (low, 13.3)
    with pytest.raises(ValueError, match="leave nothing"):
        Bound(-100.0, low - 1).ends(ScaledLinear())


# The command

AUTOENCODER = {"_target_": "diffusion.models.autoencoder.KLAutoencoder", "widths": [32, 32], "mid_attention": False}
IDENTITY = {"_target_": "diffusion.models.identity.Identity"}
UNET = {"_target_": "diffusion.models.unet.UNet", "widths": [32], "blocks_per_level": 1, "self_attention": [False],
        "cross_attention": [False], "heads_dim": 32, "norm_groups": 8}


def save(folder, autoencoder, encoder=None):
    """A model file of random weights."""
    torch.manual_seed(0)
    first = build(autoencoder)
    network = UNET | {"channels": first.latent_channels, "context_dim": None,
                      "pooled_dim": None if encoder is None else encoder.pooled_dim}
    parts = {"autoencoder": autoencoder, "network": network, "schedule": {"_target_": "diffusion.schedules.Cosine"},
             "parameterization": {"_target_": "diffusion.parameterizations.V"}}
    made = build(network)
    for parameter in made.parameters():  # the last layer begins at zero
        nn.init.normal_(parameter, std=0.1)
    tensors = {"ema": made.state_dict(), "autoencoder": first.state_dict()}
    if encoder is not None:
        tensors["text_encoder"] = encoder.state_dict()
        parts["text_encoder"] = {"_target_": "diffusion.text.clip.SmallCLIP", **SIZES, "tokenizer": BPE}
    facts = {"steps": 1, "latent_shape": first.latent_shape(32),
             "data": {"_target_": "diffusion.data.shapes.Shapes", "train": 8, "test": 6},
             "data_fingerprint": Shapes(train=8, test=6).fingerprint()}
    checkpoint.save(folder / "model.safetensors", "latent_diffusion", parts, facts, tensors)
    return folder / "model.safetensors"


SIZES = {"width": 64, "layers": 1, "vision_width": 64, "vision_layers": 1, "image_size": 32}
BPE = tokenizer.learn(["a small red circle"], 600)
QUICK = ["evaluation.likelihood.bound.draws=1", "evaluation.likelihood.ode.steps=1", "device=cpu"]


def score(file, out, *overrides):
    sampling.main(compose("sample", [f"ckpt={file}", f"out={out}", "evaluation=likelihood", *QUICK, *overrides]))
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("autoencoder, parts", [
    (IDENTITY, {"bound": {"prior", "diffusion", "reconstruction"}, "ode": {"density"}}),
    (AUTOENCODER, {"bound": {"prior", "diffusion", "reconstruction", "entropy", "decoder"},
                   "ode": {"density", "entropy", "decoder"}}),
], ids=["pixels", "latents"])
def test_the_command_writes_both_with_their_parts(autoencoder, parts, tmp_path):
    file = save(tmp_path, autoencoder)
    together = score(file, tmp_path, "n=3")
    one_by_one = score(file, tmp_path, "n=3", "batch=2")
    assert together["n"] == 3 and together["precision"] == "32" and together["weights"] == "ema"
    assert together["data_fingerprint"] == Shapes(train=8, test=6).fingerprint()
    for name, expected in parts.items():
        result = together["likelihood"][name]
        assert set(result["parts"]) == expected
        assert result["bits_per_dim"] == pytest.approx(sum(result["parts"].values()), rel=1e-4)
        assert result["bits_per_dim"] == pytest.approx(one_by_one["likelihood"][name]["bits_per_dim"], rel=1e-4)
        assert result["standard_error"] > 0 and ("decoder_scale" in result) == ("decoder" in expected)
        assert result["method"]["log_snr_min"] == -10 and result["log_snr"][0] == -10


def test_one_of_both_can_be_left_out(tmp_path):
    result = score(save(tmp_path, IDENTITY), tmp_path, "n=2", "evaluation.likelihood.ode=null")
    assert result["likelihood"].keys() == {"bound"}


def test_each_picture_is_scored_with_its_own_caption(tmp_path):
    encoder = SmallCLIP(BPE, **SIZES)
    model = sampling.load_model(checkpoint.load(save(tmp_path, IDENTITY, encoder)))
    test = Shapes(train=8, test=6).split("test")
    captions = [test.captions[i] for i in test.caption_ids[:, 0].tolist()]
    method = Bound(-10.0, 13.3, draws=1)
    own, others = (picture_nats(model, test.images, said, method, Draws(0, range(6)), None)["diffusion"] / math.log(2)
                   / test.images[0].numel() for said in (captions, ["a small red circle"] * 6))
    assert not torch.allclose(own, others, rtol=1e-3)
    scored = likelihood_scores(model, test, test, {"bound": method}, 0)["bound"]["parts"]["diffusion"]
    assert scored == pytest.approx(own.mean().item(), rel=1e-4)


def test_the_decoders_scale_is_the_mean_error(tmp_path):
    model = sampling.load_model(checkpoint.load(save(tmp_path, AUTOENCODER)))
    pictures = Shapes(train=8, test=6).split("train")
    scales = [decoder_scale(model, pictures, 0, batch) for batch in (8, 3)]
    assert scales[0] == pytest.approx(scales[1], rel=1e-4) and 0.1 < scales[0] < 2


@pytest.mark.parametrize("overrides, message", [
    (["n=7"], "n = 7, but the test split of Shapes has 6 pictures"),
    (["n=1"], "at least 2 pictures"),
    (["steps=3", "guidance.scale=2"], r"takes no steps, guidance\.scale"),
    (["evaluation.likelihood.bound=null", "evaluation.likelihood.ode=null"], "nothing to do"),
    (["evaluation.likelihood.ode.probes=0"], "probes = 0: at least 1"),
    (["+evaluation.likelihood.ode.prob=0"], r"ode\.prob: unknown argument of ODE; probes\?"),
])
def test_what_cannot_be_is_said(overrides, message, tmp_path):
    with pytest.raises((ValueError, ConfigError), match=message):
        score(save(tmp_path, IDENTITY), tmp_path, *overrides)
