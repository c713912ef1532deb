"""The averaged weights scored while training goes on: what is logged, and that nothing else changes."""

import csv

import pytest
import torch
from safetensors.torch import load_file

from diffusion.callbacks.evaluation import Evaluation
from tests.small_runs import TINY_UNET, only, train

pytestmark = pytest.mark.usefixtures("hydra")
RUN = ["experiment=latent_shapes", *TINY_UNET, "steps=4"]
WATCHED = ["callbacks=with_evaluation", "callbacks.evaluation.every=2", "callbacks.evaluation.n=4"]


def test_the_weights_are_those_of_a_run_without_it():
    train(*RUN, "callbacks=none")
    quiet = load_file(only("latent_shapes/*/model.safetensors"))
    train(*RUN, *WATCHED, "resume=never")
    watched = load_file(only("latent_shapes/*/model.safetensors"))
    assert not [name for name in quiet if not torch.equal(quiet[name], watched[name])]
    with open(only("latent_shapes/*/metrics.csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["evaluation/frechet_n4"]]
    assert [int(row["step"]) for row in rows] == [2, 4]
    values = [float(row["evaluation/frechet_n4"]) for row in rows]
    assert min(values) > 0 and values[0] != values[1]


def test_it_leaves_the_generators_and_the_raw_weights_alone(monkeypatch):
    own, seen = Evaluation.on_train_batch_end, []

    def looked_at(self, trainer, training, *rest):
        raw = {name: p.detach().clone() for name, p in training.denoiser.named_parameters()}
        state = torch.get_rng_state()
        own(self, trainer, training, *rest)
        seen.append(torch.equal(state, torch.get_rng_state()) and training.denoiser.training
                    and all(torch.equal(raw[name], p) for name, p in training.denoiser.named_parameters()))

    monkeypatch.setattr(Evaluation, "on_train_batch_end", looked_at)
    train(*RUN, *WATCHED)
    assert seen == 4 * [True]


def test_it_needs_a_network_to_see_with():
    with pytest.raises(ValueError, match="text_encoder=none has none"):
        train(*RUN, *WATCHED, "text_encoder=none", "backbone.self_attention=[true,false]",
              "backbone.cross_attention=[false,false]")
    with pytest.raises(ValueError, match="at least 2 pictures"):
        Evaluation(every=1, n=1)
