"""From known feature matrices to records."""

import pytest
import torch
from hydra import compose

from diffusion import rng
from diffusion.config import check
from diffusion.evaluation.full import Sets
from diffusion.evaluation.metrics.frechet import moments_of
from diffusion.evaluation.records import class_scores, memory_scores, set_scores
from diffusion.evaluation.reference import Reference
from tests.options import names


class Plain:
    """Pictures are their own features."""

    name, hash = "plain", "ab"

    def __call__(self, images):
        return images.flatten(1).float()


def normal(n, what):
    return rng.normal((n, 4), 0, 0, what)


def reference(name, features, classes):
    return Reference(f"data/{name}", "plain", "ab", features, classes[:, None], moments_of(features))


CLASSES = torch.arange(200) % 2
TEST = normal(200, "test") + 10 * CLASSES[:, None]  # two classes far apart
SETS = Sets(Plain(), normal(60, "samples"), {"training": normal(60, "training") + 10 * CLASSES[:60, None]},
            reference("test", TEST, CLASSES), reference("test", TEST, CLASSES),
            reference("train", normal(100, "train"), torch.zeros(100, dtype=torch.int64)))


def test_samples_stand_beside_their_floors():
    scores = set_scores(SETS)
    samples, training, real = (scores[f"frechet/plain{end}"]["value"] for end in ("", "/training", "/real"))
    assert samples > 10 * training and training < 1 and real < 1
    assert scores["coverage/plain"]["value"] < 0.6 < scores["coverage/plain/training"]["value"]
    assert {record["better"] for name, record in scores.items() if "distance" in name or "frechet" in name} == {"low"}
    assert not any(name.startswith(("cmmd", "inception_score")) for name in scores)  # not of such a network


def test_a_class_is_compared_with_its_own_pictures():
    drawn = torch.tensor(30 * [0] + 19 * [1] + 11 * [0])
    scores = class_scores(SETS, drawn, ("near", "few"))
    assert scores.keys() == {f"class/near/{name}/plain" for name in ("frechet", "frechet_infinite", "kernel_distance")}
    near = scores["class/near/frechet/plain"]
    assert near["value"] < 1 and (near["n"], near["reference_n"]) == (41, 100)
    far = class_scores(SETS, 1 - drawn.clamp(max=1), ("few", "far"))
    assert far["class/far/frechet/plain"]["value"] > 100


def test_copies_are_in_the_record_beside_what_is_expected():
    copied = Sets(**{**vars(SETS), "samples": SETS.training.features[:60].clone()})
    for sets, share in ((copied, 1.0), (SETS, 0.0)):
        record = memory_scores(sets)[0]["memorised/plain"]
        assert record["expected"] == 0.01 and record["value"] == pytest.approx(share, abs=0.1)


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("network", names("evaluation/features"))
def test_every_network_composes_and_checks(network):
    cfg = compose("sample", ["ckpt=x", "evaluation=full", f"evaluation/features=[{network}]"])
    assert list(cfg.evaluation.features) == [network]
    check(cfg.evaluation)
