"""Real runs, small: the sweep writes its page, and two of them are compared."""

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from diffusion import compare, sweeps
from diffusion.stages import Stage
from tests.small_runs import TINY_UNET, train

pytestmark = pytest.mark.usefixtures("hydra")

SMALLEST = [*TINY_UNET, "backbone.self_attention=[false,false]", "backbone.cross_attention=[false,false]",
            "autoencoder=identity", "text_encoder=none", "data.image_size=16"]


def test_a_sweep_leaves_a_page_and_its_runs_compare(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "sweep"
    monkeypatch.setenv("DIFFUSION_SWEEP", str(folder))
    for schedule in ("linear", "cosine"):
        asked = [f"schedule={schedule}", "seed=3"]
        monkeypatch.setattr(sweeps, "varied", lambda asked=asked: asked)
        train(*SMALLEST, *asked)
    page = (folder / "report.html").read_text()
    for schedule in ("linear", "cosine"):
        assert f">schedule={schedule}</span>" in page and (folder / f"schedule={schedule},seed=3.png").exists()
        assert f"schedule={schedule} seed=3</pre>" in page
    assert "&#39;backbone.widths=[32,32]&#39;" in page  # quoted for a shell
    assert "Schedules" in page and "Loss by noise level" in page
    assert page.count('alt="') == page.count('class="strip"') > 0  # no picture is missing

    GlobalHydra.instance().clear()
    caplog.clear()
    out = tmp_path / "compared.png"
    compare.main([*(str(folder / f"schedule={s},seed=3") for s in ("linear", "cosine")), f"out={out}", "n=2", "steps=2",
                  "device=cpu"])
    assert out.exists()
    text = caplog.text
    assert "Linear" in text and "Cosine" in text and "loss_ema" in text
    assert "not comparable, reference: Linear, Straight" in text


def test_jobs_of_two_experiments_keep_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_SWEEP", str(tmp_path / "sweep"))
    monkeypatch.setattr(sweeps, "varied", lambda: ["seed=0"])
    for name in ("one", "two"):
        cfg = OmegaConf.create({"paths": {"runs": str(tmp_path / "runs")}})
        stage = Stage("model", name, cfg, (), {}, "data", "key")
        stage.folder.mkdir(parents=True)
        sweeps.begin(stage)
        sweeps.record(stage, {"loss": 1.0})
    assert {file.name for file in (tmp_path / "sweep").glob("*.json")} == {"seed=0.json", "experiment=two,seed=0.json"}
