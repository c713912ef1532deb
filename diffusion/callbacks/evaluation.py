"""A score of the averaged weights at a cadence, counted in updates. It does not touch the training trajectory."""

from diffusion.callbacks.at_updates import AtUpdates
from diffusion.evaluation.features import ClipFeatures, FeatureExtractor
from diffusion.evaluation.full import Full
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.evaluation.metrics.frechet import frechet_distance, moments_of
from diffusion.evaluation.reference import features_of
from diffusion.training.diffusion import DiffusionTraining


class Evaluation(AtUpdates):
    """Logs evaluation/frechet_n<n> every `every` updates: the Frechet distance of n pictures with captions of the test
    split, always from the same noise, to that split.

    With few pictures it is far greater than with many: the curve tells better from worse in this run, and in others of
    the same n, and no more. extractor is None for the model's own CLIP. Other stages than the diffusion's are left
    alone.
    """

    def __init__(self, every: int | None, n: int = 256, seed: int = 1, extractor: FeatureExtractor | None = None):
        if n < 2:
            raise ValueError(f"callbacks.evaluation.n = {n}: a covariance needs at least 2 pictures")
        super().__init__(every)
        self.n, self.seed, self.extract = n, seed, extractor

    def cadence(self, training) -> int | None:
        return self.every if isinstance(training, DiffusionTraining) else None

    def on_train_start(self, trainer, training) -> None:
        if self.cadence(training) is None:
            return
        self.extract = self.extract or ClipFeatures(training.model.text_encoder)
        self.full = Full(training.model, training.data, training.cache, self.n, self.seed)
        self.reference = self.full.reference("test", self.extract).moments

    def at(self, trainer, training) -> None:
        with training.shown("ema") as model:
            pictures = generate_many(model, pictures_of(self.full.prompts, self.seed), training.sampling)
            moments = moments_of(features_of(pictures, self.extract))
        training.log_line({f"evaluation/frechet_n{self.n}": frechet_distance(moments, self.reference)})
