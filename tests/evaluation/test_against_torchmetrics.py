"""The same numbers as torchmetrics, whose extractor is replaced by the identity."""

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from diffusion.evaluation.metrics.frechet import frechet_distance, moments_of
from diffusion.evaluation.metrics.inception_score import inception_score, score
from diffusion.evaluation.metrics.kernel import kernel_distance

D = 12


class Identity(nn.Module):
    num_features = D

    def forward(self, x):
        return x


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=generator)
    return torch.randn(90, D, generator=generator), 0.5 * torch.randn(60, D, generator=generator) @ mix + 0.3


def filled(metric, samples, real):
    metric.update(real, real=True)
    metric.update(samples, real=False)
    return metric


def test_frechet(sets):
    metric = filled(FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64), *(s.double() for s in sets))
    ours = frechet_distance(*map(moments_of, sets))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-4)  # theirs casts to float32 on the way


def test_kernel_distance(sets):
    x, y = sets[0][:60].double(), sets[1].double()
    metric = filled(KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=60), x, y)
    with torch.random.fork_rng():  # compute() draws its subsets from the global generator
        theirs, _ = metric.compute()
    assert kernel_distance(x, y).value == pytest.approx(theirs.item(), rel=1e-5)


def test_inception_score(sets):
    metric = InceptionScore(feature=Identity(), splits=1)
    metric.update(sets[0])
    with torch.random.fork_rng():
        assert score(sets[0]) == pytest.approx(metric.compute()[0].item(), rel=1e-5)


def test_inception_score_of_sure_and_of_unsure_classifiers():
    sure = 1e3 * torch.eye(D).repeat(20, 1)  # each class equally often, every picture certain
    assert score(sure) == pytest.approx(D)
    assert inception_score(torch.zeros(50, D), splits=5).value == pytest.approx(1)
    assert 1 < inception_score(sure).value <= D
