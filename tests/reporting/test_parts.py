"""The pure parts of a report: differences, axes, significance, counted network evaluations."""

import functools
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.config import name_of
from diffusion.denoiser import Denoiser
from diffusion.discretizations import trailing
from diffusion.evaluation.comparable import comparable
from diffusion.evaluation.metrics.intervals import wilson
from diffusion.guidance import classifier_free
from diffusion.parameterizations import V
from diffusion.reporting.axes import around, linear_ticks, log_ticks, written
from diffusion.reporting.differences import ABSENT, differences, labels, shown
from diffusion.reporting.figure import figure
from diffusion.reporting.network_evaluations import count, named
from diffusion.reporting.plot import Line, Plot, thinned
from diffusion.reporting.scores import difference, marks
from diffusion.schedules import Cosine


def test_only_the_leaves_that_differ_are_left():
    a = {"schedule": {"_target_": "x.Cosine", "_partial_": True}, "seed": 0,
         "backbone": {"widths": [32, 64], "d": {"e": 1}}}
    b = {"schedule": {"_target_": "x.Linear", "T": 500}, "seed": 0, "backbone": {"widths": [32, 96], "d": {"e": 1}}}
    assert differences([a, b]) == {"schedule": ["x.Cosine", "x.Linear"], "backbone.widths": [[32, 64], [32, 96]],
                                   "schedule.T": [ABSENT, 500]}
    assert differences([a, a]) == {} == differences([a])


@pytest.mark.parametrize(("value", "words"), [
    ("diffusion.schedules.Cosine", "Cosine"), ("v1.5", "v1.5"), (True, "true"), (None, "null"), (1e-3, "0.001"),
    ([32, 64], "[32,64]"), (1, "1")])
def test_leaves_are_shown_as_they_are_typed(value, words):
    assert shown(value) == words


def test_labels_leave_out_what_all_jobs_share():
    assert labels(["schedule=linear,backbone.widths=[32,32],seed=0", "schedule=cosine,backbone.widths=[32,32],seed=0"]
                  ) == ["schedule=linear", "schedule=cosine"]
    for kept in (["a/1"], ["seed=0", "seed=0,steps=5"], ["a/1", "b/2"]):
        assert labels(kept) == kept


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_numbers_between_the_ends(low, span):
    ticks = linear_ticks(low, low + span)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else span
    assert 2 <= len(ticks) <= 7
    assert low - 1e-6 * span <= ticks[0] and ticks[-1] <= low + span * (1 + 1e-6)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-6), 3) in (1, 2, 5, 10)


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e9))
def test_logarithmic_ticks_lie_between_the_ends(low, ratio):
    ticks = log_ticks(low, low * ratio)
    assert 2 <= len(ticks) <= 7 and ticks == sorted(ticks)
    assert low * (1 - 1e-6) <= ticks[0] and ticks[-1] <= low * ratio * (1 + 1e-6)


@pytest.mark.parametrize("log", [False, True])
def test_an_axis_runs_from_0_to_1_around_its_values(log):
    axis = around([1.0, 10.0, 100.0, math.inf], log)
    assert axis.log == log and axis.place(axis.low) == 0 and axis.place(axis.high) == pytest.approx(1)
    assert axis.place(10.0) == pytest.approx(0.5) if log else axis.place(50.5) == pytest.approx(0.5)
    assert not around([0.0, 1.0], log=True).log  # 0 has no logarithm
    assert 0 < around([3.0]).place(3.0) < 1


def test_numbers_on_axes_are_short():
    assert [written(v) for v in (0, 0.25, 1000, 15000, 2_000_000, -3)] == ["0", "0.25", "1000", "15k", "2M", "-3"]


def test_thinning_keeps_the_mean_and_few_points_are_kept_as_they_are():
    points = [(float(i), i**2 / 7) for i in range(1200)]
    less = thinned(points)
    assert len(less) == 300 and thinned(less) == less
    assert sum(y for _, y in less) / 300 == pytest.approx(sum(y for _, y in points) / 1200)


def score(value, spread=0.1, better="low", **circumstances):
    ends = (None, None) if spread is None else (value - spread, value + spread)
    return {"value": value, "low": ends[0], "high": ends[1], "better": better, "n": 100, "reference_n": 1000,
            "features_hash": "ab", "reference": "test", **circumstances}


def kinds(*scores):
    return [mark for mark, _ in marks(scores)]


def test_the_best_is_marked_and_those_whose_interval_lies_beyond_its_own():
    assert kinds(score(1.0), score(1.15), score(1.3), None) == ["best", "", "worse", ""]
    assert kinds(*(score(v, better="high") for v in (1.0, 1.15, 1.3))) == ["worse", "", "best"]
    assert kinds(score(1.0), score(1.15)) == ["lead", ""]
    assert kinds(score(1.0, None), score(9.0, None)) == ["lead", ""]  # without intervals nothing is claimed
    assert kinds(score(1.0), score(1.0)) == ["", ""] and kinds(score(1.0)) == [""]
    assert kinds(score(1.0, better=None), score(9.0, better=None)) == ["", ""]
    assert kinds(score(math.nan), score(1.0), score(2.0)) == ["", "best", "worse"]


@pytest.mark.parametrize(("key", "other"), [
    ("n", 50), ("reference_n", 7), ("features_hash", "cd"), ("reference", "train")])
def test_what_may_not_be_compared_says_why_instead(key, other):
    scores = [score(1.0), score(0.1, **{key: other}), score(2.0)]
    assert kinds(*scores) == ["best", "apart", "worse"]
    why = marks(scores)[1][1]
    assert why == comparable(scores[0], scores[1]) and str(other) in why and str(scores[0][key]) in why
    assert comparable(scores[0], scores[2]) is None


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (500, 1000), (10, 10)])
def test_a_proportion_lies_at_its_intervals_critical_distance(right, n):
    share = right / n
    found = wilson(share, n)
    low, high = found.low, found.high
    assert 0 <= low <= share <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-5)


def test_differences_of_normal_estimates_have_the_interval_of_the_summed_variance():
    d = difference(score(1.0, 3.0), score(2.5, 4.0))
    assert (d["value"], d["low"], d["high"]) == (1.5, 1.5 - 5.0, 1.5 + 5.0)
    back = difference(score(2.5, 4.0), score(1.0, 3.0))
    assert (back["low"], back["high"]) == (-d["high"], -d["low"])
    assert difference(score(1.0, None), score(2.0))["low"] is None


@pytest.mark.parametrize(("sampler", "evaluations"), [
    ("ddim", 6), ("heun", 2 * 6 - 2), ("dpmpp_2m", 6), ("ddpm_learned", 6)])
def test_network_evaluations_are_counted(sampler, evaluations):
    """Heun's method takes one where there is no signal yet, and one on the step to the data."""
    def denoiser(echo):
        return Denoiser(echo, Cosine(), V())

    plain, guided = ({"sampler": named(sampler, "diffusion.samplers"),
                      "guidance": named(f"classifier_free(scale={w})", "diffusion.guidance")} for w in (1.0, 3.0))
    assert count(denoiser, 6, **plain) == count(denoiser, 6, **guided, captioned=False) == evaluations
    assert count(denoiser, 6, **guided) == 2 * evaluations


def test_guidance_costs_where_it_acts():
    """Its interval is read back from the name that stands beside a score."""
    asked = functools.partial(classifier_free, scale=3.0, interval=(float(Cosine().log_snr(0.51)), math.inf))
    again = named(name_of(asked), "diffusion.guidance")
    acts = int((trailing(Cosine(), 6)[:-1] <= 0.51).sum())
    assert acts == 3 and count(lambda echo: Denoiser(echo, Cosine(), V()), 6, guidance=again) == 6 + acts


def test_a_guide_counts_as_the_model():
    asked = named("autoguidance(scale=2.0, guide=/runs/a b/model.safetensors)", "diffusion.guidance")
    assert count(lambda echo: Denoiser(echo, Cosine(), V()), 4, guidance=asked) == 8


def test_a_figure_stands_alone_and_names_its_lines():
    labels = ["a < b & c", "ours"]
    plot = Plot("t", "x", "y", [Line(label, i, [(1.0, 2.0), (2.0, 3.0)]) for i, label in enumerate(labels)])
    svg = ElementTree.fromstring(figure(plot))
    named = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{named}svg"
    texts = [text.text for text in svg.iter(f"{named}text")]
    assert texts[-2:] == labels
    style = svg.find(f"{named}style").text
    used = [g.get("style") for g in svg.iter(f"{named}g")]
    assert all(f"--c{i}:" in style and f"var(--c{i})" in " ".join(used) for i in range(2))
