"""A time to be done in becomes a number of steps, once."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffusion import budget, runs, stages
from diffusion.arithmetic import flop_per_step
from diffusion.callbacks.saving import Interrupted
from diffusion.cli import composed
from diffusion.config import build
from tests.small_runs import SMALL, TINY_UNET, interrupted, only, train, use

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5h", 5400), ("4 h", 14400)])
def test_units(text, seconds):
    assert budget.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "half an hour", "-3min", "0s", "3d", 30])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"budget = .*30min"):
        budget.seconds_of(text)


@pytest.fixture
def measured(monkeypatch):
    """An update is measured, and then taken to have lasted a minute."""
    real, seen = runs.seconds_per_update, []

    def a_minute(training):
        seen.append(real(training))
        return 60.0

    monkeypatch.setattr(runs, "seconds_per_update", a_minute)
    return seen


def kept(experiment):
    return yaml.safe_load(only(f"{experiment}/*/plan.yaml").read_text())["steps"]


@pytest.mark.parametrize("experiment", [["experiment=shapes_autoencoder"], ["experiment=latent_shapes", *TINY_UNET]])
def test_a_run_with_a_budget_is_the_run_of_so_many_steps(experiment, measured, tmp_path, monkeypatch):
    name = experiment[0].split("=")[1]
    results = train(*experiment, "budget=40min", "batch=64")
    assert len(measured) == 1 and measured[0] > 0
    steps = kept(name)
    assert results["steps"] == steps and budget.FEWEST < steps < 40
    whole = load_file(only(f"{name}/*/model.safetensors"))

    train(*experiment, "budget=40min", "batch=64")
    assert len(measured) == 1, "it was finished"

    use(tmp_path / "second", monkeypatch)
    train(*experiment, f"steps={steps}", "batch=64")
    counted = load_file(only(f"{name}/*/model.safetensors"))
    assert all(torch.equal(whole[key], counted[key]) for key in whole)


def test_an_interrupted_run_keeps_its_steps(measured):
    asked = "experiment=shapes_autoencoder", "budget=40min", "batch=64"
    with pytest.raises(Interrupted):
        train(*asked, *interrupted(3))
    steps = kept("shapes_autoencoder")
    results = train(*asked, "resume=must")
    assert results["steps"] == steps and len(measured) == 1


def planned(*overrides):
    asked = [*SMALL, *overrides]
    cfg, choices = composed(asked)
    return stages.plan(cfg, choices, asked, composed, build(cfg.data, cfg.trusted))


LONG_PARENTS = ("experiment=latent_shapes", '+parents.autoencoder.overrides=["steps=9000"]',
                '+parents.text_encoder.overrides=["steps=3000"]')


def test_the_parents_of_a_short_budget_share_a_third_of_it():
    whole = planned(*LONG_PARENTS)
    data = build(composed(SMALL)[0].data)
    flop = {name: parent.cfg.steps * flop_per_step(parent.cfg, data) for name, parent in whole.parents.items()}
    short = planned(*LONG_PARENTS, "budget=5min")
    seconds = {name: budget.seconds_of(parent.cfg.budget) for name, parent in short.parents.items()}
    assert sum(seconds.values()) == pytest.approx(100, abs=1)
    ratio = flop["text_encoder"] / flop["autoencoder"]
    assert seconds["text_encoder"] == pytest.approx(ratio * seconds["autoencoder"], rel=0.03)
    for name, parent in short.parents.items():
        assert parent.cfg.at_most and parent.cfg.steps == whole.parents[name].cfg.steps
        assert parent.key != whole.parents[name].key
    long = planned(*LONG_PARENTS, "budget=4h")
    assert {name: p.key for name, p in long.parents.items()} == {name: p.key for name, p in whole.parents.items()}


@pytest.mark.parametrize(("asked", "steps"), [(4, 4), (500, None)])
def test_a_budget_at_most_takes_no_more_steps_than_asked(measured, asked, steps):
    results = train("experiment=shapes_autoencoder", "budget=40min", "at_most=true", f"steps={asked}", "batch=64")
    assert results["steps"] == (steps or kept("shapes_autoencoder")) and results["steps"] < 40


def test_a_budget_that_is_over_is_refused_with_what_an_update_takes(measured):
    with pytest.raises(ValueError, match=r"budget = 2min: .* an update 60\.00 s"):
        train("experiment=shapes_autoencoder", "budget=2min", "batch=64")
