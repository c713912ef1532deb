import subprocess
import sys

import pytest
import torch

from diffusion import rng


def test_a_slice_of_a_draw_is_its_part():
    whole = rng.normal((8, 3, 5), 1, 2, "eps")
    parts = [rng.normal((8, 3, 5), 1, 2, "eps", rows=slice(k, k + 2)) for k in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts), whole)


def test_seed_step_and_purpose_each_matter():
    draws = [
        rng.uniform((4,), *address)
        for address in [(0, 0, "t"), (1, 0, "t"), (0, 1, "t"), (0, 0, "eps"), (0, 10, "t")]
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_the_global_state_is_left_alone():
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    (
        rng.normal((3,), 0, 0, "eps"),
        rng.integers(5, (3,), 0, 0, "label"),
        rng.SampleNoise([("a", 0, 0)])(torch.ones(1, 2)),
    )
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_reseeding_is_torchs_own(device):
    def drawn():
        return torch.rand(3, device=device), torch.randn(3, device=device), torch.rand(3)

    rng.reseed(0, 5, "dropout", torch.device(device))
    found, seed = drawn(), torch.initial_seed()
    torch.manual_seed(seed)
    assert all(map(torch.equal, found, drawn()))
    rng.reseed(0, 6, "dropout", torch.device(device))
    assert torch.initial_seed() != seed and not torch.equal(found[0], drawn()[0])


def test_another_process_draws_the_same():
    code = "from diffusion import rng; print(rng.integers(10**6, (5,), 3, 4, 'label').tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert eval(other.stdout) == rng.integers(10**6, (5,), 3, 4, "label").tolist()


def test_integers_stay_below_high():
    draw = rng.integers(3, (1000,), 0, 0, "label")
    assert draw.unique().tolist() == [0, 1, 2]


PICTURES = [
    ("a red square", 0, 0),
    ("a red square", 0, 1),
    ("a red square", 1, 0),
    ("a blue circle", 0, 0),
    (None, 0, 0),
]


@pytest.mark.parametrize("shape", [(3,), (4, 8, 8)])
def test_a_picture_does_not_know_its_neighbours(shape):
    together = rng.SampleNoise(PICTURES)
    x = torch.empty(len(PICTURES), *shape)
    first, second = together(x), together(x)
    for k, picture in enumerate(PICTURES):
        alone = rng.SampleNoise([picture])
        assert torch.equal(alone(x[:1])[0], first[k]) and torch.equal(alone(x[:1])[0], second[k])
    assert len({tuple(row.flatten().tolist()) for row in [*first, *second]}) == 2 * len(PICTURES)


def test_noise_has_the_dtype_of_its_argument_and_the_same_values():
    x = torch.empty(1, 5)
    half = rng.SampleNoise(PICTURES[:1])(x.bfloat16())
    assert torch.equal(half, rng.SampleNoise(PICTURES[:1])(x).bfloat16())


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="batch of 2"):
        rng.SampleNoise(PICTURES)(torch.empty(2, 3))
