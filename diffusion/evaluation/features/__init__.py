"""Feature extractors: 8-bit pictures to vectors. Every metric is a function of these, extracted once.

`own` needs nothing but the trained model; `inception` and `hub` fetch published networks and load when they are built.
"""

from diffusion.evaluation.features.extractor import FeatureExtractor
from diffusion.evaluation.features.own import ClipFeatures, JudgeFeatures

__all__ = ["ClipFeatures", "FeatureExtractor", "JudgeFeatures"]
