import math

import pytest
import torch

from diffusion.schedules.path import linear, ve, vp

LOG_SNR = torch.linspace(-30, 30, 601, dtype=torch.float64)
INF = torch.tensor(math.inf, dtype=torch.float64)


@pytest.mark.parametrize("path", [vp, ve, linear], ids=repr)
def test_alpha_and_sigma_have_the_given_ratio(path):
    torch.testing.assert_close(
        (path.alpha(LOG_SNR) / path.sigma(LOG_SNR)).square().log(), LOG_SNR, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("path", [vp, ve, linear], ids=repr)
def test_no_noise_at_infinite_snr(path):
    assert path.alpha(INF) == 1 and path.sigma(INF) == 0


@pytest.mark.parametrize("path", [vp, linear], ids=repr)
def test_no_data_at_zero_snr(path):
    assert path.alpha(-INF) == 0 and path.sigma(-INF) == 1


def test_the_size_of_each_path():
    one = torch.ones_like(LOG_SNR)
    torch.testing.assert_close(vp.alpha(LOG_SNR) ** 2 + vp.sigma(LOG_SNR) ** 2, one)
    torch.testing.assert_close(ve.alpha(LOG_SNR), one)
    torch.testing.assert_close(linear.alpha(LOG_SNR) + linear.sigma(LOG_SNR), one)
