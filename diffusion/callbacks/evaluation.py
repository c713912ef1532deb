"""A score of the averaged weights at a cadence, counted in updates. It does not touch the training trajectory."""

import pytorch_lightning as pl

from diffusion.callbacks.watch import due
from diffusion.evaluation.features import ClipFeatures, FeatureExtractor
from diffusion.evaluation.full import Full
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.evaluation.metrics.frechet import frechet_distance, moments_of
from diffusion.evaluation.reference import features_of
from diffusion.training.diffusion import DiffusionTraining


class Evaluation(pl.Callback):
    """Logs evaluation/frechet_n<n> every `every` updates: the Frechet distance of n pictures with captions of the test
    split, always from the same noise, to that split.

    With few pictures it is far greater than with many: the curve tells better from worse in this run, and in others of
    the same n, and no more. extractor is None for the model's own CLIP. Other stages than the diffusion's are left
    alone.
    """

    def __init__(self, every: int | None, n: int = 256, seed: int = 1, extractor: FeatureExtractor | None = None):
        if n < 2:
            raise ValueError(f"callbacks.evaluation.n = {n}: a covariance needs at least 2 pictures")
        self.every, self.n, self.seed, self.extract, self.seen = every, n, seed, extractor, -1

    def on_train_start(self, trainer, training) -> None:
        if not (isinstance(training, DiffusionTraining) and self.every):
            return
        self.extract = self.extract or ClipFeatures(training.model.text_encoder)
        self.full = Full(training.model, training.data, training.cache, self.n, self.seed)
        self.reference = self.full.reference("test", self.extract).moments

    def on_train_batch_end(self, trainer, training, outputs, batch, batch_idx) -> None:
        if not (isinstance(training, DiffusionTraining) and due(training, self.every)):
            return
        if self.seen == training.updates_done:
            return  # between two passes of one update
        self.seen = training.updates_done
        with training.shown("ema") as model:
            pictures = generate_many(model, pictures_of(self.full.prompts, self.seed), training.sampling)
            moments = moments_of(features_of(pictures, self.extract))
        training.log_line({f"evaluation/frechet_n{self.n}": frechet_distance(moments, self.reference)})
