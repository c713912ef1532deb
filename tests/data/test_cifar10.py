from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from diffusion.data.captioned import DataUnavailable
from diffusion.data.cifar10 import NAMES, Cifar10
from diffusion.data.class_captions import TEMPLATES, UNSEEN_TEMPLATES
from tests.hub_layout import write

pytestmark = pytest.mark.usefixtures("own_cache")
REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "cifar10")


def test_pictures_and_labels_are_those_of_the_rows(folder):
    data = Cifar10(str(folder)).split("train")
    file = folder / "plain_text" / "train-00000-of-00001.parquet"
    rows = datasets.load_dataset("parquet", data_files=str(file), split="train")
    assert data.images.shape == (20, 3, 32, 32)
    for i in (0, 7, 19):
        assert torch.equal(data.images[i].permute(1, 2, 0), torch.from_numpy(np.array(rows[i]["img"])))
        assert data.labels[i].tolist() == [rows[i]["label"]] == [int(data.content[i])]


def test_captions_name_the_class(folder):
    data = Cifar10(str(folder)).split("test")
    assert len(data.captions) == len(NAMES) * len(TEMPLATES)
    for ids, label in zip(data.caption_ids, data.labels[:, 0]):
        assert all(NAMES[label] in data.captions[i] for i in ids)
    assert {"a photo of a horse", "a photo of an airplane", "a small photo of the ship"} <= set(data.captions)


def test_retrieval_changes_the_words_alone(folder):
    sets = Cifar10(str(folder)).retrieval()
    assert torch.equal(sets["seen"].images, sets["unseen_templates"].images)
    assert sets["unseen_templates"].caption_ids.shape[1] == len(UNSEEN_TEMPLATES)
    assert not set(sets["seen"].captions) & set(sets["unseen_templates"].captions)


def test_prompts_are_balanced_and_need_no_data():
    data = Cifar10("/there/is/nothing")
    prompts = data.prompts("classes", 20, seed=1)
    assert sorted(prompts.labels[:, 0].tolist()) == sorted(list(range(10)) * 2)
    assert all(
        f" {NAMES[label]}" in caption for caption, label in zip(prompts.captions, prompts.labels[:, 0])
    )
    assert prompts.captions != data.prompts("classes", 20, seed=2).captions
    assert "a photo of an automobile" in data.example_prompts


def test_the_cache_gives_the_same_pictures(folder, tmp_path):
    first = Cifar10(str(folder), cache=str(tmp_path)).split("train")
    assert len(list(tmp_path.glob("*.npy"))) == 1
    again = Cifar10(str(folder), cache=str(tmp_path)).split("train")
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, Cifar10(str(folder)).split("train").images)


def test_the_fingerprint_is_of_the_content(folder, tmp_path):
    base = Cifar10(str(folder)).fingerprint()
    assert Cifar10(str(folder), cache=str(tmp_path / "cache")).fingerprint() == base
    assert Cifar10(str(write(tmp_path / "moved"))).fingerprint() == base
    assert Cifar10(str(write(tmp_path / "other", seed=1))).fingerprint() != base


def test_folders_of_one_name_are_told_apart(tmp_path):
    for place, n in {"here": 10, "there": 30}.items():
        folder = write(tmp_path / place / "cifar10", {"train": n, "test": n})
        assert len(Cifar10(str(folder)).split("train")) == n


def test_a_picture_of_another_size_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"test, row 0: the picture is 16 x 16, 32 x 32 expected"):
        Cifar10(str(write(tmp_path / "small", side=16))).split("test")


def test_other_columns_and_missing_splits_are_told(tmp_path):
    with pytest.raises(DataUnavailable, match="img and label expected, found columns image, label"):
        Cifar10(str(write(tmp_path / "image", column="image"))).fingerprint()
    with pytest.raises(DataUnavailable, match="test with columns img and label expected, found splits train"):
        Cifar10(str(write(tmp_path / "train", {"train": 10}))).fingerprint()


@pytest.mark.parametrize("source", ["/there/is/nothing", "./nothing", "../a/b", "~/no/such/folder"])
def test_a_missing_folder_is_told_at_once(source):
    with pytest.raises(DataUnavailable, match="does not exist") as caught:
        Cifar10(source).fingerprint()
    for advice in ("diffusion.prepare", "data.source=FOLDER", "DIFFUSION_CIFAR10", "latent_shapes"):
        assert advice in str(caught.value)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(DataUnavailable, match="holds no data files"):
        Cifar10(str(tmp_path)).split("train")


def test_a_broken_file_is_told(tmp_path):
    folder = write(tmp_path / "broken")
    (folder / "plain_text" / "test-00000-of-00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataUnavailable, match="cannot be read"):
        Cifar10(str(folder)).split("train")


def test_without_network_the_hub_is_given_up_quickly(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    before = bool(datasets.config.HF_HUB_OFFLINE)
    with pytest.raises(DataUnavailable, match=r"the hub gives ConnectionError: no route to host"):
        Cifar10("nobody-here/no-such-data-set").split("train")
    assert bool(datasets.config.HF_HUB_OFFLINE) is before


@pytest.mark.skipif(not REAL.is_dir(), reason="no local copy of CIFAR-10")
def test_the_real_one(tmp_path):
    data = Cifar10(str(REAL), cache=str(tmp_path)).split("test")
    assert data.images.shape == (10_000, 3, 32, 32)
    assert torch.equal(data.labels[:, 0].bincount(), torch.full((10,), 1000))
    assert 100 < data.images.float().mean() < 140
