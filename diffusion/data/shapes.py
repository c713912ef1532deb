"""Shapes: pictures of one or two coloured shapes with truthful captions, drawn on the spot. No download, no
files.

Some compositions of a colour and a shape never occur in training, though their colour and their shape do:
whether a model draws a "red triangle" it has never seen is a question with an answer. Every picture is a
function of (seed, split).
"""

from collections.abc import Sequence
from typing import ClassVar

from diffusion.data import shape_captions, shape_renderer, shape_scenes
from diffusion.data.captioned import CaptionedImages, Prompts, kept, one_of
from diffusion.data.hashing import digest
from diffusion.data.shape_captions import FRAMES, UNSEEN_FRAMES
from diffusion.data.shape_scenes import COLOURS, HELDOUT, SHAPES, composition_index, draw_scenes
from diffusion.rng import generator

RECIPE = 2  # raised when pictures or captions change for equal arguments
RETRIEVAL_SIZE = 1000


class Shapes:
    """Drawn pictures of one or two coloured shapes, each with captions that say what, where and how large.

    train, test  pictures per split; pairs: the share of them that shows two shapes
    heldout      compositions such as "red triangle" that no training or test picture shows
    wordings     captions per picture
    """

    channels = 3
    mirror = False  # captions tell left from right
    heads: ClassVar = shape_scenes.HEADS
    example_prompts = (
        "a red circle",
        "a large green triangle on the left, on a striped background",
        "a small yellow ring in the top right corner",
        "a picture of a white cross at the bottom",
        "a large purple diamond, on a grey background",
        "a small orange square in the centre",
        "a blue square above a cyan circle",
        "a small red ring to the left of a large white triangle",
        "a yellow diamond below a green cross",
        "a large blue circle to the right of a small orange ring, on a dotted background",
        "a red triangle",
        "a large blue diamond in the middle",
        "a small green ring at the top",
        "a purple circle, on a checked background",
        "a yellow square above a red cross",
        "a white circle to the left of a cyan triangle",
    )

    def __init__(
        self,
        train: int = 40_000,
        test: int = 2_000,
        seed: int = 0,
        image_size: int = 32,
        heldout: Sequence[str] = HELDOUT,
        pairs: float = 0.3,
        wordings: int = 2,
    ):
        if train < 1 or test < 1:
            raise ValueError(f"train and test: at least 1 picture each, got {train} and {test}")
        if image_size < 16:
            raise ValueError(f"image_size: at least 16 (shapes are told apart from 32 on), got {image_size}")
        if not 0 <= pairs <= 1:
            raise ValueError(f"pairs: a share between 0 and 1, got {pairs}")
        if not 1 <= wordings <= len(UNSEEN_FRAMES):
            raise ValueError(f"wordings: 1 to {len(UNSEEN_FRAMES)} captions per picture, got {wordings}")
        self.image_size = image_size
        self.sizes = {"train": train, "test": test}
        self.seed, self.pairs, self.wordings = seed, pairs, wordings
        self.heldout = sorted({composition_index(name) for name in heldout})
        self.seen = [c for c in range(len(COLOURS) * len(SHAPES)) if c not in self.heldout]
        if len(self.seen) < 2:
            raise ValueError(
                f"heldout: at least 2 compositions must remain for training, {len(self.seen)} do"
            )
        self.prompt_groups = ("seen", "seen_pairs", *(("heldout", "heldout_pairs") if self.heldout else ()))

    def fingerprint(self) -> str:
        vocabulary = {
            f"{module.__name__}.{name}": value
            for module in (shape_scenes, shape_captions, shape_renderer)
            for name, value in vars(module).items()
            if name.isupper() and name not in ("DISTANCES", "PATTERNS", "CHUNK")
        }
        arguments = [self.sizes, self.seed, self.image_size, self.heldout, self.pairs, self.wordings]
        return digest(["shapes", RECIPE, arguments, vocabulary])

    @kept
    def split(self, name: str) -> CaptionedImages:
        """Seen compositions only; train and test come from different streams."""
        one_of("split", name, self.sizes)
        return self._draw(name, self.sizes[name], self.seen, self.seen)

    @kept
    def judge_split(self, name: str) -> CaptionedImages:
        """All compositions, held-out ones too: a judge must know what the models have to imagine."""
        one_of("split", name, self.sizes)
        everything = sorted(self.seen + self.heldout)
        return self._draw(f"judge {name}", self.sizes[name], everything, everything)

    def prompts(self, group: str, n: int, seed: int) -> Prompts:
        """Compositions in equal numbers. A held-out pair has one seen composition, in either place."""
        one_of("prompt group", group, self.prompt_groups)
        one = self.heldout if group.startswith("heldout") else self.seen
        pairs = 1.0 if group.endswith("_pairs") else 0.0
        scenes = draw_scenes(n, pairs, one, self.seen, generator(seed, 0, f"shapes prompts {group}: scenes"))
        words = generator(seed, 0, f"shapes prompts {group}: words")
        captions, rows = shape_captions.caption_table(scenes, FRAMES, 1, words)
        return Prompts(tuple(captions[row] for row in rows[:, 0]), scenes.labels())

    def retrieval(self) -> dict[str, CaptionedImages]:
        """The pictures of "unseen_templates" are those of "seen", in other words."""
        n = min(RETRIEVAL_SIZE, self.sizes["test"])
        sets = {
            "seen": self._draw("retrieval", n, self.seen, self.seen),
            "unseen_templates": self._draw("retrieval", n, self.seen, self.seen, UNSEEN_FRAMES),
        }
        if self.heldout:
            sets["heldout"] = self._draw("retrieval heldout", n, self.heldout, self.seen)
        return sets

    def _draw(
        self, name: str, n: int, one: Sequence[int], other: Sequence[int], frames=FRAMES
    ) -> CaptionedImages:
        scenes = draw_scenes(n, self.pairs, one, other, generator(self.seed, 0, f"shapes {name}: scenes"))
        images = shape_renderer.render(
            scenes, self.image_size, generator(self.seed, 0, f"shapes {name}: pixels")
        )
        words = generator(self.seed, 0, f"shapes {name}: words")
        captions, rows = shape_captions.caption_table(scenes, frames, self.wordings, words)
        return CaptionedImages(images, captions, rows, scenes.content(), scenes.labels())
