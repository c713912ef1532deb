import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from diffusion import snapshots
from diffusion.ema import PowerAverage, PowerEMA, gamma_of
from diffusion.ema.post_hoc import Profile, coefficients

STEPS = 256
HALF = 2.0**-11  # relative rounding of float16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Snapshots of a random walk at several cadences, each in a run's folder; 0.08 tracked beside them; the walk."""
    model, generator, walk = nn.Linear(16, 16), torch.Generator().manual_seed(0), []
    ema, direct = PowerEMA(model, [0.05, 0.1]), PowerAverage(model, 0.08)
    runs = {every: tmp_path_factory.mktemp(f"every_{every}") for every in (64, 32, 16, 8)}
    for step in range(1, STEPS + 1):
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn(p.shape, generator=generator)
        walk.append(model.weight.detach().clone())
        ema.update()
        direct.update()
        for every, run in runs.items():
            if step % every == 0:
                snapshots.write(run, step, {width: a.shadows for width, a in ema.averages.items()})
    return runs, direct.shadows["weight"], torch.stack(walk)


def test_a_stored_width_at_a_stored_step_comes_back(trained):
    run = trained[0][32]
    for width in (0.05, 0.1):
        for step in (32, 128, 256):
            made = snapshots.reconstruct(run, width, step)
            stored = load_file(run / "averages" / f"{step}.safetensors")
            assert made.step == step and made.tensors.keys() == {"weight", "bias"}
            for name, tensor in made.tensors.items():
                torch.testing.assert_close(tensor, stored[f"{width}/{name}"].float(), rtol=1e-6, atol=1e-9)


def test_another_width_is_near_the_one_tracked_beside_it_and_nearer_with_more_snapshots(trained):
    runs, direct, walk = trained
    made = [snapshots.reconstruct(run, 0.08) for run in runs.values()]
    errors = [(m.tensors["weight"] - direct).norm().item() for m in made]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 10
    wanted = Profile(STEPS, gamma_of(0.08))
    norm = (wanted.gamma + 1) / (STEPS * (2 * wanted.gamma + 1)) ** 0.5
    for every, m in zip(runs, made, strict=True):  # Cauchy-Schwarz, and the rounding to float16
        profiles = [Profile(s, gamma_of(w)) for s in range(every, STEPS + 1, every) for w in (0.05, 0.1)]
        c, error = coefficients(profiles, wanted)
        assert m.error == pytest.approx(error)
        bound = error * norm * walk.square().sum(0).sqrt() + c.abs().sum() * HALF * walk.abs().amax(0)
        assert ((m.tensors["weight"] - direct).abs() <= bound).all()


def test_an_average_knows_nothing_of_what_came_later(trained, tmp_path):
    whole = snapshots.reconstruct(trained[0][16], 0.07, step=128)
    snapshots.take_over(trained[0][16], tmp_path, 32)
    assert list(snapshots.saved(tmp_path)) == list(range(32, STEPS + 1, 32))
    for step, path in snapshots.saved(trained[0][16]).items():
        if step <= 128:
            (tmp_path / "averages" / path.name).write_bytes(path.read_bytes())
    cut = snapshots.reconstruct(tmp_path, 0.07, step=128)
    assert all(torch.equal(whole.tensors[name], cut.tensors[name]) for name in whole.tensors)


def test_what_cannot_be_had_is_said(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="ema=power"):
        snapshots.reconstruct(tmp_path, 0.1)
    with pytest.raises(ValueError, match="the 8 snapshots are from step 32 to 256; the nearest to this are 96 and 128"):
        snapshots.reconstruct(trained[0][32], 0.1, step=110)
    with pytest.raises(ValueError, match=r"sigma_rel = 0\.3"):
        snapshots.reconstruct(trained[0][32], 0.3)
    snapshots.write(tmp_path, 1, {0.1: {"weight": torch.full((2,), 1e5)}})
    with pytest.raises(ValueError, match="65504"):
        snapshots.reconstruct(tmp_path, 0.1)
