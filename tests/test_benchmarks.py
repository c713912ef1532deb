"""Benchmarks run, compare equal work, and count a lost gradient."""

import json

import jaxtyping
import pytest
import torch

from benchmarks import record, sample, scaling, train_step
from benchmarks.time_to_quality import curve, earlier, overtaken
from benchmarks.train_step import agreement


@pytest.fixture
def results(tmp_path, monkeypatch, capsys):
    """What a benchmark printed last and wrote."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would break compiled graphs

    def run(module, *arguments):
        monkeypatch.setattr("sys.argv", ["benchmark", *arguments, "--device", "cpu", "--rounds", "1"])
        module.main()
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert json.loads((tmp_path / f"{printed['benchmark']}.json").read_text()) == printed
        return printed

    return run


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three networks are compiled, one kernel after the other
def test_a_training_step_is_raced(results):
    pytest.importorskip("diffusers")
    result = results(train_step, "--size", "tiny", "--batch", "4")
    assert result["vs_default"] > 0 and result["vs_best"] > 0 and 0 < result["share_of_conv_peak"] < 1
    assert result["gradients"][result["ours"]]["worst"] < train_step.WRONG
    assert sum(result["profile"].values()) == pytest.approx(1, abs=1e-2)


@pytest.mark.slow
def test_the_same_pictures_are_raced(results):
    pytest.importorskip("diffusers")
    result = results(sample, "--size", "tiny", "--n", "4", "--steps", "5")
    assert result["largest_difference_in_float32"] <= 1
    assert result["vs_diffusers"] > 0


@pytest.mark.slow
def test_costs_are_scaled(results, monkeypatch):
    monkeypatch.setattr(scaling, "SIDES", (32, 64))
    result = results(scaling, "--size", "tiny", "--pictures", "60", "120")
    assert set(result["exponents"]) == {"images", "tokens", "parameters", "resolution, an update",
                                        "resolution, encoding", "resolution, decoding"}
    assert all(rate > 0 for rate in result["images_per_second_by_processes"].values())
    assert all(0 < gib < 16 for held in result["peak_memory_gib_by_pictures"].values() for gib in held.values())


@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
def test_an_exponent_is_that_of_a_power(k):
    assert scaling.exponent({size: 3 * size**k for size in (1, 2, 8, 64)}) == pytest.approx(k)


OURS = {"10": {"minutes": 9.9, "class_agreement": 0.4, "frechet": 20.0},
        "30": {"minutes": 29.0, "class_agreement": 0.7, "frechet": 8.0}}


def rival(agreement, frechet):
    return {"pixels": {"30": {"minutes": 30.5, "class_agreement": agreement, "frechet": frechet}}}


@pytest.mark.parametrize(("theirs", "minutes"), [
    (rival(0.4, 20.0), 9.9), (rival(0.4, 19.0), 29.0), (rival(0.5, 30.0), 29.0), (rival(0.8, 30.0), None)])
def test_as_good_is_as_good_in_both(theirs, minutes):
    assert overtaken(OURS, theirs) == [{"rival": "pixels", "rival_minutes": 30.5, "our_minutes": minutes}]


@pytest.mark.parametrize(("judge", "speed", "kept"), [
    ("a", 100.0, True), ("a", 110.0, True), ("a", 91.0, True), ("b", 100.0, False), ("a", 240.0, False)])
def test_results_are_joined_of_one_judge_at_one_speed(tmp_path, judge, speed, kept):
    path = tmp_path / "result.json"
    assert earlier(path, {"judge": "a"}, 100.0) == {}
    path.write_text(json.dumps({"judge": "a", "convolution_gflops": 100.0, "ours": OURS}))
    assert earlier(path, {"judge": judge}, speed).get("ours") == (OURS if kept else None)


def test_a_curve_has_each_side_that_was_measured():
    assert [line.label for line in curve("frechet", OURS, {}).lines] == ["ours"]
    ours, theirs = curve("frechet", OURS, rival(0.4, 20.0)).lines
    assert ours.points == [(9.9, 20.0), (29.0, 8.0)] and theirs.points == [(30.5, 20.0)]


def test_a_lost_gradient_is_counted_by_its_weights():
    reference = {"first": torch.ones(30), "second": torch.ones(10)}
    assert agreement(reference, reference) == {"worst": 0.0, "lost": 0.0}
    found = agreement({"first": torch.zeros(30), "second": torch.ones(10)}, reference)
    assert found == {"worst": 1.0, "lost": 0.75}


def test_a_gradient_that_is_missing_is_lost():
    assert agreement({}, {"first": torch.ones(3)}) == {"worst": 1.0, "lost": 1.0}


def test_a_gradient_that_is_no_number_is_the_worst():
    reference = {"first": torch.ones(3), "second": torch.ones(3)}
    found = agreement({"first": torch.full((3,), torch.nan), "second": 2 * torch.ones(3)}, reference)
    assert found["worst"] != found["worst"]
