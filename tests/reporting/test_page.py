"""The report over folders in the layout of runs: what it says, that it escapes it, and that it needs nothing else."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import report
from diffusion.grids import labelled, unlabelled
from diffusion.reporting import curves
from diffusion.reporting.page import page
from diffusion.reporting.pictures import unpaired, views
from diffusion.reporting.run import runs_of
from diffusion.reporting.tables import own_table
from tests.run_folders import PROMPTS, drawn, evaluation, sweep, write


@pytest.fixture
def runs(tmp_path):
    """Three jobs of a sweep."""
    write(tmp_path / "shapes" / "aa", schedule="Linear", loss=0.7, right=0.2,
          evaluations=(evaluation(2.0, 5), evaluation(1.0, 10), evaluation(0.9, 10, n=50)))
    write(tmp_path / "shapes" / "bb", right=0.4, command="python train.py '+note=<b>&\"'")
    write(tmp_path / "shapes" / "cc", right=0.41, schedule="ScaledLinear")
    return sweep(tmp_path / "sweep", {"schedule=<b>bold,seed=0": tmp_path / "shapes" / "bb",
                                      "schedule=linear,seed=0": tmp_path / "shapes" / "aa",
                                      "schedule=scaled_linear,seed=0": tmp_path / "shapes" / "cc"})


@pytest.mark.parametrize("size", [8, 32, 64, 100])
def test_a_labelled_grid_gives_its_pictures_back(size):
    rows = [(prompt, torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)) for prompt in "ab"]
    cut = unlabelled(labelled(rows, columns=3), size)
    assert [len(line) for line in cut] == [3, 3]
    for line, (_, pictures) in zip(cut, rows, strict=True):
        for image, picture in zip(line, pictures, strict=True):
            assert np.array_equal(np.asarray(image), picture.movedim(0, -1))


def test_every_text_of_a_run_is_escaped_and_nothing_is_loaded(runs):
    html = page(runs_of([runs]))
    assert html.count("<script>") == 1 and "&lt;script&gt;document.title" in html
    assert "<b>" not in html and "schedule=&lt;b&gt;bold" in html
    assert "python train.py &#39;+note=&lt;b&gt;&amp;&#34;&#39;" in html
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>]*)", html)
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert "http:" not in html and "https:" not in html


def test_the_page_says_what_differs_and_what_it_cost(runs):
    html = page(runs_of([runs]))
    rows = dict(re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', html))
    assert set(rows) == {"run", "state", "schedule"}
    assert re.findall(r">(\w+)</td>", rows["schedule"]) == ["Cosine", "Linear", "ScaledLinear"]
    assert "<td>80</td><td>20 × 4</td><td>1</td><td>2</td>" in html
    assert "python sample.py steps=5" in html
    assert "Losses do not compare between runs that differ in schedule" in html


def test_marks_stand_in_the_table(runs):
    html = page(runs_of([runs]))
    cells = re.findall(r'<td data-value="([\d.]+)" class="(\w*)"', html)
    assert ("0.2", "worse") in cells and ("0.41", "best") in cells and ("0.4", "") in cells
    assert ("0.9", "apart") in cells and "pictures: 100 and 50" in html
    assert {mark for value, mark in cells if value in ("0.5", "0.7")} == {"apart", ""}  # losses of other schedules


def decoded(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def test_pictures_of_one_prompt_stand_beside_each_other(runs):
    some = runs_of([runs])
    seen = views(some)
    assert [(view.step, view.weights) for view in seen] == [("step 10", "raw"), ("step 10", "EMA"), ("finished", "EMA")]
    colours = drawn(0)[:, :, :, 0, 0].numpy()
    for k, prompt in enumerate(PROMPTS):
        for row, view in enumerate(seen[:2]):
            for address in view.blocks[prompt]:
                assert np.array_equal(decoded(address), np.broadcast_to(colours[k, row], (32, 32, 3)))
        for address in seen[2].blocks[prompt]:
            strip = decoded(address)
            assert strip.shape == (32, 3 * 33 - 1, 3) and np.array_equal(strip[0, [0, 33, 66]], colours[k])
    assert unpaired(some) is None


def test_runs_of_other_seeds_are_not_called_paired(tmp_path):
    some = runs_of([write(tmp_path / "a", seed=0), write(tmp_path / "b", seed=1)])
    assert "seeds 0, 1" in unpaired(some) and unpaired(some) in page(some)


def test_jobs_that_share_a_run_keep_their_own_results_and_grid(tmp_path):
    run = write(tmp_path / "shapes" / "aa")
    folder = sweep(tmp_path / "sweep", {"guidance.scale=1": run, "guidance.scale=2": run})
    for scale in (1, 2):
        own = json.loads((run / "results.json").read_text())
        own["sampling"] = {"guidance": {"_target_": "x.cfg", "scale": scale}}
        (folder / f"guidance.scale={scale}.json").write_text(json.dumps(own))
    Image.new("RGB", (300, 132), "red").save(folder / "guidance.scale=1.png")
    first, second = runs_of([folder])
    assert (first.settings["guidance"]["scale"], second.settings["guidance"]["scale"]) == (1, 2)
    assert first.grid.name == "guidance.scale=1.png"
    assert second.grid is None  # the run's grid was drawn otherwise


def test_curves_have_their_laws(runs):
    some = runs_of([runs])
    names = ["cosine", "linear", "scaled"]
    schedules = curves.schedules(some, names, ["diffusion"])
    assert [line.label for line in schedules.lines] == names
    for line in schedules.lines:
        heights = [y for _, y in line.points]
        assert heights == sorted(heights, reverse=True) and len(heights) > 200
    assert curves.schedules(some, names, ["elsewhere"]) is None
    stairs = curves.loss_by_noise(some, names)
    assert stairs.ticks == [0.0]  # between the two open bins
    assert stairs.lines[1].points == [(-2, 0.7), (0, 0.7), (0, 0.7), (2, 0.7)]
    training, held_out = curves.learning(some, names)
    assert training.lines[1].points == [(40, pytest.approx(0.07)), (80, pytest.approx(0.035))]
    assert [line.stroke for line in held_out.lines] == 3 * [0, 1]
    (quality,) = curves.quality(some, names, ["diffusion"])
    assert list(quality.lines[0].points) == [(10, 2.0), (20, 1.0)]  # guided: two a step
    assert [len(line.points) for line in quality.lines] == [2, 1]  # another n is another line
    assert "M" in quality.svg and "<script" not in quality.svg


def test_an_unfinished_run_has_a_page_too(tmp_path):
    run = write(tmp_path / "shapes" / "aa")
    for name in ("results.json", "model.safetensors", "plan.yaml"):
        (run / name).unlink()
    html = page(runs_of([run]))
    assert "not finished, step 20" in html and "No command was recorded" in html


def test_the_command_writes_into_the_sweeps_folder_and_tells_a_mistake_without_a_stack(runs, tmp_path):
    report.main([str(runs)])
    report.main([str(runs), str(tmp_path / "shapes" / "aa"), "--out", str(tmp_path / "page.html")])
    for page_of, path in ((3, runs / "report.html"), (4, tmp_path / "page.html")):
        assert f"<h1>{page_of} runs side by side</h1>" in path.read_text()
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path / "nowhere")])
    assert ended.value.code == 1 and not (tmp_path / "nowhere").exists()


def test_runs_that_differ_in_their_seed_alone_have_a_mean_over_seeds(tmp_path):
    folders = [write(tmp_path / "shapes" / str(seed), seed=seed, right=right)
               for seed, right in enumerate((0.3, 0.5, 0.7))]
    folders.append(write(tmp_path / "shapes" / "other", schedule="Linear", right=0.9))
    runs = runs_of(folders)
    table = own_table(runs, [run.name for run in runs])
    column = [column.name for column in table.columns].index("prompts_right_seen")
    labels = [row.label for row in table.rows]
    assert labels == ["shapes/0", "shapes/1", "shapes/2", "shapes/0, mean of 3 seeds", "shapes/other"]
    score = table.rows[3].cells[column].score
    assert score["value"] == pytest.approx(0.5) and score["high"] - 0.5 == pytest.approx(4.303 * 0.2 / 3**0.5, rel=0.02)


def test_jobs_that_differ_in_their_steps_alone_are_points_of_one_line(tmp_path):
    node = {"_partial_": True}
    sampling = {"sampler": {"_target_": "diffusion.samplers.ddim", **node},
                "discretization": {"_target_": "diffusion.discretizations.trailing", **node},
                "guidance": {"_target_": "diffusion.guidance.classifier_free", "scale": 3.0, **node}}
    run = write(tmp_path / "shapes" / "aa")
    folder = sweep(tmp_path / "sweep", {f"sampling_steps={steps}": run for steps in (5, 10)})
    for steps, right in ((5, 0.3), (10, 0.6)):
        own = json.loads((run / "results.json").read_text()) | {"prompts_right_seen": right}
        own["sampling"] = {**sampling, "steps": steps}
        (folder / f"sampling_steps={steps}.json").write_text(json.dumps(own))
    runs = runs_of([folder])
    plots = {plot.y_label: plot for plot in curves.quality(runs, [r.name for r in runs], ["diffusion"])}
    lines = plots["prompts_right_seen"].lines
    assert [line.points for line in lines] == [[(10, 0.3), (20, 0.6)]]  # two rows a step: guidance
