"""Which two scores may be compared: those of equally many pictures, on the same features, against the same reference.

A Frechet distance falls with n, another extractor measures in other units, and another reference is another question.
"""

CIRCUMSTANCES = {"n": "pictures", "reference_n": "reference pictures", "features_hash": "features",
                 "reference": "reference"}


def comparable(a: dict, b: dict) -> str | None:
    """Why two records of one score (see a run's evaluation/*/results.json) may not be compared; None where they may."""
    other = [f"{words}: {a.get(key)} and {b.get(key)}" for key, words in CIRCUMSTANCES.items()
             if a.get(key) != b.get(key)]
    return "not comparable, " + ", ".join(other) if other else None
