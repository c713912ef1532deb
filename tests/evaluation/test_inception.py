"""The FID's Inception: the public file's names, TensorFlow 1's resize, and the same numbers as torch-fidelity's."""

import sys
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F

from diffusion.evaluation.features import FeatureExtractor, inception
from diffusion.evaluation.features.inception import InceptionFeatures, resized
from diffusion.files import file_hash
from diffusion.models.inception import Inception


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Random weights that keep the activations' scale, under the public names."""
    generator, state = torch.Generator().manual_seed(0), Inception().state_dict()
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
    return path


def pictures(size=(40, 56)):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 5, 5, generator=generator) * 255
    return F.interpolate(coarse, size, mode="nearest").to(torch.uint8)


def test_equals_torch_fidelitys(file, monkeypatch):
    """pip install --no-deps torch-fidelity; its Inception does not use the torchvision that its package imports."""
    for name in ("", ".datasets", ".models", ".transforms", ".transforms.functional"):
        monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file))
    ours = InceptionFeatures(str(file))
    for size in ((32, 32), (299, 299), (310, 400)):
        features, logits = theirs(pictures(size))
        assert (ours(pictures(size)) - features).abs().max() < 1e-5
        assert (ours.logits(ours(pictures(size))) - logits).abs().max() < 1e-5


def test_features_are_of_the_form_that_scores_take(file):
    extract = InceptionFeatures(str(file))
    features = extract(pictures())
    assert isinstance(extract, FeatureExtractor) and extract.hash == file_hash(file)
    assert features.shape == (2, 2048) and features.dtype == torch.float32
    assert extract.logits(features).shape == (2, 1008)
    grey = pictures()[:, :1]
    assert torch.equal(extract(grey[:1]), extract(grey[:1].repeat(1, 3, 1, 1)))


def test_the_names_and_sizes_are_the_public_files():
    sizes = {name: tuple(tensor.shape) for name, tensor in Inception().state_dict().items()}
    assert sum(name.endswith("conv.weight") for name in sizes) == 94
    assert sizes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3) and sizes["fc.weight"] == (1008, 2048)
    assert sizes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert sizes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert sizes["Mixed_5b.branch_pool.bn.weight"] == (32,) and sizes["Mixed_6a.branch3x3.bn.weight"] == (384,)


def test_resize_puts_pixel_i_at_i_times_the_ratio():
    x = torch.tensor([[[[0.0, 10.0, 40.0]]]])
    assert torch.allclose(resized(x, 6)[0, 0, 0], torch.tensor([0.0, 5.0, 10.0, 25.0, 40.0, 40.0]))
    assert torch.equal(resized(x.repeat(1, 1, 3, 1), 3), x.repeat(1, 1, 3, 1))


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(inception, "URL", (tmp_path / "nothing.pth").as_uri())
    with pytest.raises(OSError, match="own CLIP instead"):
        InceptionFeatures()
    with pytest.raises(OSError, match="no such file"):
        InceptionFeatures(str(tmp_path / "nothing.pth"))


def test_a_fetched_file_is_checked_and_kept(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(inception, "URL", file.as_uri())
    with pytest.raises(OSError, match="invalid hash value"):
        inception.fetched()
    monkeypatch.setattr(inception, "SHA256", file_hash(file)[:8])
    assert file_hash(inception.fetched()) == file_hash(file)
    monkeypatch.setattr(inception, "URL", "file:///gone")
    assert inception.fetched().is_file()


def test_other_files_are_refused(tmp_path, file):
    state = torch.load(file, weights_only=True)
    del state["fc.bias"]
    torch.save(state, tmp_path / "less.pth")
    (tmp_path / "text.pth").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("less", "text", "list"):
        with pytest.raises(ValueError, match="does not hold the weights"):
            InceptionFeatures(str(tmp_path / f"{name}.pth"))
