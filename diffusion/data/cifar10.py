"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs of 32 x 32 pixels in ten classes, with captions
from templates.
"""

import functools
from collections.abc import Iterator
from typing import ClassVar

import datasets
import torch

from diffusion.data.captioned import CaptionedImages, DataUnavailable, Prompts, kept, one_of
from diffusion.data.class_captions import TEMPLATES, UNSEEN_TEMPLATES, class_images, class_prompts, fill
from diffusion.data.decode import cached, decode, exactly
from diffusion.data.hashing import digest
from diffusion.data.source import load_rows

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RETRIEVAL_SIZE = 2000


class Cifar10:
    """CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 pictures of 32 x 32 in ten classes, with captions from templates.

    source  a name on the hub, or a local folder in its layout (columns img, label)
    cache   a folder for the decoded pictures, or None
    """

    image_size = 32
    channels = 3
    mirror = True
    heads: ClassVar = {"class": NAMES}
    example_prompts = tuple(fill(TEMPLATES[0], name) for name in NAMES)
    prompt_groups = ("classes",)

    def __init__(self, source: str = "uoft-cs/cifar10", cache: str | None = None):
        self.source, self.cache = source, cache

    def fingerprint(self) -> str:
        return digest(["cifar10", self._rows[1], TEMPLATES, UNSEEN_TEMPLATES])

    @kept
    def split(self, name: str) -> CaptionedImages:
        return self._captioned(name)

    def judge_split(self, name: str) -> CaptionedImages:
        return self.split(name)

    def prompts(self, group: str, n: int, seed: int) -> Prompts:
        one_of("prompt group", group, self.prompt_groups)
        return class_prompts(NAMES, n, seed)

    def retrieval(self) -> dict[str, CaptionedImages]:
        """The same test pictures with the templates of training and with others."""
        sets = {"seen": TEMPLATES, "unseen_templates": UNSEEN_TEMPLATES}
        return {name: self._captioned("test", t).pick(RETRIEVAL_SIZE, 0) for name, t in sets.items()}

    @functools.cached_property
    def _rows(self) -> tuple[dict[str, datasets.Dataset], str]:
        splits, fingerprint = load_rows(self.source, variable="DIFFUSION_CIFAR10")
        for split in ("train", "test"):
            columns = splits[split].column_names if split in splits else None
            if columns is None or not {"img", "label"} <= set(columns):
                found = f"columns {', '.join(columns)}" if columns else f"splits {', '.join(splits)}"
                needed = f"{split} with columns img and label"
                raise DataUnavailable(f"{self.source}: {needed} expected, found {found}")
        return splits, fingerprint

    def _captioned(self, name: str, templates=TEMPLATES) -> CaptionedImages:
        splits, fingerprint = self._rows
        rows = splits[one_of("split", name, ("train", "test"))]
        key = f"cifar10-{name}-{fingerprint}"
        images = cached(self.cache, key, lambda: decode(self._files(name), len(rows), exactly(self.image_size)))
        classes = torch.tensor(rows["label"][:], dtype=torch.int64)
        if not 0 <= int(classes.min()) <= int(classes.max()) < len(NAMES):
            found = f"{int(classes.min())}..{int(classes.max())}"
            raise ValueError(f"{self.source}, {name}: labels 0..{len(NAMES) - 1} expected, got {found}")
        return class_images(images, classes, NAMES, templates)

    def _files(self, name: str) -> Iterator[tuple[str, bytes]]:
        rows = self._rows[0][name].select_columns("img").cast_column("img", datasets.Image(decode=False))
        for i, row in enumerate(rows):
            yield f"{self.source}, {name}, row {i}", row["img"]["bytes"]
