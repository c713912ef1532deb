"""What a full evaluation sees of a latent model whose data may be mirrored."""

import pytest
import torch

from diffusion.data.shapes import Shapes
from diffusion.denoiser import Denoiser
from diffusion.evaluation.features import ClipFeatures
from diffusion.evaluation.full import Full
from diffusion.evaluation.records import all_scores
from diffusion.evaluation.resumable import file_of, read
from diffusion.grids import save_png
from diffusion.latent import LatentDiffusion
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.parameterizations import V
from diffusion.schedules import Cosine
from diffusion.text import tokenizer
from diffusion.text.clip import SmallCLIP

LAST = slice(12, 20)  # samples 12..19 are mirrored training pictures


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Test pictures in the samples' place, and copies behind them."""
    folder, data = tmp_path_factory.mktemp("evaluation"), Shapes(train=40, test=24, image_size=16)
    data.mirror = True
    torch.manual_seed(0)
    clip = SmallCLIP(tokenizer.learn(["a red circle"], 520), width=64, layers=1, vision_width=64, vision_layers=1,
                     image_size=16)
    autoencoder = KLAutoencoder(widths=[32, 32], mid_attention=False).eval()
    denoiser = Denoiser(torch.nn.Conv2d(4, 4, 1), Cosine(), V())
    full = Full(LatentDiffusion(autoencoder, clip, denoiser, (4, 8, 8)), data, folder, n=20)
    training = data.split("train").pick(40, 0).images
    for i, picture in enumerate([*data.split("test").images[:12], *training[LAST].flip(-1)]):
        save_png(picture, file_of(folder, i), {})
    sets = full.sets(ClipFeatures(clip), read(folder, 20, 16))
    return sets, *all_scores(full, [sets], full.quality())


def test_the_autoencoder_stands_beside_the_samples(scored):
    sets, scores, _ = scored
    assert {name: len(features) for name, features in sets.others.items()} == {
        "training": 20, "reconstructions": 20, "test_reconstructions": 24}
    frechet = {end: scores[f"frechet/clip{end}"]["value"] for end in ("", "/training", "/reconstructions")}
    assert frechet["/reconstructions"] > 2 * frechet["/training"]  # the weights are random
    assert scores["frechet/clip/test_reconstructions"]["n"] == 24
    assert 0 < scores["psnr"]["low"] < scores["psnr"]["value"] < 20 and scores["ssim"]["n"] == 24


def test_mirrored_copies_are_found(scored):
    _, scores, memory = scored
    found = memory["clip"].neighbours
    assert torch.equal(found.index[LAST, 0], torch.arange(40)[LAST]) and found.distances[LAST, 0].max() < 1e-4
    assert scores["memorised/clip"]["value"] >= 0.4
