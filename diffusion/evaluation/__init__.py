"""Scores of samples: generation in bulk, feature extractors, Frechet distance, judged prompts."""
