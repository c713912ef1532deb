"""The averaged weights scored while training goes on: what is logged, and that nothing else changes."""

import csv

import pytest
import torch
from hydra import compose
from safetensors.torch import load_file

from diffusion.callbacks.evaluation import Evaluation
from diffusion.refusals import refuse_diffusion
from tests.small_runs import TINY_UNET, only, train

pytestmark = pytest.mark.usefixtures("hydra")
RUN = ["experiment=latent_shapes", *TINY_UNET, "steps=4"]
WATCHED = ["callbacks=with_evaluation", "callbacks.evaluation.every=2", "callbacks.evaluation.n=4"]


def test_the_weights_are_those_of_a_run_without_it(monkeypatch):
    own, untouched = Evaluation.on_train_batch_end, []

    def looked_at(self, trainer, training, *rest):
        raw = {name: p.detach().clone() for name, p in training.denoiser.named_parameters()}
        state = torch.get_rng_state()
        own(self, trainer, training, *rest)
        untouched.append(torch.equal(state, torch.get_rng_state()) and training.denoiser.training
                         and all(torch.equal(raw[name], p) for name, p in training.denoiser.named_parameters()))

    train(*RUN, "callbacks=none")
    quiet = load_file(only("latent_shapes/*/model.safetensors"))
    monkeypatch.setattr(Evaluation, "on_train_batch_end", looked_at)
    train(*RUN, *WATCHED, "resume=never")
    watched = load_file(only("latent_shapes/*/model.safetensors"))
    assert not [name for name in quiet if not torch.equal(quiet[name], watched[name])]
    assert untouched == 4 * [True]
    with open(only("latent_shapes/*/metrics.csv"), newline="") as file:
        values = {int(row["step"]): row["evaluation/frechet_n4"] for row in csv.DictReader(file)}
    values = {step: float(value) for step, value in values.items() if value}
    assert values.keys() == {2, 4} and min(values.values()) > 0 and values[2] != values[4]


def test_it_needs_a_network_to_see_with():
    cfg = compose("train", [*WATCHED, "text_encoder=none"])
    with pytest.raises(ValueError, match=r"callbacks=with_evaluation .* text_encoder=none has none"):
        refuse_diffusion(cfg, None, None)
    with pytest.raises(ValueError, match="at least 2 pictures"):
        Evaluation(every=1, n=1)
