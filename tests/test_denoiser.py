import pytest
import torch
from torch import nn

from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.network import Network
from diffusion.parameterizations import Epsilon, V
from diffusion.schedules import Linear
from diffusion.schedules.path import ve
from tests.curves import Line, ZeroTerminal
from tests.options import options


class Pixelwise(nn.Module):
    """A linear network of x and the label; it remembers how it was asked."""

    def __init__(self, channels=3):
        super().__init__()
        self.mix = nn.Conv2d(channels + 1, channels, 1)

    def forward(self, x, label, cond):
        self.asked = x, label, cond
        plane = (label / 1000).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]).to(x.dtype)
        self.y = self.mix(torch.cat([x, plane], 1))
        return self.y


def denoiser(parameterization=None, schedule=None) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(Pixelwise(), schedule or Linear(), parameterization or V())


@pytest.mark.parametrize("parameterization", options("parameterization"))
@pytest.mark.parametrize("schedule", options("schedule"))
def test_an_estimate_agrees_with_x_t_and_with_the_prediction(schedule, parameterization):
    if parameterization.refusal(schedule):
        with pytest.raises(ValueError, match=r"cannot be used|needs finite rates"):
            denoiser(parameterization, schedule)
        return
    model, x_t, t = (
        denoiser(parameterization, schedule),
        torch.randn(4, 3, 5, 5),
        torch.tensor([0.1, 0.3, 0.6, 0.9]),
    )
    x0, eps, f = model(x_t, t)
    torch.testing.assert_close(schedule.diffuse(x0, t, eps), x_t, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        parameterization.target(x0, eps, schedule, t), model.predict(x_t, t), rtol=1e-3, atol=1e-3
    )
    assert f is None


def test_one_time_for_all_is_that_time_for_each():
    model, x_t = denoiser(), torch.randn(4, 3, 5, 5)
    t = torch.tensor(0.37, dtype=torch.float64)
    for one, each in zip(model(x_t, t)[:2], model(x_t, t.expand(4))[:2], strict=True):
        torch.testing.assert_close(one, each)


def test_the_network_is_told_the_label_as_float32_rows_and_the_conditioning():
    model, t = denoiser(), torch.tensor(0.5, dtype=torch.float64)
    cond = Conditioning(pooled=torch.randn(4, 2))
    model(torch.randn(4, 3, 5, 5), t, cond)
    _, label, told = model.network.asked
    assert label.dtype == torch.float32 and label.shape == (4,) and (label == 499).all() and told is cond


def test_inputs_of_an_unbounded_path_come_scaled():
    model, x_t = denoiser(V(), Line(ve)), 400 * torch.randn(64, 3, 5, 5)
    model(x_t, torch.tensor(1.0, dtype=torch.float64))
    assert 0.8 < model.network.asked[0].std() * Line(ve).sigma(1.0) / 400 < 1.2


@pytest.mark.parametrize("outside", [False, True])
def test_reduced_precision_lives_inside_the_network(outside):
    model, x_t, t = denoiser(), torch.randn(4, 3, 5, 5), torch.rand(4)
    model.compute_dtype = torch.bfloat16
    with torch.autocast("cpu", torch.float16, enabled=outside):
        x0, eps, _ = model(x_t, t)
    assert model.network.y.dtype == torch.bfloat16 and x0.dtype == eps.dtype == torch.float32


def test_an_autocast_from_outside_does_not_reach_a_float32_network():
    model, x_t, t = denoiser(), torch.randn(4, 3, 5, 5), torch.rand(4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(x_t, t)
    assert torch.equal(inside.x0, model(x_t, t).x0)


def test_training_and_sampling_see_the_same_outputs():
    model, x_t, t = denoiser(), torch.randn(4, 3, 5, 5), torch.rand(4)
    model.compute_dtype = torch.bfloat16
    with torch.no_grad():
        sampling = model.eval()(x_t, t).x0
    assert torch.equal(model.train()(x_t, t).x0.detach(), sampling)


def test_channels_last_changes_the_memory_and_not_the_result():
    model, x_t, t = denoiser(), torch.randn(4, 3, 5, 5), torch.rand(4)
    plain = model(x_t, t).x0
    model.memory_format = torch.channels_last
    torch.testing.assert_close(model(x_t, t).x0, plain)
    assert model.network.asked[0].is_contiguous(memory_format=torch.channels_last)


def test_float64_stays_float64():
    model = denoiser().double()
    assert model(torch.randn(2, 3, 5, 5).double(), torch.rand(2).double()).x0.dtype == torch.float64


def test_a_pair_that_makes_no_sense_is_refused_when_built():
    with pytest.raises(ValueError, match="SNR is 0"):
        denoiser(Epsilon(), ZeroTerminal())


def test_the_state_is_that_of_the_network_alone():
    assert isinstance(denoiser().network, Network)
    assert all(key.startswith("network.") for key in denoiser().state_dict())
