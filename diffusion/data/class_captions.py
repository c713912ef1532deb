"""Captions for pictures that carry a class only: class-conditional training is text with a few templates
per class.
"""

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Int64, UInt8
from torch import Tensor

from diffusion.data.captioned import CaptionedImages, Prompts
from diffusion.data.on_demand import OnDemand
from diffusion.data.wording import with_article
from diffusion.rng import generator

# {a}: the class with its article; {the}: without.
TEMPLATES = (
    "a photo of {a}",
    "a picture of {a}",
    "an image of {a}",
    "{a}",
    "a small photo of the {the}",
    "a blurry photo of {a}",
    "a photo of the {the}",
    "this is {a}",
)
UNSEEN_TEMPLATES = ("a snapshot showing {a}", "here one can see {a}", "the {the} in a tiny picture")


def fill(template: str, name: str) -> str:
    return template.format(a=with_article(name), the=name)


def class_images(
    images: UInt8[Tensor, "n c h w"] | OnDemand,
    classes: Int64[Tensor, " n"],
    names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> CaptionedImages:
    """Each picture with every template, filled with the name of its class."""
    captions = tuple(fill(template, name) for name in names for template in templates)
    k = len(templates)
    caption_ids = repeat(classes * k, "n -> n k", k=k) + torch.arange(k)
    return CaptionedImages(images, captions, caption_ids, classes, classes[:, None])


def class_prompts(names: Sequence[str], n: int, seed: int) -> Prompts:
    """ "a photo of a {name}", each class as often as any other (up to one), in random order."""
    order = torch.randperm(n, generator=generator(seed, 0, "class prompts"))
    classes = (torch.arange(n) % len(names))[order]
    return Prompts(tuple(fill(TEMPLATES[0], names[c]) for c in classes.tolist()), classes[:, None])
