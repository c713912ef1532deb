"""Everything about a finished model, as far as networks are needed:

    pictures -> features (once, in float32, of the 8-bit pictures that the files hold)

Beside the samples stand what they cannot be expected to beat: training pictures and their reconstructions. Processes
share the work; the numbers come from the feature matrices alone, in `records`.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion import processes
from diffusion.data.batches import positions
from diffusion.data.captioned import CaptionedDataset
from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import share
from diffusion.evaluation.features import FeatureExtractor
from diffusion.evaluation.generation import pictures_of
from diffusion.evaluation.reconstruction import quality, reconstructed
from diffusion.evaluation.reference import Reference, features_of, reference_of
from diffusion.evaluation.resumable import draw_missing, missing, read
from diffusion.evaluation.sensitivity import Sensitivity, prompt_sensitivity
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.models.identity import Identity

TWINS = "test_reconstructions"  # of the very pictures of the reference


@dataclasses.dataclass(frozen=True)
class Sets:
    """All sets of pictures as one network sees them.

    others     what stands beside the samples, by name
    test       reference of the test split; `reference` is that or what was given in its place
    training   of training pictures, or of some of them
    mirrored   samples and test pictures, where training mirrors its pictures
    """

    extract: FeatureExtractor
    samples: Tensor
    others: dict[str, Tensor]
    reference: Reference
    test: Reference
    training: Reference
    mirrored: tuple[Tensor, Tensor] | None = None


@dataclasses.dataclass(frozen=True)
class Full:
    """What is evaluated, and how.

    seed                of the prompts and of the pictures
    references          for the networks that they name in place of the test split's
    training_pictures   how many samples are compared with, at most
    """

    model: LatentDiffusion
    data: CaptionedDataset
    cache: Path
    n: int
    seed: int = 0
    references: Sequence[Reference] = ()
    training_pictures: int = 50_000
    batch: int = 64
    say: Callable[[str], None] = lambda line: None

    @functools.cached_property
    def rows(self) -> Tensor:
        """The test pictures whose captions are the prompts, in random order. A smaller n has the first of them."""
        return positions(len(self.data.split("test")), 0, self.n, self.seed)

    @functools.cached_property
    def prompts(self) -> list[str]:
        test = self.data.split("test")
        return [test.captions[i] for i in test.caption_ids[self.rows, 0].tolist()]

    def announce(self, extractors: Sequence[FeatureExtractor], probe: int = 50) -> None:
        """What each network will see at most (its references may be there already), and how long that takes, measured
        on a few test pictures."""
        test, train = (len(self.data.split(split)) for split in ("test", "train"))
        views = 2 if self.data.mirror else 1
        again = 0 if isinstance(self.model.autoencoder, Identity) else self.n + test  # through the autoencoder
        for extract in extractors:
            pictures = views * (self.n + test) + min(train, max(self.training_pictures, self.n)) + again
            began = time.perf_counter()
            extract(self.data.split("test").images[:probe])
            seconds = (time.perf_counter() - began) * pictures / probe / processes.world()
            self.say(f"features by {extract.name}: {pictures:,} pictures at most, about "
                     f"{tqdm.format_interval(seconds)}")

    def draw(self, sampling: Sampling, folder: Path, negative: str = "") -> OnDemand:
        """The samples; those that lie in the folder are not drawn again."""
        todo, began = len(missing(folder, self.n)), time.perf_counter()
        with bar(todo, "samples") as shown:
            if todo:
                self.say(f"to draw: {todo} of {self.n} pictures x {sampling.steps} steps")

            def progress(done: int) -> None:
                seconds, left = time.perf_counter() - began, shown.total - done
                if shown.n == 0 and left > 0:
                    self.say(f"the first {done} took {seconds:.3g} s: about "
                             f"{tqdm.format_interval(seconds * left / done)} left")
                shown.n += done  # update() counts nothing where the bar is not shown
                shown.refresh()

            draw_missing(self.model, pictures_of(self.prompts, self.seed), sampling, folder, batch=self.batch,
                         negative=negative, progress=progress)
        return read(folder, self.n, self.data.image_size)

    def sets(self, extract: FeatureExtractor, samples: OnDemand) -> Sets:
        """What one network sees."""
        given = next((reference for reference in self.references if reference.extractor == extract.name), None)
        test = self.reference("test", extract)
        training = self.reference("train", extract, most=max(self.training_pictures, self.n))
        others, mirrored = {"training": training.features[: self.n]}, None
        if not isinstance(self.model.autoencoder, Identity):
            same = self.data.split("train").pick(self.n, 0).images
            for name, images in {"reconstructions": same, TWINS: self.data.split("test").images}.items():
                others[name] = self._features(images, lambda part: extract(reconstructed(self.model, part)), name)
        if self.data.mirror:
            mirrored = (self._features(samples, lambda part: extract(part.flip(-1)), "mirrored samples"),
                        self.reference("test", extract, mirror=True).features)
        return Sets(extract, self._features(samples, extract, "samples"), others, given or test, test, training,
                    mirrored)

    def reference(self, split: str, extract: FeatureExtractor, **which) -> Reference:
        """Of a split of the data; from the cache where it was made before."""
        size = min(len(self.data.split(split)), which.get("most") or math.inf)
        with bar(size, f"{extract.name} features of {split}") as shown:
            return reference_of(self.data, split, extract, self.cache, **which, progress=shown.update)

    def quality(self) -> dict[str, Tensor]:
        """psnr and ssim of each test picture through the autoencoder."""
        if isinstance(self.model.autoencoder, Identity):
            return {}

        def both(images: Tensor) -> Tensor:
            return torch.stack(list(quality(images, reconstructed(self.model, images)).values()), 1)

        values = self._features(self.data.split("test").images, both, "quality of the autoencoder")
        return dict(zip(("psnr", "ssim"), values.unbind(1), strict=True))

    def sensitivity(self, n: int) -> list[Sensitivity]:
        """On n test pictures; nothing where the model reads no prompts or the pictures all have the same content."""
        test = self.data.split("test").pick(n, self.seed)
        if self.model.text_encoder is None or len(test.content.unique()) < 2:
            return []
        return prompt_sensitivity(self.model, test, self.seed, batch=self.batch)

    def _features(self, images, extract: Callable[[Tensor], Tensor], what: str) -> Tensor:
        with bar(len(images), f"features of {what}") as shown:
            return features_of(images, extract, progress=shown.update)


def bar(n: int, what: str) -> tqdm:
    """On the first process' terminal, of its share of n pictures."""
    mine = len(share(n, processes.rank(), processes.world()))
    return tqdm(total=mine, desc=what, unit="picture", leave=False, disable=None if processes.rank() == 0 else True)
