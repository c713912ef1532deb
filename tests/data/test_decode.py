import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data.decode import cached, crop_and_resize, decode, exactly, to_rgb


def png(mode: str, size=(4, 4), colour=0) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "mode, colour, rgb",
    [
        ("RGB", (9, 8, 7), (9, 8, 7)),
        ("L", 70, (70, 70, 70)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("LA", (70, 255), (70, 70, 70)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, rgb):
    images = decode([("one", png(mode, colour=colour))], 1, exactly(4))
    assert images.shape == (1, 3, 4, 4) and images.dtype == torch.uint8
    assert images[0, :, 0, 0].tolist() == list(rgb)


def test_sixteen_bits_keep_the_upper_eight():
    image = Image.fromarray(np.full((2, 2), 0x40FF, dtype=np.uint16))
    assert to_rgb(image).getpixel((0, 0)) == (0x40, 0x40, 0x40)


def test_thirty_two_bits_are_taken_by_what_they_hold():
    for value in (0x40, 0x40FF):
        image = Image.fromarray(np.full((2, 2), value, dtype=np.int32))
        assert to_rgb(image).getpixel((0, 0)) == (0x40, 0x40, 0x40)
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)))


def test_a_bad_picture_is_named():
    with pytest.raises(ValueError, match="row 1: the picture is 5 x 4, 4 x 4 expected"):
        decode([("row 0", png("RGB")), ("row 1", png("RGB", (5, 4)))], 2, exactly(4))
    with pytest.raises(ValueError, match="row 0: "):
        decode([("row 0", png("RGB")[:40])], 1, exactly(4))
    with pytest.raises(ValueError, match="no pictures"):
        decode([], 0, exactly(4))
    with pytest.raises(ValueError, match="row 0 was the last of 1 pictures, 2"):
        decode([("row 0", png("RGB"))], 2, exactly(4))
    with pytest.raises(ValueError, match="row 1: 5 x 4 pixels beside 4 x 4"):
        decode([("row 0", png("RGB")), ("row 1", png("RGB", (5, 4)))], 2, lambda image: image)


def test_the_crop_is_centred():
    image = Image.new("RGB", (12, 4))
    image.paste((255, 255, 255), (4, 0, 8, 4))
    assert np.asarray(crop_and_resize(4)(image)).min() == 255


def test_the_cache_makes_pictures_once_and_survives_a_torn_file(tmp_path):
    images, calls = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2), []

    def make():
        calls.append(1)
        return images

    for _ in range(2):
        assert torch.equal(cached(str(tmp_path / "new"), "a", make), images)
    assert len(calls) == 1
    (file,) = [path for path in (tmp_path / "new").iterdir() if path.suffix != ".lock"]  # and no temporary file
    whole = file.read_bytes()
    for torn in (b"", whole[:20], whole[:-1]):
        file.write_bytes(torn)
        assert torch.equal(cached(str(tmp_path / "new"), "a", make), images)
    assert len(calls) == 4
    assert file.read_bytes() == whole
    assert cached(None, "a", make) is images


def test_of_several_at_once_one_decodes(tmp_path):
    calls = []

    def make():
        calls.append(1)
        time.sleep(0.2)
        return torch.zeros(1, 3, 2, 2, dtype=torch.uint8)

    threads = [threading.Thread(target=cached, args=(str(tmp_path), "a", make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_nothing_is_left_behind_when_decoding_fails(tmp_path):
    with pytest.raises(ValueError):
        cached(str(tmp_path), "a", lambda: decode([], 0, exactly(4)))
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
