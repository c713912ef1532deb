from itertools import pairwise

import pytest
import torch

from diffusion.ema import gamma_of
from diffusion.ema.post_hoc import Profile, coefficients, cosines, norms

SOME = [Profile(100, 0.0), Profile(60, 16.97), Profile(100, 6.94), Profile(100, 16.97), Profile(37, 0.5)]


def sampled(profile: Profile, n: int = 200_000) -> torch.Tensor:
    """The profile at the middles of n parts of [0, 100]."""
    tau = (torch.arange(n, dtype=torch.float64) + 0.5) * 100 / n
    p = (profile.gamma + 1) * (tau / profile.step) ** profile.gamma / profile.step
    return torch.where(tau <= profile.step, p, 0.0)


def stored(every: int, steps: int = 1024, widths=(0.05, 0.1)) -> list[Profile]:
    return [Profile(step, gamma_of(width)) for step in range(every, steps + 1, every) for width in widths]


def test_inner_products_are_the_integrals():
    columns = torch.stack([sampled(p) for p in SOME])
    gram = columns @ columns.T * 100 / columns.shape[1]
    ours = cosines(SOME, SOME) * norms(SOME)[:, None] * norms(SOME)
    torch.testing.assert_close(ours, gram, rtol=1e-3, atol=0)


def test_a_stored_profile_is_its_own_best_match():
    profiles = stored(every=32)
    for index in (1, 20, len(profiles) - 1):
        c, error = coefficients(profiles, profiles[index])
        torch.testing.assert_close(c, torch.eye(len(profiles), dtype=torch.float64)[index], rtol=0, atol=1e-9)
        assert error < 1e-6


@pytest.mark.parametrize("width", [0.03, 0.08, 0.2])
def test_the_error_is_that_of_the_profiles_and_no_other_combination_has_less(width):
    profiles = [Profile(step, gamma) for step in (40, 70, 100) for gamma in (6.94, 16.97)]
    wanted = Profile(100, gamma_of(width))
    c, error = coefficients(profiles, wanted)
    columns, p = torch.stack([sampled(q) for q in profiles]), sampled(wanted)

    def miss(c):
        return ((p - c @ columns).norm() / p.norm()).item()

    assert miss(c) == pytest.approx(error, rel=1e-2)
    for index in range(len(c)):
        for nudge in (-1e-2, 1e-2):
            other = c.clone()
            other[index] += nudge
            assert miss(other) > miss(c)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15, 0.2])
def test_denser_snapshots_match_a_width_better(width):
    errors = [coefficients(stored(every), Profile(1024, gamma_of(width)))[1] for every in (128, 64, 32, 16)]
    assert all(fine < coarse / 2 for coarse, fine in pairwise(errors))
    assert errors[-1] < 0.01
