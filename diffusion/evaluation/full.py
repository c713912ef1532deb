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

from diffusion import processes
from diffusion.data.batches import positions
from diffusion.data.captioned import CaptionedDataset
from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import at_once, chunks
from diffusion.evaluation.features import FeatureExtractor
from diffusion.evaluation.generation import of_this_process, pictures_of
from diffusion.evaluation.reconstruction import quality, reconstructed
from diffusion.evaluation.reference import Reference, features_of, reference_of
from diffusion.evaluation.resumable import draw_missing, missing, read
from diffusion.evaluation.sensitivity import Sensitivity, prompt_sensitivity
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.models.identity import Identity
from diffusion.progress import duration, progress

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
                     f"{duration(seconds)}")

    def draw(self, sampling: Sampling, folder: Path, negative: str = "", metadata: bool = True) -> OnDemand:
        """The samples; those that lie in the folder are not drawn again."""
        todo = len(missing(folder, self.n))
        mine, done, began = of_this_process(todo), 0, time.perf_counter()
        if todo:
            self.say(f"to draw: {todo} of {self.n} pictures x {sampling.steps} steps")
        with progress(mine, "samples") as update:

            def told(n: int) -> None:
                nonlocal done
                done += n
                if done == n < mine:  # the first batch
                    seconds = time.perf_counter() - began
                    self.say(f"the first {n} took {duration(seconds)}: about {duration(seconds * (mine - n) / n)} left")
                update(n)

            draw_missing(self.model, pictures_of(self.prompts, self.seed), sampling, folder, batch=self.batch,
                         negative=negative, metadata=metadata, progress=told)
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
        with progress(of_this_process(size), f"{extract.name} features of {split}") as update:
            return reference_of(self.data, split, extract, self.cache, **which, progress=update)

    def quality(self) -> dict[str, Tensor]:
        """psnr and ssim of each test picture through the autoencoder."""
        if isinstance(self.model.autoencoder, Identity):
            return {}

        def both(images: Tensor) -> Tensor:
            some = chunks(images, at_once(images))
            parts = [quality(part, reconstructed(self.model, part)) for part in some]
            return torch.cat([torch.stack(list(part.values()), 1) for part in parts])

        values = self._features(self.data.split("test").images, both, "quality of the autoencoder")
        return dict(zip(("psnr", "ssim"), values.unbind(1), strict=True))

    def sensitivity(self, n: int) -> list[Sensitivity]:
        """On n test pictures; nothing where the model reads no prompts or the pictures all have the same content."""
        test = self.data.split("test").pick(n, self.seed)
        if self.model.text_encoder is None or len(test.content.unique()) < 2:
            return []
        return prompt_sensitivity(self.model, test, self.seed, batch=self.batch)

    def _features(self, images, extract: Callable[[Tensor], Tensor], what: str) -> Tensor:
        with progress(of_this_process(len(images)), f"features of {what}") as update:
            return features_of(images, extract, progress=update)
