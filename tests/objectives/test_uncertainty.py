import torch
from torch import nn

from diffusion.denoiser import Denoiser
from diffusion.objectives import Uncertainty, diffusion_loss
from diffusion.parameterizations import V
from diffusion.schedules import Cosine


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(0.3))

    def forward(self, x, label, cond):
        return self.by * x


def batch(n=4096, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, n, 4, generator=draw)
    return x0, torch.rand(n, generator=draw, dtype=torch.float64), eps


DENOISER = Denoiser(Scaled(), Cosine(), V())


def test_it_starts_as_the_plain_loss():
    torch.testing.assert_close(Uncertainty()(DENOISER, *batch()), diffusion_loss(DENOISER, *batch()))


def test_an_end_without_signal_or_without_noise_is_finite():
    assert torch.isfinite(Uncertainty().u(torch.tensor([-torch.inf, torch.inf]))).all()


def test_at_its_minimum_every_level_has_loss_one():
    """E[loss / exp(u)] = 1 wherever the waves can follow the loss."""
    torch.manual_seed(0)
    objective = Uncertainty()
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = objective(DENOISER, *batch()).mean()
        value.backward()
        return value

    optimizer.step(closure)
    x0, t, eps = batch(seed=1)
    with torch.no_grad():
        scaled = diffusion_loss(DENOISER, x0, t, eps) / objective.u(Cosine().log_snr(t)).exp()
    for third in torch.argsort(t).chunk(8):
        assert abs(scaled[third].mean() - 1) < 0.15


def test_the_network_learns_from_the_scaled_loss():
    objective = Uncertainty()
    nn.init.constant_(objective.linear.bias, 2.0)
    grads = [torch.autograd.grad(loss(DENOISER, *batch()).mean(), DENOISER.network.by)[0]
             for loss in (objective, diffusion_loss)]
    torch.testing.assert_close(grads[0], grads[1] * torch.tensor(-2.0).exp())
