import pytest
import torch

from diffusion.loss_second_moment import LossSecondMoment
from diffusion.schedules import Cosine
from diffusion.time_sampling import stratified

U = stratified(torch.tensor([0.37]), 4096)


def deviation(t):
    """The root of the second moment of a loss that depends on t."""
    return 0.1 + t**2


def taught(**options):
    sampler = LossSecondMoment(bins=20, **options)
    for _ in range(10):
        t, _ = sampler(Cosine(), U)
        sampler.update(t, deviation(t))
    return sampler


def test_it_starts_uniform_until_all_was_seen():
    sampler = LossSecondMoment(bins=20, horizon=3)
    for _ in range(2):
        t, weight = sampler(Cosine(), U)
        torch.testing.assert_close(t, 1 - U)
        assert (weight == 1).all()
        sampler.update(t, deviation(t))
    sampler.update(t, deviation(t))
    assert not torch.equal(sampler(Cosine(), U)[0], 1 - U)


def test_times_come_as_often_as_the_loss_is_large():
    t, _ = taught()(Cosine(), U)
    count = torch.histc(t.float(), 20, 0, 1) / len(U)
    middle = (torch.arange(20) + 0.5) / 20
    expected = deviation(middle) / deviation(middle).sum()
    torch.testing.assert_close(count, expected, rtol=0.05, atol=2e-3)
    assert t.min() > 0 and t.max() <= 1


def test_the_weights_keep_every_expectation():
    t, weight = taught()(Cosine(), U)
    for k in range(4):
        assert (weight * t**k).mean().item() == pytest.approx(1 / (k + 1), abs=2e-3)


def test_the_weighted_loss_varies_less():
    t, weight = taught()(Cosine(), U)
    assert (weight * deviation(t)).std() < 0.3 * deviation(1 - U).std()


def test_the_density_has_a_floor_and_mean_one():
    sampler = LossSecondMoment(bins=4, horizon=1, uniform=0.2)
    sampler.update(torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.tensor([0.0, 0.0, 0.0, 5.0]))
    p = sampler.density()
    assert p.mean().item() == pytest.approx(1) and p.min().item() == pytest.approx(0.2)


def test_losses_of_parts_may_come_in_any_order():
    t, loss = torch.rand(64, dtype=torch.float64), torch.rand(64)
    order = torch.randperm(64)
    one, other = LossSecondMoment(bins=5), LossSecondMoment(bins=5)
    one.update(t, loss)
    other.update(t[order], loss[order])
    torch.testing.assert_close(one.second_moment, other.second_moment)


def test_its_memory_can_be_kept():
    kept = LossSecondMoment(bins=20)
    kept.load_state_dict(taught().state_dict())
    assert torch.equal(kept(Cosine(), U)[0], taught()(Cosine(), U)[0])


def test_losses_that_are_not_finite_teach_nothing():
    sampler, other = taught(), taught()
    t, _ = sampler(Cosine(), U)
    loss = deviation(t)
    loss[::3] = float("nan")
    loss[1::3] = float("inf")
    sampler.update(t, loss)
    other.update(t[2::3], deviation(t[2::3]))
    assert torch.equal(sampler.second_moment, other.second_moment)
