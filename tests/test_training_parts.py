"""The pieces around the training step: batches, meter, learning rates, contrastive and adversarial losses."""

import os
import types

import pytest
import torch
import torch.nn.functional as F

from diffusion import rng
from diffusion.data.batches import FromStep, MicroBatches, StepLoader, positions
from diffusion.memory import resident, rows_of
from diffusion.objectives.autoencoder import adaptive_weight, hinge_discriminator, hinge_generator
from diffusion.objectives.classification import all_right, classification_loss
from diffusion.objectives.contrastive import contrastive_loss
from diffusion.pixels import to_float, to_uint8
from diffusion.training.diffusion import DiffusionTraining
from diffusion.training.finite import FiniteGradients, LossScaling, NonFinite, refuse_scale
from diffusion.training.meter import Meter
from diffusion.training.optim import constant, cosine, linear


def test_an_epoch_shows_every_picture_once():
    assert sorted(positions(10, 0, 10, 3).tolist()) == list(range(10))
    assert sorted(positions(10, 10, 20, 3).tolist()) == list(range(10))
    assert positions(10, 0, 10, 3).tolist() != positions(10, 10, 20, 3).tolist()


def test_positions_do_not_depend_on_where_one_starts():
    whole = positions(7, 0, 40, 0)
    assert torch.equal(torch.cat([positions(7, 0, 13, 0), positions(7, 13, 40, 0)]), whole)


def fetch(index, step, rows):
    return {"index": index, "noise": rng.normal((8, 3), 0, step, "eps", rows=rows)}


@pytest.mark.parametrize("world, accumulate", [(2, 1), (1, 2), (2, 2), (4, 2)])
def test_ranks_and_accumulation_only_split_a_batch(world, accumulate):
    whole = MicroBatches(20, fetch, batch=8, steps=3, seed=1)
    split = [MicroBatches(20, fetch, batch=8, steps=3, seed=1, rank=r, world=world, accumulate=accumulate)
             for r in range(world)]
    for step in range(3):
        parts = [split[r][step * accumulate + k] for k in range(accumulate) for r in range(world)]
        for name in ("index", "noise"):
            assert torch.equal(torch.cat([p[name] for p in parts]), whole[step][name])


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="multiple of 6"):
        MicroBatches(20, fetch, batch=8, steps=1, seed=0, world=3, accumulate=2)


def test_a_loader_begins_where_the_run_stands():
    assert list(FromStep(10, lambda: 7)) == [7, 8, 9]


def test_meter_gives_means_and_bins():
    meter = Meter()
    meter.add("a", torch.tensor([1.0, 2.0]))
    meter.add("a", torch.tensor([6.0]))
    meter.add_bins("loss", torch.tensor([1.0, 3.0, 5.0]), torch.tensor([-1.0, -1.0, 9.0]), [0.0, 5.0])
    assert meter.take() == {"a": 3.0, "loss_-inf..0": 2.0, "loss_5..inf": 5.0}
    assert meter.take() == {}


@pytest.mark.parametrize("factor", [constant, cosine, linear])
def test_learning_rates_warm_up_and_stay_in_range(factor):
    values = [factor(step, 100, warmup=10) for step in range(101)]
    assert values[0] == pytest.approx(0.1) and values[9] == pytest.approx(1.0)
    assert all(0 <= v <= 1 for v in values)
    if factor is not constant:
        assert values[100] == pytest.approx(0) and values[10:] == sorted(values[10:], reverse=True)


def unit(n, dim=4, seed=0):
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_contrastive_loss_of_distinct_content_is_clips():
    image, text, scale = unit(6), unit(6, seed=1), torch.tensor(7.0)
    logits, target = scale * image @ text.T, torch.arange(6)
    clips = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert torch.allclose(contrastive_loss(image, text, target, scale).mean(), clips)


def test_equal_captions_are_no_negatives():
    """With one content, nothing can be learnt: every arrangement that gives all pairs the same logit is optimal."""
    text = unit(1).expand(5, -1).clone().requires_grad_()
    loss = contrastive_loss(unit(1).expand(5, -1), text, torch.zeros(5, dtype=torch.int64), torch.tensor(10.0)).mean()
    loss.backward()
    assert text.grad.abs().max() < 1e-6


def test_attributes_that_were_not_asked_do_not_count():
    logits = [torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])]
    assert all_right(logits, torch.tensor([[0, -1]])).all() and not all_right(logits, torch.tensor([[0, 0]])).any()
    assert torch.equal(classification_loss(logits, torch.tensor([[0, -1]])), classification_loss(
        logits[:1], torch.tensor([[0]])))


def test_hinge_losses_vanish_where_the_critic_is_sure():
    sure = torch.full((2, 1, 3, 3), 2.0)
    assert hinge_discriminator(sure, -sure).sum() == 0 and hinge_discriminator(-sure, sure).min() > 0
    assert (hinge_generator(sure) < hinge_generator(-sure)).all()


def test_the_adaptive_weight_balances_the_gradients_at_the_last_layer():
    w = torch.randn(3, requires_grad=True)
    reconstruction = (w * torch.tensor([1.0, 2.0, 2.0])).sum()
    adversarial = 0.01 * (w * torch.tensor([3.0, 4.0, 0.0])).sum()
    weight = adaptive_weight(reconstruction, adversarial, w)
    assert weight * 0.05 == pytest.approx(3.0, rel=1e-4)


def test_uint8_survives_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(values)), values)


def test_offset_noise_gives_each_channel_a_shift_of_its_own():
    """Variance 1 + offset^2 of a value, covariance offset^2 within a channel, none between channels."""
    told = types.SimpleNamespace(batch=4000, seed=0, offset_noise=0.5)
    eps = DiffusionTraining._noise(told, torch.zeros(4000, 2, 2, 2), 3, slice(0, 4000))
    covariance = torch.cov(eps.flatten(1).T)
    expected = torch.eye(8) + 0.25 * torch.block_diag(torch.ones(4, 4), torch.ones(4, 4))
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.08)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_with_its_step_and_rate(bad):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=0.02, fused=True)
    finite = FiniteGradients()
    finite.look(torch.tensor(1e30), optimizer, 4)
    with pytest.raises(NonFinite, match=r"step 5 \(learning rate 0.02\)"):
        finite.look(torch.tensor(bad), optimizer, 5)
    finite.wait()


def test_rows_are_fetched_from_tensors_and_from_pictures_on_demand_alike():
    data = torch.arange(12).reshape(6, 2)
    assert resident(data, torch.device("cpu")) is data

    class Pictures:
        def __getitem__(self, index):
            return data[index]

    index = torch.tensor([4, 1])
    assert rows_of(data, index).tolist() == rows_of(Pictures(), index).tolist() == [[8, 9], [2, 3]]


def test_a_scale_that_only_falls_ends_the_training():
    refuse_scale(1.0, 5)
    with pytest.raises(NonFinite, match=r"before step 30 .* scaled by 0\.5"):
        refuse_scale(0.5, 30)


def test_loss_scaling_leaves_it_to_the_networks_what_is_in_float16():
    with LossScaling("16-mixed", "cpu").train_step_context():
        assert not torch.is_autocast_enabled("cpu")


def test_a_signal_to_the_group_is_not_one_to_its_workers():
    batches = MicroBatches(4, lambda index, step, rows: {"session": os.getsid(0)}, batch=2, steps=2, seed=0)
    sessions = {batch["session"] for batch in StepLoader(batches, lambda: 0, workers=1)}
    assert len(sessions) == 1 and sessions != {os.getsid(0)}
