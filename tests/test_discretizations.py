import math

import pytest
import torch

from diffusion.discretizations import karras, leading, log_snr, trailing, uniform
from diffusion.schedules import Cosine, Laplace, Linear, ScaledLinear, Table
from tests.curves import ZeroTerminal
from tests.options import options

STEPS = [1, 2, 3, 7, 10, 16, 20, 32, 48, 50, 250, 999, 1000]


@pytest.mark.parametrize("discretization", options("discretization"))
@pytest.mark.parametrize("n", STEPS)
def test_grids_fall_to_zero_in_n_steps(discretization, n):
    ts = discretization(Linear(), n)
    assert ts.dtype == torch.float64 and ts.shape == (n + 1,)
    assert (ts.diff() < 0).all() and ts[0] <= 1 and ts[-1] == 0


@pytest.mark.parametrize("discretization", options("discretization"))
@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("n", [1, 2, 20, 50])
def test_grids_fall_on_every_schedule_that_they_take(discretization, schedule, n):
    try:
        ts = discretization(schedule, n)
    except ValueError as error:  # no table, or no finite end, which one can give
        assert not isinstance(schedule, Table) or "finite ends" in str(error)
        if discretization.func not in (log_snr, karras):
            return
        ts = discretization(schedule, n, log_snr_min=-10.0)
    assert ts.shape == (n + 1,) and (ts.diff() < 0).all() and ts[0] <= 1 and ts[-1] == 0


@pytest.mark.parametrize("grid", [log_snr, karras])
def test_an_end_beyond_the_schedules_own_is_its_own(grid):
    asked = grid(ScaledLinear(), 12, log_snr_min=-10.0, log_snr_max=8.0)
    assert asked[0] == 1 and torch.equal(asked, grid(ScaledLinear(), 12, log_snr_max=8.0))


@pytest.mark.parametrize("n", STEPS)
def test_trailing_and_uniform_begin_with_noise(n):
    assert trailing(Linear(), n)[0] == 1 and uniform(Linear(), n)[0] == 1


@pytest.mark.parametrize(
    "grid, spacing, offset", [(trailing, "trailing", 0), (leading, "leading", 0), (leading, "leading", 1)]
)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 16, 20, 32, 50, 250])
def test_integer_steps_are_those_of_diffusers(grid, spacing, offset, n):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(n)
    ts = grid(Linear(), n, offset=offset) if offset else grid(Linear(), n)
    assert torch.equal((ts[:-1] * 1000 - 1).round().long(), scheduler.timesteps)


def test_trailing_without_a_table_is_uniform():
    assert torch.equal(trailing(ZeroTerminal(), 10), uniform(ZeroTerminal(), 10))


def test_log_snr_takes_equal_steps():
    ts = log_snr(Cosine(), 9, log_snr_max=8.0)
    steps = Cosine().log_snr(ts[:-1]).diff()
    torch.testing.assert_close(steps, steps[:1].expand(8), rtol=0, atol=1e-9)
    torch.testing.assert_close(ts[0], torch.ones_like(ts[0]))


def test_karras_takes_equal_steps_in_the_rho_th_root_of_sigma():
    ts = karras(Linear(), 9, rho=7.0, log_snr_max=-2 * math.log(0.02))
    sigma = torch.exp(-Linear().log_snr(ts[:-1]) / 2)
    steps = (sigma ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps[:1].expand(8), rtol=0, atol=1e-9)
    torch.testing.assert_close(sigma[-1], torch.tensor(0.02, dtype=torch.float64))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="needs a table"):
        leading(ZeroTerminal(), 10)
    with pytest.raises(ValueError, match="1001 were asked for"):
        leading(Linear(), 1001)
    with pytest.raises(ValueError, match="begins above"):
        leading(Linear(), 1000, offset=1)
    with pytest.raises(ValueError, match="needs finite ends"):
        log_snr(Linear(), 10)
    with pytest.raises(ValueError, match="below log_snr_max"):
        log_snr(Linear(), 10, log_snr_min=4.0, log_snr_max=-4.0)
    with pytest.raises(ValueError, match="steps of length 0"):
        log_snr(Laplace(), 20, log_snr_min=-40.0, log_snr_max=8.0)
