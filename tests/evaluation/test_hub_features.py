"""Published encoders, as tiny random folders in the hub's format."""

import pytest
import torch
from transformers import CLIPModel, Dinov2Config, Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from diffusion.config import build, check
from diffusion.evaluation.features import FeatureExtractor
from diffusion.evaluation.features.hub import ClipImageFeatures, DinoFeatures, prepared
from diffusion.text.clip import SmallCLIP

HUB = "diffusion.evaluation.features.hub."


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def dino(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path / "tiny-dino")
    return tmp_path / "tiny-dino"


@pytest.fixture
def clip(tmp_path):
    torch.manual_seed(0)
    small = SmallCLIP(width=64, layers=1, vision_width=64, vision_layers=1, embedding=10)
    small.save_pretrained(tmp_path / "tiny-clip")
    return tmp_path / "tiny-clip"


def test_dino_is_the_class_token_after_the_last_norm(dino, pictures):
    extract = DinoFeatures(str(dino), size=28)
    network = Dinov2Model.from_pretrained(dino)
    x = prepared(pictures, 28, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    with torch.no_grad():
        expected = network(pixel_values=x).pooler_output
    assert isinstance(extract, FeatureExtractor) and extract.name == "dinov2"
    assert torch.allclose(extract(pictures), expected, atol=1e-6)


def test_clip_is_the_normalised_embedding(clip, pictures):
    extract, network = ClipImageFeatures(str(clip)), CLIPModel.from_pretrained(clip)
    x = prepared(pictures, 32, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    with torch.no_grad():
        expected = network.get_image_features(pixel_values=x).pooler_output
    assert isinstance(extract, FeatureExtractor) and extract.name == "clip_vit_l14"
    assert torch.allclose(extract(pictures), expected / expected.norm(dim=1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("name", ["dino", "clip"])
def test_features_do_not_know_their_neighbours(name, request, pictures):
    kind = {"dino": DinoFeatures, "clip": ClipImageFeatures}[name]
    extract = kind(str(request.getfixturevalue(name)))
    assert torch.allclose(extract(pictures)[1:2], extract(pictures[1:2]), atol=1e-5)
    assert torch.equal(extract(pictures[:, :1]), extract(pictures[:, :1].repeat(1, 3, 1, 1)))


def test_pictures_are_scaled_and_normalised():
    x = prepared(torch.full((1, 1, 5, 7), 255, dtype=torch.uint8), 4, [0.5, 0.5, 0.0], [0.5, 0.25, 1.0])
    assert x.shape == (1, 3, 4, 4)
    assert torch.allclose(x[0, :, 0, 0], torch.tensor([1.0, 2.0, 1.0]))


def test_a_configuration_builds_them(dino):
    node = {"_target_": HUB + "DinoFeatures", "path": str(dino), "size": 28}
    check({"features": node})
    built = build(node, name="mine", device="cpu")
    assert built.name == "mine" and built.hash == DinoFeatures(str(dino), size=28).hash
    assert built.hash != DinoFeatures(str(dino), size=56).hash  # the same weights see other pictures


def test_an_encoder_that_is_not_there_says_what_to_do(tmp_path, clip):
    with pytest.raises(OSError, match="no such folder"):
        DinoFeatures(str(tmp_path / "nothing"))
    with pytest.raises(OSError, match="own CLIP instead"):
        ClipImageFeatures("nobody/no-such-clip")
