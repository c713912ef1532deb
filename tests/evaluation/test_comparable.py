import pytest

from diffusion.evaluation.comparable import comparable

SCORE = {"value": 1.0, "low": 0.9, "high": 1.1, "n": 1000, "reference_n": 10_000, "features": "clip",
         "features_hash": "ab", "reference": "cd/test", "better": "low"}


def test_numbers_of_equal_circumstances_are_compared():
    assert comparable(SCORE, {**SCORE, "value": 2.0, "low": None, "high": None}) is None


@pytest.mark.parametrize("key, other", [("n", 5000), ("reference_n", 5000), ("features_hash", "xy"),
                                        ("reference", "cd/train")])
def test_numbers_of_other_circumstances_are_not_and_the_reason_names_both(key, other):
    reason = comparable(SCORE, {**SCORE, key: other})
    assert str(other) in reason and str(SCORE[key]) in reason
