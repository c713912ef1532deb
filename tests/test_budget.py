"""A time to be done in becomes a number of steps, once."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffusion import budget, runs
from diffusion.callbacks.saving import Interrupted
from tests.small_runs import TINY_UNET, interrupted, only, train, use

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


def test_a_budget_that_is_over_is_refused_with_what_an_update_takes(measured):
    with pytest.raises(ValueError, match=r"budget = 2min: .* an update 60\.00 s"):
        train("experiment=shapes_autoencoder", "budget=2min", "batch=64")
