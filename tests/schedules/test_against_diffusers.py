import pytest
import torch

from diffusion.schedules import Cosine, Linear, ScaledLinear, ZeroTerminal

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (Linear(), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (ScaledLinear(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (Cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (ZeroTerminal(ScaledLinear()), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
                                        "rescale_betas_zero_snr": True}),
    ],
)
def test_tables_agree(ours, theirs):
    alphas_cumprod = diffusers.DDPMScheduler(num_train_timesteps=1000, **theirs).alphas_cumprod
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(ours.alpha(t) ** 2, alphas_cumprod.double(), rtol=0, atol=1e-6)
