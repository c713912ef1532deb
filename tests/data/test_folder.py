import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion.data.captioned import DataUnavailable
from diffusion.data.folder import Folder


def picture(path, colour=(200, 30, 40), size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def captioned(root, n=40, **change):
    """n pictures in shades of red, each with its own caption; one line of the metadata may be changed."""
    rows = {}
    for i in range(n):
        name = f"{i % 2}/{i:03}.png"
        picture(root / name, (5 * i, 0, 0))
        rows[name] = {"file_name": name, "text": f"shade {i} of rouge é"}
    rows |= change.get("rows", {})
    text = "\n".join(json.dumps(row) for row in rows.values() if row)
    (root / "metadata.jsonl").write_text(text + "\n", encoding="utf-8")
    return root


def test_pictures_carry_their_own_captions(tmp_path):
    folder = Folder(str(captioned(tmp_path)), image_size=8)
    for name, n in {"train": 38, "test": 2}.items():
        data = folder.split(name)
        assert data.images.shape == (n, 3, 8, 8)
        for image, ids in zip(data.images, data.caption_ids):
            assert data.captions[ids[0]] == f"shade {int(image[0, 0, 0]) // 5} of rouge é"
    assert folder.prompt_groups == ("captions",) and folder.heads == {}
    assert len(folder.prompts("captions", 5, seed=0)) == 5
    assert list(folder.retrieval()) == ["seen"]


def test_the_held_out_pictures_are_the_same_every_time_and_not_trained_on(tmp_path):
    root = str(captioned(tmp_path))
    first, again = (Folder(root, image_size=8).split("test") for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert not set(first.content.tolist()) & set(Folder(root, image_size=8).split("train").content.tolist())


def test_equal_captions_are_equal_content(tmp_path):
    root = captioned(tmp_path, rows={"1/001.png": {"file_name": "1/001.png", "text": "shade 0 of rouge é"}})
    data = Folder(str(root), image_size=8).split("train")
    words = [data.captions[i] for i in data.caption_ids[:, 0]]
    assert len(set(data.content.tolist())) == len(set(words)) < len(data)


def test_one_folder_per_class(tmp_path):
    for part in ("train", "test"):
        for i in range(3):
            picture(tmp_path / part / "red_panda" / f"{i}.png", (250, 0, 0))
            picture(tmp_path / part / "apple" / f"{i}.JPG", (0, 250, 0))
    folder = Folder(str(tmp_path), image_size=4)
    data = folder.split("train")
    assert folder.heads == {"class": ("apple", "red panda")}
    assert data.labels[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert folder.example_prompts == ("a photo of an apple", "a photo of a red panda")
    assert set(folder.prompts("classes", 4, seed=0).captions) == set(folder.example_prompts)
    assert set(folder.retrieval()) == {"seen", "unseen_templates"}


@pytest.mark.parametrize(
    "row, message",
    [
        (None, r"1 pictures without row in metadata.jsonl: 0/000.png"),
        (
            {"file_name": "0/gone.png", "text": "gone"},
            r"1 rows of metadata.jsonl without picture: 0/gone.png",
        ),
        ({"file_name": "1/001.png", "text": "twice"}, r"several rows in metadata.jsonl: 1/001.png"),
        ({"file_name": "0/000.png"}, r"line 1: a text under 'text' expected"),
        ({"file_name": "0/000.png", "text": ["a", "b"]}, r"line 1: a text under 'text' expected"),
    ],
)
def test_rows_and_pictures_must_match(tmp_path, row, message):
    rows = {"0/000.png": row}
    if row and row["file_name"] != "0/000.png":
        rows["extra"] = rows.pop("0/000.png")
    root = captioned(tmp_path, rows=rows)
    with pytest.raises(ValueError, match=message):
        Folder(str(root), image_size=8).split("train")


def test_a_torn_metadata_file_is_told(tmp_path):
    root = captioned(tmp_path, n=3)
    file = root / "metadata.jsonl"
    file.write_text(file.read_text()[:-10])
    with pytest.raises(ValueError, match="line 3: no JSON"):
        Folder(str(root), image_size=8).split("train")


def test_a_torn_picture_is_named(tmp_path):
    root = captioned(tmp_path, n=4)
    for file in root.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"\d{3}\.png: "):
        Folder(str(root), image_size=8).split("train")


def test_pictures_outside_class_folders_are_told(tmp_path):
    picture(tmp_path / "cat" / "0.png")
    picture(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"outside folder/class/picture.*: 1\.png"):
        Folder(str(tmp_path), image_size=8).split("train")


def test_no_folder_and_no_pictures_are_told(tmp_path):
    with pytest.raises(DataUnavailable, match="does not exist"):
        Folder(str(tmp_path / "gone"), image_size=8).split("train")
    with pytest.raises(DataUnavailable, match="holds no pictures"):
        Folder(str(tmp_path), image_size=8).split("train")


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    base = Folder(str(captioned(tmp_path / "a")), image_size=8).fingerprint()
    same = [
        Folder(str(captioned(tmp_path / "b")), image_size=8),
        Folder(str(tmp_path / "a"), image_size=8, cache=str(tmp_path / "cache")),
    ]
    assert {folder.fingerprint() for folder in same} == {base}
    assert Folder(str(tmp_path / "a"), image_size=4).fingerprint() != base
    picture(tmp_path / "b" / "0" / "000.png", (1, 2, 3))
    assert Folder(str(tmp_path / "b"), image_size=8).fingerprint() != base
    other_words = {"0/000.png": {"file_name": "0/000.png", "text": "other words"}}
    assert Folder(str(captioned(tmp_path / "c", rows=other_words)), image_size=8).fingerprint() != base


def test_a_file_is_read_once_for_the_fingerprint_unless_it_changes(tmp_path, monkeypatch):
    root, cache, read = captioned(tmp_path / "a", n=4), str(tmp_path / "cache"), []
    real = hashlib.file_digest

    def noted(file, algorithm):
        read.append(Path(file.name).name)
        return real(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", noted)

    def fingerprint():
        read.clear()
        return Folder(str(root), image_size=8, cache=cache).fingerprint()

    first = fingerprint()
    assert sorted(read) == ["000.png", "001.png", "002.png", "003.png"]
    assert fingerprint() == first and not read
    picture(root / "0" / "002.png", (9, 9, 9))
    assert fingerprint() != first and read == ["002.png"]
    assert fingerprint() == Folder(str(root), image_size=8).fingerprint()


def test_captions_may_hold_any_character_but_the_end_of_a_line(tmp_path):
    root = captioned(tmp_path, n=4, rows={"1/001.png": {"file_name": "1/001.png", "text": "two\u2028lines"}})
    file = root / "metadata.jsonl"
    file.write_text("\ufeff" + file.read_text(encoding="utf-8").replace("\\u2028", "\u2028"), encoding="utf-8")
    folder = Folder(str(root), image_size=8)
    assert "two\u2028lines" in folder.split("train").captions


def test_hidden_folders_are_no_classes(tmp_path):
    for name in ("cat/0", "cat/1", "dog/0", "dog/1", ".thumbs/0"):
        picture(tmp_path / f"{name}.png")
    assert Folder(str(tmp_path), image_size=8).heads == {"class": ("cat", "dog")}
