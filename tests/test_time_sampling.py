import pytest
import torch

from diffusion import rng
from diffusion.schedules import EDM, Linear, RectifiedFlow
from diffusion.time_sampling import grid, log_normal, logit_normal, stratified
from tests.curves import ZeroTerminal
from tests.options import options


@pytest.mark.parametrize("time_sampler", options("time_sampler"))
@pytest.mark.parametrize("schedule", options("schedule"))
def test_times_are_never_clean_data(time_sampler, schedule):
    try:
        t, weight = time_sampler(schedule, torch.linspace(0, 1 - 2**-24, 5000))
    except ValueError:
        pytest.skip("refused")
    assert t.dtype == torch.float64 and (t > 0).all() and (t <= 1).all()
    assert weight.shape == t.shape and (weight > 0).all()


def test_grid_takes_each_step_of_the_table_equally_often():
    u = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    t, _ = grid(Linear(), u)
    steps, counts = (t * 1000).round().long().unique(return_counts=True)
    assert torch.equal(steps, torch.arange(1, 1001)) and (counts == 5).all()
    torch.testing.assert_close(t * 1000, (t * 1000).round(), rtol=0, atol=1e-9)


U = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000


@pytest.mark.parametrize("schedule", [EDM(), RectifiedFlow()])
def test_log_normal_draws_the_logarithm_of_sigma_over_alpha(schedule):
    t, _ = log_normal(schedule, U, mean=-0.8, std=0.9)
    drawn = -schedule.log_snr(t) / 2
    expected = torch.distributions.Normal(torch.tensor(-0.8).double(), torch.tensor(0.9).double()).icdf(U)
    torch.testing.assert_close(drawn, expected)


def test_logit_normal_draws_the_logit_of_t():
    t, _ = logit_normal(RectifiedFlow(), U, mean=0.5, std=0.7)
    expected = torch.distributions.Normal(torch.tensor(0.5).double(), torch.tensor(0.7).double()).icdf(U)
    torch.testing.assert_close(torch.logit(t), expected)


def test_grid_needs_a_table():
    with pytest.raises(ValueError, match="needs a table"):
        grid(ZeroTerminal(), torch.rand(3))


@pytest.mark.parametrize("n", [1, 2, 7, 256])
def test_stratified_puts_one_into_each_stratum(n):
    u = stratified(rng.uniform((1,), 0, 0, "t"), n)
    assert (u >= 0).all() and (u < 1).all()
    strata, offset = (u * n).floor().long(), (u * n) % 1
    assert strata.sort().values.tolist() == list(range(n))
    torch.testing.assert_close(offset, offset[:1].expand(n), rtol=0, atol=1e-9)
