"""Memorisation on known sets of features."""

import torch

from diffusion import rng
from diffusion.evaluation.memorisation import memorised, nearest


def normal(n, what, d=8):
    return rng.normal((n, d), 0, 0, what)


def test_planted_copies_are_found_with_their_originals():
    training, samples = normal(500, "training"), normal(100, "samples")
    samples[:20] = training[40:60] + 1e-4 * normal(20, "rounding")
    found = memorised([samples], [normal(1000, "test")], training)
    assert 0.2 <= found.share.value < 0.25 and found.share.low > 0.1
    assert torch.equal(found.neighbours.index[:20, 0], torch.arange(40, 60))
    assert found.neighbours.distances[:20, 0].max() < 1e-3


def test_fresh_draws_give_one_in_a_hundred():
    found = memorised([normal(20_000, "samples")], [normal(20_000, "test")], normal(500, "training"))
    assert 0.007 < found.share.value < 0.013


def test_a_mirrored_copy_is_a_copy():
    training, samples = normal(200, "training"), normal(50, "samples")
    mirrored = normal(50, "mirrored")
    mirrored[:10] = training[:10]
    test = [normal(500, "test"), normal(500, "test mirrored")]
    assert memorised([samples, mirrored], test, training).share.value >= 0.2
    assert memorised([samples, samples], test, training).share.value < 0.1


def test_neighbours_are_those_of_all_pairs_and_a_copy_lies_at_zero():
    training = 1000 + normal(300, "training")
    found = nearest([training[:70]], training, k=5)
    distances = (training[:70, None] - training).norm(dim=-1)
    assert torch.equal(found.distances, distances.sort().values[:, :5]) and found.distances[:, 0].max() == 0


def test_copies_are_found_where_test_pictures_are_copies_too():
    training, test = normal(500, "training"), normal(1000, "test")
    test[:20] = training[:20]
    assert memorised([training[:100]], [test], training).share.value == 1
    assert memorised([normal(100, "samples")], [test], training).share.value == 0
